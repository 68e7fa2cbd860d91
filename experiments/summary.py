"""What a run says about its policies: one row per scenario and policy, with intervals, ranks and scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.latency_histogram import Histogram, percentiles
from experiments.statistics import Estimate, FloatArray, miss_statistic
from preserve_gym.errors import InputError, did_you_mean

TARGET = 0.99
"""SLO attainment that a policy shall reach where the table of bounds names no other."""
MARGIN = 0.001
"""A policy whose attainment is lower than the baseline's by less than this is not inferior."""
BASELINE = "preserve"

LATENCIES = (
    ("ttft_p50_s", "ttft_s", 50.0),
    ("ttft_p99_s", "ttft_s", 99.0),
    ("tpot_p50_s", "tpot_s", 50.0),
    ("tpot_p99_s", "tpot_s", 99.0),
    ("normalized_latency_p50_s", "normalized_latency_s", 50.0),
    ("normalized_latency_p99_s", "normalized_latency_s", 99.0),
)
"""Column of the summary, histogram and percentile of it."""
TOTALS = (
    "arrived",
    "completed",
    "rejected",
    "violations",
    "gpu_hours",
    "cost_usd",
    "energy_kwh",
    "scaling_actions",
    "preemptions",
)
"""Figures of ``episodes.csv`` that are summed over windows and averaged over seeds."""

Histograms = Mapping[tuple[str, int, int], Mapping[str, Histogram]]
"""By policy, seed and window: the histogram of each latency."""


