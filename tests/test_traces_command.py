"""The command ``python -m preserve_gym.traces``."""

from __future__ import annotations

import dataclasses
import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from preserve_gym import load_trace
from preserve_gym.data import ENVIRONMENT_VARIABLE
from preserve_gym.traces import DATASETS, dataset_path, read_client_windows
from preserve_gym.traces.__main__ import main
from preserve_gym.traces.generated import GENERATED
from preserve_gym.traces.servegen import client_files
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
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    heading, *rows = ([cell for cell in re.split(r"  +", line.strip()) if cell] for line in lines)
    assert heading == ["name", "holds", "kind", "rows", "size", "licence", "here"]
    assert {row[0] for row in rows} == {*DATASETS, *GENERATED}
    for name, holds, kind, *others in rows:
        if name in DATASETS:
            dataset = DATASETS[name]
            assert (holds, kind) == (dataset.holds, dataset.kind)
            assert others[0] == f"{dataset.rows:,}"
            assert others[2:] == [dataset.licence, "no"]
        else:
            here = "no" if GENERATED[name].needs else "yes"
            assert (holds, kind, others) == ("requests", "generated", [here])


def test_info_of_a_generated_trace(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "azure-2024-conv-from-10min"]) == 0
    shown = capsys.readouterr().out
    assert "generated: a week of Azure's conv service from counts of 10 minutes (an estimate)" in shown
    assert "needs     azure-2024-10min" in shown
    assert DATASETS["azure-2024-10min"].made in shown


def test_info(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", NAME]) == 0
    shown = capsys.readouterr().out
    dataset = DATASETS[NAME]
    for value in (dataset.source, dataset.url, dataset.licence, dataset.citation, dataset.sha256):
        assert value is not None
        assert value in shown
    assert "kind      original\n" in shown
    assert f"no; python -m preserve_gym.traces fetch {NAME}" in shown


def test_info_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n1,100,30\n4,200,50\n", encoding="utf-8")
    assert main(["info", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "rows      2\n" in shown
    assert "span      4.0 s, 0.5 requests/s\n" in shown
    assert "150 of prompts, 40 of outputs" in shown
    path.write_text("arrival_s,prompt_tokens,output_tokens\n1,x,30\n", encoding="utf-8")
    assert main(["info", str(path)]) == 2
    assert "row 2: prompt_tokens" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name, dataset in DATASETS.items() if dataset.kind != "original"])
def test_an_aggregate_or_an_estimate_says_so(
    name: str, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = DATASETS[name]
    assert main(["info", name]) == 0
    assert f"kind      {dataset.kind}: {dataset.made}\n" in capsys.readouterr().out
    assert main(["verify"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{name}: "))
    assert line.endswith(f": the {dataset.kind}")


def test_verify_accepts_all_that_is_here(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(DATASETS)
    away = {line.partition(":")[0] for line in lines if line.endswith("not here")}
    assert away <= {"azure-2024-conv", "azure-2024-code", "burstgpt"}


@pytest.mark.parametrize("name", [name for name, dataset in DATASETS.items() if dataset.url is None])
def test_what_has_no_address_is_not_fetched(
    name: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", NAME, name]) == 2
    printed = capsys.readouterr().err
    path = data / "traces" / DATASETS[name].files[1]
    assert printed == f"error: {name}: cannot be downloaded: {DATASETS[name].no_url}, to {path}\n"
    assert list(data.iterdir()) == []


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


def test_fetched_client_windows_can_be_read(
    data_dir: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "servegen-m-small"
    original = data_dir / "traces" / DATASETS[name].files[0]
    server = Server(b"", {f"/chunk-{client}.csv": content for client, _, content in client_files(original)})
    try:
        url = server.folder + "/chunk-{client}.csv"
        monkeypatch.setitem(DATASETS, name, dataclasses.replace(DATASETS[name], url=url))
        assert main(["fetch", name]) == 0
    finally:
        server.close()
    path = data / "traces" / DATASETS[name].files[1]
    assert capsys.readouterr().out.strip() == str(path)
    assert dataset_path(name) == path
    assert read_client_windows(path).requests.sum() == read_client_windows(original).requests.sum()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fetch"], "expected at least one of azure-2023-conv"),
        (["fetch", NAME, "azure-2023-cnv"], "'azure-2023-cnv': expected one of"),
        (["info", "synthetic-cht"], "'synthetic-cht': expected one of"),
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


def test_fetch_of_a_generated_trace_gets_what_it_needs(
    data: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needy = dataclasses.replace(GENERATED["synthetic-chat"], needs=(NAME,))
    monkeypatch.setitem(GENERATED, "needy", needy)
    assert main(["fetch", "needy", "synthetic-code"]) == 0
    assert capsys.readouterr().out.split() == [str(data / "traces" / DATASETS[NAME].files[1])]


def test_fetch_does_not_pass_over_a_broken_file(
    data: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = data / "traces" / DATASETS[NAME].files[0]
    broken.parent.mkdir(exist_ok=True)
    broken.write_bytes(b"junk")
    assert main(["fetch", NAME]) != 0
    message = capsys.readouterr().err
    assert str(broken) in message
    assert "remove it" in message
