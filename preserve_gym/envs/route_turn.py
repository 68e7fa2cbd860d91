"""A turn of ``Route``, compiled: send the request, serve until the next one, observe."""

from __future__ import annotations

import functools
import math
from typing import Any

import numba

from preserve_gym.envs.env_state import (
    BEGIN,
    STEP,
    EnvState,
    Turns,
    next_environment,
    take_env,
    take_event_loop,
    take_router,
    take_state,
    take_view,
)
from preserve_gym.envs.physical import count_ready, count_targets, total_index
from preserve_gym.envs.route_observation import observe_request
from preserve_gym.envs.route_reward import reward_latency, reward_violations
from preserve_gym.sim.by_reference import ByReferenceType
from preserve_gym.sim.jit import kernel, typed_kernel
from preserve_gym.sim.lifecycle import scale_to
from preserve_gym.sim.state import READY, REJECTED, State
from preserve_gym.sim.totals import sum_totals

ROUTE_INFO = {
    "time_s": float,
    "target": int,
    "ready": int,
    "instance": int,
    "violations": int,
    "reward_latency": float,
    "reward_slo": float,
}
"""Figures of info, and their types; ``instance`` is where the last request went, -1 if there was none."""

_VIOLATIONS = total_index("violations")


@functools.cache
def compile_route_turns() -> Any:
    """The compiled function ``(turns) -> None``, which releases the GIL."""
    notice = "preserve_gym: compiling the environments, once, about 10 s"
    return typed_kernel(numba.void(ByReferenceType(Turns)), notice)(_route_turns)


def _route_turns(turns: Turns) -> None:
    event_loop = take_event_loop(turns.functions, 0)
    route, warmup_route = take_router(turns.routers, 0), take_router(turns.routers, 1)
    j = next_environment(turns)
    while j >= 0:
        s, view, e = take_state(turns.states, j), take_view(turns.views, j), take_env(turns.envs, j)
        if e.episode[0].next == BEGIN:
            _begin(s, view, e, event_loop, route, warmup_route)
        else:
            _take_turn(s, view, e, event_loop, route)
        j = next_environment(turns)


@kernel
def _begin(s: State, view: Any, e: EnvState, event_loop: Any, route: Any, warmup_route: Any) -> None:
    c, episode = e.constants[0], e.episode[0]
    episode.next = STEP
    episode.request, episode.chosen = -1, -1
    for k in range(len(e.weights)):
        s.weights[k] = e.weights[k]
    while episode.schedule_row < len(e.schedule_s) and e.schedule_s[episode.schedule_row] < episode.start_s:
        event_loop(s, view, e.schedule_s[episode.schedule_row], warmup_route, c.warmup_reads)
        _follow_schedule(s, e)
    event_loop(s, view, episode.start_s, warmup_route, c.warmup_reads)
    sum_totals(s, e.start)
    for k in range(len(e.start)):
        e.before[k] = e.start[k]
    episode.last_s = episode.start_s
    _serve(s, view, e, event_loop, route)
    episode.ended = 0  # without any request, too, the first step ends it
    observe_request(s, e)
    # What passes before the first decision counts for it, as nobody decided anything before.
    _inform(s, e, 0.0, 0.0, 0.0)


@kernel
def _take_turn(s: State, view: Any, e: EnvState, event_loop: Any, route: Any) -> None:
    episode = e.episode[0]
    if episode.request >= 0:
        episode.chosen = _nearest_ready(s, e.action[0])
        s.totals[0].decision = episode.chosen
        s.totals[0].admitted = episode.request + 1
        episode.request = -1
        if episode.steps > 0:
            for k in range(len(e.now)):
                e.before[k] = e.now[k]
        episode.last_s = s.totals[0].now_s
        episode.steps += 1
    _serve(s, view, e, event_loop, route)
    observe_request(s, e)
    violations = e.now[_VIOLATIONS] - e.before[_VIOLATIONS]
    _inform(s, e, violations, reward_latency(e), reward_violations(e))


@kernel
def _serve(s: State, view: Any, e: EnvState, event_loop: Any, route: Any) -> None:
    """Serve until a request waits for a decision, the caller wants to act, or the episode ends."""
    c, episode = e.constants[0], e.episode[0]
    # A pause less than a microsecond before the end is rounding, as in ``Autoscale``.
    stop_s = episode.pause_s if episode.pause_s < episode.end_s - 1e-6 else episode.end_s
    while True:
        r = max(s.totals[0].next_request, s.totals[0].admitted)
        while r < len(s.requests) and s.requests[r].status == REJECTED:
            r += 1
        arrival_s = s.requests[r].arrival_s if r < len(s.requests) else math.inf
        change_s = math.inf
        if episode.schedule_row < len(e.schedule_s):
            change_s = e.schedule_s[episode.schedule_row]
        if change_s <= arrival_s and change_s < stop_s:
            event_loop(s, view, change_s, route, c.reads)
            _follow_schedule(s, e)
        elif arrival_s < stop_s:
            # Rejected ones that arrive at the same time come first.
            s.totals[0].admitted = r
            event_loop(s, view, arrival_s, route, c.reads)
            episode.request = r
            break
        else:
            event_loop(s, view, stop_s, route, c.reads)
            episode.ended = stop_s == episode.end_s
            break
    sum_totals(s, e.now)


@kernel
def _follow_schedule(s: State, e: EnvState) -> None:
    episode = e.episode[0]
    scale_to(s, e.schedule_instances[episode.schedule_row], s.totals[0].now_s)
    episode.schedule_row += 1


@kernel
def _nearest_ready(s: State, chosen: int) -> int:
    """``chosen`` if it is ready, else the ready slot nearest to it; the lower one of two."""
    if s.instances[chosen].state == READY:
        return chosen
    for distance in range(1, len(s.instances)):
        if chosen >= distance and s.instances[chosen - distance].state == READY:
            return chosen - distance
        if chosen + distance < len(s.instances) and s.instances[chosen + distance].state == READY:
            return chosen + distance
    return chosen


@kernel
def _inform(s: State, e: EnvState, violations: float, latency: float, slo: float) -> None:
    e.info[0] = s.totals[0].now_s
    e.info[1] = count_targets(s)
    e.info[2] = count_ready(s)
    e.info[3] = e.episode[0].chosen
    e.info[4] = violations
    e.info[5] = latency
    e.info[6] = slo
