"""Fits the figures of ``azure_2024`` and ``burstgpt_hours`` to published aggregates.

Run as ``python -m tests.fit_azure_2024`` with the data folder in ``PRESERVE_GYM_DATA``.

Method. *Within a minute to ten*: ``rpm_min_est`` and ``rpm_max_est`` are the edges of a plotted line near
each 10-minute window: the slowest and the fastest of about 14 minutes, and the width of the line between.
Over the calmer half of the windows, width + slope + 3.2 * sqrt(sigma^2 r^2 + r) is fitted to max - min (r
requests per minute; 3.2 lies between the mean range of 14 independent minutes, 3.4 standard deviations, and
that of minutes that go together over two of them, 2.7; the last r is Poisson's variance). Width and sigma
can make up for each other, so sigma is known roughly (``tests/modulation_2024.py``). *Slow part* (only
needed where an hour's count is all that is known): standard deviation and autocorrelation of the
10-minute counts around a line through the hours' means, and the process that shows the same when it is
drawn.
*Below a minute* nothing is published. The 2023 hours say what it is like there for a service of an eighth
and an eleventh of the size; their variance is divided by that. The rest of sigma gets a correlation time of
60 s. *BurstGPT*: variance of the tokens of minutes within the hours of the first week, over hours of at least
60 requests, against 1/requests: the intercept is that of the rate, its correlation time from the
autocorrelation of the minutes.
"""

from __future__ import annotations

import os
import pprint
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preserve_gym.traces.azure_2024 import Service
from preserve_gym.traces.length_mix import LengthMix
from preserve_gym.traces.modulation import ArrivalPattern, Modulation
from tests import fit_windows

FloatArray = NDArray[np.float64]
KINDS = {"conv": "chat", "code": "code"}
FAST_S = 60.0
SLOW_GRID_S = (300.0, 600.0, 900.0, 1200.0, 1800.0)
LEVELS = (0.01, 0.02, 0.03, *(round(0.05 * k, 2) for k in range(1, 20)), 0.96, 0.97, 0.98, 0.99)


def windows_of(service: str, traces: Path) -> pd.DataFrame:
    table = pd.read_csv(traces / "azure_llm_2024_10min.csv.gz")
    return table[table["service"] == service].reset_index(drop=True)


def minute_fits(table: pd.DataFrame) -> list[tuple[float, float, float]]:
    """Misfit, width of the plotted line and relative standard deviation of minutes, best first."""
    rate = table["requests"].to_numpy(float) / 10
    extent = (table["rpm_max_est"] - table["rpm_min_est"]).to_numpy(float)
    drift = np.abs(np.gradient(np.log(rate)))
    calm = drift < np.median(drift)
    rate, extent, slope = rate[calm], extent[calm], np.abs(np.gradient(rate))[calm]
    return sorted(
        (
            float(
                np.median(np.abs(np.log((width + slope + 3.2 * np.sqrt(sigma**2 * rate**2 + rate)) / extent)))
            ),
            float(width),
            float(sigma),
        )
        for width in np.arange(0.0, 200.0, 10.0)
        for sigma in np.arange(0.01, 0.25, 0.0025)
    )


def minute_sigma(table: pd.DataFrame) -> float:
    """Relative standard deviation of the rate of a minute."""
    return minute_fits(table)[0][2]


def _around_hours(counts: FloatArray) -> FloatArray:
    """Standard deviation and autocorrelation at 1, 2 and 3 windows of the log around a line through hours."""
    hours = counts.reshape(-1, 6).mean(axis=1)
    line = np.interp(np.arange(len(counts)), np.arange(len(hours)) * 6 + 2.5, hours)
    residual = np.log(counts / line)
    return np.array([residual.std(), *(np.corrcoef(residual[:-k], residual[k:])[0, 1] for k in (1, 2, 3))])


def fit_slow(table: pd.DataFrame) -> Modulation:
    counts = table["requests"].to_numpy(float)
    measured = _around_hours(counts)
    hours = counts.reshape(-1, 6).mean(axis=1)
    line = np.interp(np.arange(len(counts)), np.arange(len(hours)) * 6 + 2.5, hours)
    times_s = (np.arange(60 * len(counts)) + 0.5) * 10.0
    rng = np.random.default_rng(0)
    fits = []
    for tau in SLOW_GRID_S:
        drawn = np.mean(
            [
                _around_hours(line * Modulation(0.05, tau).draw(times_s, rng).reshape(-1, 60).mean(axis=1))
                for _ in range(20)
            ],
            axis=0,
        )
        fits.append((float(np.abs(drawn[1:] - measured[1:]).sum()), tau, 0.05 * measured[0] / drawn[0]))
    _, tau, std = min(fits)
    return Modulation(round(float(std), 3), tau)


def size_over_2023(service: str, traces: Path) -> float:
    """Mean request rate of 2024 over that of the hour of 2023."""
    hour = fit_windows.hour_of_2023(KINDS[service], traces)
    return float(windows_of(service, traces)["requests"].mean()) / 600 / (len(hour) / hour.span_s)


