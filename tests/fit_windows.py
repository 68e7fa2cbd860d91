"""Fits how a service's rate moves inside windows whose counts are known, and its lengths, to requests.

Used by ``tests/resemblance.py`` (fitted on every other window of a 2023 hour, tested on the others) and by
``tests/fit_azure_2024.py``.

Method. *Ripple and bin noise*: variance of the counts in bins of 0.5 to 120 s around the mean of their
window, less Poisson's, over the squared mean; averaged over windows; by least squares of the relative
error on a process of variance V and correlation time tau plus white noise, of which each window's own
mean is taken off too. What moves from window to window is in the counts, and so not in the fit.
*Silence*: gaps longer than ``IDLE_MIN_S``; means of busy and idle periods and the second moment of the
idle ones; the ripple is then that of a clock that stops while idle. *Lengths*: empirical quantiles and
Spearman's correlation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preserve_gym.traces import Trace, read_trace
from preserve_gym.traces.length_mix import LengthMix
from preserve_gym.traces.modulation import BIN_S, ArrivalPattern, Modulation, Silence
from preserve_gym.traces.synthetic_fits import QUANTILE_LEVELS
from preserve_gym.traces.window_counts import WindowCounts

FloatArray = NDArray[np.float64]
SOURCES = {"chat": "conv", "code": "code"}
IDLE_MIN_S = 2.0
BINS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)
TAU_GRID_S = np.geomspace(1.0, 600.0, 60)


def hour_of_2023(kind: str, traces: Path) -> Trace:
    return read_trace(traces / f"azure_llm_2023_{SOURCES[kind]}.csv.gz")


def quantiles(tokens: NDArray[np.int32]) -> tuple[int, ...]:
    return tuple(int(q) for q in np.rint(np.quantile(tokens, QUANTILE_LEVELS)))


def rank_correlation(trace: Trace) -> float:
    ranks = [pd.Series(tokens).rank() for tokens in (trace.prompt_tokens, trace.output_tokens)]
    return float(np.corrcoef(ranks)[0, 1])


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


def averaged(x: FloatArray) -> FloatArray:
    """Variance of the mean of a process over x of its correlation times, relative to its own."""
    return 2 * (x - 1 + np.exp(-x)) / x**2


def within_variance(arrival_s: FloatArray, window_s: float, windows: int, bin_s: float) -> float:
    """Relative variance of the rate in bins around the mean of their window, averaged over windows."""
    bins = int(window_s // bin_s)
    values = []
    for k in range(windows):
        first = k * window_s
        inside = arrival_s[(arrival_s >= first) & (arrival_s < first + bins * bin_s)] - first
        count = np.bincount((inside // bin_s).astype(int), minlength=bins).astype(float)
        values.append((count.var(ddof=1) - count.mean()) / count.mean() ** 2)
    return float(np.mean(values))


def _expected(tau: float, window_s: float, bin_s: float) -> tuple[float, float]:
    """What a process of variance 1, and noise of variance 1 in each ``BIN_S``, contribute to it."""
    bins = int(window_s // bin_s)
    over = np.array([bin_s / tau, bins * bin_s / tau])
    of_bin, of_window = averaged(over)
    factor = bins / (bins - 1)
    return factor * (of_bin - of_window), factor * BIN_S * (1 / bin_s - 1 / (bins * bin_s))


def fit_ripple(arrival_s: FloatArray, window_s: float, windows: int) -> tuple[Modulation, float]:
    """Ripple and bin variance that explain the variance within windows."""
    bins = [bin_s for bin_s in BINS_S if bin_s <= window_s / 4]
    measured = np.array([within_variance(arrival_s, window_s, windows, bin_s) for bin_s in bins])
    best = None
    for tau in TAU_GRID_S:
        design = np.array([_expected(tau, window_s, bin_s) for bin_s in bins]) / measured[:, None]
        coefficients, *_ = np.linalg.lstsq(design, np.ones(len(bins)), rcond=None)
        misfit = float(((design @ coefficients - 1) ** 2).sum())
        if (coefficients > 0).all() and (best is None or misfit < best[0]):
            best = misfit, float(tau), *coefficients
    assert best is not None
    _, tau, variance, noise = best
    log_std = float(np.sqrt(np.log1p(variance)))
    return Modulation(round(log_std, 3), round(tau, 1)), round(float(noise / (1 + variance)), 3)


def fit_service(windows: Sequence[Trace], *, silent: bool) -> tuple[ArrivalPattern, LengthMix]:
    """Pattern and lengths of a service from some windows of it, all of one length.

    Args:
        windows: each a slice of the recording.
        silent: whether the service falls silent.
    """
    window_s = windows[0].span_s
    arrival_s = np.concatenate([w.arrival_s + k * window_s for k, w in enumerate(windows)])
    silence = None
    count = len(windows)
    if silent:
        silence, arrival_s = fit_silence(arrival_s)
        window_s = float(arrival_s[-1]) / count  # of the clock that stops while idle
    ripple, bin_variance = fit_ripple(arrival_s, window_s, count)
    prompt_tokens, output_tokens = (
        np.concatenate([getattr(w, name) for w in windows]) for name in ("prompt_tokens", "output_tokens")
    )
    whole = Trace(np.arange(len(prompt_tokens)), prompt_tokens, output_tokens)
    lengths = LengthMix(
        QUANTILE_LEVELS,
        quantiles(prompt_tokens),
        quantiles(output_tokens),
        round(rank_correlation(whole), 2),
    )
    return ArrivalPattern((ripple,), bin_variance, silence), lengths


def window_counts(trace: Trace, window_s: float) -> WindowCounts:
    """What is left of a recording if only the sums of its whole windows are published."""
    n = int(trace.span_s // window_s)
    whole = trace.slice(0.0, n * window_s)
    window = np.minimum((whole.arrival_s // window_s).astype(int), n - 1)
    requests = np.bincount(window, minlength=n)
    prompt_mean, output_mean = (
        np.bincount(window, tokens, n) / requests for tokens in (whole.prompt_tokens, whole.output_tokens)
    )
    return WindowCounts(
        trace.name, "from its windows", window_s, trace.clock_s, requests, prompt_mean, output_mean
    )
