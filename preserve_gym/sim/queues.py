"""The queues of an instance: linked lists through the requests, so unlimited and without allocation."""

from __future__ import annotations

from preserve_gym.sim.jit import kernel
from preserve_gym.sim.memory import blocks_for
from preserve_gym.sim.state import WAITING, State


@kernel
def settle_load(s: State, i: int, now: float) -> None:
    """The requests running or waiting at instance ``i`` are about to change: integrate them up to ``now``."""
    instance = s.instances[i]
    elapsed_s = now - instance.load_since_s
    instance.in_flight_s += s.in_flight[i] * elapsed_s
    instance.waiting_s += s.waiting[i] * elapsed_s
    instance.load_since_s = now


@kernel
def running(s: State, i: int) -> int:
    """Requests that hold a place: prefilling, decoding or leaving."""
    return s.in_flight[i] - s.waiting[i]


@kernel
def wait_at_the_end(s: State, i: int, r: int) -> None:
    """A new request joins the waiting queue."""
    instance, request = s.instances[i], s.requests[r]
    request.status = WAITING
    request.next = -1
    if instance.waiting_head < 0:
        instance.waiting_head = r
    else:
        s.requests[instance.waiting_tail].next = r
    instance.waiting_tail = r
    s.waiting[i] += 1
    s.waiting_blocks[i] += blocks_for(s.params[0], request.prompt_tokens)


@kernel
def wait_at_the_head(s: State, i: int, r: int) -> None:
    """A preempted request returns to the waiting queue."""
    instance, request = s.instances[i], s.requests[r]
    request.status = WAITING
    request.next = instance.waiting_head
    if instance.waiting_head < 0:
        instance.waiting_tail = r
    instance.waiting_head = r
    s.waiting[i] += 1
    s.waiting_blocks[i] += blocks_for(s.params[0], request.prompt_tokens + request.generated)


@kernel
def stop_waiting(s: State, i: int, r: int) -> None:
    """Request ``r`` leaves the waiting queue, wherever it stands (the head is found at once)."""
    instance, request = s.instances[i], s.requests[r]
    before = instance.waiting_head
    if before == r:
        instance.waiting_head = request.next
        if request.next < 0:
            instance.waiting_tail = -1
    else:
        while s.requests[before].next != r:
            before = s.requests[before].next
        s.requests[before].next = request.next
        if instance.waiting_tail == r:
            instance.waiting_tail = before
    s.waiting[i] -= 1
    s.waiting_blocks[i] -= blocks_for(s.params[0], request.prompt_tokens + request.generated)


@kernel
def run_last(s: State, i: int, r: int) -> None:
    """Request ``r`` is admitted: it joins the end of the running queue."""
    instance, request = s.instances[i], s.requests[r]
    request.next = -1
    request.previous = instance.running_tail
    if instance.running_tail < 0:
        instance.running_head = r
    else:
        s.requests[instance.running_tail].next = r
    instance.running_tail = r


@kernel
def stop_running(s: State, i: int, r: int) -> None:
    """Request ``r`` leaves the running queue."""
    instance, request = s.instances[i], s.requests[r]
    before, behind = request.previous, request.next
    if before < 0:
        instance.running_head = behind
    else:
        s.requests[before].next = behind
    if behind < 0:
        instance.running_tail = before
    else:
        s.requests[behind].previous = before
