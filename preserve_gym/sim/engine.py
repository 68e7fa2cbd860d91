"""The event loop: arrivals, routing, and the instances in between.

Order at equal times: ends of iterations, then instances becoming ready or off, then deadlines, then
the caller (who looks and scales), then arrivals in the order of the trace, then scheduling.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numba import boolean, float64, typeof, types, void

from preserve_gym.config import ClusterConfig, InstanceConfig
from preserve_gym.latency.law import LatencyLaw
from preserve_gym.sim.execution import advance, enqueue
from preserve_gym.sim.jit import typed_kernel
from preserve_gym.sim.lifecycle import update_ready
from preserve_gym.sim.routers import ROUTER_SIGNATURE, RequestView, RouterView
from preserve_gym.sim.slo import decide, violate, watch
from preserve_gym.sim.state import READY, REJECTED, State, make_state


def _run_until(s: State, t: float, route: Any, exact_blocks: bool) -> None:
    p, totals = s.params[0], s.totals[0]
    next_ready = update_ready(s, totals.now_s)
    r = totals.next_request
    while r < len(s.requests) and s.requests[r].arrival_s < t:
        request = s.requests[r]
        now = request.arrival_s
        for i in range(len(s.instances)):
            if s.quiet_until_s[i] <= now or (exact_blocks and s.quiet_until_s[i] < math.inf):
                advance(s, i, now)
        if next_ready <= now:
            next_ready = update_ready(s, now)
        if totals.n_deadlines > 0 and s.deadline_s[0] <= now:
            decide(s, now)  # here and not only at the end, so that the heap stays small
        totals.arrived += 1
        totals.prompt_tokens += request.prompt_tokens
        totals.predicted_tokens += request.predicted_tokens
        if request.status == REJECTED:
            totals.rejected += 1
            violate(totals, request, now)
        else:
            i = route(
                RouterView(
                    s.instances, s.ready, totals.n_ready, totals.routed, p.seed, p.kv_blocks, p.block_size
                ),
                RequestView(now, np.int64(request.prompt_tokens), np.int64(request.predicted_tokens)),
            )
            if i < 0 or i >= len(s.instances) or s.instances[i].state != READY:
                raise ValueError("the router returned an instance that is not ready")
            totals.routed += 1
            if s.quiet_until_s[i] > now:
                advance(s, i, now)
            enqueue(s, i, r, now)
            watch(s, r)
        r += 1
        totals.next_request = r
    for i in range(len(s.instances)):
        advance(s, i, t)
    update_ready(s, t)
    decide(s, t)
    totals.now_s = t


@functools.cache
def run_until() -> Any:
    """The compiled event loop ``(state, t, router, exact_blocks) -> None``.

    Plays everything that happens up to ``t``: iterations ending by ``t``, arrivals before ``t``,
    scheduling turns before ``t``, deadlines up to ``t``. The first call compiles it, or loads it from
    the cache on disk.

    With ``exact_blocks`` the router sees ``blocks_used`` as it is at the arrival; without, instances that
    just decode are not brought up to date for it, which is faster. Raises ValueError if the router returns
    an instance that is not ready.
    """
    instance = InstanceConfig(latency=LatencyLaw(1.0, 0.0, 0.0, 0.0), num_gpu_blocks=2)
    none = np.zeros(0, np.int32)
    state = make_state(ClusterConfig(instance=instance), np.zeros(0), none, none, none)
    return typed_kernel(void(typeof(state), float64, types.FunctionType(ROUTER_SIGNATURE), boolean))(
        _run_until
    )