def summary(
    episodes: pd.DataFrame,
    histograms: Callable[[str], Histograms],
    *,
    baseline: str | None = BASELINE,
    bounds: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """One row per scenario and policy, in order of appearance.

    A figure ``x`` comes with ``x_low, x_high``, its 95 % interval for other seeds on the same windows, and
    ``x_days_low, x_days_high``, that for other days too. A seed counts if its policy played every window.

    Args:
        episodes: one row per scenario, policy, seed and window, with the figures of ``summarize``.
        histograms: of a scenario's rows, by its name; asked for one scenario after the other.
        baseline: the policy that others are compared with on the same seeds and windows; scenarios that it
            did not play have no comparison. None: no comparison.
        bounds: columns ``scenario, target, static_gpu_hours, hindsight_gpu_hours``, of all windows.

    Raises:
        InputError: if the baseline played no scenario.
    """
    if episodes.empty:
        return pd.DataFrame(columns=["scenario", "policy"])
    policies = list(dict.fromkeys(episodes["policy"]))
    if baseline is not None and baseline not in policies:
        hint = did_you_mean(baseline, policies)
        raise InputError(
            f"--baseline: expected a policy of the run ({', '.join(policies)}), got {baseline!r}{hint}"
        )
    known = {} if bounds is None else {row["scenario"]: row for row in bounds.to_dict("records")}
    return pd.concat(
        [
            _of_scenario(str(name), rows, histograms(str(name)), baseline, known.get(name, {}))
            for name, rows in episodes.groupby("scenario", sort=False)
        ],
        ignore_index=True,
    )


def _of_scenario(
    scenario: str, rows: pd.DataFrame, histograms: Histograms, baseline: str | None, bounds: Mapping[Any, Any]
) -> pd.DataFrame:
    windows = sorted(rows["window"].unique())
    complete = {
        str(policy): tuple(_complete_seeds(part, len(windows)))
        for policy, part in rows.groupby("policy", sort=False)
    }
    # Most policies have played the same seeds: those are worked out together.
    groups: dict[tuple[int, ...], list[str]] = {}
    for policy, seeds in complete.items():
        groups.setdefault(seeds, []).append(policy)
    indexed = rows.set_index(["seed", "window", "policy"])
    frames = []
    for seeds, policies in groups.items():
        if not seeds:
            continue
        frame = _absolute(scenario, indexed, histograms, seeds, windows, policies)
        shared = [] if baseline is None else sorted(set(seeds) & set(complete.get(baseline, ())))
        if baseline is not None and shared:
            frame |= _against(indexed, shared, windows, policies, baseline)
        frames.append(pd.DataFrame(frame))
    if not frames:
        return pd.DataFrame()
    table = pd.concat(frames, ignore_index=True)
    order = {policy: k for k, policy in enumerate(complete)}
    table = table.sort_values("policy", key=lambda names: names.map(order), ignore_index=True)
    return _ranked(table, bounds)


def _complete_seeds(rows: pd.DataFrame, windows: int) -> list[int]:
    counts = rows["seed"].value_counts(sort=False)
    return sorted(int(seed) for seed in counts.index[counts == windows])


def _cells(
    rows: pd.DataFrame,
    names: Sequence[str],
    seeds: Sequence[int],
    windows: Sequence[int],
    policies: list[str],
) -> FloatArray:
    """Figures of shape (seeds, windows, policies, names)."""
    index = pd.MultiIndex.from_product([seeds, windows, policies])
    values = rows[list(names)].reindex(index).to_numpy(np.float64)
    return values.reshape(len(seeds), len(windows), len(policies), len(names))


def _absolute(
    scenario: str,
    rows: pd.DataFrame,
    histograms: Histograms,
    seeds: Sequence[int],
    windows: Sequence[int],
    policies: list[str],
) -> dict[str, Any]:
    frame: dict[str, Any] = {
        "scenario": scenario,
        "policy": policies,
        "seeds": len(seeds),
        "windows": len(windows),
    }
    counts = _cells(rows, ("violations", "arrived"), seeds, windows, policies)
    missed, arrived = counts.sum(axis=(0, 1)).T
    estimate = Estimate.of(counts, miss_statistic)
    # The interval is around what was found; where none was missed, around half a request.
    found = np.where(missed > 0.0, missed / arrived, np.exp(estimate.value))
    _put(
        frame, "slo_attainment", estimate, lambda x: 1.0 - np.minimum(found * np.exp(x - estimate.value), 1.0)
    )
    frame["slo_attainment"] = 1.0 - missed / arrived
    for name in ("slo_attainment_high", "slo_attainment_days_high"):
        frame[name] = np.where((missed == 0.0) & ~np.isnan(frame[name]), 1.0, frame[name])
    for name in [name for name in TOTALS if name in rows]:
        cells = _cells(rows, (name,), seeds, windows, policies)
        estimate = Estimate.of(cells, lambda totals: totals[:, 0] / len(seeds))
        if name in ("gpu_hours", "cost_usd", "energy_kwh", "scaling_actions"):
            _put(frame, name, estimate)
        else:
            frame[name] = estimate.value
    for metric in dict.fromkeys(metric for _, metric, _ in LATENCIES):
        bins = np.array(
            [
                [[histograms[p, int(s), int(w)][metric].counts for p in policies] for w in windows]
                for s in seeds
            ],
            np.float64,
        )
        for name, of, q in LATENCIES:
            if of == metric:
                estimate = Estimate.of(bins, partial(_log_percentile, q=q))
                _put(frame, name, estimate, np.exp)
    return frame


def _log_percentile(totals: FloatArray, q: float) -> FloatArray:
    return np.log(percentiles(totals, q))


def _against(
    rows: pd.DataFrame, seeds: Sequence[int], windows: Sequence[int], policies: list[str], baseline: str
) -> dict[str, Any]:
    """Paired with the baseline: the same seeds and windows have the same arrivals."""
    n = len(seeds)
    names = ("gpu_hours", "violations", "arrived")
    own = _cells(rows, names, seeds, windows, policies)
    base = np.broadcast_to(_cells(rows, names, seeds, windows, [baseline]), own.shape)
    pairs = np.concatenate([own, base], axis=-1)
    frame: dict[str, Any] = {"baseline": baseline, "paired_seeds": n}

    def saved(totals: FloatArray) -> FloatArray:
        return (totals[:, 0] - totals[:, 3]) / n

    def ratio(totals: FloatArray) -> FloatArray:
        return np.log(totals[:, 0] / totals[:, 3])

    def attained(totals: FloatArray) -> FloatArray:
        return totals[:, 4] / totals[:, 5] - totals[:, 1] / totals[:, 2]

    _put(frame, "gpu_hours_difference", Estimate.of(pairs, saved))
    _put(frame, "gpu_hours_change", Estimate.of(pairs, ratio), np.expm1)
    _put(frame, "slo_attainment_difference", Estimate.of(pairs, attained))
    # Of one seed there is no interval, so nothing is known of chance.
    frame["non_inferior"] = frame["slo_attainment_difference_low"] > -MARGIN
    return frame


def _put(frame: dict[str, Any], name: str, estimate: Estimate, back: Any = lambda x: x) -> None:
    """A figure and its intervals, in order, from the scale that they were made on."""
    frame[name] = back(estimate.value)
    for suffix, bounds in (("", estimate.over_seeds()), ("_days", estimate.over_days())):
        low, high = np.sort([back(bound) for bound in bounds], axis=0)
        frame[f"{name}{suffix}_low"], frame[f"{name}{suffix}_high"] = low, high


def _ranked(table: pd.DataFrame, bounds: Mapping[Any, Any]) -> pd.DataFrame:
    target = float(bounds.get("target", TARGET))
    meets = (table["slo_attainment"] >= target).to_numpy()
    hours = table["gpu_hours"].to_numpy(np.float64)
    # First those that meet the target, by cost; then the others, by how near they come.
    order = np.lexsort((np.where(meets, hours, -table["slo_attainment"]), ~meets))
    rank = np.empty(len(table), np.int64)
    rank[order] = np.arange(1, len(table) + 1)
    static, hindsight = _ends(table, bounds)
    score: NDArray[np.float64] = np.full(len(table), np.nan)
    if static > hindsight:
        score = np.where(meets, (static - hours) / (static - hindsight), np.nan)
    return table.assign(target=target, meets_target=meets, rank=rank, score=score)


def _ends(table: pd.DataFrame, bounds: Mapping[Any, Any]) -> tuple[float, float]:
    """GPU-hours of the best static fleet and of the hindsight schedule: played in the run, or tabulated."""
    hours = table.set_index("policy")["gpu_hours"]
    return (
        float(hours.get("best-static", bounds.get("static_gpu_hours", np.nan))),
        float(hours.get("hindsight", bounds.get("hindsight_gpu_hours", np.nan))),
    )
