"""What the services of 2023 and of 2024 say of each other: how much a rate moves within ten minutes.

Run as ``python -m tests.modulation_2024`` with the data folder in ``PRESERVE_GYM_DATA``: prints the table
of ``docs/generated-workloads.md``. See ``tests/fit_azure_2024.py`` for the methods.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preserve_gym.traces import ArrivalPattern, Modulation, Trace, azure_2024
from tests import fit_azure_2024, fit_windows

FloatArray = NDArray[np.float64]
WINDOW_S = 600.0
NEARBY_MINUTES = 14
REFITS = 30
DRAWS = 300


def minute_std(ripple: Modulation) -> float:
    """Relative standard deviation of the mean rate of a minute."""
    of_a_minute = fit_windows.averaged(np.array([60.0 / ripple.correlation_s]))[0]
    return float(np.sqrt(np.expm1(ripple.log_std**2) * of_a_minute))


def windows_of(hour: Trace) -> list[Trace]:
    return [hour.slice(WINDOW_S * k, WINDOW_S * (k + 1)) for k in range(5)]


def refitted(kind: str, hour: Trace) -> list[Modulation]:
    """Ripples fitted to hours that were generated from the fit: how well one hour determines it."""
    silent = kind == "code"
    pattern, lengths = fit_windows.fit_service(windows_of(hour), silent=silent)
    counts = fit_windows.window_counts(hour, WINDOW_S)
    made = [counts.generate(pattern, lengths, seed=seed) for seed in range(REFITS)]
    return [fit_windows.fit_service(windows_of(t), silent=silent)[0].modulations[0] for t in made]


def ten_minute_stds(pattern: ArrivalPattern, mean: float) -> FloatArray:
    """Relative standard deviations of the counts of five windows of an hour, one for each draw."""
    rng = np.random.default_rng(0)
    edges_s: FloatArray = np.arange(0.0, 5 * WINDOW_S + 1, 2.0)
    values = []
    for _ in range(DRAWS):
        rate = pattern.relative_rate(edges_s, rng).reshape(5, -1).mean(axis=1)
        count = rng.poisson(mean * rate)
        values.append(count.std(ddof=1) / count.mean())
    return np.array(values)


def ranges_of_minutes(trace: Trace) -> tuple[FloatArray, FloatArray]:
    """Least and most requests of the 14 minutes around each 10-minute window."""
    minutes = int(trace.span_s / 60)
    count = np.bincount((trace.arrival_s // 60).astype(int), minlength=minutes)[:minutes].astype(np.float64)
    beside = (NEARBY_MINUTES - 10) // 2
    padded = np.r_[count[:beside], count, count[-beside:]]
    around = np.lib.stride_tricks.sliding_window_view(padded, NEARBY_MINUTES)[::10]
    return around.min(axis=1), around.max(axis=1)


def exponent(rate: FloatArray, extent: FloatArray) -> float:
    """With which power of the rate the range grows, over the week."""
    return float(np.polyfit(np.log(rate), np.log(extent), 1)[0])


def figures(service: str, traces: Path) -> dict[str, str]:
    """Cells of the table's column of a service, by the name of the row."""
    kind = fit_azure_2024.KINDS[service]
    hour, table = fit_windows.hour_of_2023(kind, traces), fit_azure_2024.windows_of(service, traces)
    size = fit_azure_2024.size_over_2023(service, traces)
    pattern = fit_windows.fit_service(windows_of(hour), silent=kind == "code")[0]
    ripple = pattern.modulations[0]
    refits = [minute_std(r.averaged(size)) for r in refitted(kind, hour)]
    fits = fit_azure_2024.minute_fits(table)
    best, width, sigma = fits[0]
    near = [fit[2] for fit in fits if fit[0] <= 1.05 * best]
    return {
        "requests/s over those of 2023": f"{size:.2f}",
        "std of a minute: ripple of 2023": f"{minute_std(ripple):.3f}",
        "its variance divided by the size": f"{minute_std(ripple.averaged(size)):.3f}",
        "from other hours with that ripple": _range(refits),
        "std of a minute: read off 2024": f"{sigma:.4f}",
        "read-offs that fit within 5 % as well": f"{min(near):.4f} to {max(near):.4f}",
        **_of_ranges(service, table, width, traces),
        **_of_ten_minutes(hour, pattern, table, size),
    }


def _of_ranges(service: str, table: pd.DataFrame, width: float, traces: Path) -> dict[str, str]:
    rate = table["requests"].to_numpy(float) / 10
    published = (table["rpm_max_est"] - table["rpm_min_est"]).to_numpy(float)
    low, high = ranges_of_minutes(
        azure_2024.trace_from_ten_minutes(traces / "azure_llm_2024_10min.csv.gz", service)
    )
    drift = np.abs(np.gradient(np.log(rate)))
    calm = drift < np.median(drift)

    def share(extent: FloatArray) -> str:
        return f"{np.median((extent / rate)[calm]):.3f}"

    return {
        "range of 14 minutes over their mean: published": share(published),
        "generated": share(high - low),
        "generated, and the width of the line": share(high - low + width),
        "width of the line, requests/min": f"{width:g}",
        "power of the rate: published range": f"{exponent(rate, published - width):.2f}",
        "power of the rate: generated range": f"{exponent(rate, high - low):.2f}",
    }


def _of_ten_minutes(hour: Trace, pattern: ArrivalPattern, table: pd.DataFrame, size: float) -> dict[str, str]:
    slow = fit_azure_2024.fit_slow(table)
    larger = slow.averaged(1 / size)
    count = np.array([len(window) for window in windows_of(hour)])
    as_it_is, times_size = (
        _range(ten_minute_stds(replace(pattern, modulations=(s, *pattern.modulations)), float(count.mean())))
        for s in (slow, larger)
    )
    return {
        "log_std of the slow part of 2024": f"{slow.log_std:.3f}",
        "its variance times the size": f"{larger.log_std:.3f}",
        "std of ten minutes: five of 2023": f"{count.std(ddof=1) / count.mean():.3f}",
        "drawn with the slow part as it is": as_it_is,
        "drawn with its variance times the size": times_size,
    }


def _range(values: Iterable[float]) -> str:
    low, high = np.percentile(np.fromiter(values, float), [5, 95])
    return f"{low:.3f} to {high:.3f}"


def rows(traces: Path) -> list[list[str]]:
    """Cells of the table: what, conversation, code."""
    conv, code = (figures(service, traces) for service in ("conv", "code"))
    return [[name, conv[name], code[name]] for name in conv]


def main() -> None:
    print("| | conversation | code |\n|---|---|---|")
    for row in rows(Path(os.environ["PRESERVE_GYM_DATA"]) / "traces"):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
