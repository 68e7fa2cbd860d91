"""Runs over time, in bins, as figures need them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.metrics import interval_percentiles, ttft_s, violated

FloatArray = NDArray[np.float64]

_LEAST_BIN_S = 10.0


@dataclass(frozen=True)
class Series:
    """A policy's run in bins of time.

    Attributes:
        edges_s: of the bins, as time of day of the first one and on, float64[n + 1].
        load, forecast_load: instances needed, means over each bin, float64[n].
        ready, starting, draining, kv_use_mean, kv_use_max, anticipated_peak_max: the same.
        ttft_p50_s, ttft_p99_s: of the requests that arrived in a bin, NaN where none, float64[n].
        violations: share of them that violated the SLO, float64[n].
    """

    edges_s: FloatArray
    load: FloatArray
    forecast_load: FloatArray
    ready: FloatArray
    starting: FloatArray
    draining: FloatArray
    kv_use_mean: FloatArray
    kv_use_max: FloatArray
    anticipated_peak_max: FloatArray
    ttft_p50_s: FloatArray
    ttft_p99_s: FloatArray
    violations: FloatArray


@dataclass(frozen=True)
class Play:
    """What a policy's figure needs of its files, for one seed.

    Attributes:
        policy: its name.
        figures: its row of ``summary.csv``.
        intervals: its ``intervals`` file.
        arrival_s, ttft_s, violated: of every request.
        clock_s: time of day at time 0 of the trace.
    """

    policy: str
    figures: Mapping[str, Any]
    intervals: pd.DataFrame
    arrival_s: FloatArray
    ttft_s: FloatArray
    violated: NDArray[np.bool_]
    clock_s: float

    @property
    def start_s(self) -> float:
        """Start of the scored part on the trace's clock."""
        return float(self.intervals["time_s"].iloc[0])

    @property
    def end_s(self) -> float:
        """Its end."""
        return self.start_s + float(self.figures["horizon_s"])

    def series(self, start_s: float, end_s: float, bins: int) -> Series:
        """The run from ``start_s`` to ``end_s`` in at most ``bins`` bins of equal length."""
        bins = max(1, min(bins, int((end_s - start_s) / _LEAST_BIN_S)))
        edges = np.linspace(start_s, end_s, bins + 1)
        time_s = self.intervals["time_s"].to_numpy()
        # Each bin is the mean of the intervals that it touches; arrivals fall exactly into theirs.
        first = np.clip(np.searchsorted(time_s, edges[:-1], side="right") - 1, 0, None)
        last = np.maximum(np.searchsorted(time_s, edges[1:], side="left"), first + 1)

        def mean(name: str) -> FloatArray:
            values = self.intervals[name].to_numpy(np.float64)
            present = ~np.isnan(values)
            total = np.concatenate(([0.0], np.cumsum(np.where(present, values, 0.0))))
            count = np.concatenate(([0], np.cumsum(present)))
            n = count[last] - count[first]
            return np.divide(total[last] - total[first], n, out=np.full(bins, np.nan), where=n > 0)

        rows = np.searchsorted(self.arrival_s, edges, side="left")
        p50, p99 = interval_percentiles(self.ttft_s, rows, (50.0, 99.0))
        bad = np.diff(np.concatenate(([0], np.cumsum(self.violated)))[rows])
        arrived = np.diff(rows)
        names = ("load", "forecast_load", "ready", "starting", "draining")
        uses = ("kv_use_mean", "kv_use_max", "anticipated_peak_max")
        return Series(
            edges_s=edges + self.clock_s,
            **{name: mean(name) for name in names + uses},
            ttft_p50_s=p50,
            ttft_p99_s=p99,
            violations=np.divide(bad, arrived, out=np.zeros(bins), where=arrived > 0),
        )


def load_play(folder: Path, figures: Mapping[str, Any]) -> Play:
    """Read a run of one policy.

    Args:
        folder: of the run.
        figures: the policy's row of ``summary.csv`` for one seed.
    """
    name = f"{figures['policy']}-seed{figures['seed']}.parquet"
    columns = ["arrival_s", "first_token_s", "violated_s", "rejected"]
    requests = pd.read_parquet(folder / "requests" / name, columns=columns)
    intervals = pd.read_parquet(folder / "intervals" / name)
    return Play(
        policy=str(figures["policy"]),
        figures=figures,
        intervals=intervals,
        arrival_s=requests["arrival_s"].to_numpy(),
        ttft_s=ttft_s(requests),
        violated=violated(requests),
        clock_s=float((intervals["time_of_day_s"].iloc[0] - intervals["time_s"].iloc[0]) % 86_400.0),
    )


def zoom_span(plays: Sequence[Play]) -> tuple[float, float]:
    """The stretch in which the policies differ most in violations; if in none, where the load peaks."""
    start_s, end_s = plays[0].start_s, plays[0].end_s
    span_s = min(end_s - start_s, max(600.0, min(3600.0, (end_s - start_s) / 6.0)))
    starts = np.arange(start_s, end_s - span_s + 1e-6, span_s / 8.0)
    counts = []
    for play in plays:
        before = np.concatenate(([0], np.cumsum(play.violated)))
        rows = np.searchsorted(play.arrival_s, [starts, starts + span_s])
        counts.append(before[rows[1]] - before[rows[0]])
    difference = np.ptp(counts, axis=0)
    if not difference.any():
        loads = plays[0].intervals
        difference = np.array([loads["load"][loads["time_s"].between(s, s + span_s)].mean() for s in starts])
    s = float(starts[int(np.argmax(np.nan_to_num(difference)))])
    return s, s + span_s
