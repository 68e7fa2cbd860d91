"""The decoding requests of an instance, advanced all at once.

In every step each of them gets one token. So nothing is written per request and step: how far one has
come follows from the number of steps since ``first_step``, its last step is known from the start (a
binary heap gives the next), the total context grows by the number of requests, and the blocks that a step
takes follow from how many requests have a multiple of the block size computed (``residues``).
"""

from __future__ import annotations

import numpy as np

from preserve_gym.sim.jit import kernel
from preserve_gym.sim.state import DECODING, LEAVING, Record, State

WHICH = (1 << 31) - 1
"""Of an entry of the heap, the bits that tell the request."""

_MAX_STEPS = 2**31 - 1
"""The last step that ``first_step`` can tell; what begins then ends less than 2**31 steps later."""


@kernel
def computed_tokens(instance: Record, request: Record) -> int:
    """Tokens of a decoding request whose KV entries are scheduled or done."""
    return request.prefill_target + (instance.steps - request.first_step)


@kernel
def scheduled_output(instance: Record, request: Record) -> int:
    """Output tokens of a decoding request in all steps that are scheduled."""
    return request.generated + (instance.steps - request.first_step)


@kernel
def ended_output(instance: Record, request: Record) -> int:
    """Output tokens of a decoding or leaving request in the iterations that have ended."""
    since = instance.ended_steps - request.first_step
    if since > 0:
        return request.generated + since
    return request.generated - (1 if since < -request.lag else 0)


@kernel
def residue_of(size: int, i: int, computed: int, steps: int) -> int:
    """Where ``residues`` counts a request of instance ``i`` that has ``computed`` tokens at ``steps``."""
    return i * size + ((computed - steps) & (size - 1))  # size is a power of two


@kernel
def blocks_of_step(s: State, i: int) -> int:
    """Blocks that the decoding requests of instance ``i`` take in the next step."""
    return s.residues[residue_of(s.params[0].block_size, i, 0, s.instances[i].steps)]


@kernel
def join_decoding(s: State, i: int, r: int) -> None:
    """Request ``r``, with all of ``prefill_target`` computed, decodes from the next step on.

    ``generated`` must count the token that its prefill yields. If that is its last, it leaves.
    """
    p, instance, request = s.params[0], s.instances[i], s.requests[r]
    if instance.steps > _MAX_STEPS:
        raise OverflowError("an instance has run more iterations than can be numbered (2**31)")
    request.first_step = instance.steps
    instance.joined_step = instance.steps
    s.predicted_last[r] = instance.steps + request.predicted_tokens - request.generated + 1
    s.predicted_held[r] = request.prompt_tokens + request.predicted_tokens
    left = request.output_tokens - request.generated
    if left == 0:
        request.status = LEAVING
        return
    request.status = DECODING
    if request.lag != 0:
        instance.n_lagging += 1
    instance.decode_context += request.prefill_target + 1
    s.residues[residue_of(p.block_size, i, request.prefill_target, instance.steps)] += 1
    _push(s, i * p.max_num_seqs, instance.n_decoding, ((instance.steps + left) << 31) + r)
    instance.n_decoding += 1


@kernel
def leave_decoding(s: State, i: int, r: int) -> None:
    """Request ``r`` decodes no more: it is preempted, or passed over in this step."""
    p, instance, request = s.params[0], s.instances[i], s.requests[r]
    if is_lagging(instance, request):
        instance.n_lagging -= 1
    base = i * p.max_num_seqs
    k = base
    left = request.output_tokens - request.generated
    entry = ((np.int64(request.first_step) + left) << 31) + r
    while s.finish[k] != entry:
        k += 1
    _forget(s, i, r)
    last = base + instance.n_decoding  # _forget has counted it out
    if k < last:
        # The last entry fills the hole, and moves down or up to its place.
        _pull(s, base, k - base, instance.n_decoding, s.finish[last])
        _push(s, base, k - base, s.finish[k])


@kernel
def is_lagging(instance: Record, request: Record) -> bool:
    """Whether a decoding request has missed a step and not been in one since."""
    return request.lag != 0 and request.first_step == instance.steps


@kernel
def done_list(p: Record, b: int) -> int:
    """Where ``batch_requests`` lists the requests that are done in batch ``b``."""
    return 2 * b * p.max_num_seqs


@kernel
def late_list(p: Record, b: int) -> int:
    """Where ``batch_requests`` lists those that are late in it."""
    return done_list(p, b) + p.max_num_seqs


@kernel
def is_scheduled(instance: Record, b: int) -> bool:
    """Whether batch ``b`` of the instance is executing or next."""
    executing = instance.executing == (b & 1)
    return (instance.has_executing if executing else instance.has_next) == 1


@kernel
def next_finish(s: State, i: int) -> int:
    """The step in which the next decoding request gets its last token; there must be one."""
    return s.finish[i * s.params[0].max_num_seqs] >> 31


@kernel
def finish_due(s: State, i: int, b: int) -> None:
    """Requests that get their last token in the step just counted leave, and are noted in batch ``b``."""
    p, instance, batch = s.params[0], s.instances[i], s.batches[b]
    base = i * p.max_num_seqs
    while instance.n_decoding > 0 and s.finish[base] >> 31 == instance.steps:
        r = s.finish[base] & WHICH
        _forget(s, i, r)
        if instance.n_decoding > 0:
            _pull(s, base, 0, instance.n_decoding, s.finish[base + instance.n_decoding])
        s.requests[r].status = LEAVING
        s.batch_requests[done_list(p, b) + batch.n_done] = r
        batch.n_done += 1


@kernel
def _forget(s: State, i: int, r: int) -> None:
    """Take ``r`` out of the sums over the decoding requests."""
    instance, request = s.instances[i], s.requests[r]
    computed = computed_tokens(instance, request)
    instance.n_decoding -= 1
    instance.decode_context -= computed + 1
    s.residues[residue_of(s.params[0].block_size, i, computed, instance.steps)] -= 1


@kernel
def _push(s: State, base: int, size: int, entry: int) -> None:
    """Add to the heap of ``size`` entries at ``base``."""
    k = size
    while k > 0:
        parent = (k - 1) >> 1
        if s.finish[base + parent] <= entry:
            break
        s.finish[base + k] = s.finish[base + parent]
        k = parent
    s.finish[base + k] = entry


@kernel
def _pull(s: State, base: int, k: int, size: int, entry: int) -> None:
    """Fill the hole at ``k`` in the heap of ``size`` entries with an entry that is not above it."""
    while True:
        child = 2 * k + 1
        if child >= size:
            break
        if child + 1 < size and s.finish[base + child + 1] < s.finish[base + child]:
            child += 1
        if s.finish[base + child] >= entry:
            break
        s.finish[base + k] = s.finish[base + child]
        k = child
    s.finish[base + k] = entry
