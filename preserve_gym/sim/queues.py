"""The queues of an instance: linked lists through the requests, so unlimited and without allocation."""

from __future__ import annotations

from preserve_gym.sim.jit import kernel
from preserve_gym.sim.state import WAITING, Record, State


@kernel
def wait_at_the_end(s: State, instance: Record, r: int) -> None:
    """A new request joins the waiting queue."""
    s.requests[r].status = WAITING
    s.requests[r].next = -1
    if instance.n_waiting == 0:
        instance.waiting_head = r
    else:
        s.requests[instance.waiting_tail].next = r
    instance.waiting_tail = r
    instance.n_waiting += 1


@kernel
def wait_at_the_head(s: State, instance: Record, r: int) -> None:
    """A preempted request returns to the waiting queue."""
    s.requests[r].status = WAITING
    if instance.n_waiting == 0:
        s.requests[r].next = -1
        instance.waiting_tail = r
    else:
        s.requests[r].next = instance.waiting_head
    instance.waiting_head = r
    instance.n_waiting += 1


@kernel
def stop_waiting(s: State, instance: Record, r: int) -> None:
    """Request ``r`` leaves the waiting queue, wherever it stands (the head is found at once)."""
    before = instance.waiting_head
    if before == r:
        instance.waiting_head = s.requests[r].next
    else:
        while s.requests[before].next != r:
            before = s.requests[before].next
        s.requests[before].next = s.requests[r].next
        if instance.waiting_tail == r:
            instance.waiting_tail = before
    instance.n_waiting -= 1
    if instance.n_waiting == 0:
        instance.waiting_tail = -1


@kernel
def run_last(s: State, instance: Record, r: int) -> None:
    """Request ``r`` is admitted: it joins the end of the running queue."""
    s.requests[r].next = -1
    s.requests[r].previous = instance.running_tail
    if instance.n_running == 0:
        instance.running_head = r
    else:
        s.requests[instance.running_tail].next = r
    instance.running_tail = r
    instance.n_running += 1


@kernel
def stop_running(s: State, instance: Record, r: int) -> None:
    """Request ``r`` leaves the running queue."""
    before, behind = s.requests[r].previous, s.requests[r].next
    if before < 0:
        instance.running_head = behind
    else:
        s.requests[before].next = behind
    if behind < 0:
        instance.running_tail = before
    else:
        s.requests[behind].previous = before
    instance.n_running -= 1
