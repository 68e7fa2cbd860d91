"""Scores of runs that differ in nothing but the seed, such as trainings: robust means and comparisons.

These are for scores of learning. For costs and attainment of a service they are wrong: an interquartile mean
leaves out the days that operators fear.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from experiments.statistics import LEVEL
from preserve_gym.errors import InputError

FloatArray = NDArray[np.float64]


def interquartile_mean(scores: FloatArray) -> float:
    """Mean of the middle half of all scores, of shape (runs, tasks)."""
    return float(stats.trim_mean(_checked(scores), 0.25, axis=None))


def performance_profile(scores: FloatArray, levels: FloatArray) -> FloatArray:
    """Share of all scores, of shape (runs, tasks), that exceed each of the levels; shape of ``levels``."""
    return (_checked(scores).reshape(-1, 1) > levels).mean(axis=0)


def probability_of_improvement(scores: FloatArray, others: FloatArray) -> float:
    """Probability that a run beats another one's on the same task, mean over tasks; ties count half.

    Args:
        scores: of shape (runs, tasks).
        others: of shape (other runs, tasks).
    """
    scores, others = _checked(scores), _checked(others)
    if scores.shape[1] != others.shape[1]:
        raise InputError(f"others: expected scores of {scores.shape[1]} tasks, got {others.shape[1]}")
    gap = scores[:, None] - others[None]
    return float(((gap > 0.0) + 0.5 * (gap == 0.0)).mean())


def bootstrap_interval(
    statistic: Callable[..., float], *scores: FloatArray, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of a statistic; within each task runs are drawn with replacement.

    Args:
        statistic: of one or more arrays of shape (runs, tasks).
        scores: those arrays; each is resampled by itself.
    """
    rng = np.random.default_rng(seed)
    arrays = [_checked(array) for array in scores]
    values = []
    for _ in range(resamples):
        draws = [rng.integers(len(array), size=array.shape) for array in arrays]
        values.append(
            statistic(*(np.take_along_axis(a, d, axis=0) for a, d in zip(arrays, draws, strict=True)))
        )
    low, high = np.percentile(values, [50.0 - 50.0 * LEVEL, 50.0 + 50.0 * LEVEL])
    return float(low), float(high)


def _checked(scores: FloatArray) -> FloatArray:
    if scores.ndim != 2 or scores.size == 0 or not np.isfinite(scores).all():
        raise InputError(f"scores: expected finite numbers of shape (runs, tasks), got shape {scores.shape}")
    return scores
