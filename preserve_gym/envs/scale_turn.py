"""A turn of ``Autoscale`` and ``Cluster``, compiled: scale, serve one control interval, observe."""

from __future__ import annotations

import functools
from typing import Any

import numba

from preserve_gym.envs.env_state import (
    BEGIN,
    LOOK,
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
from preserve_gym.envs.scale_observation import forecast_row, observe
from preserve_gym.envs.scale_reward import reward_cost, reward_slo
from preserve_gym.sim.by_reference import ByReferenceType
from preserve_gym.sim.jit import kernel, typed_kernel
from preserve_gym.sim.lifecycle import scale_to
from preserve_gym.sim.state import State
from preserve_gym.sim.totals import sum_totals

SCALE_INFO = {
    "time_s": float,
    "target": int,
    "ready": int,
    "arrived": int,
    "completed": int,
    "violations": int,
    "instance_s": float,
    "reward_cost": float,
    "reward_slo": float,
}
"""Figures of info, and their types."""

_ARRIVED, _COMPLETED = total_index("arrived"), total_index("completed")
_VIOLATIONS, _INSTANCE_S = total_index("violations"), total_index("instance_s")


@functools.cache
def compile_scale_turns() -> Any:
    """The compiled function ``(turns) -> None``, which releases the GIL."""
    notice = "preserve_gym: compiling the environments, once, about 10 s"
    return typed_kernel(numba.void(ByReferenceType(Turns)), notice)(_scale_turns)


def _scale_turns(turns: Turns) -> None:
    event_loop = take_event_loop(turns.functions, 0)
    route = take_router(turns.routers, 0)
    j = next_environment(turns)
    while j >= 0:
        _take_turn(
            take_state(turns.states, j), take_view(turns.views, j), take_env(turns.envs, j), event_loop, route
        )
        j = next_environment(turns)


@kernel
def _take_turn(s: State, view: Any, e: EnvState, event_loop: Any, route: Any) -> None:
    c, episode = e.constants[0], e.episode[0]
    if episode.next == LOOK:
        for k in range(len(e.now)):
            e.before[k] = e.now[k]
        sum_totals(s, e.now)
        observe(s, e)
        return
    for k in range(len(e.weights)):
        s.weights[k] = e.weights[k]
    if episode.next == BEGIN:
        episode.next = STEP
        start_s = episode.start_s
        lead_in_s = max(start_s - c.interval_s, start_s - episode.warmup_s)
        event_loop(s, view, lead_in_s, route, c.reads)
        sum_totals(s, e.before)
        event_loop(s, view, start_s, route, c.reads)
        sum_totals(s, e.now)
        for k in range(len(e.now)):
            e.start[k] = e.now[k]
        episode.last_target = count_targets(s)
        observe(s, e)
        _inform(s, e, 0.0, 0.0)
        return
    last_s = s.totals[0].now_s
    row, _ = forecast_row(e, last_s)
    episode.last_target = count_targets(s)
    scale_to(s, e.action[0], last_s)
    episode.steps += 1
    time_s = episode.start_s + episode.steps * c.interval_s
    # An interval shorter than a microsecond is rounding, not an interval.
    if time_s >= episode.end_s - 1e-6:
        time_s = episode.end_s
        episode.ended = 1
    for k in range(len(e.now)):
        e.before[k] = e.now[k]
    event_loop(s, view, time_s, route, c.reads)
    sum_totals(s, e.now)
    observe(s, e)
    _inform(s, e, reward_cost(s, e, e.needs[row * c.horizon], time_s - last_s), reward_slo(e))


@kernel
def _inform(s: State, e: EnvState, cost: float, slo: float) -> None:
    e.info[0] = s.totals[0].now_s
    e.info[1] = count_targets(s)
    e.info[2] = count_ready(s)
    e.info[3] = e.now[_ARRIVED] - e.before[_ARRIVED]
    e.info[4] = e.now[_COMPLETED] - e.before[_COMPLETED]
    e.info[5] = e.now[_VIOLATIONS] - e.before[_VIOLATIONS]
    e.info[6] = e.now[_INSTANCE_S] - e.before[_INSTANCE_S]
    e.info[7] = cost
    e.info[8] = slo
