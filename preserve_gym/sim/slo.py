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
def slot_ends_s(s: State) -> float:
    """When the first slot that is not over ends."""
    return (s.totals[0].deadline_slot + 1) / s.params[0].deadline_slots_per_s


@kernel
def decide(s: State, t: float) -> None:
    """Decide every deadline up to ``t``; all iterations that end by ``t`` must have been played."""
    p, totals = s.params[0], s.totals[0]
    last = _slot(p, t)
    due = -1
    # One round sees every slot, however far ``t`` is.
    for slot in range(totals.deadline_slot, min(last, totals.deadline_slot + DEADLINE_SLOTS - 1) + 1):
        r = s.deadline_head[slot % DEADLINE_SLOTS]
        s.deadline_head[slot % DEADLINE_SLOTS] = -1
        while r >= 0:
            behind = s.deadline_next[r]
            s.deadline_next[r] = due
            due = r
            r = behind
    # Only now, as what goes back may go into one of these slots.
    while due >= 0:
        behind = s.deadline_next[due]
        _judge(s, due, totals.decided_s, t)
        due = behind
    totals.deadline_slot = last
    totals.decided_s = t


@kernel
def _judge(s: State, r: int, after: float, t: float) -> None:
    """Decide the deadlines of request ``r`` in (``after``, ``t``], and wait for the next one."""
    p, request = s.params[0], s.requests[r]
    first_token, completion = first_token_deadline_s(p, request), completion_deadline_s(p, request)
    counts = s.counts[request.request_class]
    violated = False
    if after < first_token <= t and missed_first_token(request, first_token):
        counts.ttft_misses += 1
        violated = not (completion < first_token and missed_completion(request, completion))
    if after < completion <= t and missed_completion(request, completion):
        # At equal times it counts once.
        violated = violated or not (first_token <= completion and missed_first_token(request, first_token))
    if violated:
        counts.violations += 1
    later = math.inf
    if first_token > t:
        later = first_token
    if t < completion < later:
        later = completion
    _insert(s, r, later)


@kernel
def _slot(p: Record, t: float) -> int:
    return int(min(t, _END_OF_TIME_S) * p.deadline_slots_per_s)


@kernel
def _insert(s: State, r: int, deadline: float) -> None:
    if deadline < math.inf:
        slot = _slot(s.params[0], deadline) % DEADLINE_SLOTS
        s.deadline_next[r] = s.deadline_head[slot]
        s.deadline_head[slot] = r
