from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from preserve_gym.errors import InputError
from preserve_gym.traces import DATASETS, catalog, load_trace, synthetic_trace, trace_names

CONTENT = b"TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n"


@pytest.fixture
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder, and azure-2023-conv with the content above."""
    monkeypatch.setenv("PRESERVE_GYM_DATA", str(tmp_path))
    changed = catalog.Dataset(
        **{**vars(DATASETS["azure-2023-conv"]), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    )
    monkeypatch.setitem(DATASETS, "azure-2023-conv", changed)
    (tmp_path / "traces").mkdir()
    return tmp_path / "traces"


def test_names() -> None:
    assert trace_names() == (
        "azure-2023-conv",
        "azure-2023-code",
        "mooncake-conversation",
        "mooncake-synthetic",
        "synthetic-chat",
        "synthetic-code",
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
        "trace 'azure-2023-conv': not on this machine",
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
        ("zzz", "trace 'zzz': expected a file or one of .*, synthetic-code$"),
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


@pytest.mark.parametrize("name", list(DATASETS))
def test_data_sets_are_those_described(data_dir: Path, name: str) -> None:
    trace = load_trace(name)
    assert (len(trace), trace.name) == (DATASETS[name].rows, name)


def test_the_seed_reaches_the_arrivals_of_mooncake(data_dir: Path) -> None:
    first, same, other = (load_trace("mooncake-conversation", seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.arrival_s, same.arrival_s)
    assert (first.arrival_s != other.arrival_s).all()
