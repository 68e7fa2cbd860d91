"""Instances come and go: off -> starting (cold start) -> ready -> draining -> off."""

from __future__ import annotations

import math

from preserve_gym.sim.draws import uniform
from preserve_gym.sim.jit import entry, kernel
from preserve_gym.sim.state import DRAINING, GHOST_SLOTS, OFF, READY, STARTING, State

_FIRST_DRAW = 1 << 62
"""Far from the draws of routers, which count requests."""


@kernel
def update_ready(s: State, now: float) -> float:
    """Make ready what is due by ``now`` and list the ready slots.

    Returns:
        When the next starting instance becomes ready, inf if none is starting.
    """
    next_ready = math.inf
    n = 0
    for i in range(len(s.instances)):
        if s.instances[i].state == STARTING:
            if s.instances[i].ready_at_s <= now:
                s.instances[i].state = READY
            else:
                next_ready = min(next_ready, s.instances[i].ready_at_s)
        if s.instances[i].state == READY:
            s.ready[n] = i
            n += 1
    s.totals[0].n_ready = n
    return next_ready


@entry
def scale_to(s: State, target: int, now: float) -> None:
    """Set how many instances are starting or ready to ``target``, within the bounds of the cluster.

    Up: take back draining instances, the latest to drain first, then start new ones in the lowest
    free slots, as far as there are any. Down: cancel starting instances, the latest started first
    (off at once, but billed for the whole cold start), then drain ready ones, the one with the fewest
    requests first, ties to the highest slot (off at once if it has none).
    """
    target = min(max(target, s.params[0].min_instances), len(s.instances))
    wanted = 0
    for i in range(len(s.instances)):
        if s.instances[i].state == STARTING or s.instances[i].state == READY:
            wanted += 1
    while wanted < target:
        i = _latest_draining(s)
        if i >= 0:
            s.instances[i].state = READY
        else:
            i = 0
            while i < len(s.instances) and s.instances[i].state != OFF:
                i += 1
            if i == len(s.instances):
                break
            _start(s, i, now)
        wanted += 1
        s.totals[0].scale_ups += 1
    while wanted > target:
        i = _latest_starting(s)
        if i >= 0:
            s.instances[i].state = OFF
            s.instances[i].instance_s += s.instances[i].ready_at_s - s.instances[i].started_s
        else:
            i = _least_loaded_ready(s)
            if s.in_flight[i] == 0:
                s.instances[i].state = OFF
                s.instances[i].instance_s += now - s.instances[i].started_s
            else:
                s.instances[i].state = DRAINING
                s.instances[i].draining_order = s.totals[0].drains
                s.totals[0].drains += 1
        wanted -= 1
        s.totals[0].scale_downs += 1
    update_ready(s, now)


@kernel
def _start(s: State, i: int, now: float) -> None:
    """Begin the cold start of slot ``i``; where there are several, draw how long it takes."""
    instance = s.instances[i]
    k = 0
    if len(s.cold_starts_s) > 1:
        k = int(uniform(s.params[0].seed, _FIRST_DRAW + s.totals[0].starts) * len(s.cold_starts_s))
    instance.state = STARTING
    instance.started_s = now
    instance.ready_at_s = now + s.cold_starts_s[k]
    s.totals[0].starts += 1
    # A new replica knows nothing of the last one in its slot.
    s.prompt_throughput[i], s.generation_throughput[i] = 0.0, 0.0
    instance.tick_prompt_tokens = instance.first_prompt_tokens
    instance.tick_generated_tokens = instance.generated_tokens
    for slot in range(i * GHOST_SLOTS, (i + 1) * GHOST_SLOTS):
        s.ghost_step[slot] = -1
    s.peak_until_s[i] = -math.inf


@kernel
def _latest_draining(s: State) -> int:
    found = -1
    for i in range(len(s.instances)):
        if s.instances[i].state == DRAINING and (
            found < 0 or s.instances[i].draining_order > s.instances[found].draining_order
        ):
            found = i
    return found


@kernel
def _latest_starting(s: State) -> int:
    found = -1
    for i in range(len(s.instances)):
        if s.instances[i].state == STARTING and (
            found < 0 or s.instances[i].started_s >= s.instances[found].started_s
        ):
            found = i
    return found


@kernel
def _least_loaded_ready(s: State) -> int:
    found = -1
    for i in range(len(s.instances)):
        if s.instances[i].state == READY and (found < 0 or s.in_flight[i] <= s.in_flight[found]):
            found = i
    return found
