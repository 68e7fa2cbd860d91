"""Fits the synthetic services of ``preserve_gym.traces.synthetic_fits`` to public traces.

Run as ``python -m tests.fit_synthetic`` with the data folder in ``PRESERVE_GYM_DATA``: prints the
figures that the module records and, for each service, what generated hours show beside the real hour.

Method. *Lengths*: empirical quantiles and Spearman's correlation of the 2023 hour. *Profile*: hourly
counts of Monday to Friday 2024, averaged over the days, and of Saturday and Sunday. *Swell*: log of an hour's count over the
profile; its standard deviation, and the exponential that fits its autocorrelation at 1, 2, 3 and 6 h.
*Silence* (code only): gaps of the 2023 hour longer than ``IDLE_MIN_S``; means of busy and idle
periods and the second moment of the idle ones. *Ripple and bin noise*: the relative variance of the
rate over windows of 0.5 to 120 s (counts less Poisson, silence cut out), by least squares of the
relative error on a process of variance V and correlation time tau plus white noise.
"""

from __future__ import annotations

import os
import pprint
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preserve_gym.traces import Trace, read_trace, synthetic_trace
from preserve_gym.traces.modulation import BIN_S, Modulation, Silence
from preserve_gym.traces.synthetic_fits import QUANTILE_LEVELS, SERVICES, ServiceFit

FloatArray = NDArray[np.float64]
SOURCES = {"chat": "conv", "code": "code"}
IDLE_MIN_S = 2.0
WINDOWS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)
RIPPLE_GRID_S = {"chat": np.arange(30.0, 900.0, 5.0), "code": np.arange(1.0, 60.0, 0.5)}
SWELL_GRID_S = np.arange(1.0, 25.0, 0.5) * 3600


def hour_of_2023(kind: str, traces: Path) -> Trace:
    return read_trace(traces / f"azure_llm_2023_{SOURCES[kind]}.csv.gz")


def fit_service(kind: str, traces: Path) -> ServiceFit:
    """The fit of a service, rounded as it is committed."""
    trace = hour_of_2023(kind, traces)
    hourly_rate, weekend_rate, swell = fit_week(kind, traces)
    silence, arrival_s = fit_silence(trace.arrival_s) if kind == "code" else (None, trace.arrival_s)
    ripple, bin_variance = fit_ripple(arrival_s, RIPPLE_GRID_S[kind])
    return ServiceFit(
        default_rate_rps=SERVICES[kind].default_rate_rps,
        hourly_rate=hourly_rate,
        weekend_rate=weekend_rate,
        swell=swell,
        ripple=ripple,
        bin_variance=bin_variance,
        silence=silence,
        length_correlation=round(rank_correlation(trace), 2),
        prompt_quantiles=quantiles(trace.prompt_tokens),
        output_quantiles=quantiles(trace.output_tokens),
    )


def quantiles(tokens: NDArray[np.int32]) -> tuple[int, ...]:
    return tuple(int(q) for q in np.rint(np.quantile(tokens, QUANTILE_LEVELS)))


def rank_correlation(trace: Trace) -> float:
    ranks = [pd.Series(tokens).rank() for tokens in (trace.prompt_tokens, trace.output_tokens)]
    return float(np.corrcoef(ranks)[0, 1])


def hours_of_2024(kind: str, traces: Path, *, weekend: bool) -> pd.DataFrame:
    """Requests of each hour of the weekdays or the weekend of 2024 (UTC): columns hour, requests, in order of time."""
    week = pd.read_csv(traces / "azure_llm_2024_hourly.csv.gz", parse_dates=["time_gst"])
    start = week["time_gst"] - pd.Timedelta(hours=4)
    table = pd.DataFrame({"start": start, "requests": week[f"requests_{SOURCES[kind]}"]}).sort_values("start")
    table = table[(table["start"].dt.weekday >= 5) == weekend]
    return table.assign(hour=table["start"].dt.hour)[["hour", "requests"]]


def fit_week(kind: str, traces: Path) -> tuple[tuple[float, ...], tuple[float, ...], Modulation]:
    hours = hours_of_2024(kind, traces, weekend=False)
    profile = hours.groupby("hour")["requests"].mean()
    log_count = np.log(hours["requests"])
    residual = (log_count - log_count.groupby(hours["hour"]).transform("mean")).to_numpy()
    lags = np.array([1, 2, 3, 6])
    correlation = [np.corrcoef(residual[:-lag], residual[lag:])[0, 1] for lag in lags]
    misfit = ((np.exp(-np.outer(3600 / SWELL_GRID_S, lags)) - correlation) ** 2).sum(axis=1)
    # Each hour's mean of the five days is itself estimated.
    std = residual.std() * np.sqrt(5 / 4)
    weekend = hours_of_2024(kind, traces, weekend=True).groupby("hour")["requests"].mean()
    weekday_rates, weekend_rates = (
        tuple(round(float(rate), 3) for rate in rates / profile.mean()) for rates in (profile, weekend)
    )
    return (
        weekday_rates,
        weekend_rates,
        Modulation(round(float(std), 3), float(SWELL_GRID_S[np.argmin(misfit)])),
    )


