"""What the report's page draws, as JSON: rounded, on a common grid of time, small enough to travel."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import yaml

from experiments.latency_histogram import Histogram, percentiles
from experiments.run_records import LatencyHistograms, RunRecords
from experiments.statistics import FloatArray

POINTS = 288
"""Of a time line, in each window."""
SHARES = np.concatenate([np.linspace(0.5, 98.5, 50), [99.0, 99.3, 99.5, 99.7, 99.9, 99.95, 99.99]])
"""Percentiles at which latencies are drawn."""
LATENCIES = ("ttft_s", "tpot_s", "normalized_latency_s")
_DIGITS = 4
_SWEPT = re.compile(r"(.+?)[-@](\d+(?:\.\d+)?)")
_LEAST_SWEEP = 3


def significant(values: Any, digits: int = _DIGITS) -> list[Any]:
    """Nested lists of numbers of so many digits; None for NaN."""
    array = np.asarray(values, np.float64)
    size = np.where(np.isfinite(array) & (array != 0.0), np.abs(array), 1.0)
    scale = 10.0 ** (digits - 1 - np.floor(np.log10(size)))
    rounded = np.round(np.nan_to_num(array) * scale) / scale
    whole = np.where(np.isfinite(array), rounded, np.nan).astype(object)
    whole[~np.isfinite(array)] = None
    exact = np.isfinite(array) & (rounded == np.floor(rounded)) & (np.abs(rounded) < 1e15)
    whole[exact] = [int(value) for value in rounded[exact]]
    return whole.tolist()


def scenario_data(records: RunRecords, summary: pd.DataFrame, scenario: str) -> dict[str, Any]:
    """Everything that the section of a scenario shows.

    Args:
        records: of the run.
        summary: all rows of ``experiments.summary.summary``.
        scenario: which.

    Returns:
        ``rows``: the summary by rank, a list for each column; all lists of policies are in this order.
        ``sweeps``: lists of rows that differ in one number; ``windows``: time lines; ``shares`` and
        ``latencies``: percentiles; ``forecasts``: how good they were; ``config``: YAML.
    """
    table = summary[summary["scenario"] == scenario].sort_values("rank", ignore_index=True)
    policies = [str(name) for name in table["policy"]]
    windows, forecasts = _time_lines(records, scenario, policies)
    return {
        "rows": {str(name): _column(table[name]) for name in table if name != "scenario"},
        "sweeps": sweeps(policies),
        "windows": windows,
        "forecasts": forecasts,
        "shares": SHARES.tolist(),
        "latencies": _latencies(records.histograms(scenario), policies),
        "config": _config(records.config, scenario),
    }


def sweeps(policies: Sequence[str]) -> list[list[int]]:
    """Policies that differ in the number at the end of their name, by it: a front of cost and attainment."""
    families: dict[str, list[tuple[float, int]]] = {}
    for k, policy in enumerate(policies):
        match = _SWEPT.fullmatch(policy)
        if match:
            families.setdefault(match[1], []).append((float(match[2]), k))
    return [[k for _, k in sorted(family)] for family in families.values() if len(family) >= _LEAST_SWEEP]


def _column(values: pd.Series[Any]) -> list[Any]:
    if pd.api.types.is_bool_dtype(values) or not pd.api.types.is_numeric_dtype(values):
        return [None if pd.isna(value) else value for value in values.tolist()]
    # Attainments of 99.9 % and more differ in what is missing to 100 %.
    return significant(values, 7)


def _latencies(histograms: LatencyHistograms, policies: Sequence[str]) -> dict[str, list[Any]]:
    """Percentiles over all requests of each policy, in ms, by latency: shape (policies, SHARES)."""
    found: dict[str, list[Any]] = {}
    for latency in LATENCIES:
        pooled = {policy: Histogram.of([]) for policy in policies}
        for (policy, _, _), by_name in histograms.items():
            if policy in pooled:
                pooled[policy] += by_name[latency]
        counts = np.array([pooled[policy].counts for policy in policies])
        curves = np.array([percentiles(counts, float(share)) for share in SHARES]).T
        found[latency] = significant(1000.0 * curves)
    return found


def _time_lines(
    records: RunRecords, scenario: str, policies: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Time lines of each window, and the quality of each distinct forecast."""
    present = {name: table for name in policies if (table := records.timeline(scenario, name)) is not None}
    windows: list[dict[str, Any]] = []
    forecasts: dict[bytes, dict[str, Any]] = {}
    numbers = sorted({int(w) for table in present.values() for w in table["window"].unique()})
    for number in numbers:
        parts = {
            name: rows
            for name, lines in present.items()
            if len(rows := lines[lines["window"] == number].reset_index(drop=True))
        }
        first = next(iter(parts.values()))
        time_s = first["time_s"].to_numpy(np.float64)
        step_s = (time_s[-1] - time_s[0]) / max(len(time_s) - 1, 1)
        grid_s = time_s[0] + (time_s[-1] + step_s - time_s[0]) * np.arange(POINTS) / POINTS
        window: dict[str, Any] = {
            "number": number,
            "clock_s": float(first["time_of_day_s"].iloc[0]),
            "seconds": float(time_s[-1] + step_s - time_s[0]),
            "load": significant(_at(first, "load", grid_s)),
            "forecast": [],
            "policies": [],
        }
        for policy in policies:
            part = parts.get(policy)
            if part is None:
                window["policies"].append(None)
                window["forecast"].append(None)
                continue
            window["policies"].append(_lines(part, grid_s))
            load, forecast = _at(part, "load", grid_s), _at(part, "forecast_load", grid_s)
            # Forecasts seen through other control intervals differ a little: a coarse key joins them.
            key = np.array(significant(forecast, 2), np.float64).tobytes()
            entry = forecasts.setdefault(key, _quality(number, policy, load, forecast, len(forecasts)))
            window["forecast"].append(entry["index"])
        windows.append(window)
    return windows, list(forecasts.values())


