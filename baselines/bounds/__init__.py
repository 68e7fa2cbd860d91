"""Bounds between which the results of autoscalers lie: constant fleet, hindsight schedule, lower bound."""

from baselines.bounds.hindsight import Hindsight, as_policy, find_hindsight
from baselines.bounds.lower import LowerBound, lower_bound
from baselines.bounds.problem import Outcome, Problem, Schedule, play
from baselines.bounds.static import BestStatic, best_static

__all__ = [
    "BestStatic",
    "Hindsight",
    "LowerBound",
    "Outcome",
    "Problem",
    "Schedule",
    "as_policy",
    "best_static",
    "find_hindsight",
    "lower_bound",
    "play",
]
