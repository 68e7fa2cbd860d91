"""Traces by name: the public data sets that can be replayed and the generated services."""

from __future__ import annotations

import math
from numbers import Real
from pathlib import Path

from preserve_gym.errors import InputError, did_you_mean
from preserve_gym.streams import check_seed
from preserve_gym.traces.dataset import Dataset
from preserve_gym.traces.dataset_files import dataset_path
from preserve_gym.traces.datasets import DATASETS
from preserve_gym.traces.generated import GENERATED
from preserve_gym.traces.readers import read_trace
from preserve_gym.traces.trace import Trace

_READERS = {
    "lengths": "preserve_gym.traces.read_lengths",
    "client windows": "preserve_gym.traces.read_client_windows",
    "window counts": "pandas.read_csv",
    "quantiles": "pandas.read_csv",
}


def trace_names() -> tuple[str, ...]:
    """Every name that ``load_trace`` knows."""
    return (*(name for name, dataset in DATASETS.items() if dataset.holds == "requests"), *GENERATED)


def load_trace(name_or_path: str | Path, seed: int = 0, service_scale: float = 1.0) -> Trace:
    """A trace by catalog name, or from a file of any format that ``read_trace`` knows.

    Args:
        name_or_path: a name of ``trace_names()``, or the path of a file.
        seed: of a generated trace, and of arrivals inside coarse time stamps (Mooncake).
        service_scale: size of a generated service relative to the recorded one; what that means is said
            where it is generated (``WindowCounts.generate``, ``servegen_trace``, ``synthetic_trace``).

    Raises:
        InputError: on a ``service_scale`` for a recorded trace, an unknown name, a data set that holds no
            requests or is not on this machine (the message says what reads it, or where to get it), a file
            that is not the original of its data set, or a malformed file.
    """
    name = str(name_or_path)
    check_seed(seed)
    is_number = isinstance(service_scale, Real) and not isinstance(service_scale, bool)
    if not (is_number and math.isfinite(service_scale) and service_scale > 0):
        raise InputError(f"service_scale: expected a finite number > 0, got {service_scale!r}")
    if name in GENERATED:
        trace = GENERATED[name].generate(seed, service_scale)
        if not len(trace):
            raise InputError(f"service_scale: {service_scale!r} leaves no request of trace {name!r}")
        return trace.take(slice(None), name=name, rates=trace.rates)
    if service_scale != 1.0:
        raise InputError(
            f"service_scale: expected 1 for the trace {name!r}, as only generated ones have another size, "
            f"got {service_scale!r}; rate_scale thins or superposes any trace"
        )
    if name in DATASETS:
        return _load_dataset(name, DATASETS[name], seed)
    path = Path(name_or_path)
    if name and (path.suffix or path.exists() or len(path.parts) > 1):
        return read_trace(path, seed)
    hint = did_you_mean(name, trace_names())
    raise InputError(
        f"trace {name!r}: expected a file, or a name that python -m preserve_gym.traces list shows{hint}"
    )


def _load_dataset(name: str, dataset: Dataset, seed: int) -> Trace:
    if dataset.holds != "requests":
        raise InputError(
            f"trace {name!r}: expected a data set of requests, it holds {dataset.contents}: "
            f"{_READERS[dataset.holds]}(preserve_gym.traces.dataset_path({name!r})) reads it"
        )
    return read_trace(dataset_path(name), seed, name)
