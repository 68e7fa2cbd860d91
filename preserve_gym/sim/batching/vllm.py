"""vLLM's V1 scheduler (0.19): chunked prefill, full-sequence gate, preemption by recomputation.

The rules are those of ``vllm.v1.core.sched.scheduler.Scheduler`` and ``AsyncScheduler`` for a text
model with full attention and first come first served:

* one token budget for decodes and prefills; the running requests first, in order of admission;
* a request that needs a block when none is free evicts the latest admitted one, again and again;
  it loses its KV cache, keeps its tokens and returns to the head of the queue;
* then the waiting requests in strict order, unless anything was evicted in this step.
"""

from __future__ import annotations

from preserve_gym.sim.jit import kernel
from preserve_gym.sim.memory import blocks_for, release_all, take_blocks
from preserve_gym.sim.queues import pop_front, push_front
from preserve_gym.sim.state import PREEMPTIONS, RUNNING, Instances, Params, Requests, Totals


@kernel
def schedule(
    p: Params, rq: Requests, ins: Instances, tot: Totals, i: int, g: int, now: float, start: float
) -> tuple[int, int, float, bool]:
    """Schedule one iteration of instance ``i`` at ``now``, to be executed at ``start``, into group ``g``.

    Fills ``group_size`` and ``group_requests`` of ``g`` with the requests that get a token.

    Returns:
        tokens, context and quad of the batch as ``LatencyLaw`` defines them, and whether it is a
        decode of every running request and nothing else (the first iteration of a leap).
    """
    run = i * p.max_num_seqs
    got = g * p.max_num_seqs
    budget = p.max_num_batched_tokens
    tokens = 0
    context = 0
    quad = 0.0
    n_got = 0
    evicted = False
    decode_only = True

    k = 0
    while k < ins.n_running[i] and budget > 0:
        r = ins.running[run + k]
        k += 1
        known = rq.prompt_tokens[r] + rq.generated[r] + rq.in_flight[r]
        if rq.generated[r] + rq.in_flight[r] >= rq.output_tokens[r]:
            decode_only = False  # its last token is in flight (asynchronous scheduling)
            continue
        computed = rq.computed[r]
        n = min(_capped(p, known - computed), budget)
        need = blocks_for(computed + n, p.block_size) - blocks_for(computed, p.block_size)
        while need > p.kv_blocks - ins.blocks_used[i]:
            victim = ins.running[run + ins.n_running[i] - 1]
            _evict(p, rq, ins, tot, i, victim, now)
            evicted = True
            if victim == r:
                break
        if rq.status[r] != RUNNING:
            break
        if need > 0:
            take_blocks(ins, i, need, now)
        if computed >= rq.prefill_target[r]:
            context += computed + 1
        else:
            decode_only = False
            quad += n * (0.5 * n + computed)
        n_got = _compute(rq, ins, got, n_got, r, n, known)
        tokens += n
        budget -= n

    decode_only = decode_only and not evicted and n_got == ins.n_running[i]

    while not evicted and budget > 0 and ins.n_waiting[i] > 0 and ins.n_running[i] < p.max_num_seqs:
        r = ins.waiting_head[i]
        known = rq.prompt_tokens[r] + rq.generated[r]
        n = _capped(p, known)
        if n > budget:
            if not p.chunked_prefill:
                break
            n = budget
        free = p.kv_blocks - ins.blocks_used[i]
        if p.full_isl_gate and blocks_for(known, p.block_size) > free:
            break
        need = blocks_for(n, p.block_size)
        if need > free:
            break
        pop_front(rq, ins, i)
        ins.running[run + ins.n_running[i]] = r
        ins.n_running[i] += 1
        rq.status[r] = RUNNING
        rq.prefill_target[r] = known
        if rq.first_scheduled_s[r] != rq.first_scheduled_s[r]:
            rq.first_scheduled_s[r] = start
        take_blocks(ins, i, need, now)
        decode_only = False
        quad += n * (0.5 * n)
        n_got = _compute(rq, ins, got, n_got, r, n, known)
        tokens += n
        budget -= n

    ins.group_size[g] = n_got
    return tokens, context, quad, decode_only


@kernel
def _capped(p: Params, n: int) -> int:
    """At most the long-prefill threshold, where there is one."""
    if 0 < p.long_prefill_token_threshold < n:
        return p.long_prefill_token_threshold
    return n


@kernel
def _compute(rq: Requests, ins: Instances, got: int, n_got: int, r: int, n: int, known: int) -> int:
    """Count ``n`` tokens of ``r`` as computed; it gets a token if that makes all of them."""
    rq.computed[r] += n
    if rq.computed[r] == known:
        rq.in_flight[r] += 1
        ins.group_requests[got + n_got] = r
        n_got += 1
    return n_got


@kernel
def _evict(p: Params, rq: Requests, ins: Instances, tot: Totals, i: int, r: int, now: float) -> None:
    """Preempt ``r``, the last of the running requests."""
    release_all(p, rq, ins, i, r, now)
    ins.n_running[i] -= 1
    rq.computed[r] = 0
    rq.preemptions[r] += 1
    tot.counts[PREEMPTIONS] += 1
    push_front(rq, ins, i, r)
