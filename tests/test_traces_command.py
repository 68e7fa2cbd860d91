"""The command ``python -m preserve_gym.traces``."""

from __future__ import annotations

import dataclasses
import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from preserve_gym import load_trace
from preserve_gym.data import ENVIRONMENT_VARIABLE
from preserve_gym.traces.__main__ import main
from preserve_gym.traces.catalog import DATASETS
from tests.file_server import Server

NAME = "azure-2023-conv"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    return tmp_path


@pytest.fixture
def server(data_dir: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves the original of ``NAME``, to which the catalog is turned."""
    original = gzip.decompress((data_dir / "traces" / DATASETS[NAME].files[0]).read_bytes())
    running = Server(original)
    monkeypatch.setitem(DATASETS, NAME, dataclasses.replace(DATASETS[NAME], url=running.url))
    yield running
    running.close()


def test_list(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["name", "requests", "size", "licence", "here"]
    assert {row[0] for row in rows[1:]} == {*DATASETS, "synthetic-chat", "synthetic-code"}
    assert {row[-1] for row in rows[1:] if row[0] in DATASETS} == {"no"}


def test_info(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", NAME]) == 0
    shown = capsys.readouterr().out
    dataset = DATASETS[NAME]
    for value in (dataset.source, dataset.url, dataset.licence, dataset.citation, dataset.sha256):
        assert value in shown
    assert f"no; python -m preserve_gym.traces fetch {NAME}" in shown


def test_sizes_are_those_of_the_originals(data_dir: Path) -> None:
    for dataset in DATASETS.values():
        content = gzip.decompress((data_dir / "traces" / dataset.files[0]).read_bytes())
        assert len(content) == dataset.size_bytes


def test_fetched_trace_can_be_loaded(server: Server, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.most_bytes = 500_000
    assert main(["fetch", NAME]) == 0
    path = data / "traces" / "AzureLLMInferenceTrace_conv.csv"
    assert capsys.readouterr().out.strip() == str(path)
    assert path.read_bytes() == server.content
    assert len(load_trace(NAME)) == DATASETS[NAME].rows
    asked = len(server.asked)
    assert asked == 2
    assert main(["fetch", NAME]) == 0  # it is here
    assert len(server.asked) == asked
    assert main(["verify"]) == 0
    assert f"{NAME}: {path}: the original" in capsys.readouterr().out


def test_another_file_is_thrown_away(server: Server, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.content = server.content[:-3] + b"9\r\n"
    assert main(["fetch", NAME]) == 2
    assert f"expected the SHA-256 {DATASETS[NAME].sha256}" in capsys.readouterr().err
    assert list((data / "traces").iterdir()) == []


def test_verify_finds_what_is_not_the_original(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = data / "traces" / DATASETS[NAME].files[0]
    path.parent.mkdir()
    path.write_bytes(gzip.compress(b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1,2\n"))
    assert main(["verify"]) == 1
    shown = capsys.readouterr().out
    assert f"{path}: expected the original of {NAME}" in shown
    assert "azure-2023-code: not here" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fetch"], "expected at least one of azure-2023-conv"),
        (["fetch", NAME, "azure-2023-cnv"], "'azure-2023-cnv': expected one of"),
        (["info", "synthetic-chat"], "'synthetic-chat': expected one of"),
        (["get"], "get"),
        ([], "Missing subcommand Expected one of"),
    ],
)
def test_bad_arguments(
    arguments: list[str], message: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert message in printed
    assert printed.count("\n") == 1
    assert list(data.iterdir()) == []
