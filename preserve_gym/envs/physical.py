"""What an environment measures, in physical units: one float64 vector, and where in it each quantity lies.

All of it is known to a controller at that time: nothing depends on true output lengths of unfinished requests
or on future arrivals (forecasts know what their forecaster knows).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from preserve_gym.envs.env_state import EnvState
from preserve_gym.sim.anticipator import peaks
from preserve_gym.sim.jit import kernel
from preserve_gym.sim.state import F8, READY, STARTING, State
from preserve_gym.sim.totals import TOTALS
from preserve_gym.traces.trace import SECONDS_PER_DAY

HUGE = 1e15
"""Bound of quantities that have none of their own."""

RATE_SPANS_S = (10.0, 30.0, 60.0, 120.0, 300.0)

PER_INSTANCE = {
    "state": 3.0,
    "ready_in_s": HUGE,
    "running": HUGE,
    "waiting": HUGE,
    "queued_prefill_tokens": HUGE,
    "expected_tokens": HUGE,
    "kv_use": 1.0,
    "anticipated_peak": HUGE,
    "anticipated_overload": 1.0,
}
"""Arrays over the slots, with their upper bounds; ``Snapshot`` says what they are.

``ready_in_s`` is what a controller can expect: the mean cold start less the time since its start, at least 0.
"""
N_PER_INSTANCE = len(PER_INSTANCE)

SCALARS = {
    "time_s": HUGE,
    "time_of_day_s": SECONDS_PER_DAY,
}
RATES = ("request_rate", "prompt_token_rate", "output_token_rate")
"""Requests, prompt tokens and predicted output tokens per second over each of ``RATE_SPANS_S``."""

Physical = dict[str, NDArray[np.float64]]


class Layout:
    """Where each quantity lies in the vector of physical quantities, and between which bounds.

    Args:
        quantities: size and upper bound of each, in order; the lower one is 0.
    """

    def __init__(self, quantities: Mapping[str, tuple[int, float]]) -> None:
        self.space = spaces.Dict(
            {name: spaces.Box(0.0, high, (size,), np.float64) for name, (size, high) in quantities.items()}
        )
        self.places: dict[str, slice] = {}
        at = 0
        for name, (size, _) in quantities.items():
            self.places[name] = slice(at, at + size)
            at += size
        self.size = at

    def named(self, values: NDArray[np.float64]) -> Physical:
        """The quantities of one vector, or of many in a leading axis, by name; copies."""
        return {name: values[..., place].copy() for name, place in self.places.items()}


@kernel
def measure_instances(s: State, e: EnvState) -> None:
    """Write ``PER_INSTANCE``, which is what ``e.physical`` begins with."""
    for i in range(len(s.instances)):
        measure_instance(s, e, i, 0, 0)


@kernel
def measure_instance(s: State, e: EnvState, i: int, prompt: int, predicted: int) -> float:
    """Write ``PER_INSTANCE`` of instance ``i``; return its anticipated peak with such a request more."""
    out, n = e.physical, len(s.instances)
    instance = s.instances[i]
    capacity = s.params[0].kv_blocks * s.params[0].block_size
    limit = e.constants[0].overload_use * capacity
    most, above, most_with = peaks(s, i, limit, prompt, predicted)
    ready_in_s = 0.0
    if instance.state == STARTING:
        ready_in_s = max(e.constants[0].mean_cold_start_s - (s.totals[0].now_s - instance.started_s), 0.0)
    out[i] = instance.state
    out[n + i] = ready_in_s
    out[2 * n + i] = s.in_flight[i] - s.waiting[i]
    out[3 * n + i] = s.waiting[i]
    out[4 * n + i] = s.queued_prefill_tokens[i]
    out[5 * n + i] = s.expected_tokens[i]
    out[6 * n + i] = s.blocks_used[i] / s.params[0].kv_blocks
    out[7 * n + i] = most / capacity
    out[8 * n + i] = above / (len(s.map_tokens) - 1)
    return most_with / capacity


@kernel
def measure_rates(e: EnvState, at: int, now: float, last: int) -> int:
    """Write ``RATES`` from position ``at`` on; ``last`` requests of the workload have arrived by ``now``."""
    out, n = e.physical, len(RATE_SPANS_S)
    first = last
    for k in range(n):
        span_s = RATE_SPANS_S[k]
        first = first_since(e.arrival_s, now - span_s, first)
        # A trace that is younger than the span has had less time; a moment of it gives no rate.
        span_s = min(span_s, max(now, 1.0))
        out[at + k] = (last - first) / span_s
        out[at + n + k] = (e.prompt_before[last] - e.prompt_before[first]) / span_s
        out[at + 2 * n + k] = (e.predicted_before[last] - e.predicted_before[first]) / span_s
    return at + 3 * n


@kernel
def first_since(arrival_s: F8, time_s: float, before: int) -> int:
    """The first of the requests before ``before`` that arrives at ``time_s`` or later, else ``before``."""
    step, high = 16, before
    low = max(high - step, 0)
    while low > 0 and arrival_s[low] >= time_s:
        high, step = low, 2 * step
        low = max(high - step, 0)
    while low < high:
        middle = (low + high) // 2
        if arrival_s[middle] < time_s:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def count_targets(s: State) -> int:
    """Instances starting or ready."""
    n = 0
    for i in range(len(s.instances)):
        n += s.instances[i].state == STARTING or s.instances[i].state == READY
    return n


@kernel
def count_ready(s: State) -> int:
    """Instances that are ready."""
    n = 0
    for i in range(len(s.instances)):
        n += s.instances[i].state == READY
    return n


def total_index(name: str) -> int:
    """Where a total lies in the vector of totals."""
    return list(TOTALS).index(name)


def quantities_of(slots: int) -> dict[str, tuple[int, float]]:
    """Size and bound of ``PER_INSTANCE`` for ``slots`` instances."""
    return {name: (slots, high) for name, high in PER_INSTANCE.items()}


def scalar(quantities: Mapping[str, float]) -> dict[str, Any]:
    """Quantities of size 1 with these bounds."""
    return {name: (1, high) for name, high in quantities.items()}
