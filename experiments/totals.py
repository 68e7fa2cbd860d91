"""The fast way to play: attainment and GPU-hours of an autoscaler, and nothing else."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from experiments.playing import Policy, begin, settled, turns
from preserve_gym.sim.totals import named_totals
from preserve_gym.workload import Workload


class Totals(NamedTuple):
    """What came of all evaluation windows together."""

    arrived: int
    violations: int
    gpu_hours: float

    @property
    def attainment(self) -> float:
        """Share of the requests that met every deadline; 1 where none arrived."""
        return 1.0 - self.violations / self.arrived if self.arrived else 1.0


def play_totals(workload: Workload, policy: Policy) -> Totals:
    """Let a policy play the evaluation windows of a workload.

    The figures are those of ``experiments.evaluate.play_windows``, to the bit, but no table is made.
    """
    workload = workload.with_predictions(policy.forecaster, policy.predictor)
    arrived, violations, instance_s, gpus = 0, 0, 0.0, 0
    for start_s in workload.evaluation_windows.tolist():
        batch = begin(workload, policy, start_s, seed=0)
        deque(turns(batch, policy), maxlen=0)
        instance_s += float(named_totals(batch.now[0] - batch.start[0])["instance_s"])
        of_window = settled(batch).violations(start_s)
        arrived, violations = arrived + of_window[0], violations + of_window[1]
        gpus = batch.task.setting.cluster.instance.gpus
    return Totals(arrived, violations, instance_s * gpus / 3600.0)
