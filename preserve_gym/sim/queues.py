"""The waiting queue of an instance: a linked list through the requests, so unlimited."""

from __future__ import annotations

from preserve_gym.sim.jit import kernel
from preserve_gym.sim.state import WAITING, Record, State


@kernel
def push_back(s: State, instance: Record, r: int) -> None:
    """A new request joins the end."""
    s.requests[r].status = WAITING
    s.requests[r].next_waiting = -1
    if instance.n_waiting == 0:
        instance.waiting_head = r
    else:
        s.requests[instance.waiting_tail].next_waiting = r
    instance.waiting_tail = r
    instance.n_waiting += 1


@kernel
def push_front(s: State, instance: Record, r: int) -> None:
    """A preempted request returns to the head."""
    s.requests[r].status = WAITING
    if instance.n_waiting == 0:
        s.requests[r].next_waiting = -1
        instance.waiting_tail = r
    else:
        s.requests[r].next_waiting = instance.waiting_head
    instance.waiting_head = r
    instance.n_waiting += 1


@kernel
def pop_front(s: State, instance: Record) -> None:
    """The head leaves; the queue must not be empty."""
    instance.waiting_head = s.requests[instance.waiting_head].next_waiting
    instance.n_waiting -= 1
    if instance.n_waiting == 0:
        instance.waiting_tail = -1


@kernel
def remove(s: State, instance: Record, r: int) -> None:
    """Request ``r`` leaves, wherever it stands."""
    before = instance.waiting_head
    if before == r:
        pop_front(s, instance)
        return
    while s.requests[before].next_waiting != r:
        before = s.requests[before].next_waiting
    s.requests[before].next_waiting = s.requests[r].next_waiting
    if instance.waiting_tail == r:
        instance.waiting_tail = before
    instance.n_waiting -= 1