def fit_fast(service: str, traces: Path) -> ArrivalPattern:
    """What moves below ten minutes, at the size of 2024."""
    table = windows_of(service, traces)
    hour = fit_windows.hour_of_2023(KINDS[service], traces)
    size = size_over_2023(service, traces)
    windows = [hour.slice(600.0 * k, 600.0 * (k + 1)) for k in range(5)]
    of_2023 = fit_windows.fit_service(windows, silent=service == "code")[0].averaged(size)
    ripple = of_2023.modulations[0]
    variance = np.expm1(ripple.log_std**2)
    of_a_minute = fit_windows.averaged(np.array([60.0 / ripple.correlation_s, 60.0 / FAST_S]))
    rest = (minute_sigma(table) ** 2 - variance * of_a_minute[0]) / of_a_minute[1]
    modulations = [Modulation(round(ripple.log_std, 3), ripple.correlation_s)]
    if rest > 0:
        modulations.append(Modulation(round(float(np.sqrt(np.log1p(rest))), 3), FAST_S))
    return ArrivalPattern(tuple(modulations), round(of_2023.bin_variance, 4))


def quantiles(service: str, field: str, traces: Path) -> tuple[int, ...]:
    """Tokens at 0, ``LEVELS`` and 1: as read off, log-linear below the 20 output tokens that are resolved.

    Ends that no figure shows are those of 2023, but 2 for the least output.
    """
    table = pd.read_csv(traces / "azure_llm_2024_length_percentiles.csv.gz")
    table = table[(table["service"] == service) & (table["field"] == field)]
    column = {"ContextTokens": "prompt_tokens", "GeneratedTokens": "output_tokens"}[field]
    tokens = getattr(fit_windows.hour_of_2023(KINDS[service], traces), column)
    least, most = int(tokens.min()), int(tokens.max())
    if field == "GeneratedTokens":
        least = 2
        table = table[table["tokens"] >= 20]
    level = np.r_[0.0, table["percentile"] / 100, 1.0]
    log = np.log(np.r_[least, table["tokens"], max(most, table["tokens"].max())])
    return tuple(int(v) for v in np.rint(np.exp(np.interp((0.0, *LEVELS, 1.0), level, log))))


def weekly_means(service: str, traces: Path) -> tuple[int, int]:
    table = windows_of(service, traces)
    total = table[["requests", "context_tokens_est", "generated_tokens_est"]].sum()
    return round(total.iloc[1] / total.iloc[0]), round(total.iloc[2] / total.iloc[0])


def fit_burstgpt(traces: Path) -> Modulation:
    hourly = pd.read_csv(traces / "burstgpt_hourly.csv.gz")["all"].to_numpy(float)[:168]
    minutes = pd.read_csv(traces / "burstgpt_week1_minute.csv.gz")
    tokens = np.zeros(168 * 60)
    tokens[minutes["minute"]] = minutes["tokens_per_s"]
    hours, count = tokens.reshape(168, 60)[hourly >= 60], hourly[hourly >= 60]
    relative = hours / hours.mean(axis=1, keepdims=True) - 1
    design = np.stack((np.ones(len(count)), 60 / count), axis=1) * np.sqrt(count)[:, None]
    variance, _ = np.linalg.lstsq(design, relative.var(axis=1, ddof=1) * np.sqrt(count), rcond=None)[0]
    lags = np.arange(1, 11)
    shared = [float((relative[:, :-lag] * relative[:, lag:]).mean()) for lag in lags]
    # The hour's own mean is taken off, so all of it is a little lower.
    taus = np.arange(30.0, 1800.0, 10.0)
    misfit = [
        float(
            ((np.exp(-60 * lags / tau) - fit_windows.averaged(np.array([3600 / tau]))) * variance - shared)
            @ ((np.exp(-60 * lags / tau) - fit_windows.averaged(np.array([3600 / tau]))) * variance - shared)
        )
        for tau in taus
    ]
    return Modulation(round(float(np.sqrt(np.log1p(variance))), 2), float(taus[np.argmin(misfit)]))


def fit_service(service: str, traces: Path) -> Service:
    """The figures of a service as they are committed."""
    return Service(
        pattern=fit_fast(service, traces),
        slow=fit_slow(windows_of(service, traces)),
        lengths=LengthMix(
            (0.0, *LEVELS, 1.0),
            quantiles(service, "ContextTokens", traces),
            quantiles(service, "GeneratedTokens", traces),
            round(fit_windows.rank_correlation(fit_windows.hour_of_2023(KINDS[service], traces)), 2),
        ),
        prompt_mean=weekly_means(service, traces)[0],
        output_mean=weekly_means(service, traces)[1],
    )


def main() -> None:
    traces = Path(os.environ["PRESERVE_GYM_DATA"]) / "traces"
    for service in KINDS:
        pprint.pprint(fit_service(service, traces), compact=True, width=108)
    print("burstgpt", fit_burstgpt(traces))


if __name__ == "__main__":
    main()
