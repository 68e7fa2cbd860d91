"""Every block of every page says what the tests do with it; commands are ones that their programs take."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tyro
import yaml

from experiments.options import read_options
from tests.page_blocks import LANGUAGES, Block, blocks_of, commands_of
from tests.pages import DOCS, PAGES, ROOT

OURS = ("agents", "examples", "experiments", "preserve_gym", "tests")
OTHER_PROGRAMS = {"cd", "git", "minari", "ray"}
BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT).as_posix()}:{block.line}")
    for page in PAGES
    for block in blocks_of(page)
]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
TARGETS = re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)


class ParsedError(BaseException):
    """The options could be read; raised instead of going on with them, and caught by no command."""


@pytest.fixture
def dry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands end as soon as their options are read."""

    def only_parses(parse: Any) -> Any:
        def parsed(*arguments: Any, **keywords: Any) -> Any:
            parse(*arguments, **keywords)
            raise ParsedError

        return parsed

    # The second one is built upon the first one, but holds it under a name of its own.
    monkeypatch.setattr(tyro, "cli", only_parses(tyro.cli))
    dictionary = only_parses(tyro.extras.subcommand_cli_from_dict)
    monkeypatch.setattr(tyro.extras, "subcommand_cli_from_dict", dictionary)


def main_of(name: str) -> Any:
    """The ``main`` of ``python -m name``, or None if it has none."""
    found = importlib.util.find_spec(name)
    assert found is not None, f"no module {name}"
    return importlib.import_module(f"{name}.__main__" if found.submodule_search_locations else name).main


def check_options(name: str, arguments: list[str]) -> None:
    try:
        status = main_of(name)(arguments)
    except ParsedError:
        return
    except SystemExit as end:
        status = end.code
    assert status == 0, f"python -m {name} {' '.join(arguments)}: status {status}"


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_says_what_it_is(block: Block) -> None:
    assert block.language in LANGUAGES
    if block.language == "text":
        assert block.is_output != (block.reason is not None), (
            "expected output of the block above, or a reason"
        )
    else:
        assert block.reason is None


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.values[0].language == "console"])
def test_commands(block: Block, dry: None, capsys: pytest.CaptureFixture[str]) -> None:
    for program, *arguments in commands_of(block):
        if program in ("python", ".venv/bin/python"):
            assert arguments[0] == "-m"
            check_options(arguments[1], arguments[2:])
        elif program == "make":
            assert [word for word in arguments if "=" not in word and word not in TARGETS] == []
        elif program == "pip":
            extras = [extra for word in arguments for extra in re.findall(r"\[(.*)\]", word)]
            assert {name for extra in extras for name in extra.split(",")} <= set(EXTRAS)
        else:
            assert program in OTHER_PROGRAMS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_modules_that_the_text_runs(page: Path) -> None:
    for name in re.findall(r"`(?:\S*/)?python -m ([\w.]+)", page.read_text(encoding="utf-8")):
        if name.partition(".")[0] in OURS:
            assert importlib.util.find_spec(name) is not None, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_extras_that_the_text_names(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"preserve-gym\[([\w,]+)\]|-e '\.\[([\w,]+)\]'", text)
    assert {name for pair in named for names in pair for name in names.split(",") if name} <= set(EXTRAS)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.values[0].language in ("yaml", "csv")])
def test_files(block: Block) -> None:
    if block.language == "yaml":
        assert isinstance(yaml.safe_load(block.text), dict)
    else:
        header, *rows = csv.reader(block.text.splitlines())
        assert rows
        assert {len(row) for row in rows} == {len(header)}


def test_options_of_an_experiment(tmp_path: Path) -> None:
    (block,) = (block for block in blocks_of(DOCS / "run-experiments.md") if block.language == "yaml")
    path = tmp_path / "experiment.yaml"
    path.write_text(block.text, encoding="utf-8")
    assert read_options(path).seeds == 4


def test_a_wrong_option_is_found(dry: None, capsys: pytest.CaptureFixture[str]) -> None:
    check_options("experiments.run", ["--seeds", "3"])
    for arguments in (["--sedes", "3"], ["--seeds", "three"]):
        with pytest.raises(AssertionError, match="status 2"):
            check_options("experiments.run", arguments)
    assert "sedes" in capsys.readouterr().err
