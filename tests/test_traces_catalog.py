from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from preserve_gym.errors import InputError
from preserve_gym.traces import (
    DATASETS,
    dataset_path,
    load_trace,
    read_client_windows,
    read_lengths,
    synthetic_trace,
    trace_names,
)
from preserve_gym.traces.files import content_sha256
from preserve_gym.traces.generated import GENERATED
from preserve_gym.traces.servegen import client_files

CONTENT = b"TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n"


@pytest.fixture
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder, and azure-2023-conv with the content above."""
    monkeypatch.setenv("PRESERVE_GYM_DATA", str(tmp_path))
    changed = dataclasses.replace(DATASETS["azure-2023-conv"], sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(DATASETS, "azure-2023-conv", changed)
    (tmp_path / "traces").mkdir()
    return tmp_path / "traces"


def test_names() -> None:
    assert trace_names() == (
        "azure-2023-conv",
        "azure-2023-code",
        "azure-2024-conv",
        "azure-2024-code",
        "burstgpt",
        "mooncake-conversation",
        "mooncake-synthetic",
        *GENERATED,
    )


@pytest.mark.parametrize(
    ("file", "packed"),
    [
        ("azure_llm_2023_conv.csv.gz", True),
        ("AzureLLMInferenceTrace_conv.csv", False),
        ("AzureLLMInferenceTrace_conv.csv.gz", True),
    ],
)
def test_a_data_set_is_found_under_its_names(traces: Path, file: str, packed: bool) -> None:
    (traces / file).write_bytes(gzip.compress(CONTENT) if packed else CONTENT)
    trace = load_trace("azure-2023-conv")
    assert trace.name == "azure-2023-conv"
    assert trace.prompt_tokens.tolist() == [374]


def test_a_missing_data_set_says_where_to_get_it(traces: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_trace("azure-2023-conv")
    message = str(caught.value)
    for part in (
        "data set 'azure-2023-conv': not on this machine",
        "github.com/Azure/AzurePublicDataset, data/AzureLLMInferenceTrace_conv.csv",
        str(traces / "AzureLLMInferenceTrace_conv.csv"),
        "PRESERVE_GYM_DATA",
    ):
        assert part in message
    assert "\n" not in message


def test_other_content_under_the_name_of_a_data_set_is_refused(traces: Path) -> None:
    (traces / "azure_llm_2023_conv.csv.gz").write_bytes(
        gzip.compress(CONTENT + b"2023-11-16 18:15:47,1,1\r\n")
    )
    with pytest.raises(InputError, match="expected the original of azure-2023-conv"):
        load_trace("azure-2023-conv")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "azure-2023-con",
            r"expected a file or one of azure-2023-conv, .* \(did you mean azure-2023-conv\?\)$",
        ),
        ("zzz", "trace 'zzz': expected a file or one of .*, sharegpt-poisson$"),
        ("", "trace '': expected a file or one of"),
        ("mine.csv", r"^mine\.csv: no such file$"),
        ("folder/mine", "^folder.mine: no such file$"),
    ],
)
def test_unknown_names(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        load_trace(name)


@pytest.mark.parametrize("name", ["mine.csv", "mine"])
def test_a_file_is_read_by_its_path(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(CONTENT)
    trace = load_trace(tmp_path / name)
    assert trace.name == "mine"
    assert load_trace(str(tmp_path / name)).prompt_tokens.tolist() == trace.prompt_tokens.tolist()


def test_synthetic_traces_have_a_seed() -> None:
    trace = load_trace("synthetic-code", seed=3)
    np.testing.assert_array_equal(trace.arrival_s, synthetic_trace("code", seed=3).arrival_s)
    assert trace.name == "synthetic-code"


def test_a_generated_trace_gets_the_seed_and_the_scale() -> None:
    day, twice = (load_trace("synthetic-chat", seed=3, service_scale=scale) for scale in (1.0, 2.0))
    np.testing.assert_array_equal(day.arrival_s, synthetic_trace("chat", seed=3).arrival_s)
    assert len(twice) == pytest.approx(2 * len(day), rel=0.01)


@pytest.mark.parametrize("name", list(GENERATED))
def test_every_generated_trace(name: str, data_dir: Path) -> None:
    generated = GENERATED[name]
    scale = 0.0002 if "servegen" in name else 0.02
    assert set(generated.needs) <= set(DATASETS)
    trace, again, other = (load_trace(name, seed=seed, service_scale=scale) for seed in (1, 1, 2))
    assert trace.name == name
    assert len(trace) > 100
    for column in ("arrival_s", "prompt_tokens", "output_tokens"):
        np.testing.assert_array_equal(getattr(trace, column), getattr(again, column))
    assert not np.array_equal(trace.arrival_s[:50], other.arrival_s[:50])
    if any(DATASETS[need].kind == "estimate" for need in generated.needs):
        assert "estimate" in repr(trace)
        assert "estimate" in generated.about


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_out_of_range_is_refused(scale: float) -> None:
    with pytest.raises(InputError, match=r"service_scale: expected a finite number > 0"):
        load_trace("synthetic-chat", service_scale=scale)


def test_a_recorded_trace_has_one_scale() -> None:
    with pytest.raises(InputError, match=r"service_scale: expected 1 for the trace 'azure-2023-conv'"):
        load_trace("azure-2023-conv", service_scale=2.0)


@pytest.mark.parametrize("name", list(DATASETS))
def test_every_data_set_is_complete(name: str) -> None:
    dataset = DATASETS[name]
    for text in (*dataset.files, dataset.source, dataset.licence, dataset.citation):
        assert text.strip() == text != ""
    assert len(dataset.files) >= 2
    assert len(dataset.sha256) == 64
    assert dataset.rows > 0
    assert dataset.size_bytes > 0
    assert bool(dataset.made) == (dataset.kind != "original")
    assert bool(dataset.no_url) == (dataset.url is None)
    assert (dataset.clients > 0) == (dataset.holds == "client windows") == ("{client}" in (dataset.url or ""))


def test_no_two_data_sets_share_a_file() -> None:
    files = [file for dataset in DATASETS.values() for file in dataset.files]
    assert len(files) == len(set(files))


@pytest.mark.parametrize("name", list(DATASETS))
def test_data_sets_are_those_described(data_dir: Path, name: str) -> None:
    dataset = DATASETS[name]
    if not any((data_dir / "traces" / file).exists() for file in dataset.files):
        pytest.skip("too large to be there")
    path = dataset_path(name)
    if dataset.holds == "requests":
        trace = load_trace(name)
        assert (len(trace), trace.name) == (dataset.rows, name)
    elif dataset.holds == "lengths":
        without_output = 13 if name == "sharegpt-predicted" else 0
        assert len(read_lengths(path)) == dataset.rows - without_output
    elif dataset.holds == "client windows":
        windows = read_client_windows(path).requests
        assert windows.shape == (dataset.rows // dataset.clients, dataset.clients)
        assert sum(len(content) for _, _, content in client_files(path)) == dataset.size_bytes
    else:
        assert len(pd.read_csv(path)) == dataset.rows
    if not dataset.clients:
        assert len(gzip.decompress(path.read_bytes())) == dataset.size_bytes


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sharegpt-10k", r"it holds lengths: preserve_gym\.traces\.read_lengths\(preserve_gym\.traces\."),
        (
            "servegen-m-mid",
            r"client windows: preserve_gym\.traces\.read_client_windows\(.*'servegen-m-mid'\)",
        ),
        ("azure-2024-10min", r"it holds window counts \(an estimate\): pandas\.read_csv\("),
        ("servegen-length-quantiles", r"it holds quantiles \(an aggregate\): pandas\.read_csv\("),
    ],
)
def test_what_holds_no_requests_is_no_trace(name: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^trace '{name}': expected a data set of requests, .*{message}"):
        load_trace(name)


def test_a_missing_data_set_without_address_says_how_else(traces: Path) -> None:
    with pytest.raises(
        InputError, match=r"'burstgpt-daily': not on this machine; .* inside a zip file, .* copy"
    ):
        dataset_path("burstgpt-daily")


def test_an_unknown_data_set(traces: Path) -> None:
    with pytest.raises(InputError, match=r"^data set 'synthetic-chat': expected one of azure-2023-conv, "):
        dataset_path("synthetic-chat")


def test_a_file_is_compared_again_only_when_it_changed(traces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[Path] = []

    def counted(path: Path) -> str:
        compared.append(path)
        return content_sha256(path)

    monkeypatch.setattr("preserve_gym.traces.dataset_files.content_sha256", counted)
    path = traces / "AzureLLMInferenceTrace_conv.csv"
    path.write_bytes(CONTENT)
    assert dataset_path("azure-2023-conv") == dataset_path("azure-2023-conv") == path
    assert compared == [path]
    path.write_bytes(CONTENT.replace(b"374", b"375"))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    with pytest.raises(InputError, match="expected the original of azure-2023-conv"):
        dataset_path("azure-2023-conv")
    assert compared == [path, path]


@pytest.mark.parametrize("changed", ["content", "missing", "not a tar file"])
def test_other_client_windows_are_refused(data_dir: Path, traces: Path, changed: str) -> None:
    name = "servegen-m-small"
    path = traces / DATASETS[name].files[1]
    with tarfile.open(path, "w") as archive:
        for client, _, content in reversed([*client_files(data_dir / "traces" / DATASETS[name].files[0])]):
            if client == 7 and changed == "missing":
                continue
            member = tarfile.TarInfo(f"elsewhere/chunk-{client}-trace.csv")
            body = content.replace(b"600,", b"601,", 1) if client == 7 and changed == "content" else content
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    if changed == "not a tar file":
        path.write_bytes(b"no tar" * 200)
    with pytest.raises(InputError, match=r"\.tar: expected (the original of servegen-m-small|a tar file)"):
        dataset_path(name)


def test_client_windows_packed_otherwise_are_the_original(data_dir: Path, traces: Path) -> None:
    name = "servegen-m-small"
    with tarfile.open(traces / DATASETS[name].files[1], "w") as archive:
        for client, _, content in reversed([*client_files(data_dir / "traces" / DATASETS[name].files[0])]):
            member = tarfile.TarInfo(f"elsewhere/chunk-{client}-trace.csv")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert dataset_path(name).name == DATASETS[name].files[1]


def test_the_seed_reaches_the_arrivals_of_mooncake(data_dir: Path) -> None:
    first, same, other = (load_trace("mooncake-conversation", seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.arrival_s, same.arrival_s)
    assert (first.arrival_s != other.arrival_s).all()
