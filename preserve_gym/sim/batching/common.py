"""What the schedulers share: how a batch is put together, and how requests come into it and out of it."""

from __future__ import annotations

import math

from preserve_gym.sim.decoding import (
    advance_decoding,
    blocks_of_step,
    computed_tokens,
    join_decoding,
    leave_decoding,
    scheduled_output,
)
from preserve_gym.sim.jit import kernel
from preserve_gym.sim.memory import blocks_for, take_blocks
from preserve_gym.sim.queues import run_last, stop_running, stop_waiting, wait_at_the_head
from preserve_gym.sim.state import DECODING, PREFILLING, SKIPPED, VLLM, Record, State


@kernel
def no_tokens(s: State, b: int) -> Record:
    """An empty batch in slot ``b``."""
    batch = s.batches[b]
    batch.n_done = 0
    batch.tokens = 0
    batch.context = 0
    batch.quad = 0.0
    batch.advances = 1
    return batch


@kernel
def admit(s: State, i: int, start: float) -> int:
    """The head of the waiting queue starts its prefill in a batch executed at ``start``; returns which."""
    instance = s.instances[i]
    r = instance.waiting_head
    request = s.requests[r]
    stop_waiting(s, instance, r)
    run_last(s, instance, r)
    request.status = PREFILLING
    request.computed = 0
    request.prefill_target = request.prompt_tokens + request.generated
    if math.isnan(request.first_scheduled_s):
        request.first_scheduled_s = start
    s.prefilling[i * s.params[0].max_num_seqs + instance.n_prefilling] = r
    instance.n_prefilling += 1
    return r


@kernel
def no_room(s: State, i: int) -> bool:
    """Whether nothing waits, or there is no place or not enough memory for the first one."""
    p, instance = s.params[0], s.instances[i]
    if instance.n_waiting == 0 or instance.n_running >= p.max_num_seqs:
        return True
    request = s.requests[instance.waiting_head]
    need = blocks_for(p, request.prompt_tokens + request.generated)
    return p.kv_blocks - instance.blocks_used - need < p.watermark_blocks


@kernel
def decode_all(s: State, i: int, b: int, now: float) -> None:
    """Add the decoding requests to batch ``b``; each needs a free block at its turn, if only to pass."""
    p, instance, batch = s.params[0], s.instances[i], s.batches[b]
    blocks = blocks_of_step(s, i)
    if blocks < p.kv_blocks - instance.blocks_used or instance.n_decoding == 0:
        if blocks > 0:
            take_blocks(instance, blocks, now)
        batch.tokens, batch.context = instance.n_decoding, instance.decode_context
        return
    r = instance.running_head
    while r >= 0:
        request = s.requests[r]
        if request.status == DECODING:
            while p.kv_blocks - instance.blocks_used < 1:
                if evict_last(s, i, now) == r:
                    return
            computed = computed_tokens(instance, request)
            if computed % p.block_size == 0:
                take_blocks(instance, 1, now)
            batch.tokens += 1
            batch.context += computed + 1
        r = request.next


@kernel
def add_chunk(s: State, b: int, r: int, n: int) -> None:
    """Add the next ``n`` prompt tokens of prefilling request ``r`` to batch ``b``."""
    batch, request = s.batches[b], s.requests[r]
    batch.tokens += n
    batch.quad += n * (0.5 * n + request.computed)
    request.computed += n
    if request.computed == request.prefill_target:
        s.batch_requests[b * s.params[0].max_num_seqs + batch.n_done] = r
        batch.n_done += 1


@kernel
def skip_decoding(s: State, i: int, r: int) -> None:
    """No budget is left for decoding request ``r`` in this step: it goes on after it."""
    instance, request = s.instances[i], s.requests[r]
    # Its last token is of the step before, or, passed over again, of one before that.
    lag = request.lag + 1 if instance.steps == request.first_step else 1
    computed, generated = computed_tokens(instance, request), scheduled_output(instance, request)
    leave_decoding(s, i, r)
    request.prefill_target, request.generated, request.lag = computed, generated, lag
    request.status = SKIPPED
    instance.n_skipped += 1


@kernel
def close_batch(s: State, i: int, b: int) -> bool:
    """All requests of batch ``b`` are chosen: set its duration, and let those that are done move on.

    Returns:
        Whether the batch has any tokens.
    """
    p, instance, batch = s.params[0], s.instances[i], s.batches[b]
    if batch.tokens == 0:
        return False
    batch.duration_s = (
        p.base_s
        + p.per_token_s * batch.tokens
        + p.per_context_token_s * batch.context
        + p.per_quad_s * batch.quad
    )
    first = b * p.max_num_seqs
    prefilled = batch.n_done
    if batch.advances == 1:
        advance_decoding(s, i, b)
    if instance.n_skipped > 0:
        _rejoin_skipped(s, i)
    for k in range(first, first + prefilled):
        request = s.requests[s.batch_requests[k]]
        request.generated += 1
        request.lag = batch.advances - 1
        join_decoding(s, i, s.batch_requests[k])
    if prefilled > 0:
        base = i * p.max_num_seqs
        kept = base
        for k in range(base, base + instance.n_prefilling):
            if s.requests[s.prefilling[k]].status == PREFILLING:
                s.prefilling[kept] = s.prefilling[k]
                kept += 1
        instance.n_prefilling = kept - base
    return True


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
    p, instance, totals = s.params[0], s.instances[i], s.totals[0]
    r = instance.running_tail
    request = s.requests[r]
    if request.status == PREFILLING:
        # Only vllm takes blocks as it goes; the others reserve them at admission.
        computed = request.computed if p.scheduler == VLLM else request.prefill_target
        instance.n_prefilling -= 1
    elif request.status == DECODING:
        computed = computed_tokens(instance, request)
        # A token in flight arrives before it is scheduled again, so it counts as known.
        generated = scheduled_output(instance, request)
        leave_decoding(s, i, r)
        request.generated = generated
    else:
        computed = request.prompt_tokens + request.output_tokens - 1
        request.generated = request.output_tokens
    take_blocks(instance, -blocks_for(p, computed), now)
    stop_running(s, instance, r)
    request.preemptions += 1
    totals.preemptions += 1
    wait_at_the_head(s, instance, r)
    return r
