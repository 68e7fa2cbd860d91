"""The reward of a routed request.

::

    reward         = reward_latency + reward_slo
    reward_latency = -scale * (in_flight_s - in_flight_s at the last decision) / unloaded_e2e_s
    reward_slo     = -scale * violation_weight * violations

* ``in_flight_s``: requests running and waiting in the cluster, integrated over time;
* ``unloaded_e2e_s``: mean end-to-end latency of requests that have an instance to themselves, a constant;
* ``violations``: requests whose first missed deadline passed since the last decision, each counted once.

Why its optimum is what an operator wants: each request adds to the integral for as long as it is there, so
the sum over an episode is minus the total latency of all requests within the horizon, in latencies of an
unloaded one, minus ``violation_weight`` for each that missed the SLO. No choice earns anything by delaying:
time that a request waits counts as it passes, whether or not another request arrives.
"""

from __future__ import annotations

from preserve_gym.envs.env_state import EnvState
from preserve_gym.envs.physical import total_index
from preserve_gym.sim.jit import kernel

_IN_FLIGHT_S, _VIOLATIONS = total_index("in_flight_s"), total_index("violations")


@kernel
def reward_latency(e: EnvState) -> float:
    """From ``e.before``, at the last decision, to ``e.now``."""
    c = e.constants[0]
    return -c.scale * ((e.now[_IN_FLIGHT_S] - e.before[_IN_FLIGHT_S]) / c.unloaded_e2e_s)


@kernel
def reward_violations(e: EnvState) -> float:
    """From ``e.before``, at the last decision, to ``e.now``."""
    violations = e.now[_VIOLATIONS] - e.before[_VIOLATIONS]
    return -e.constants[0].scale * e.episode[0].violation_weight * violations
