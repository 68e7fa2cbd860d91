"""vLLM's V1 scheduler (0.19): chunked prefill, full-sequence gate, preemption by recomputation.

The rules are those of ``vllm.v1.core.sched.scheduler.Scheduler`` and ``AsyncScheduler`` for a text
model with full attention and first come first served:

* one token budget for decodes and prefills; the running requests first, in order of admission;
* a request that needs a block when none is free evicts the latest admitted one, again and again;
  it loses its KV cache, keeps its tokens and returns to the head of the queue;
* then the waiting requests in strict order, unless anything was evicted in this step.
"""

from __future__ import annotations

import math

from preserve_gym.sim.jit import kernel
from preserve_gym.sim.memory import blocks_for, release_all, take_blocks
from preserve_gym.sim.queues import pop_front, push_front
from preserve_gym.sim.state import RUNNING, Record, State


@kernel
def schedule(s: State, i: int, g: int, now: float, start: float) -> tuple[int, int, float, bool]:
    """Schedule one iteration of instance ``i`` at ``now``, to be executed at ``start``, into group ``g``.

    Fills the size and the requests of group ``g`` with those that get a token.

    Returns:
        tokens, context and quad of the batch as ``LatencyLaw`` defines them, and whether it is a
        decode of every running request and nothing else (the first iteration of a leap).
    """
    p, instance, group = s.params[0], s.instances[i], s.groups[g]
    run = i * p.max_num_seqs
    budget = p.max_num_batched_tokens
    tokens = 0
    context = 0
    quad = 0.0
    group.size = 0
    evicted = False
    decode_only = True

    k = 0
    while k < instance.n_running and budget > 0:
        r = s.running[run + k]
        k += 1
        request = s.requests[r]
        sampled = request.generated + request.in_flight
        if sampled >= request.output_tokens:
            decode_only = False  # its last token is in flight (asynchronous scheduling)
            continue
        known = request.prompt_tokens + sampled
        computed = request.computed
        n = min(_capped(p, known - computed), budget)
        need = blocks_for(computed + n, p.block_size) - blocks_for(computed, p.block_size)
        if need > 0:
            while need > p.kv_blocks - instance.blocks_used:
                evicted = True
                victim = s.running[run + instance.n_running - 1]
                _evict(s, instance, victim, now)
                if victim == r:
                    break
            if request.status != RUNNING:
                break
            take_blocks(instance, need, now)
        if computed >= request.prefill_target:
            context += computed + 1
        else:
            decode_only = False
            quad += n * (0.5 * n + computed)
        _compute(s, g, r, n, known)
        tokens += n
        budget -= n

    decode_only = decode_only and not evicted and group.size == instance.n_running

    while not evicted and budget > 0 and instance.n_waiting > 0 and instance.n_running < p.max_num_seqs:
        r = instance.waiting_head
        request = s.requests[r]
        known = request.prompt_tokens + request.generated
        n = _capped(p, known)
        if n > budget:
            if p.chunked_prefill == 0:
                break
            n = budget
        free = p.kv_blocks - instance.blocks_used
        if p.full_isl_gate == 1 and blocks_for(known, p.block_size) > free:
            break
        need = blocks_for(n, p.block_size)
        if need > free:
            break
        pop_front(s, instance)
        s.running[run + instance.n_running] = r
        instance.n_running += 1
        request.status = RUNNING
        request.prefill_target = known
        if math.isnan(request.first_scheduled_s):
            request.first_scheduled_s = start
        take_blocks(instance, need, now)
        decode_only = False
        quad += n * (0.5 * n)
        _compute(s, g, r, n, known)
        tokens += n
        budget -= n

    return tokens, context, quad, decode_only


@kernel
def _capped(p: Record, n: int) -> int:
    """At most the long-prefill threshold, where there is one."""
    if 0 < p.long_prefill_token_threshold < n:
        return p.long_prefill_token_threshold
    return n


@kernel
def _compute(s: State, g: int, r: int, n: int, known: int) -> None:
    """Count ``n`` tokens of request ``r`` as computed; it gets a token if that makes all of them."""
    request, group = s.requests[r], s.groups[g]
    request.computed += n
    if request.computed == known:
        request.in_flight += 1
        s.group_requests[g * s.params[0].max_num_seqs + group.size] = r
        group.size += 1


@kernel
def _evict(s: State, instance: Record, r: int, now: float) -> None:
    """Preempt request ``r``, the last of the running ones."""
    request = s.requests[r]
    release_all(s.params[0], instance, request, now)
    instance.n_running -= 1
    request.computed = 0
    request.preemptions += 1
    s.totals[0].preemptions += 1
    push_front(s, instance, r)
