"""Statistics of arrivals and lengths that no fit of ``tests/resemblance.py`` has seen."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preserve_gym.traces import Trace

FloatArray = NDArray[np.float64]
BINS_S = (1.0, 5.0, 10.0, 30.0, 60.0, 120.0)
LAGS_S = (10, 30, 60)


def counts(trace: Trace, bin_s: float) -> FloatArray:
    """Requests in each whole bin of the trace."""
    bins = int(trace.span_s / bin_s)
    number = (trace.arrival_s / bin_s).astype(int)
    return np.bincount(number[number < bins], minlength=bins).astype(np.float64)


def windows_of(trace: Trace, window_s: float) -> list[Trace]:
    return [trace.slice(k * window_s, (k + 1) * window_s) for k in range(int(trace.span_s / window_s))]


def dispersion(trace: Trace, bin_s: float) -> float:
    """Variance over mean of the counts of bins, 1 for Poisson arrivals."""
    count = counts(trace, bin_s)
    return float(count.var(ddof=1) / count.mean())


def autocorrelation(trace: Trace, lag_s: int) -> float:
    """Correlation of the counts of 10 s with those ``lag_s`` later."""
    count, lag = counts(trace, 10.0), lag_s // 10
    return float(np.corrcoef(count[:-lag], count[lag:])[0, 1])


def statistics(trace: Trace, window_s: float) -> dict[str, float]:
    """Of arrivals inside windows: means over the windows; of lengths and extremes: of the whole trace."""
    windows = windows_of(trace, window_s)
    gaps = [np.diff(window.arrival_s) for window in windows]
    figures = {"CV of gaps": float(np.mean([gap.std() / gap.mean() for gap in gaps]))}
    for bin_s in BINS_S:
        figures[f"index of dispersion, {bin_s:g} s"] = float(np.mean([dispersion(w, bin_s) for w in windows]))
    for lag_s in LAGS_S:
        figures[f"autocorrelation of 10 s counts, {lag_s} s"] = float(
            np.mean([autocorrelation(w, lag_s) for w in windows])
        )
    figures["most requests in 10 s"] = float(counts(trace, 10.0).max())
    figures["longest gap, s"] = float(np.diff(trace.arrival_s).max())
    ranks = [pd.Series(tokens).rank() for tokens in (trace.prompt_tokens, trace.output_tokens)]
    figures["rank correlation of prompt and output"] = float(np.corrcoef(ranks)[0, 1])
    for name, tokens in (("prompt", trace.prompt_tokens), ("output", trace.output_tokens)):
        for level in (50, 90, 99):
            figures[f"{name} tokens P{level}"] = float(np.percentile(tokens, level))
    return figures
