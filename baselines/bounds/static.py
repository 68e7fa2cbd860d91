"""The best constant fleet."""

from __future__ import annotations

from dataclasses import dataclass

from baselines.bounds.problem import Outcome, Problem, play


@dataclass(frozen=True, eq=False)
class BestStatic:
    """The smallest constant fleet that meets the target.

    Attributes:
        instances: its size; that of the largest fleet if not even that meets the target.
        outcome: what it costs and achieves.
        attainments: SLO attainment of every smaller fleet of the cluster, and its own, by size.
        meets: whether the target is met. Else the scenario cannot be served at the target.
    """

    instances: int
    outcome: Outcome
    attainments: dict[int, float]
    meets: bool


def best_static(problem: Problem) -> BestStatic:
    """Try every size, the smallest first: attainment need not rise with it for the answer to be right."""
    cluster, attainments = problem.cluster, {}
    for instances in range(cluster.min_instances, cluster.max_instances + 1):
        outcome = play(problem, problem.constant(instances))
        attainments[instances] = outcome.attainment
        if outcome.violations <= problem.allowed:
            break
    return BestStatic(instances, outcome, attainments, outcome.violations <= problem.allowed)
