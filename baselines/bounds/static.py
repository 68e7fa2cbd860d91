"""The best constant fleet."""

from __future__ import annotations

import math
from dataclasses import dataclass

from baselines.bounds.lower import LowerBound
from baselines.bounds.problem import Outcome, Problem, play


@dataclass(frozen=True, eq=False)
class BestStatic:
    """The smallest constant fleet that meets the target.

    Attributes:
        instances: its size; that of the largest fleet if not even that meets the target.
        outcome: what it costs and achieves.
        attainments: SLO attainment of the smaller fleets that were tried, and its own, by size.
        meets: whether the target is met. Else the scenario cannot be served at the target.
    """

    instances: int
    outcome: Outcome
    attainments: dict[int, float]
    meets: bool


def best_static(problem: Problem, lower: LowerBound) -> BestStatic:
    """Try every size, the smallest first: attainment need not rise with it for the answer to be right.

    Args:
        lower: a fleet that costs less than this bound cannot meet the target and is not tried.
    """
    cluster, attainments = problem.cluster, {}
    horizons_s = sum(episode.horizon_s for episode in problem.episodes)
    least = cluster.max_instances
    if lower.instance_s < horizons_s * cluster.max_instances:
        least = max(cluster.min_instances, math.ceil(lower.instance_s / horizons_s - 1e-9))
    for instances in range(least, cluster.max_instances + 1):
        outcome = play(problem, problem.constant(instances))
        attainments[instances] = outcome.attainment
        if outcome.violations <= problem.allowed:
            break
    return BestStatic(instances, outcome, attainments, outcome.violations <= problem.allowed)
