"""The reward of a control interval.

::

    reward      = reward_cost + reward_slo
    reward_cost = -scale * (instance_s - baseline_s) / (max_instances * interval_s)
    reward_slo  = -scale * violation_weight * min(violations / n, 1)

* ``instance_s``: instance-seconds billed in the interval, starting and draining ones included;
* ``baseline_s = baseline_headroom * forecast need * duration of the interval``: a cost that no action
  changes. Subtracting it moves no optimum, but makes returns comparable between busy and quiet hours;
* ``violations``: requests whose first missed deadline passed in the interval, each counted once;
* ``n = mean request rate of the workload * interval_s``, a constant. A realised count would pay a
  policy for quiet intervals; the cap keeps one collapse from drowning everything else.

Why its optimum is what an operator wants: where the cap does not bind, the sum over an episode is, up
to a constant and a factor, minus the fleet's cost minus ``violation_weight`` times the share of requests
that missed the SLO, so the weight is the price of a violation and each weight picks one point of the
cost-attainment front. Delaying a decision gains nothing, since a violation is charged when it becomes
certain and an instance as long as it is billed.
"""

from __future__ import annotations

from preserve_gym.config import RewardConfig


def reward_parts(
    config: RewardConfig,
    *,
    instance_s: float,
    baseline_instances: float,
    violations: int,
    requests_per_interval: float,
    max_instances: int,
    interval_s: float,
    duration_s: float,
) -> tuple[float, float]:
    """``reward_cost`` and ``reward_slo`` of one interval.

    Args:
        instance_s: instance-seconds billed in the interval.
        baseline_instances: forecast need, in instances; not rounded.
        violations: SLO violations charged in the interval.
        requests_per_interval: the constant ``n``.
        max_instances: largest fleet.
        interval_s: nominal length of an interval.
        duration_s: its actual length; the last of an episode may be shorter.
    """
    baseline_s = config.baseline_headroom * baseline_instances * duration_s
    cost = (instance_s - baseline_s) / (max_instances * interval_s)
    missed = min(violations / requests_per_interval, 1.0)
    return -config.scale * cost, -config.scale * config.violation_weight * missed
