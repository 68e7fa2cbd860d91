"""The waiting queue of an instance: a linked list through ``Requests.next_waiting``, so unlimited."""

from __future__ import annotations

from preserve_gym.sim.jit import kernel
from preserve_gym.sim.state import WAITING, Instances, Requests


@kernel
def push_back(rq: Requests, ins: Instances, i: int, r: int) -> None:
    """A new request joins the end."""
    rq.status[r] = WAITING
    rq.next_waiting[r] = -1
    if ins.n_waiting[i] == 0:
        ins.waiting_head[i] = r
    else:
        rq.next_waiting[ins.waiting_tail[i]] = r
    ins.waiting_tail[i] = r
    ins.n_waiting[i] += 1


@kernel
def push_front(rq: Requests, ins: Instances, i: int, r: int) -> None:
    """A preempted request returns to the head."""
    rq.status[r] = WAITING
    if ins.n_waiting[i] == 0:
        rq.next_waiting[r] = -1
        ins.waiting_tail[i] = r
    else:
        rq.next_waiting[r] = ins.waiting_head[i]
    ins.waiting_head[i] = r
    ins.n_waiting[i] += 1


@kernel
def pop_front(rq: Requests, ins: Instances, i: int) -> None:
    """The head leaves; the queue must not be empty."""
    ins.waiting_head[i] = rq.next_waiting[ins.waiting_head[i]]
    ins.n_waiting[i] -= 1
    if ins.n_waiting[i] == 0:
        ins.waiting_tail[i] = -1


@kernel
def remove(rq: Requests, ins: Instances, i: int, r: int) -> None:
    """Request ``r`` leaves, wherever it stands."""
    head = ins.waiting_head[i]
    if head == r:
        pop_front(rq, ins, i)
        return
    before = head
    while rq.next_waiting[before] != r:
        before = rq.next_waiting[before]
    rq.next_waiting[before] = rq.next_waiting[r]
    if ins.waiting_tail[i] == r:
        ins.waiting_tail[i] = before
    ins.n_waiting[i] -= 1
