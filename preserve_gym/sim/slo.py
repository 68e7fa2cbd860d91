"""SLO violations: counted once, when a request's first missed deadline passes.

A binary heap holds the next deadline of every request that still has one. The completion deadline
depends on the true output length, so violations exist in rewards and metrics only; a controller can
see the missed first tokens (``ttft_misses``).
"""

from __future__ import annotations

import math

from preserve_gym.sim.jit import kernel
from preserve_gym.sim.state import Record, State


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
    """Request ``r`` has arrived: watch the earlier of its deadlines."""
    first_token = first_token_deadline_s(s.params[0], s.requests[r])
    completion = completion_deadline_s(s.params[0], s.requests[r])
    if first_token <= completion:
        if first_token < math.inf:
            _push(s, first_token, r)
    else:
        _push(s, completion, ~r)


@kernel
def decide(s: State, t: float) -> None:
    """Decide every deadline up to ``t``; all iterations that end by ``t`` must have been played."""
    p, totals = s.params[0], s.totals[0]
    while totals.n_deadlines > 0 and s.deadline_s[0] <= t:
        deadline = s.deadline_s[0]
        key = s.deadline_of[0]
        _pop(s)
        if key >= 0:
            request = s.requests[key]
            completion = completion_deadline_s(p, request)
            if not request.first_token_s <= deadline:
                totals.ttft_misses += 1
                violate(totals, request, deadline)
            elif deadline <= completion < math.inf and not request.completed_s <= completion:
                _push(s, completion, ~key)
        else:
            request = s.requests[~key]
            if not request.completed_s <= deadline:
                violate(totals, request, deadline)
                first_token = first_token_deadline_s(p, request)
                if deadline < first_token < math.inf and not request.first_token_s <= deadline:
                    _push(s, first_token, ~key)


@kernel
def violate(totals: Record, request: Record, when: float) -> None:
    """Charge ``request`` with a violation, unless it has been."""
    if math.isnan(request.violated_s):
        request.violated_s = when
        totals.violations += 1


@kernel
def _push(s: State, deadline: float, key: int) -> None:
    totals = s.totals[0]
    k = totals.n_deadlines
    totals.n_deadlines += 1
    while k > 0:
        parent = (k - 1) // 2
        if s.deadline_s[parent] <= deadline:
            break
        s.deadline_s[k] = s.deadline_s[parent]
        s.deadline_of[k] = s.deadline_of[parent]
        k = parent
    s.deadline_s[k] = deadline
    s.deadline_of[k] = key


@kernel
def _pop(s: State) -> None:
    totals = s.totals[0]
    totals.n_deadlines -= 1
    size = totals.n_deadlines
    deadline = s.deadline_s[size]
    key = s.deadline_of[size]
    k = 0
    while True:
        child = 2 * k + 1
        if child >= size:
            break
        if child + 1 < size and s.deadline_s[child + 1] < s.deadline_s[child]:
            child += 1
        if s.deadline_s[child] >= deadline:
            break
        s.deadline_s[k] = s.deadline_s[child]
        s.deadline_of[k] = s.deadline_of[child]
        k = child
    s.deadline_s[k] = deadline
    s.deadline_of[k] = key
