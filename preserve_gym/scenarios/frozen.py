"""The evaluation windows of the named scenarios, fixed in ``windows.json``, and the digest of their traces.

``python -m tests.freeze_windows`` writes the file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from preserve_gym.traces import Trace

FILE = Path(__file__).parent / "windows.json"


@dataclass(frozen=True)
class FrozenWindows:
    """Evaluation windows of a scenario; all times are in seconds on the trace's clock.

    Attributes:
        trace_sha256: ``trace_digest`` of the prepared trace.
        train_s, validation_s, test_s: start and end of each split.
        warmup_s, horizon_s: lengths of the warm-up and of the scored part; None: to the end of the split.
        validation, test: starts of the scored parts.
    """

    trace_sha256: str
    train_s: tuple[float, float]
    validation_s: tuple[float, float]
    test_s: tuple[float, float]
    warmup_s: float
    horizon_s: float | None
    validation: tuple[float, ...]
    test: tuple[float, ...]


def frozen_windows() -> dict[str, FrozenWindows]:
    """The fixed windows of each scenario, by its name."""
    return dict(_read())


@cache
def _read() -> dict[str, FrozenWindows]:
    entries: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return {name: _as_frozen(entry) for name, entry in entries.items()}


def _as_frozen(entry: dict[str, Any]) -> FrozenWindows:
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    return FrozenWindows(**fields)


def trace_digest(trace: Trace) -> str:
    """SHA-256 of the requests of a trace, in hexadecimal.

    Over these columns, one after the other, each as little-endian int64: arrivals in microseconds, rounded
    to the nearest; prompt tokens; output tokens; classes, if it has any.
    """
    columns = [np.rint(trace.arrival_s * 1e6), trace.prompt_tokens, trace.output_tokens]
    if trace.request_class is not None:
        columns.append(trace.request_class)
    digest = hashlib.sha256()
    for column in columns:
        digest.update(column.astype("<i8").tobytes())
    return digest.hexdigest()
