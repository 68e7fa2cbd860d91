"""vLLM's V1 scheduler (0.19): chunked prefill, full-sequence gate, preemption by recomputation.

The rules are those of ``vllm.v1.core.sched.scheduler.Scheduler`` and ``AsyncScheduler`` for a text
model with full attention and first come first served:

* one token budget for decodes and prefills; the running requests first, in order of admission;
* a request that needs a block when none is free evicts the latest admitted one, again and again;
  it loses its KV cache, keeps its tokens and returns to the head of the queue;
* then the waiting requests in strict order, unless anything was evicted in this step.

The order among the running requests matters only when memory or budget runs out. Then they are walked
through one by one; otherwise the decoding ones are taken all at once.
"""

from __future__ import annotations

from preserve_gym.sim.batching.common import (
    add_chunk,
    add_decode,
    admit,
    close_batch,
    evict_last,
    no_tokens,
    skip_decoding,
    take_step,
)
from preserve_gym.sim.decoding import blocks_of_step, computed_tokens
from preserve_gym.sim.jit import kernel
from preserve_gym.sim.memory import blocks_for, free_blocks, take_blocks
from preserve_gym.sim.queues import running
from preserve_gym.sim.state import DECODING, PREFILLING, Record, State


@kernel
def schedule(s: State, i: int, b: int, now: float, start: float) -> bool:
    """Schedule a batch of instance ``i`` at ``now``, to be executed at ``start``, into slot ``b``.

    Returns:
        Whether there is anything to do.
    """
    p, instance = s.params[0], s.instances[i]
    batch = no_tokens(s, b)
    evicted = False
    if _order_matters(s, i):
        evicted = _walk(s, i, b, now)
    else:
        take_step(s, i, b, blocks_of_step(s, i), now)
        for k in range(i * p.max_num_seqs, i * p.max_num_seqs + instance.n_prefilling):
            request = s.requests[s.prefilling[k]]
            n = _chunk(p, request.prefill_target - request.computed, p.max_num_batched_tokens - batch.tokens)
            take_blocks(s, i, _blocks_more(p, request.computed, n), now)
            add_chunk(s, b, s.prefilling[k], n)
    if not evicted and s.waiting[i] > 0:
        _admit_waiting(s, i, b, now, start)
    return close_batch(s, i, b)


@kernel
def stuck(s: State, i: int) -> bool:
    """Whether nothing that waits at instance ``i`` can be admitted while its running requests decode on."""
    p, instance = s.params[0], s.instances[i]
    if s.waiting[i] == 0 or running(s, i) >= p.max_num_seqs:
        return True
    budget = p.max_num_batched_tokens - instance.n_decoding
    return budget <= 0 or not _fits(s, i, budget)


@kernel
def _chunk(p: Record, left: int, budget: int) -> int:
    """Tokens of a prompt with ``left`` to go that are computed in one iteration."""
    if 0 < p.long_prefill_token_threshold < left:
        left = p.long_prefill_token_threshold
    return min(left, budget)


@kernel
def _blocks_more(p: Record, computed: int, n: int) -> int:
    """Blocks that ``n`` tokens more take."""
    return blocks_for(p, computed + n) - blocks_for(p, computed)


@kernel
def _order_matters(s: State, i: int) -> bool:
    """Whether memory or the budget runs out on the running requests."""
    p, instance = s.params[0], s.instances[i]
    free = free_blocks(s, i) - blocks_of_step(s, i)
    budget = p.max_num_batched_tokens - instance.n_decoding
    for k in range(i * p.max_num_seqs, i * p.max_num_seqs + instance.n_prefilling):
        if budget <= 0:
            return True
        request = s.requests[s.prefilling[k]]
        left = request.prefill_target - request.computed
        n = _chunk(p, left, budget)
        # Without a threshold a prompt that is not done is the last one admitted, so it is nobody's
        # budget that it takes.
        if p.long_prefill_token_threshold > 0 and n < _chunk(p, left, left):
            return True
        free -= _blocks_more(p, request.computed, n)
        budget -= n
    return free < 0


@kernel
def _walk(s: State, i: int, b: int, now: float) -> bool:
    """Schedule the running requests one by one; returns whether any was evicted."""
    p, instance, batch = s.params[0], s.instances[i], s.batches[b]
    evicted = False
    r = instance.running_head
    while r >= 0:
        request = s.requests[r]
        left = p.max_num_batched_tokens - batch.tokens
        if request.status == DECODING:
            if left <= 0:
                behind = request.next
                skip_decoding(s, i, r)
                r = behind
                continue
            computed, n = computed_tokens(instance, request), 1
        elif request.status == PREFILLING and left > 0:
            computed = request.computed
            n = _chunk(p, request.prefill_target - computed, left)
        else:  # its last token is in flight, or the budget is spent
            r = request.next
            continue
        need = _blocks_more(p, computed, n)
        while need > free_blocks(s, i):
            evicted = True
            if evict_last(s, i, now) == r:
                return True
        take_blocks(s, i, need, now)
        if request.status == DECODING:
            add_decode(batch, computed)
        else:
            add_chunk(s, b, r, n)
        r = request.next
    return evicted


@kernel
def _fits(s: State, i: int, budget: int) -> bool:
    """Whether the head of the waiting queue can be admitted with ``budget`` tokens left."""
    p, instance = s.params[0], s.instances[i]
    request = s.requests[instance.waiting_head]
    known = request.prompt_tokens + request.generated
    free = free_blocks(s, i)
    if p.full_isl_gate == 1 and blocks_for(p, known) > free:
        return False
    n = _chunk(p, known, known)
    if n > budget:
        if p.chunked_prefill == 0:
            return False
        n = budget
    return blocks_for(p, n) <= free


@kernel
def _admit_waiting(s: State, i: int, b: int, now: float, start: float) -> None:
    p, batch = s.params[0], s.batches[b]
    while s.waiting[i] > 0 and running(s, i) < p.max_num_seqs:
        budget = p.max_num_batched_tokens - batch.tokens
        if budget <= 0 or not _fits(s, i, budget):
            return
        r = admit(s, i, now, start)
        n = _chunk(p, s.requests[r].prefill_target, budget)
        take_blocks(s, i, blocks_for(p, n), now)
        add_chunk(s, b, r, n)
