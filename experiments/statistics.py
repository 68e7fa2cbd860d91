"""Estimates from runs that are grouped in seeds and days, with their 95 % intervals.

Intervals come from Student's t and the jackknife: how much the estimate moves when a seed, or a day, is left
out. With the few seeds and days that experiments have, the percentile bootstrap covers too little; measured
coverages of both are in docs/reading-the-report.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95

FloatArray = NDArray[np.float64]
Statistic = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Estimate:
    """A figure of several policies, and how far chance may have moved it.

    Attributes:
        value: float64[policies].
        seed_error: standard error from the choice of seeds, float64[policies]; NaN of one seed.
        day_error: the same from the choice of days (evaluation windows).
        seeds, days: how many there are.
    """

    value: FloatArray
    seed_error: FloatArray
    day_error: FloatArray
    seeds: int
    days: int

    @classmethod
    def of(cls, cells: FloatArray, statistic: Statistic) -> Estimate:
        """A function of totals.

        Args:
            cells: of shape (seeds, days, policies, ...), what is summed up.
            statistic: makes float64[policies] of the totals, of shape (policies, ...); of a part of the
                seeds or days it is given their totals scaled up to all.
        """
        seeds, days = cells.shape[:2]
        value = statistic(cells.sum(axis=(0, 1)))
        return cls(
            value,
            _jackknife(cells.sum(axis=1), statistic),
            _jackknife(cells.sum(axis=0), statistic),
            seeds,
            days,
        )

    def over_seeds(self) -> tuple[FloatArray, FloatArray]:
        """Interval for other seeds on the same days; NaN of one seed."""
        half = _t(np.full_like(self.value, self.seeds - 1)) * self.seed_error
        return self.value - half, self.value + half

    def over_days(self) -> tuple[FloatArray, FloatArray]:
        """Interval for other seeds on other days of the same kind; NaN of one day.

        Both sources of chance are added, the degrees of freedom are those of Satterthwaite; of one seed,
        days are the only source.
        """
        seed = np.nan_to_num(self.seed_error) ** 2
        day = self.day_error**2
        of_seeds = seed**2 / max(self.seeds - 1, 1)
        of_days = day**2 / max(self.days - 1, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            freedom = (seed + day) ** 2 / (of_seeds + of_days)
        half = _t(np.where(seed + day > 0.0, freedom, 1.0)) * np.sqrt(seed + day)
        return self.value - half, self.value + half


def _jackknife(clusters: FloatArray, statistic: Statistic) -> FloatArray:
    """Standard error of a statistic of the totals of clusters, shape (clusters, policies, ...)."""
    n = len(clusters)
    total = clusters.sum(axis=0)
    if n < 2:
        return np.full(len(total), np.nan)
    without = np.array([statistic((total - cluster) * (n / (n - 1))) for cluster in clusters])
    return np.sqrt((n - 1) / n * ((without - without.mean(axis=0)) ** 2).sum(axis=0))


def _t(freedom: FloatArray) -> FloatArray:
    return stats.t.ppf(0.5 + 0.5 * LEVEL, np.where(freedom > 0.0, freedom, np.nan))


def miss_statistic(totals: FloatArray) -> FloatArray:
    """Logarithm of the share of requests that missed the SLO, on which it is less skewed.

    Half a request is added, so that none missed has a logarithm.

    Args:
        totals: violations and arrivals, shape (policies, 2).
    """
    return np.log((totals[:, 0] + 0.5) / (totals[:, 1] + 1.0))


def interval(values: FloatArray) -> tuple[float, float, float]:
    """Mean of independent values and its 95 % interval by Student's t."""
    mean = float(values.mean())
    half = float(stats.t.ppf(0.5 + 0.5 * LEVEL, len(values) - 1) * stats.sem(values))
    return mean, mean - half, mean + half


def change(log_ratio: FloatArray) -> tuple[float, float, float]:
    """Geometric mean change in %, with its 95 % interval, from logarithms of ratios."""
    mean, low, high = (100.0 * float(np.expm1(value)) for value in interval(log_ratio))
    return mean, low, high


def share(part: FloatArray, whole: FloatArray) -> tuple[float, float, float]:
    """Mean of ``part`` over that of ``whole`` in %, and its 95 % bootstrap interval over pairs."""
    draws = np.random.default_rng(0).integers(len(part), size=(4000, len(part)))
    shares = part[draws].mean(axis=1) / whole[draws].mean(axis=1)
    low, high = np.percentile(shares, [50.0 - 50.0 * LEVEL, 50.0 + 50.0 * LEVEL])
    return 100.0 * float(part.mean() / whole.mean()), 100.0 * float(low), 100.0 * float(high)
