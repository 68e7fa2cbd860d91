"""What the schedulers share: how a batch is put together, and how requests come into it and out of it."""

from __future__ import annotations

import math

from preserve_gym.sim.anticipator import forget_peak, track_end
from preserve_gym.sim.decoding import (
    blocks_of_step,
    computed_tokens,
    done_list,
    finish_due,
    is_lagging,
    join_decoding,
    late_list,
    leave_decoding,
    scheduled_output,
)
from preserve_gym.sim.iteration_time import iteration_s
from preserve_gym.sim.jit import kernel
from preserve_gym.sim.memory import blocks_for, free_blocks, take_blocks
from preserve_gym.sim.queues import (
    run_last,
    running,
    settle_load,
    stop_running,
    stop_waiting,
    wait_at_the_head,
)
from preserve_gym.sim.state import DECODING, PREFILLING, SKIPPED, VLLM, Record, State

MAX_LAG = 100
"""A longer lag makes no difference: no more than two batches are scheduled."""


@kernel
def no_tokens(s: State, b: int) -> Record:
    """An empty batch in slot ``b``."""
    batch = s.batches[b]
    batch.n_done = 0
    batch.n_prefilled = 0
    batch.n_late = 0
    batch.tokens = 0
    batch.decodes = 0
    batch.context = 0
    batch.quad = 0.0
    batch.advances = 1
    return batch


@kernel
def admit(s: State, i: int, now: float, start: float) -> int:
    """The head of the waiting queue starts its prefill in a batch executed at ``start``; returns which."""
    instance = s.instances[i]
    r = instance.waiting_head
    request = s.requests[r]
    settle_load(s, i, now)
    stop_waiting(s, i, r)
    run_last(s, i, r)
    request.status = PREFILLING
    request.computed = 0
    request.prefill_target = request.prompt_tokens + request.generated
    if math.isnan(s.first_scheduled_s[r]):
        s.first_scheduled_s[r] = start
    s.prefilling[i * s.params[0].max_num_seqs + instance.n_prefilling] = r
    instance.n_prefilling += 1
    return r


@kernel
def no_room(s: State, i: int) -> bool:
    """Whether nothing waits, or there is no place or not enough memory for the first one."""
    p, instance = s.params[0], s.instances[i]
    if s.waiting[i] == 0 or running(s, i) >= p.max_num_seqs:
        return True
    request = s.requests[instance.waiting_head]
    need = blocks_for(p, request.prompt_tokens + request.generated)
    return free_blocks(s, i) - need < p.watermark_blocks


@kernel
def decode_all(s: State, i: int, b: int, now: float) -> None:
    """Add the decoding requests to batch ``b``; each needs a free block at its turn, if only to pass."""
    p, instance, batch = s.params[0], s.instances[i], s.batches[b]
    blocks = blocks_of_step(s, i)
    if blocks < free_blocks(s, i) or instance.n_decoding == 0:
        take_step(s, i, b, blocks, now)
        return
    r = instance.running_head
    while r >= 0:
        request = s.requests[r]
        if request.status == DECODING:
            while free_blocks(s, i) < 1:
                if evict_last(s, i, now) == r:
                    return
            computed = computed_tokens(instance, request)
            if computed & (p.block_size - 1) == 0:
                take_blocks(s, i, 1, now)
            add_decode(batch, computed)
        r = request.next


@kernel
def take_step(s: State, i: int, b: int, blocks: int, now: float) -> None:
    """Add all decoding requests to the empty batch ``b``; they take ``blocks`` blocks."""
    instance, batch = s.instances[i], s.batches[b]
    if blocks > 0:
        take_blocks(s, i, blocks, now)
    batch.tokens = instance.n_decoding
    batch.decodes = instance.n_decoding
    batch.context = instance.decode_context


@kernel
def add_decode(batch: Record, computed: int) -> None:
    """Add a decoding request that has ``computed`` tokens computed."""
    batch.tokens += 1
    batch.decodes += 1
    batch.context += computed + 1


@kernel
def add_chunk(s: State, b: int, r: int, n: int) -> None:
    """Add the next ``n`` prompt tokens of prefilling request ``r`` to batch ``b``."""
    batch, request = s.batches[b], s.requests[r]
    batch.tokens += n
    batch.quad += n * (0.5 * n + request.computed)
    request.computed += n
    if request.computed == request.prefill_target:
        s.batch_requests[done_list(s.params[0], b) + batch.n_done] = r
        batch.n_done += 1
        batch.n_prefilled += 1


