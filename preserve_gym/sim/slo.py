"""SLO violations: counted once, when a request's first missed deadline passes.

A binary heap holds the next deadline of every request that still has one.  The completion deadline
depends on the true output length, so violations exist in rewards and metrics only; a controller can
see the missed first tokens (``TTFT_MISSES``).
"""

from __future__ import annotations

import math

from preserve_gym.sim.execution import completion_deadline_s, first_token_deadline_s
from preserve_gym.sim.jit import kernel
from preserve_gym.sim.state import HEAP_SIZE, TTFT_MISSES, VIOLATIONS, Params, Requests, Totals


@kernel
def watch(p: Params, rq: Requests, tot: Totals, r: int) -> None:
    """Request ``r`` has arrived: watch the earlier of its deadlines."""
    first_token = first_token_deadline_s(p, rq, r)
    completion = completion_deadline_s(p, rq, r)
    if first_token <= completion:
        if first_token < math.inf:
            _push(tot, first_token, r)
    else:
        _push(tot, completion, ~r)


@kernel
def decide(p: Params, rq: Requests, tot: Totals, t: float) -> None:
    """Decide every deadline up to ``t``; all iterations that end by ``t`` must have been played."""
    while tot.counts[HEAP_SIZE] > 0 and tot.deadline_s[0] <= t:
        deadline = tot.deadline_s[0]
        key = tot.deadline_of[0]
        _pop(tot)
        if key >= 0:
            r = key
            completion = completion_deadline_s(p, rq, r)
            if not rq.first_token_s[r] <= deadline:
                tot.counts[TTFT_MISSES] += 1
                violate(rq, tot, r, deadline)
            elif deadline <= completion < math.inf and not rq.completed_s[r] <= completion:
                _push(tot, completion, ~r)
        else:
            r = ~key
            if not rq.completed_s[r] <= deadline:
                violate(rq, tot, r, deadline)
                first_token = first_token_deadline_s(p, rq, r)
                if deadline < first_token < math.inf and not rq.first_token_s[r] <= deadline:
                    _push(tot, first_token, r)


@kernel
def violate(rq: Requests, tot: Totals, r: int, when: float) -> None:
    """Charge request ``r`` with a violation, unless it has been."""
    if rq.violated_s[r] != rq.violated_s[r]:
        rq.violated_s[r] = when
        tot.counts[VIOLATIONS] += 1


@kernel
def _push(tot: Totals, deadline: float, key: int) -> None:
    k = tot.counts[HEAP_SIZE]
    tot.counts[HEAP_SIZE] = k + 1
    while k > 0:
        parent = (k - 1) // 2
        if tot.deadline_s[parent] <= deadline:
            break
        tot.deadline_s[k] = tot.deadline_s[parent]
        tot.deadline_of[k] = tot.deadline_of[parent]
        k = parent
    tot.deadline_s[k] = deadline
    tot.deadline_of[k] = key


@kernel
def _pop(tot: Totals) -> None:
    size = tot.counts[HEAP_SIZE] - 1
    tot.counts[HEAP_SIZE] = size
    deadline = tot.deadline_s[size]
    key = tot.deadline_of[size]
    k = 0
    while True:
        child = 2 * k + 1
        if child >= size:
            break
        if child + 1 < size and tot.deadline_s[child + 1] < tot.deadline_s[child]:
            child += 1
        if tot.deadline_s[child] >= deadline:
            break
        tot.deadline_s[k] = tot.deadline_s[child]
        tot.deadline_of[k] = tot.deadline_of[child]
        k = child
    tot.deadline_s[k] = deadline
    tot.deadline_of[k] = key
