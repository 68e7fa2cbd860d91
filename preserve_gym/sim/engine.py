"""The event loop: arrivals, routing, and the instances in between.

Order at equal times: ends of iterations, then instances becoming ready or off, then deadlines, then
the caller (who looks and scales), then arrivals in the order of the trace, then scheduling.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import float64, types, typeof, void

from preserve_gym.config import ClusterConfig, InstanceConfig
from preserve_gym.latency.law import LatencyLaw
from preserve_gym.sim.execution import advance, enqueue
from preserve_gym.sim.jit import typed_kernel
from preserve_gym.sim.lifecycle import update_ready
from preserve_gym.sim.routers import ROUTER_SIGNATURE, RequestView, RouterView
from preserve_gym.sim.slo import decide, violate, watch
from preserve_gym.sim.state import (
    ARRIVED,
    N_READY,
    NEXT_REQUEST,
    NOW_S,
    OFF,
    PREDICTED_TOKENS,
    PROMPT_TOKENS,
    READY,
    REJECTED,
    REJECTED_COUNT,
    ROUTED,
    Instances,
    Params,
    Requests,
    Totals,
    make_instances,
    make_params,
    make_requests,
    make_totals,
)


def _run_until(p: Params, rq: Requests, ins: Instances, tot: Totals, t: float, route: Any) -> None:
    next_ready = update_ready(p, ins, tot, tot.sums[NOW_S])
    n = len(rq.arrival_s)
    r = tot.counts[NEXT_REQUEST]
    while r < n and rq.arrival_s[r] < t:
        now = rq.arrival_s[r]
        for i in range(p.max_instances):
            if ins.iteration_end_s[i] <= now or ins.schedule_at_s[i] < now:
                advance(p, rq, ins, tot, i, now)
        if next_ready <= now:
            next_ready = update_ready(p, ins, tot, now)
        tot.counts[ARRIVED] += 1
        tot.counts[PROMPT_TOKENS] += rq.prompt_tokens[r]
        tot.counts[PREDICTED_TOKENS] += rq.predicted_tokens[r]
        if rq.status[r] == REJECTED:
            tot.counts[REJECTED_COUNT] += 1
            violate(rq, tot, r, now)
        else:
            view = RouterView(
                tot.ready,
                tot.counts[N_READY],
                tot.counts[ROUTED],
                ins.n_running,
                ins.n_waiting,
                ins.queued_prefill_tokens,
                ins.expected_tokens,
                ins.blocks_used,
                p.kv_blocks,
            )
            request = RequestView(now, np.int64(rq.prompt_tokens[r]), np.int64(rq.predicted_tokens[r]))
            i = route(view, request)
            if i < 0 or i >= p.max_instances or ins.state[i] != READY:
                raise ValueError("the router returned an instance that is not ready")
            tot.counts[ROUTED] += 1
            enqueue(p, rq, ins, tot, i, r, now)
            watch(p, rq, tot, r)
        r += 1
        tot.counts[NEXT_REQUEST] = r
    for i in range(p.max_instances):
        if ins.state[i] != OFF:
            advance(p, rq, ins, tot, i, t)
    update_ready(p, ins, tot, t)
    decide(p, rq, tot, t)
    tot.sums[NOW_S] = t


@functools.cache
def run_until() -> Any:
    """The compiled event loop ``(params, requests, instances, totals, t, router) -> None``.

    Plays everything that happens up to ``t``: iterations ending by ``t``, arrivals before ``t``,
    scheduling turns before ``t``, deadlines up to ``t``.  The first call compiles it, or loads it from
    the cache on disk.  Raises ValueError if the router returns an instance that is not ready.
    """
    config = ClusterConfig(instance=InstanceConfig(latency=LatencyLaw(1.0, 0.0, 0.0, 0.0), num_gpu_blocks=2))
    none = np.zeros(0, np.int32)
    empty = make_requests(np.zeros(0), none, none, none)
    signature = void(
        typeof(make_params(config)),
        typeof(empty),
        typeof(make_instances(config)),
        typeof(make_totals(config, 0)),
        float64,
        types.FunctionType(ROUTER_SIGNATURE),
    )
    return typed_kernel(signature)(_run_until)

