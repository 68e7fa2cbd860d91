"""Fits the synthetic services of ``preserve_gym.traces.synthetic_fits`` to public traces.

Run as ``python -m tests.fit_synthetic`` with the data folder in ``PRESERVE_GYM_DATA``: prints the
figures that the module records and, for each service, what generated hours show beside the real hour.

Method. *Profiles*: hourly counts of Monday to Friday 2024, averaged over the days, and of Saturday and
Sunday. *Swell*: log of a weekday hour's count over the profile; its standard deviation, and the
exponential that fits its autocorrelation at 1, 2, 3 and 6 h. *Slow*: that of the services of 2024 within
their hours (``tests/fit_azure_2024.py``), its variance times the ratio of their rates to those of 2023.
The rest comes from the 2023 hour cut in windows of 10 minutes (``tests/fit_windows.py``).
"""

from __future__ import annotations

import os
import pprint
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preserve_gym.traces import Trace, synthetic_trace
from preserve_gym.traces.modulation import Modulation
from preserve_gym.traces.synthetic_fits import SERVICES, ServiceFit
from tests import fit_azure_2024, fit_windows
from tests.fit_windows import hour_of_2023, quantiles, rank_correlation

FloatArray = NDArray[np.float64]
SWELL_GRID_S = np.arange(1.0, 25.0, 0.5) * 3600


def fit_service(kind: str, traces: Path) -> ServiceFit:
    """The fit of a service, rounded as it is committed."""
    hourly_rate, weekend_rate, swell = fit_week(kind, traces)
    trace = hour_of_2023(kind, traces)
    windows = [trace.slice(600.0 * k, 600.0 * (k + 1)) for k in range(5)]
    pattern, _ = fit_windows.fit_service(windows, silent=kind == "code")
    service = fit_windows.SOURCES[kind]
    slow = fit_azure_2024.fit_slow(fit_azure_2024.windows_of(service, traces))
    size = fit_azure_2024.size_over_2023(service, traces)
    return ServiceFit(
        default_rate_rps=SERVICES[kind].default_rate_rps,
        hourly_rate=hourly_rate,
        weekend_rate=weekend_rate,
        swell=swell,
        slow=replace(slow, log_std=round(slow.averaged(1 / size).log_std, 3)),
        ripple=pattern.modulations[0],
        bin_variance=pattern.bin_variance,
        silence=pattern.silence,
        length_correlation=round(rank_correlation(trace), 2),
        prompt_quantiles=quantiles(trace.prompt_tokens),
        output_quantiles=quantiles(trace.output_tokens),
    )


def hours_of_2024(kind: str, traces: Path, *, weekend: bool) -> pd.DataFrame:
    """Requests of each hour of the weekdays or the weekend of 2024 (UTC), in order of time.

    Columns hour, requests.
    """
    week = pd.read_csv(traces / "azure_llm_2024_hourly.csv.gz", parse_dates=["time_gst"])
    start = week["time_gst"] - pd.Timedelta(hours=4)
    requests = week[f"requests_{fit_windows.SOURCES[kind]}"]
    table = pd.DataFrame({"start": start, "requests": requests}).sort_values("start")
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


def relative_variance(arrival_s: FloatArray, window_s: float) -> float:
    """Variance over squared mean of the rate in windows: that of the counts less Poisson's."""
    counts = np.bincount((arrival_s // window_s).astype(int))[:-1]
    return float((counts.var() - counts.mean()) / counts.mean() ** 2)


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
    for kind in fit_windows.SOURCES:
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
