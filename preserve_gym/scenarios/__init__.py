"""Scenarios: a workload and the cluster that serves it, by name or from a file of the user's own."""

from preserve_gym.scenarios.frozen import FrozenWindows, frozen_windows, trace_digest
from preserve_gym.scenarios.scenario import Scenario, load_scenario, scenario_names, scenario_of

__all__ = [
    "FrozenWindows",
    "Scenario",
    "frozen_windows",
    "load_scenario",
    "scenario_names",
    "scenario_of",
    "trace_digest",
]
