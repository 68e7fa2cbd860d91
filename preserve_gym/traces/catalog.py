"""Traces by name: the public data sets that can be replayed and the generated services."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from preserve_gym.errors import InputError
from preserve_gym.traces.dataset import Dataset
from preserve_gym.traces.dataset_files import dataset_path
from preserve_gym.traces.datasets import DATASETS
from preserve_gym.traces.readers import read_trace
from preserve_gym.traces.synthetic import synthetic_trace
from preserve_gym.traces.trace import Trace

GENERATED: dict[str, Callable[[int], Trace]] = {
    "synthetic-chat": lambda seed: synthetic_trace("chat", seed=seed),
    "synthetic-code": lambda seed: synthetic_trace("code", seed=seed),
}
"""Name to the function that generates the trace from a seed."""

_READERS = {
    "lengths": "preserve_gym.traces.read_lengths",
    "client windows": "preserve_gym.traces.read_client_windows",
    "window counts": "pandas.read_csv",
    "quantiles": "pandas.read_csv",
}


def trace_names() -> tuple[str, ...]:
    """Every name that ``load_trace`` knows."""
    return (*(name for name, dataset in DATASETS.items() if dataset.holds == "requests"), *GENERATED)


def load_trace(name_or_path: str | Path, seed: int = 0) -> Trace:
    """A trace by catalog name, or from a file of any format that ``read_trace`` knows.

    Args:
        name_or_path: a name of ``trace_names()``, or the path of a file.
        seed: of a generated trace, and of arrivals inside coarse time stamps (Mooncake).

    Raises:
        InputError: on an unknown name, a data set that holds no requests or is not on this machine (the
            message says what reads it, or where to get it), a file that is not the original of its data
            set, or a malformed file.
    """
    name = str(name_or_path)
    if name in GENERATED:
        return GENERATED[name](seed)
    if name in DATASETS:
        return _load_dataset(name, DATASETS[name], seed)
    path = Path(name_or_path)
    if name and (path.suffix or path.exists() or len(path.parts) > 1):
        return read_trace(path, seed)
    close = difflib.get_close_matches(name, trace_names(), n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise InputError(f"trace {name!r}: expected a file or one of {', '.join(trace_names())}{hint}")


def _load_dataset(name: str, dataset: Dataset, seed: int) -> Trace:
    if dataset.holds != "requests":
        raise InputError(
            f"trace {name!r}: expected a data set of requests, it holds {dataset.contents}: "
            f"{_READERS[dataset.holds]}(preserve_gym.traces.dataset_path({name!r})) reads it"
        )
    return read_trace(dataset_path(name), seed, name)
