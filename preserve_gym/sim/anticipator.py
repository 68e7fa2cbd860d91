"""PreServe's load anticipator: an instance's predicted KV use over its next iterations.

Source: arXiv 2504.03702 (``paper``) and the artifact that its authors published (``artifact``). A request
with P prompt tokens and D predicted output tokens that has produced a + 1 tokens holds ``P + a + k`` tokens
in k iterations from now, until its predicted end at ``a + k = D``.

========================  =====================================  ===============================================
..                        paper                                  artifact
========================  =====================================  ===============================================
tokens held               ``P + a + k``                          ``P + 1 + a + k``
outlives its prediction   20 % longer, again and again           30 tokens longer once 10 past, again and again
ends early                stops counting                         stays if no more than 10 iterations are left
========================  =====================================  ===============================================

Both write each request into a ring of future iterations. The same map follows from the running requests
alone, so none is kept: it is summed when somebody asks, in O(running + window).

Where the router reads the map, one point of it is kept up to date for each instance: a lower bound of the
peak, so that few maps need be summed at an arrival.
"""

from __future__ import annotations

import math

from preserve_gym.sim.decoding import ended_output
from preserve_gym.sim.jit import kernel
from preserve_gym.sim.state import (
    ARTIFACT,
    DECODING,
    F8,
    GHOST_SLOTS,
    LEAVING,
    OFF,
    Record,
    State,
)

_GRACE = 10
"""Artifact: iterations past its prediction after which a request is extended, or before which it may end."""
_EXTENSION = 30


