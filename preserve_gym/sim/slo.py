"""SLO violations: counted once, when a request's first missed deadline passes.

Deadlines wait in a wheel: a slot for each short span of time, in which they are linked, and around which
time goes. When a slot is over they are looked at; one that belongs to a later round goes back. So a deadline
costs the same however many there are. Whether it was met is noted when the token comes, in one byte of the
request, so that deadlines that were met are done with without looking the request up.

The completion deadline depends on the true output length, so violations exist in rewards and metrics only;
a controller can see the missed first tokens (``ttft_misses``).
"""

from __future__ import annotations

import math

from preserve_gym.sim.jit import kernel
from preserve_gym.sim.state import DEADLINE_SLOTS, Record, State

MET_FIRST_TOKEN, MET_COMPLETION = 1, 2
"""Of the byte that notes which deadlines a request has met."""

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
def watch(s: State, r: int) -> None:
    """Request ``r`` has arrived: watch its deadlines."""
    p, request = s.params[0], s.requests[r]
    _insert(s, 2 * r, first_token_deadline_s(p, request))
    _insert(s, 2 * r + 1, completion_deadline_s(p, request))


@kernel
def decide_past_slots(s: State, t: float) -> None:
    """Decide the deadlines in the slots that are over at ``t``, if there are any."""
    last = _slot(s.params[0], t)
    if last > s.totals[0].deadline_slot:
        _decide(s, last - 1, last, -math.inf)


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
        k = s.deadline_head[slot & (DEADLINE_SLOTS - 1)]
        s.deadline_head[slot & (DEADLINE_SLOTS - 1)] = -1
        while k >= 0:
            behind = s.deadline_next[k]
            if not _met(s, k):
                s.deadline_next[k] = due
                due = k
            k = behind
    # Only now, as what goes back may go into one of these slots.
    while due >= 0:
        behind = s.deadline_next[due]
        _judge(s, due, last, t)
        due = behind
    totals.deadline_slot = last


@kernel
def _judge(s: State, k: int, last: int, t: float) -> None:
    """Deadline ``k`` has not been met: decide it if ``_decide`` has to, or let it wait on."""
    p, request = s.params[0], s.requests[k >> 1]
    first_token, completion = first_token_deadline_s(p, request), completion_deadline_s(p, request)
    is_completion = (k & 1) == 1
    deadline = completion if is_completion else first_token
    slot = _slot(p, deadline)
    if slot > last or (slot == last and deadline > t):
        _insert(s, k, deadline)
        return
    counts = s.counts[request.request_class]
    if not is_completion:
        counts.ttft_misses += 1
    # The other deadline has been charged if it was missed earlier; at equal times that of the first token.
    other_first = first_token <= completion if is_completion else completion < first_token
    if not other_first or _met(s, k ^ 1):
        counts.violations += 1


@kernel
def _met(s: State, k: int) -> bool:
    return (s.met[k >> 1] >> (k & 1)) & 1 == 1


@kernel
def _slot(p: Record, t: float) -> int:
    return int(min(t, _END_OF_TIME_S) * p.deadline_slots_per_s)


@kernel
def _insert(s: State, k: int, deadline: float) -> None:
    if deadline < math.inf:
        slot = _slot(s.params[0], deadline) & (DEADLINE_SLOTS - 1)
        s.deadline_next[k] = s.deadline_head[slot]
        s.deadline_head[slot] = k
