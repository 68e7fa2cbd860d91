"""What policies would cost at the same SLO attainment, from what they cost at their own.

Parameters that just meet the target on validation windows miss it on others, or do better than it, and a
policy that misses more is cheaper. How much cheaper is known from its front on the validation windows: near
the target GPU-hours change by a power of the share of requests missed, the *elasticity*, from -0.3 to 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from baselines.tuned import SUFFIX
from experiments.statistics import FloatArray, miss_statistic

RANGE = 2.0
"""A share missed that is further from the target's than by this factor is not taken to the target."""
_NEAR = 8.0
_STEEPEST = -0.5

Elasticities = Mapping[tuple[str, str], float]
"""By scenario and policy, at most 0."""


def read_elasticities(tables: Path, target: float) -> dict[tuple[str, str], float]:
    """Those of all policies that were tuned.

    Of a policy whose front has too few points near the target, it is the median of the scenario's others; a
    scenario where none has them has none.

    Args:
        tables: folder of ``python -m experiments.tune``.
        target: SLO attainment.
    """
    found: dict[tuple[str, str], float] = {}
    for path in sorted(tables.glob("*.csv")):
        table = pd.read_csv(path)
        fronts = table[table["on_front"]].groupby(["scenario", "policy"], sort=False)
        of_scenario = {
            (str(scenario), str(policy)): elasticity(
                front["attainment"].to_numpy(), front["gpu_hours"].to_numpy(), target
            )
            for (scenario, policy), front in fronts
        }
        known = [value for value in of_scenario.values() if not np.isnan(value)]
        if known:
            usual = float(np.median(known))
            found |= {key: usual if np.isnan(value) else value for key, value in of_scenario.items()}
    return found


def with_tuned(elasticities: Elasticities) -> dict[tuple[str, str], float]:
    """The same also for ``NAME-tuned``: defaults and tuned parameters lie on one front."""
    tuned = {(scenario, name + SUFFIX): value for (scenario, name), value in elasticities.items()}
    return {**elasticities, **tuned}


def elasticity(attainment: FloatArray, gpu_hours: FloatArray, target: float) -> float:
    """Slope of the logarithm of GPU-hours along that of the share missed, near the target.

    Args:
        attainment, gpu_hours: of the points of a front.
        target: SLO attainment.

    Returns:
        By least squares over the points within a factor of ``_NEAR`` of what the target allows to be missed;
        NaN where fewer than three are, or where the slope is below ``_STEEPEST``, as no front is.
    """
    with np.errstate(divide="ignore"):
        distance = np.log((1.0 - attainment) / (1.0 - target))
    near = np.abs(distance) <= np.log(_NEAR)
    if np.unique(distance[near]).size < 3:
        return np.nan
    slope = float(np.polyfit(distance[near], np.log(gpu_hours[near]), 1)[0])
    return np.nan if slope < _STEEPEST else min(slope, 0.0)


def log_gpu_hours(totals: FloatArray, elasticities: FloatArray, target: float) -> FloatArray:
    """Logarithm of the GPU-hours at the target.

    Args:
        totals: violations, arrivals and GPU-hours, shape (policies, 3).
        elasticities: shape (policies,).
        target: SLO attainment.

    Returns:
        Shape (policies,). Of who misses less than 1 / ``RANGE`` of what is allowed, only that much is taken
        off, so it is an upper bound; NaN of who misses more than ``RANGE`` times as much.
    """
    distance = miss_statistic(totals[:, :2]) - np.log(1.0 - target)
    taken = np.where(distance > np.log(RANGE), np.nan, np.maximum(distance, -np.log(RANGE)))
    return np.log(totals[:, 2]) - elasticities * taken


def log_gpu_hours_along(totals: FloatArray, elasticity: float, target: float) -> float:
    """Logarithm of the GPU-hours at the target of one policy that has played with several parameters.

    Args:
        totals: of each, violations, arrivals and GPU-hours, shape (points, 3).
        elasticity: near the target, at most 0.
        target: SLO attainment.

    Returns:
        Between the two points around the target, along the logarithm of the share missed; where there are
        none, ``log_gpu_hours`` of the point that is nearest.
    """
    distance = miss_statistic(totals[:, :2]) - np.log(1.0 - target)
    logs = np.log(totals[:, 2])
    meets = distance <= 0.0
    if meets.any() and not meets.all():
        low = int(np.argmax(np.where(meets, distance, -np.inf)))
        high = int(np.argmin(np.where(meets, np.inf, distance)))
        share = distance[high] / (distance[high] - distance[low])
        return float(share * logs[low] + (1.0 - share) * logs[high])
    nearest = int(np.argmin(np.abs(distance)))
    return float(log_gpu_hours(totals[None, nearest], np.array([elasticity]), target)[0])
