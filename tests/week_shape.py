"""The hours of the embedded weeks beside those of the real week of 2024 that their profiles come from.

Run as ``python -m tests.week_shape`` with the data folder in ``PRESERVE_GYM_DATA``: prints the table of
``docs/generated-workloads.md``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preserve_gym.traces import Trace, azure_2024, load_trace
from tests.fit_windows import SOURCES
from tests.window_statistics import counts

FloatArray = NDArray[np.float64]
SEEDS = 10
DAYS = ("Fri", "Sat", "Sun", "Mon", "Tue", "Wed", "Thu")
# The hours before the first Friday of each recording.
_BEFORE_FRIDAY = {"conv": 5 * 24, "code": 0}


def real_week(kind: str, traces: Path) -> FloatArray:
    """Requests of each hour from Friday 0:00 to Thursday 24:00 UTC, over their mean; float64[168]."""
    service = SOURCES[kind]
    hours = azure_2024.hourly_counts(traces / "azure_llm_2024_hourly.csv.gz", service).requests
    return _relative(np.roll(hours, -_BEFORE_FRIDAY[service]).astype(np.float64))


def generated_week(kind: str, seed: int) -> FloatArray:
    """The same of an embedded week."""
    week: Trace = load_trace(f"synthetic-{kind}-week", seed)
    return _relative(counts(week, 3600.0))


def _relative(hours: FloatArray) -> FloatArray:
    return hours / hours.mean()


def weekend_over_weekday(hours: FloatArray) -> float:
    days = hours.reshape(7, 24).mean(axis=1)
    return float(days[1:3].mean() / days[[0, 3, 4, 5, 6]].mean())


SHAPES: dict[str, Callable[[FloatArray], float]] = {
    "weekend over weekday": weekend_over_weekday,
    "busiest hour over the mean": lambda hours: float(hours.max()),
    "quietest hour over the mean": lambda hours: float(hours.min()),
    "hour to hour, std of the log": lambda hours: float(np.diff(np.log(hours)).std()),
}


def rows(traces: Path) -> list[list[str]]:
    """Cells of the table: what, chat real, chat generated (5 % to 95 %), code real, code generated."""
    columns: list[list[str]] = []
    for kind in SOURCES:
        real = real_week(kind, traces)
        weeks = [generated_week(kind, seed) for seed in range(SEEDS)]
        columns.append(["1", *(f"{shape(real):.2f}" for shape in SHAPES.values())])
        correlations = [float(np.corrcoef(real, week)[0, 1]) for week in weeks]
        spread = [correlations, *([shape(week) for week in weeks] for shape in SHAPES.values())]
        columns.append([f"{min(values):.2f} to {max(values):.2f}" for values in spread])
    names = ["correlation with the real week", *SHAPES]
    return [list(row) for row in zip(names, *columns, strict=True)]


def main() -> None:
    print("| | chat, real | generated | code, real | generated |\n|---|---|---|---|---|")
    for row in rows(Path(os.environ["PRESERVE_GYM_DATA"]) / "traces"):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