@kernel
def skip_decoding(s: State, i: int, r: int) -> None:
    """No budget is left for decoding request ``r`` in this step: it goes on after it."""
    instance, request = s.instances[i], s.requests[r]
    # Its last token is of the step before, or, passed over again, of one before that.
    lag = min(request.lag + 1, MAX_LAG) if instance.steps == request.first_step else 1
    note_last_token(instance, request)
    forget_peak(s, i)
    computed, generated = computed_tokens(instance, request), scheduled_output(instance, request)
    leave_decoding(s, i, r)
    request.prefill_target, request.generated, request.lag = computed, generated, lag
    request.status = SKIPPED
    instance.n_skipped += 1


@kernel
def note_last_token(instance: Record, request: Record) -> None:
    """A decoding request will not be in the next step: note when its last token came, or will come."""
    if request.first_step == instance.steps:
        return  # noted already, or it will be with the token that its prefill yields
    request.token_s = instance.iteration_end_s if instance.has_executing == 1 else instance.step_end_s


@kernel
def close_batch(s: State, i: int, b: int) -> bool:
    """All requests of batch ``b`` are chosen: set its duration, and let those that are done move on.

    Returns:
        Whether the batch has any tokens.
    """
    p, instance, batch = s.params[0], s.instances[i], s.batches[b]
    if batch.tokens == 0:
        return False
    batch.duration_s = iteration_s(p, batch.tokens, batch.context, batch.quad)
    if batch.advances == 1:
        if instance.n_lagging > 0:
            _note_late(s, i, b)
        instance.steps += 1
        instance.decode_context += instance.n_decoding
        finish_due(s, i, b)
    if instance.n_skipped > 0:
        _rejoin_skipped(s, i)
    if batch.n_prefilled > 0:
        _join_prefilled(s, i, b)
    if batch.quad > 0.0 or batch.n_late > 0:
        instance.n_special += 1
    return True


@kernel
def _join_prefilled(s: State, i: int, b: int) -> None:
    """Requests that end their prefill in batch ``b`` decode after it."""
    p, instance, batch = s.params[0], s.instances[i], s.batches[b]
    first = done_list(p, b)
    for k in range(first, first + batch.n_prefilled):
        request = s.requests[s.batch_requests[k]]
        request.generated += 1
        request.lag = batch.advances - 1
        join_decoding(s, i, s.batch_requests[k])
    base = i * p.max_num_seqs
    kept = base
    for k in range(base, base + instance.n_prefilling):
        if s.requests[s.prefilling[k]].status == PREFILLING:
            s.prefilling[kept] = s.prefilling[k]
            kept += 1
    instance.n_prefilling = kept - base


@kernel
def _note_late(s: State, i: int, b: int) -> None:
    """The lagging requests are in the step of batch ``b``, the first one since they missed one."""
    instance, batch = s.instances[i], s.batches[b]
    base = late_list(s.params[0], b)
    r = instance.running_tail
    while batch.n_late < instance.n_lagging:
        request = s.requests[r]
        if request.status == DECODING and is_lagging(instance, request):
            s.batch_requests[base + batch.n_late] = r
            batch.n_late += 1
        r = request.previous
    instance.n_lagging = 0


@kernel
def _rejoin_skipped(s: State, i: int) -> None:
    instance = s.instances[i]
    r = instance.running_tail
    while instance.n_skipped > 0:
        if s.requests[r].status == SKIPPED:
            join_decoding(s, i, r)
            instance.n_skipped -= 1
        r = s.requests[r].previous


@kernel
def evict_last(s: State, i: int, now: float) -> int:
    """Preempt the last of the running requests: it loses its KV cache and waits again; returns which."""
    p, instance = s.params[0], s.instances[i]
    r = instance.running_tail
    request = s.requests[r]
    track_end(s, i, r)
    if request.status == PREFILLING:
        # Only vllm takes blocks as it goes; the others reserve them at admission.
        computed = request.computed if p.scheduler == VLLM else request.prefill_target
        instance.n_prefilling -= 1
    elif request.status == DECODING:
        computed = computed_tokens(instance, request)
        # A token in flight arrives before it is scheduled again, so it counts as known.
        generated = scheduled_output(instance, request)
        note_last_token(instance, request)
        leave_decoding(s, i, r)
        request.generated = generated
    else:
        computed = request.prompt_tokens + request.output_tokens - 1
        request.generated = request.output_tokens
    take_blocks(s, i, -blocks_for(p, computed), now)
    stop_running(s, i, r)
    s.preemptions[r] += 1
    s.counts[request.request_class].preemptions += 1
    settle_load(s, i, now)
    wait_at_the_head(s, i, r)
    return r
