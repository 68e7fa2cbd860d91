"""PreServe's load anticipator: an instance's predicted KV use over its next iterations.

Source: arXiv 2504.03702 (``paper``) and the artifact that its authors published (``artifact``). A request
with P prompt tokens and D predicted output tokens that has produced a + 1 tokens holds ``P + a + k`` tokens
in k iterations from now, until its predicted end at ``a + k = D``.

=====================  =====================  ===============================================
..                     paper                  artifact
=====================  =====================  ===============================================
tokens held            ``P + a + k``          ``P + 1 + a + k``
outlives prediction    20 % longer, again     30 tokens longer once 10 past, again and again
                       and again
ends early             stops counting         stays if no more than 10 iterations are left
=====================  =====================  ===============================================

Both write each request into a ring of future iterations. The same map follows from the running requests
alone, so none is kept: it is summed when somebody asks, in O(running + window).

Where the router reads the map, one point of it is kept up to date for each instance: a lower bound of the
peak, so that few maps need be summed at an arrival.
"""

from __future__ import annotations

import math

from preserve_gym.sim.decoding import WHICH, computed_tokens, done_list, ended_output, is_scheduled
from preserve_gym.sim.jit import entry, kernel
from preserve_gym.sim.state import (
    ARTIFACT,
    DECODING,
    F8,
    GHOST_SLOTS,
    I8,
    LEAVING,
    OFF,
    PAPER,
    VLLM,
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
    _collect_ends(s, i)
    window = len(s.map_tokens) - 1
    tokens, count = 0, 0
    for j in range(window, 0, -1):
        # Who ends at j holds a token less in each iteration before.
        count += s.map_counts[j]
        tokens += s.map_tokens[j] - count
        s.map_tokens[j] = tokens
    for j in range(window):
        s.map_tokens[j] = s.map_tokens[j + 1]


@kernel
def _collect_ends(s: State, i: int) -> None:
    """Fill ``s.map_counts[j]`` with the requests of instance ``i`` that end in j iterations, as predicted.

    And ``s.map_tokens[j]`` with the tokens that they hold then; later ends count at the window's edge.
    """
    p, instance = s.params[0], s.instances[i]
    window = len(s.map_tokens) - 1
    for j in range(window + 1):
        s.map_tokens[j] = 0
        s.map_counts[j] = 0
    first = i * p.max_num_seqs
    settled = p.anticipator == PAPER and instance.ended_steps > instance.joined_step
    for k in range(first, first + instance.n_decoding):
        r = s.finish[k] & WHICH
        left = s.predicted_last[r] - instance.ended_steps
        if settled and left > 0:
            _add_end(s, left, s.predicted_held[r], 1)
        else:
            _add_request(s, instance, r)
    for k in range(first, first + instance.n_prefilling):
        _add_request(s, instance, s.prefilling[k])
    for b in range(2 * i, 2 * i + 2):
        if is_scheduled(instance, b):
            _add_leaving(s, i, b)
    if p.anticipator == ARTIFACT:
        for slot in range(i * GHOST_SLOTS, (i + 1) * GHOST_SLOTS):
            left = s.ghost_step[slot] - instance.ended_steps
            if left > 0:
                held = s.ghost_tokens[slot] + s.ghost_count[slot] * s.ghost_step[slot]
                _add_end(s, left, held, s.ghost_count[slot])


@kernel
def _add_leaving(s: State, i: int, b: int) -> None:
    """Add the requests that get their last token in batch ``b``, which has not ended."""
    first = done_list(s.params[0], b)
    prefilled = first + s.batches[b].n_prefilled
    for k in range(first, first + s.batches[b].n_done):
        request = s.requests[s.batch_requests[k]]
        # One that ends its prefill here may be leaving with the next batch, and is noted there too.
        if request.status == LEAVING and (k >= prefilled or request.generated == request.output_tokens):
            _add_request(s, s.instances[i], s.batch_requests[k])


@kernel
def _add_request(s: State, instance: Record, r: int) -> None:
    """Add what request ``r`` will hold to the look-ahead map, as far as it has a token."""
    p, request = s.params[0], s.requests[r]
    age = _age(instance, request)
    if age >= 0:
        left = predicted_end(p.anticipator, request.predicted_tokens, age) - age
        if left > 0:
            _add_end(s, left, _held(p, request, age + left), 1)


@kernel
def _add_end(s: State, left: int, tokens: int, count: int) -> None:
    """Requests that would hold ``tokens`` tokens after ``left`` > 0 iterations end then."""
    window = len(s.map_tokens) - 1
    beyond = max(left - window, 0)
    s.map_tokens[left - beyond] += tokens - beyond * count
    s.map_counts[left - beyond] += count


@entry
def copy_map(s: State, i: int, tokens: I8) -> None:
    """Copy the look-ahead map of instance ``i`` to ``tokens``, int64 of shape (look_ahead,)."""
    look_ahead(s, i)
    for j in range(len(tokens)):
        tokens[j] = s.map_tokens[j]


@entry
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
        most, above, _ = peaks(s, i, high * capacity, 0, 0)
        peak[i], share_above[i] = most / capacity, above / window


@kernel
def peaks(s: State, i: int, limit: float, prompt_tokens: int, predicted_tokens: int) -> tuple[int, int, int]:
    """Of the look-ahead map of instance ``i``, without making it.

    Args:
        limit: tokens.
        prompt_tokens, predicted_tokens: of a request more.

    Returns:
        Its peak in tokens, in how many iterations it exceeds ``limit``, and its peak with that request. All 0
        if the instance is off.
    """
    if s.instances[i].state == OFF:
        return 0, 0, 0
    window = len(s.map_tokens) - 1
    inside = min(predicted_tokens, window)
    if s.in_flight[i] == 0 and s.params[0].anticipator == PAPER:
        return 0, 0, prompt_tokens + max(inside - 1, 0)
    _collect_ends(s, i)
    most, above, most_with, tokens, count = 0, 0, 0, 0, 0
    for j in range(window, 0, -1):
        count += s.map_counts[j]
        tokens += s.map_tokens[j] - count
        most = max(most, tokens)
        above += tokens > limit
        most_with = max(most_with, tokens + (prompt_tokens + j - 1 if j <= inside else 0))
    return most, above, most_with


@kernel
def track_peaks(s: State, tracks: int) -> None:
    """From now on, keep lower bounds of the peaks (1), as the router reads them, or no longer (0)."""
    s.totals[0].tracks_peaks = tracks
    for i in range(len(s.instances)):
        s.held_tokens[i] = 0  # until its next event
        forget_peak(s, i)


@kernel
def note_held(s: State, i: int) -> None:
    """Instance ``i`` has been advanced: note what it holds at least until its next event."""
    p, instance = s.params[0], s.instances[i]
    skips = p.scheduler == VLLM  # the others leave nobody out of a step
    if p.anticipator == ARTIFACT or (skips and instance.n_lagging > 0):
        s.held_tokens[i] = 0  # requests may be past their predictions, or miss tokens
        return
    count, context = instance.n_decoding, instance.decode_context
    for b in range(2 * i, 2 * i + 2):
        if instance.n_special > 0 and is_scheduled(instance, b):
            if skips and s.batches[b].n_late > 0:
                s.held_tokens[i] = 0
                return
            first = done_list(p, b)
            for k in range(first, first + s.batches[b].n_prefilled):
                request = s.requests[s.batch_requests[k]]
                if request.status == DECODING:  # but it has no token yet
                    count -= 1
                    context -= computed_tokens(instance, request) + 1
    s.held_tokens[i] = context - count * (1 + instance.steps - instance.ended_steps)


@kernel
def bound_peaks(s: State, now: float, prompt_tokens: int, predicted_tokens: int) -> None:
    """Set ``anticipated_tokens`` of the ready instances to lower bounds for a new request."""
    steps_per_s = 1.0 / s.params[0].base_s
    for k in range(s.totals[0].n_ready):
        i = s.ready[k]
        bound = s.held_tokens[i] + prompt_tokens
        if now < s.peak_until_s[i]:
            at_peak = s.peak_tokens[i]
            if s.peak_ahead[i] < predicted_tokens:
                # At least so many iterations before it.
                at_peak += prompt_tokens + int((s.peak_until_s[i] - now) * steps_per_s)
            bound = max(bound, at_peak)
        s.anticipated_tokens[i] = bound


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
    late = instance.n_lagging + s.batches[2 * i].n_late + s.batches[2 * i + 1].n_late
    if s.params[0].scheduler == VLLM and late > 0:
        return True
    recomputed = 0
    first = i * s.params[0].max_num_seqs
    for k in range(first, first + instance.n_prefilling):
        recomputed += s.requests[s.prefilling[k]].generated
    if instance.has_next == 1:
        # Those that end their recomputation in the next batch get no token in the executing one.
        b = 2 * i + 1 - instance.executing
        first = done_list(s.params[0], b)
        for k in range(first, first + s.batches[b].n_prefilled):
            recomputed += _age(instance, s.requests[s.batch_requests[k]]) + 1
    return recomputed > 0


@kernel
def track_first_token(s: State, i: int, r: int) -> None:
    """Request ``r`` has got its first token: from now on the map counts it."""
    s.peak_tokens[i] += _tokens_at_peak(s, i, r)


@kernel
def track_end(s: State, i: int, r: int) -> None:
    """Request ``r``, still running, is about to complete or to be preempted."""
    if s.totals[0].tracks_peaks == 1:
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
    s.ghost_tokens[slot] += _held(s.params[0], request, age) - instance.ended_steps
    s.ghost_count[slot] += 1


@kernel
def _age(instance: Record, request: Record) -> int:
    """How often a running request has decoded; -1 if it has no token yet."""
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
    return _held(p, request, age + ahead)


@kernel
def _held(p: Record, request: Record, age: int) -> int:
    """Tokens that a request holds when it has decoded ``age`` times."""
    return request.prompt_tokens + age + (1 if p.anticipator == ARTIFACT else 0)