def _at(part: pd.DataFrame, name: str, grid_s: FloatArray) -> FloatArray:
    """A column at the given times: that of the stretch in which each lies."""
    rows = np.searchsorted(part["time_s"].to_numpy(), grid_s + 1e-6, side="right") - 1
    return part[name].to_numpy(np.float64)[np.clip(rows, 0, None)]


def _lines(part: pd.DataFrame, grid_s: FloatArray) -> dict[str, list[Any]]:
    arrived = _at(part, "arrived", grid_s)
    missed = _at(part, "violations", grid_s)
    billed = sum(_at(part, name, grid_s) for name in ("ready", "starting", "draining"))
    return {
        "instances": significant(billed, 3),
        "waiting": significant(_at(part, "waiting", grid_s), 3),
        "ttft_ms": significant(1000.0 * _at(part, "ttft_mean_s", grid_s), 3),
        "missed": significant(
            np.divide(100.0 * missed, arrived, out=np.full(POINTS, np.nan), where=arrived > 0), 3
        ),
    }


def _quality(number: int, policy: str, load: FloatArray, forecast: FloatArray, index: int) -> dict[str, Any]:
    known = np.isfinite(load) & np.isfinite(forecast)
    load, forecast = load[known], forecast[known]
    total = float(load.sum()) or np.nan
    return {
        "index": index,
        "window": number,
        "policy": policy,
        "error": significant([np.abs(forecast - load).sum() / total])[0],
        "bias": significant([(forecast - load).sum() / total])[0],
        "short": significant([np.maximum(load - forecast, 0.0).sum() / total])[0],
        "load": significant(load, 3),
        "forecast": significant(forecast, 3),
    }


def _config(config: Mapping[str, Any], scenario: str) -> str:
    parts = {
        name: config[key][scenario]
        for name, key in (("scenario", "scenarios"), ("policies", "policies"), ("profile", "profile"))
        if isinstance(config.get(key), Mapping) and scenario in config[key]
    }
    return yaml.safe_dump(parts, sort_keys=False, allow_unicode=True, width=100)