@kernel
def predicted_end(variant: int, predicted_tokens: int, after: int) -> int:
    """Predicted output length of a request that has decoded ``after`` times; the artifact's may be past."""
    if variant == ARTIFACT:
        if after < predicted_tokens + _GRACE:
            return predicted_tokens
        period = _GRACE + _EXTENSION
        return predicted_tokens + period * ((after - predicted_tokens - _GRACE) // period + 1)
    end = predicted_tokens
    if end <= after:
        step = max(1, (predicted_tokens + 4) // 5)
        end += ((after - end) // step + 1) * step
    return end


@kernel
def look_ahead(s: State, i: int) -> None:
    """Fill ``s.map_tokens[j]`` with the tokens that instance ``i`` is predicted to hold in j iterations."""
    p, instance = s.params[0], s.instances[i]
    window = len(s.map_tokens) - 1
    for j in range(window):
        s.map_tokens[j] = 0  # first: tokens of the requests that end at j
        s.map_counts[j] = 0  # how many they are
    extra = 1 if p.anticipator == ARTIFACT else 0
    tokens, count = 0, 0
    r = instance.running_head
    while r >= 0:
        request = s.requests[r]
        r = request.next
        age = _age(instance, request)
        if age < 0:
            continue
        left = predicted_end(p.anticipator, request.predicted_tokens, age) - age
        if left <= 0:
            continue
        held = request.prompt_tokens + age + extra
        tokens += held
        count += 1
        if left < window:
            s.map_tokens[left] += held + left
            s.map_counts[left] += 1
    if extra == 1:
        for slot in range(i * GHOST_SLOTS, (i + 1) * GHOST_SLOTS):
            left = s.ghost_step[slot] - instance.ended_steps
            if left > 0:
                held = s.ghost_tokens[slot] + s.ghost_count[slot] * instance.ended_steps
                tokens += held
                count += s.ghost_count[slot]
                if left < window:
                    s.map_tokens[left] += held + s.ghost_count[slot] * left
                    s.map_counts[left] += s.ghost_count[slot]
    for j in range(window):
        tokens -= s.map_tokens[j]
        count -= s.map_counts[j]
        s.map_tokens[j] = tokens
        tokens += count


@kernel
def look_ahead_all(s: State, high: float, peak: F8, share_above: F8) -> None:
    """Peak of the look-ahead map and the share of it above ``high``, for every instance.

    Args:
        high: a share of the KV capacity.
        peak, share_above: float64 of shape (max_instances,), filled; the former in shares of the KV
            capacity. 0 for instances that are off.
    """
    capacity = s.params[0].kv_blocks * s.params[0].block_size
    window = len(s.map_tokens) - 1
    for i in range(len(s.instances)):
        peak[i] = 0.0
        share_above[i] = 0.0
        if s.instances[i].state == OFF:
            continue
        look_ahead(s, i)
        above = 0
        for j in range(window):
            use = s.map_tokens[j] / capacity
            peak[i] = max(peak[i], use)
            if use > high:
                above += 1
        share_above[i] = above / window


@kernel
def bound_peaks(s: State, now: float, prompt_tokens: int, predicted_tokens: int) -> None:
    """Set ``anticipated_tokens`` of the ready instances to lower bounds for a new request."""
    for k in range(s.totals[0].n_ready):
        i = s.ready[k]
        bound = 0
        if now < s.peak_until_s[i]:
            bound = s.peak_tokens[i]
            if s.peak_ahead[i] < predicted_tokens:
                bound += prompt_tokens
        s.anticipated_tokens[i] = max(bound, prompt_tokens)


@kernel
def find_peak(s: State, i: int, now: float, prompt_tokens: int, predicted_tokens: int) -> None:
    """Set ``anticipated_tokens`` of an instance that has been advanced to ``now`` to what they are."""
    look_ahead(s, i)
    peak, at = -1, 0
    for j in range(len(s.map_tokens) - 1):
        tokens = s.map_tokens[j] + (prompt_tokens + j if j < predicted_tokens else 0)
        if tokens > peak:
            peak, at = tokens, j
    s.anticipated_tokens[i] = peak
    s.peak_tokens[i] = s.map_tokens[at]
    s.peak_ahead[i] = at
    s.instances[i].peak_step = s.instances[i].ended_steps + at
    # No iteration is shorter than base_s, and one may be about to end.
    s.peak_until_s[i] = now + (at - 1) * s.params[0].base_s
    if _shrinks(s, i):
        s.peak_until_s[i] = now


@kernel
def _shrinks(s: State, i: int) -> bool:
    """Whether a request that the map counts goes without a token in an iteration that has not ended."""
    instance = s.instances[i]
    if instance.n_lagging > 0 or s.batches[2 * i].n_late > 0 or s.batches[2 * i + 1].n_late > 0:
        return True
    first = i * s.params[0].max_num_seqs
    for k in range(first, first + instance.n_prefilling):
        if s.requests[s.prefilling[k]].generated > 0:
            return True
    return False


@kernel
def track_first_token(s: State, i: int, r: int) -> None:
    """Request ``r`` has got its first token: from now on the map counts it."""
    s.peak_tokens[i] += _tokens_at_peak(s, i, r)


@kernel
def track_end(s: State, i: int, r: int) -> None:
    """Request ``r``, still running, is about to complete or to be preempted."""
    if s.params[0].tracks_peaks == 1:
        s.peak_tokens[i] -= _tokens_at_peak(s, i, r)


@kernel
def forget_peak(s: State, i: int) -> None:
    """The map is about to shrink, or to count a request twice: a request misses a step, or was recomputed."""
    s.peak_until_s[i] = -math.inf


@kernel
def leave_ghost(s: State, i: int, r: int) -> None:
    """Artifact: request ``r`` completes; if it ends a little early it stays in the map."""
    instance, request = s.instances[i], s.requests[r]
    age = request.output_tokens - 1
    left = predicted_end(ARTIFACT, request.predicted_tokens, age) - age
    if not 0 < left <= _GRACE:
        return
    step = instance.ended_steps + left
    slot = i * GHOST_SLOTS + step % GHOST_SLOTS
    if s.ghost_step[slot] != step:
        s.ghost_step[slot] = step
        s.ghost_tokens[slot] = 0
        s.ghost_count[slot] = 0
    s.ghost_tokens[slot] += request.prompt_tokens + 1 + age - instance.ended_steps
    s.ghost_count[slot] += 1


@kernel
def _age(instance: Record, request: Record) -> int:
    """How often a running request has decoded; -1 if it has no token yet or is recomputed."""
    if request.status == DECODING or request.status == LEAVING:
        return ended_output(instance, request) - 1
    return request.generated - 1


@kernel
def _tokens_at_peak(s: State, i: int, r: int) -> int:
    p, instance, request = s.params[0], s.instances[i], s.requests[r]
    age = _age(instance, request)
    ahead = instance.peak_step - instance.ended_steps
    if age < 0 or ahead < 0:
        return 0
    if age + ahead >= predicted_end(p.anticipator, request.predicted_tokens, age):
        return 0
    return request.prompt_tokens + age + ahead + (1 if p.anticipator == ARTIFACT else 0)
