"""SLO violations: counted once, when a request's first missed deadline passes.

Every deadline waits in a wheel: a slot for each short span of time, in which requests are linked, and around
which time goes. When a slot is over, its requests are looked at; one whose next deadline belongs to a later
round, or that has another deadline, goes back into the wheel. So a deadline costs the same however many
there are. What a request missed is read off its outcome, so nothing is noted.

The completion deadline depends on the true output length, so violations exist in rewards and metrics only;
a controller can see the missed first tokens (``ttft_misses``).
"""

from __future__ import annotations

import math

from preserve_gym.sim.jit import kernel
from preserve_gym.sim.state import DEADLINE_SLOTS, FINISHED, Record, State

_END_OF_TIME_S = 1e15


@kernel
def first_token_deadline_s(p: Record, request: Record) -> float:
    """The deadline for the first token; inf if there is none."""
    return request.arrival_s + p.slo_ttft_s + p.slo_ttft_per_prompt_token_s * request.prompt_tokens


@kernel
def completion_deadline_s(p: Record, request: Record) -> float:
    """The earlier of the deadlines for the completion; inf if there is none."""
    output = request.output_tokens
    deadline = math.inf
    if p.slo_tpot_s < math.inf:
        deadline = first_token_deadline_s(p, request) + p.slo_tpot_s * (output - 1)
    if p.slo_normalized_latency_s < math.inf:
        deadline = min(deadline, request.arrival_s + p.slo_normalized_latency_s * output)
    return deadline


@kernel
def missed_first_token(request: Record, deadline: float) -> bool:
    """Whether the first token was not there at its ``deadline``, which has passed."""
    return not request.first_token_s <= deadline


@kernel
def missed_completion(request: Record, deadline: float) -> bool:
    """Whether the request was not complete at its ``deadline``, which has passed."""
    return request.status != FINISHED or request.token_s > deadline


@kernel
def watch(s: State, r: int) -> None:
    """Request ``r`` has arrived: watch the earlier of its deadlines."""
    p, request = s.params[0], s.requests[r]
    _insert(s, r, min(first_token_deadline_s(p, request), completion_deadline_s(p, request)))


@kernel
def decide_past_slots(s: State, t: float) -> None:
    """Decide the deadlines in the slots that are over at ``t``, if there are any."""
    last = _slot(s.params[0], t)
    if last > s.totals[0].deadline_slot:
        _decide(s, last - 1, last, s.totals[0].decided_s)


@kernel
def decide(s: State, t: float) -> None:
    """Decide every deadline up to ``t``; all iterations that end by ``t`` must have been played."""
    last = _slot(s.params[0], t)
    _decide(s, last, last, t)


@kernel
def _decide(s: State, until: int, last: int, t: float) -> None:
    """Look at the slots up to ``until``; decide what is due before slot ``last``, and up to ``t`` in it."""
    totals = s.totals[0]
    first = totals.deadline_slot
    due = -1
    # One round sees every slot, however far ``t`` is.
    for slot in range(first, min(until, first + DEADLINE_SLOTS - 1) + 1):
        r = s.deadline_head[slot & (DEADLINE_SLOTS - 1)]
        s.deadline_head[slot & (DEADLINE_SLOTS - 1)] = -1
        while r >= 0:
            behind = s.deadline_next[r]
            s.deadline_next[r] = due
            due = r
            r = behind
    # Only now, as what goes back may go into one of these slots.
    while due >= 0:
        behind = s.deadline_next[due]
        _judge(s, due, last, t)
        due = behind
    totals.deadline_slot = last
    totals.decided_s = t


@kernel
def _judge(s: State, r: int, last: int, t: float) -> None:
    """Decide the deadlines of request ``r`` that ``_decide`` has to, and wait for the next one."""
    p, request = s.params[0], s.requests[r]
    first_token, completion = first_token_deadline_s(p, request), completion_deadline_s(p, request)
    first_token_slot, completion_slot = _slot(p, first_token), _slot(p, completion)
    counts = s.counts[request.request_class]
    later = math.inf
    violated = False
    if first_token_slot > last or (first_token_slot == last and first_token > t):
        later = first_token
    elif missed_first_token(request, first_token) and not _decided(s, request, first_token):
        counts.ttft_misses += 1
        violated = not (completion < first_token and missed_completion(request, completion))
    if completion_slot > last or (completion_slot == last and completion > t):
        later = min(later, completion)
    elif missed_completion(request, completion) and not _decided(s, request, completion):
        # At equal times it counts once.
        violated = violated or not (first_token <= completion and missed_first_token(request, first_token))
    if violated:
        counts.violations += 1
    _insert(s, r, later)


@kernel
def _decided(s: State, request: Record, deadline: float) -> bool:
    """Whether a deadline had been decided before ``_decide`` was called."""
    totals = s.totals[0]
    slot = _slot(s.params[0], deadline)
    if slot == totals.deadline_slot and deadline <= totals.decided_s:
        return request.arrival_s < totals.decided_s  # else it was due at once, but after that decision
    return slot < totals.deadline_slot


@kernel
def _slot(p: Record, t: float) -> int:
    return int(min(t, _END_OF_TIME_S) * p.deadline_slots_per_s)


@kernel
def _insert(s: State, r: int, deadline: float) -> None:
    if deadline < math.inf:
        slot = _slot(s.params[0], deadline) & (DEADLINE_SLOTS - 1)
        s.deadline_next[r] = s.deadline_head[slot]
        s.deadline_head[slot] = r