def fit_silence(arrival_s: FloatArray) -> tuple[Silence, FloatArray]:
    """The silence, and the arrivals on a clock that stops while idle."""
    gap = np.diff(arrival_s)
    is_idle = gap > IDLE_MIN_S
    idle = gap[is_idle] - IDLE_MIN_S
    busy_mean = gap[~is_idle].sum() / (is_idle.sum() + 1)
    # Two exponentials of equal weight with the mean and the second moment of the idle periods.
    total = 2 * idle.mean()
    half_difference = min(np.sqrt(max(2 * (idle**2).mean() - total**2, 0.0)), total) / 2
    short, long = total / 2 - half_difference, total / 2 + half_difference
    busy_clock = np.r_[0.0, np.cumsum(np.where(is_idle, 0.0, gap))]
    busy_mean, short, long = (round(float(mean), 1) for mean in (busy_mean, short, long))
    return Silence(busy_mean, IDLE_MIN_S, short, long), busy_clock


def relative_variance(arrival_s: FloatArray, window_s: float) -> float:
    """Variance over squared mean of the rate in windows: that of the counts less Poisson's."""
    counts = np.bincount((arrival_s // window_s).astype(int))[:-1]
    return float((counts.var() - counts.mean()) / counts.mean() ** 2)


def averaged(x: FloatArray) -> FloatArray:
    """Variance of the mean of a process over x of its correlation times, relative to its own."""
    return 2 * (x - 1 + np.exp(-x)) / x**2


def fit_ripple(arrival_s: FloatArray, grid_s: FloatArray) -> tuple[Modulation, float]:
    windows = np.array(WINDOWS_S)
    measured = np.array([relative_variance(arrival_s, w) for w in WINDOWS_S])
    best = None
    for tau in grid_s:
        # Variance is measured around the hour's own mean.
        process = averaged(windows / tau) - averaged(np.array([arrival_s[-1] / tau]))
        design = np.stack((process, BIN_S / windows), axis=1) / measured[:, None]
        coefficients, *_ = np.linalg.lstsq(design, np.ones(len(windows)), rcond=None)
        misfit = float(((design @ coefficients - 1) ** 2).sum())
        if (coefficients > 0).all() and (best is None or misfit < best[0]):
            best = misfit, float(tau), *coefficients
    assert best is not None
    _, tau, variance, noise = best
    log_std = float(np.sqrt(np.log1p(variance)))
    return Modulation(round(log_std, 3), tau), round(float(noise / (1 + variance)), 3)


def arrival_cv(arrival_s: FloatArray) -> float:
    gap = np.diff(arrival_s)
    return float(gap.std() / gap.mean())


def generated_hours(kind: str, real: Trace, count: int) -> list[Trace]:
    """Hours at the real trace's time of day, with its mean rate over all of them."""
    clock_s = float(int(real.clock_s))
    hours = [
        synthetic_trace(kind, duration_s=real.span_s, start_clock_s=clock_s, mean_rate_rps=1.0, seed=seed)
        for seed in range(count)
    ]
    rate = len(real) / np.mean([len(hour) for hour in hours])
    return [
        synthetic_trace(
            kind, duration_s=real.span_s, start_clock_s=clock_s, mean_rate_rps=float(rate), seed=seed
        )
        for seed in range(count)
    ]


def main() -> None:
    traces = Path(os.environ["PRESERVE_GYM_DATA"]) / "traces"
    for kind in SOURCES:
        print(kind)
        pprint.pprint(asdict(fit_service(kind, traces)), sort_dicts=False, compact=True, width=108)
        real = hour_of_2023(kind, traces)
        hours = generated_hours(kind, real, 40)
        rows = {"cv": [arrival_cv(t.arrival_s) for t in [real, *hours]]}
        for window_s in (1.0, 10.0, 60.0, 120.0, 300.0, 600.0):
            rows[f"rv{window_s:g}"] = [relative_variance(t.arrival_s, window_s) for t in [real, *hours]]
        for name in ("prompt_tokens", "output_tokens"):
            rows[f"mean {name}"] = [float(getattr(t, name).mean()) for t in [real, *hours]]
            for level in (0.1, 0.25, 0.5, 0.75, 0.9, 0.99):
                rows[f"p{100 * level:g} {name}"] = [
                    float(np.quantile(getattr(t, name), level)) for t in [real, *hours]
                ]
        rows["rank correlation"] = [rank_correlation(t) for t in [real, *hours]]
        rows["requests"] = [float(len(t)) for t in [real, *hours]]
        print(f"{'':22s}{'real':>10s}{'generated: mean':>18s}{'p10':>10s}{'p90':>10s}")
        for name, (real_value, *values) in rows.items():
            low, high = np.percentile(values, [10, 90])
            print(f"{name:22s}{real_value:10.3f}{np.mean(values):18.3f}{low:10.3f}{high:10.3f}")


if __name__ == "__main__":
    main()
