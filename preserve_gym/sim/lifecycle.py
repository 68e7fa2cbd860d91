"""Instances come and go: off -> starting (cold start) -> ready -> draining -> off."""

from __future__ import annotations

import math

from preserve_gym.sim.jit import kernel
from preserve_gym.sim.state import (
    DRAINING,
    DRAINS,
    N_READY,
    OFF,
    READY,
    SCALE_DOWNS,
    SCALE_UPS,
    STARTING,
    Instances,
    Params,
    Totals,
)


@kernel
def update_ready(p: Params, ins: Instances, tot: Totals, now: float) -> float:
    """Make ready what is due by ``now`` and list the ready slots.

    Returns:
        When the next starting instance becomes ready, inf if none is starting.
    """
    next_ready = math.inf
    n = 0
    for i in range(p.max_instances):
        if ins.state[i] == STARTING:
            if ins.ready_at_s[i] <= now:
                ins.state[i] = READY
            else:
                next_ready = min(next_ready, ins.ready_at_s[i])
        if ins.state[i] == READY:
            tot.ready[n] = i
            n += 1
    tot.counts[N_READY] = n
    return next_ready


@kernel
def scale_to(p: Params, ins: Instances, tot: Totals, target: int, now: float) -> None:
    """Set how many instances are starting or ready to ``target``, within the bounds of the cluster.

    Up: take back draining instances, the latest to drain first, then start new ones in the lowest
    free slots, as far as there are any.  Down: cancel starting instances, the latest started first
    (off at once, but billed for the whole cold start), then drain ready ones, the one with the fewest
    requests first, ties to the highest slot (off at once if it has none).
    """
    target = min(max(target, p.min_instances), p.max_instances)
    wanted = 0
    for i in range(p.max_instances):
        if ins.state[i] == STARTING or ins.state[i] == READY:
            wanted += 1
    while wanted < target:
        i = _latest_draining(p, ins)
        if i >= 0:
            ins.state[i] = READY
        else:
            i = 0
            while i < p.max_instances and ins.state[i] != OFF:
                i += 1
            if i == p.max_instances:
                break
            ins.state[i] = STARTING
            ins.started_s[i] = now
            ins.ready_at_s[i] = now + p.cold_start_s
        wanted += 1
        tot.counts[SCALE_UPS] += 1
    while wanted > target:
        i = _latest_starting(p, ins)
        if i >= 0:
            ins.state[i] = OFF
            ins.instance_s[i] += ins.ready_at_s[i] - ins.started_s[i]
        else:
            i = _least_loaded_ready(p, ins)
            if ins.n_running[i] + ins.n_waiting[i] == 0:
                ins.state[i] = OFF
                ins.instance_s[i] += now - ins.started_s[i]
            else:
                ins.state[i] = DRAINING
                ins.draining_order[i] = tot.counts[DRAINS]
                tot.counts[DRAINS] += 1
        wanted -= 1
        tot.counts[SCALE_DOWNS] += 1
    update_ready(p, ins, tot, now)


@kernel
def _latest_draining(p: Params, ins: Instances) -> int:
    found = -1
    for i in range(p.max_instances):
        if ins.state[i] == DRAINING and (
            found < 0 or ins.draining_order[i] > ins.draining_order[found]
        ):
            found = i
    return found


@kernel
def _latest_starting(p: Params, ins: Instances) -> int:
    found = -1
    for i in range(p.max_instances):
        if ins.state[i] == STARTING and (found < 0 or ins.started_s[i] >= ins.started_s[found]):
            found = i
    return found


@kernel
def _least_loaded_ready(p: Params, ins: Instances) -> int:
    found = -1
    fewest = 0
    for i in range(p.max_instances):
        if ins.state[i] == READY:
            requests = ins.n_running[i] + ins.n_waiting[i]
            if found < 0 or requests <= fewest:
                found, fewest = i, requests
    return found
