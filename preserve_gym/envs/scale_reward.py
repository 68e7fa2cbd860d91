"""The reward of a control interval.

::

    reward      = reward_cost + reward_slo
    reward_cost = -scale * (instance_s - baseline_s) / (max_instances * interval_s)
    reward_slo  = -scale * violation_weight * min(violations / n, 1)

* ``instance_s``: instance-seconds billed in the interval, starting and draining ones included;
* ``baseline_s = baseline_headroom * forecast need * duration of the interval``: a cost that no action
  changes. Subtracting it moves no optimum, but makes returns comparable between busy and quiet hours;
* ``violations``: requests whose first missed deadline passed in the interval, each counted once;
* ``violation_weight``: that of the configuration, or the one drawn for the episode;
* ``n = mean request rate of the workload * interval_s``, a constant. A realised count would pay a
  policy for quiet intervals; the cap keeps one collapse from drowning everything else.

Why its optimum is what an operator wants: where the cap does not bind, the sum over an episode is, up
to a constant and a factor, minus the fleet's cost minus ``violation_weight`` times the share of requests
that missed the SLO, so the weight is the price of a violation and each weight picks one point of the
cost-attainment front. Delaying a decision gains nothing, since a violation is charged when it becomes
certain and an instance as long as it is billed.
"""

from __future__ import annotations

from preserve_gym.envs.env_state import EnvState
from preserve_gym.envs.physical import total_index
from preserve_gym.sim.jit import kernel
from preserve_gym.sim.state import State

_INSTANCE_S, _VIOLATIONS = total_index("instance_s"), total_index("violations")


@kernel
def reward_cost(s: State, e: EnvState, baseline_instances: float, duration_s: float) -> float:
    """Of the interval from ``e.before`` to ``e.now``.

    Args:
        baseline_instances: the forecast need, not rounded.
        duration_s: of the interval; the last of an episode may be shorter than the others.
    """
    c = e.constants[0]
    instance_s = e.now[_INSTANCE_S] - e.before[_INSTANCE_S]
    baseline_s = c.baseline_headroom * baseline_instances * duration_s
    return -c.scale * ((instance_s - baseline_s) / (len(s.instances) * c.interval_s))


@kernel
def reward_slo(e: EnvState) -> float:
    """Of the interval from ``e.before`` to ``e.now``."""
    c = e.constants[0]
    missed = min((e.now[_VIOLATIONS] - e.before[_VIOLATIONS]) / c.requests_per_interval, 1.0)
    # In this order, so that the vector reward times its weights is the same number.
    return e.episode[0].violation_weight * (-c.scale * missed)
