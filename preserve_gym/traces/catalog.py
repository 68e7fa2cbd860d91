"""Traces by name: the public data sets that can be replayed and the synthetic services."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from preserve_gym.data import ENVIRONMENT_VARIABLE, data_dir, find_data
from preserve_gym.errors import InputError
from preserve_gym.traces.files import content_sha256
from preserve_gym.traces.readers import read_trace
from preserve_gym.traces.synthetic import synthetic_trace
from preserve_gym.traces.trace import Trace


@dataclass(frozen=True)
class Dataset:
    """A public trace and where it comes from.

    Attributes:
        files: names under ``traces/`` of the data folder by which it is found, the first preferred;
            each plain or gzip-compressed.
        source: public project, path and commit of the original.
        url: where ``fetch`` gets the original.
        size_bytes: of the original.
        licence: licence of the data.
        citation: what to cite.
        rows: requests.
        sha256: of the original file, decompressed.
    """

    files: tuple[str, ...]
    source: str
    url: str
    size_bytes: int
    licence: str
    citation: str
    rows: int
    sha256: str


_AZURE_COMMIT = "b469a113cedca53ddc3bdea71a143dc4b7d8700c"
_AZURE = "github.com/Azure/AzurePublicDataset, data/AzureLLMInferenceTrace_{}.csv, commit " + _AZURE_COMMIT
_AZURE_URL = (
    "https://raw.githubusercontent.com/Azure/AzurePublicDataset/"
    + _AZURE_COMMIT
    + "/data/AzureLLMInferenceTrace_{}.csv"
)
_SPLITWISE = 'Patel et al., "Splitwise: Efficient Generative LLM Inference Using Phase Splitting", ISCA 2024'
_MOONCAKE = (
    "github.com/kvcache-ai/Mooncake, FAST25-release/traces/{}_trace.jsonl, "
    "commit 3b5a594133958449a1feaf1c9e0fc1b553e34a28"
)
_MOONCAKE_URL = (
    "https://raw.githubusercontent.com/kvcache-ai/Mooncake/3b5a594133958449a1feaf1c9e0fc1b553e34a28/"
    "FAST25-release/traces/{}_trace.jsonl"
)
_QIN = (
    'Qin et al., "Mooncake: Trading More Storage for Less Computation - A KVCache-centric Architecture for '
    'Serving LLM Chatbot", FAST 2025'
)

DATASETS: dict[str, Dataset] = {
    "azure-2023-conv": Dataset(
        files=(
            "azure_llm_2023_conv.csv.gz",
            "AzureLLMInferenceTrace_conv.csv",
            "AzureLLMInferenceTrace_conv.csv.gz",
        ),
        source=_AZURE.format("conv"),
        url=_AZURE_URL.format("conv"),
        size_bytes=719_188,
        licence="CC BY 4.0",
        citation=_SPLITWISE,
        rows=19_366,
        sha256="2f1e5b666d4e3055fdbba98598ce2ec307767b9064e03e2fa46676dbcc7d0bf8",
    ),
    "azure-2023-code": Dataset(
        files=(
            "azure_llm_2023_code.csv.gz",
            "AzureLLMInferenceTrace_code.csv",
            "AzureLLMInferenceTrace_code.csv.gz",
        ),
        source=_AZURE.format("code"),
        url=_AZURE_URL.format("code"),
        size_bytes=320_117,
        licence="CC BY 4.0",
        citation=_SPLITWISE,
        rows=8_819,
        sha256="54e9a6d2a4bd06ba1e060304b900abbc74cbea53de96506e60fe5bb4f2277fb6",
    ),
    "mooncake-conversation": Dataset(
        files=("mooncake_conversation.jsonl.gz", "conversation_trace.jsonl", "conversation_trace.jsonl.gz"),
        source=_MOONCAKE.format("conversation"),
        url=_MOONCAKE_URL.format("conversation"),
        size_bytes=3_029_533,
        licence="Apache-2.0",
        citation=_QIN,
        rows=12_031,
        sha256="b8cbb061a85206d729d91cdc2981f43c9e0d99209dce588d3af5f7934408b9df",
    ),
    "mooncake-synthetic": Dataset(
        files=("mooncake_synthetic.jsonl.gz", "synthetic_trace.jsonl", "synthetic_trace.jsonl.gz"),
        source=_MOONCAKE.format("synthetic"),
        url=_MOONCAKE_URL.format("synthetic"),
        size_bytes=1_136_313,
        licence="Apache-2.0",
        citation=_QIN,
        rows=3_993,
        sha256="bd070915a98fc0ed264d7cfef2ce746002eb3076a695ec31ba2674c0111ec131",
    ),
}

SYNTHETIC: dict[str, str] = {"synthetic-chat": "chat", "synthetic-code": "code"}
"""Catalog name to the kind of ``synthetic_trace``."""


def trace_names() -> tuple[str, ...]:
    """Every name that ``load_trace`` knows."""
    return (*DATASETS, *SYNTHETIC)


def load_trace(name_or_path: str | Path, seed: int = 0) -> Trace:
    """A trace by catalog name, or from a file of any format that ``read_trace`` knows.

    Args:
        name_or_path: a name of ``trace_names()``, or the path of a file.
        seed: of a synthetic trace (one day), and of arrivals inside coarse time stamps (Mooncake).

    Raises:
        InputError: on an unknown name, a data set that is not on this machine (the message says where
            to get it), a file that is not the original of its data set, or a malformed file.
    """
    name = str(name_or_path)
    if name in SYNTHETIC:
        return synthetic_trace(SYNTHETIC[name], seed=seed)
    if name in DATASETS:
        return _load_dataset(name, DATASETS[name], seed)
    path = Path(name_or_path)
    if name and (path.suffix or path.exists() or len(path.parts) > 1):
        return read_trace(path, seed)
    close = difflib.get_close_matches(name, trace_names(), n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise InputError(f"trace {name!r}: expected a file or one of {', '.join(trace_names())}{hint}")


def find_dataset(name: str) -> Dataset:
    """The data set of that name.

    Raises:
        InputError: if there is none; the message lists those there are.
    """
    if name not in DATASETS:
        raise InputError(f"data set {name!r}: expected one of {', '.join(DATASETS)}")
    return DATASETS[name]


def path_of(dataset: Dataset) -> Path | None:
    """Where a data set lies on this machine, if it does."""
    return next((path for file in dataset.files if (path := find_data(f"traces/{file}"))), None)


def _load_dataset(name: str, dataset: Dataset, seed: int) -> Trace:
    path = path_of(dataset)
    if path is None:
        raise InputError(
            f"trace {name!r}: not on this machine; python -m preserve_gym.traces fetch {name} gets it from "
            f"{dataset.source} and puts it at {data_dir() / 'traces' / dataset.files[1]}; or set "
            f"{ENVIRONMENT_VARIABLE} to the folder that holds traces/{dataset.files[0]}"
        )
    if content_sha256(path) != dataset.sha256:
        raise InputError(
            f"{path}: expected the original of {name} (decompressed SHA-256 {dataset.sha256[:12]}...), got "
            f"other content; get it again from {dataset.source}, or pass a file of your own by its path"
        )
    return read_trace(path, seed, name)
