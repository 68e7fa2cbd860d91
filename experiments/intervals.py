"""Means of independent runs, paired or not, with their 95 % intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95


def interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean of independent values and its 95 % interval by Student's t."""
    mean = float(values.mean())
    half = float(stats.t.ppf(0.5 + 0.5 * LEVEL, len(values) - 1) * stats.sem(values))
    return mean, mean - half, mean + half


def change(log_ratio: NDArray[np.float64]) -> tuple[float, float, float]:
    """Geometric mean change in %, with its 95 % interval, from logarithms of ratios."""
    mean, low, high = (100.0 * float(np.expm1(value)) for value in interval(log_ratio))
    return mean, low, high


def share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean of ``part`` over that of ``whole`` in %, and its 95 % bootstrap interval over pairs."""
    draws = np.random.default_rng(0).integers(len(part), size=(4000, len(part)))
    shares = part[draws].mean(axis=1) / whole[draws].mean(axis=1)
    low, high = np.percentile(shares, [50.0 - 50.0 * LEVEL, 50.0 + 50.0 * LEVEL])
    return 100.0 * float(part.mean() / whole.mean()), 100.0 * float(low), 100.0 * float(high)
