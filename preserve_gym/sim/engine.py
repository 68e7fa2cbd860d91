"""The event loop: arrivals, routing, and the instances in between.

Order at equal times: ends of iterations, then instances becoming ready or off, then deadlines, then
the caller (who looks and scales), then arrivals in the order of the trace, then scheduling.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import float64, int64, types, void

from preserve_gym.sim.anticipator import bound_peaks, find_peak, track_peaks
from preserve_gym.sim.by_reference import ByReferenceType
from preserve_gym.sim.execution import advance, advance_due, enqueue
from preserve_gym.sim.jit import entry_point, inlined, typed_kernel
from preserve_gym.sim.lifecycle import update_ready
from preserve_gym.sim.routing import (
    READS_ANTICIPATED,
    READS_KV,
    READS_THROUGHPUT,
    ROUTER_SIGNATURE,
    RequestView,
    RouterView,
)
from preserve_gym.sim.slo import decide, decide_past_slots, watch
from preserve_gym.sim.state import READY, REJECTED, State

EVENT_LOOP_SIGNATURE = void(
    ByReferenceType(State), ByReferenceType(RouterView), float64, types.FunctionType(ROUTER_SIGNATURE), int64
)
"""Of the event loop."""

TICK_S = 10.0
"""Span over which throughputs are measured, as vLLM logs them."""


def _run_until(s: State, view: Any, t: float, route: Any, reads: int) -> None:
    totals = s.totals[0]
    tracks = 1 if reads & READS_ANTICIPATED else 0
    if tracks != totals.tracks_peaks:
        track_peaks(s, tracks)
    next_ready = update_ready(s, totals.now_s)
    r = totals.next_request
    while r < len(s.requests) and (s.requests[r].arrival_s < t or r < totals.admitted):
        request = s.requests[r]
        now = request.arrival_s
        if reads & READS_THROUGHPUT:
            _measure_throughput(s, now)
        advance_due(s, now)
        if next_ready <= now:
            next_ready = update_ready(s, now)
        decide_past_slots(s, now)
        counts = s.counts[request.request_class]
        counts.arrived += 1
        counts.prompt_tokens += request.prompt_tokens
        counts.predicted_tokens += request.predicted_tokens
        if request.status == REJECTED:
            counts.rejected += 1
            counts.violations += 1
        else:
            seen = RequestView(now, np.int64(request.prompt_tokens), np.int64(request.predicted_tokens))
            if reads & READS_ANTICIPATED:
                bound_peaks(s, now, seen.prompt_tokens, seen.predicted_tokens)
            i = route(view, seen)
            while (
                reads & (READS_KV | READS_ANTICIPATED) and 0 <= i < len(s.instances) and s.refined_for[i] != r
            ):
                s.refined_for[i] = r
                if s.quiet_until_s[i] > now:
                    advance(s, i, now)
                if reads & READS_ANTICIPATED:
                    find_peak(s, i, now, seen.prompt_tokens, seen.predicted_tokens)
                i = route(view, seen)
            if i < 0 or i >= len(s.instances) or s.instances[i].state != READY:
                raise ValueError("the router returned an instance that is not ready")
            totals.routed += 1
            if s.quiet_until_s[i] > now:
                advance(s, i, now)
            enqueue(s, i, r, now)
            watch(s, r)
        r += 1
        totals.next_request = r
    if reads & READS_THROUGHPUT and r < len(s.requests):
        _measure_throughput(s, t)
    for i in range(len(s.instances)):
        advance(s, i, t)
    update_ready(s, t)
    decide(s, t)
    totals.now_s = t


@inlined
def _measure_throughput(s: State, now: float) -> None:
    """Measure the throughput at every tick up to ``now``."""
    totals = s.totals[0]
    # After a long time without arrivals only the last two ticks count.
    totals.tick = max(totals.tick, int((now - s.params[0].start_s) / TICK_S) - 2)
    while s.params[0].start_s + TICK_S * totals.tick <= now:
        tick_s = s.params[0].start_s + TICK_S * totals.tick
        for i in range(len(s.instances)):
            advance(s, i, tick_s)
            instance = s.instances[i]
            s.prompt_throughput[i] = (instance.first_prompt_tokens - instance.tick_prompt_tokens) / TICK_S
            s.generation_throughput[i] = (instance.generated_tokens - instance.tick_generated_tokens) / TICK_S
            instance.tick_prompt_tokens = instance.first_prompt_tokens
            instance.tick_generated_tokens = instance.generated_tokens
        totals.tick += 1


@functools.cache
def compile_event_loop() -> Any:
    """The compiled event loop ``(state, view, t, router, reads) -> None``.

    Plays everything that happens up to ``t``: iterations ending by ``t``, arrivals before ``t`` (and, of the
    requests before ``totals.admitted``, at ``t``), scheduling turns before ``t``, deadlines up to ``t``. The
    first call compiles it, or loads it from the cache on disk.

    ``reads`` says what the router reads, see ``routing``. Raises ValueError if the router returns an
    instance that is not ready, OverflowError if an instance runs more iterations than can be numbered.
    """
    notice = "preserve_gym: compiling the simulator, once, about 10 s"
    return typed_kernel(EVENT_LOOP_SIGNATURE, notice)(_run_until)


@functools.cache
def run_until() -> Any:
    """What Python calls to run the event loop; it takes arguments of just the right types."""
    return entry_point(compile_event_loop())
