"""Iterations of an instance: scheduling turns, and what happens when a batch ends.

An instance evolves on its own between two requests that reach it. ``advance`` plays it up to a time;
nothing it does depends on where the caller stops, so looking never changes the outcome.

With synchronous scheduling the scheduler's turn comes when a batch ends; with asynchronous scheduling
(vLLM's default) when one starts, for the one after it.

While nobody finishes, no memory runs out and nobody can be admitted, a batch is nothing but one more step
of the same decoding requests. ``_leap`` plays a run of those with a few operations each. It sums the clock
batch by batch, in the order of operations of any other batch, so leaping changes no bit.
"""

from __future__ import annotations

import math

from preserve_gym.sim.batching import sarathi, vllm, vllm_v0
from preserve_gym.sim.decoding import next_finish, residue_of
from preserve_gym.sim.jit import kernel
from preserve_gym.sim.memory import blocks_for, take_blocks
from preserve_gym.sim.queues import stop_running, stop_waiting, wait_at_the_end
from preserve_gym.sim.slo import completion_deadline_s, first_token_deadline_s
from preserve_gym.sim.state import DRAINING, FINISHED, LEAVING, OFF, VLLM, VLLM_V0, WAITING, Record, State


@kernel
def enqueue(s: State, i: int, r: int, now: float) -> None:
    """Request ``r`` reaches instance ``i``, which has been advanced to ``now``."""
    instance, request = s.instances[i], s.requests[r]
    request.instance = i
    instance.queued_prefill_tokens += request.prompt_tokens
    instance.expected_tokens += request.prompt_tokens + request.predicted_tokens
    wait_at_the_end(s, instance, r)
    if instance.has_executing == 0:
        instance.schedule_at_s = now
    s.quiet_until_s[i] = now


@kernel
def advance(s: State, i: int, t: float) -> None:
    """Play instance ``i`` up to ``t``: iterations that end by ``t``, scheduling turns before ``t``."""
    instance = s.instances[i]
    while True:
        quiet_until_s = 0.0
        if instance.n_decoding > 0 and instance.n_prefilling == 0 and _may_leap(s, i):
            quiet_until_s = _leap(s, i, t)
        turn = instance.schedule_at_s
        if turn < t:
            instance.schedule_at_s = math.inf
            _scheduling_turn(s, i, turn)
        elif instance.iteration_end_s <= t:
            _end_batch(s, i)
        else:
            s.quiet_until_s[i] = max(quiet_until_s, min(turn, instance.iteration_end_s))
            return


@kernel
def _schedule(s: State, i: int, b: int, now: float, start: float) -> bool:
    scheduler = s.params[0].scheduler
    if scheduler == VLLM:
        return vllm.schedule(s, i, b, now, start)
    if scheduler == VLLM_V0:
        return vllm_v0.schedule(s, i, b, now, start)
    return sarathi.schedule(s, i, b, now, start)


@kernel
def _scheduling_turn(s: State, i: int, now: float) -> None:
    p, instance = s.params[0], s.instances[i]
    busy = instance.has_executing == 1
    b = 2 * i + (1 - instance.executing if busy else instance.executing)
    if not _schedule(s, i, b, now, instance.iteration_end_s if busy else now):
        return
    if busy:
        instance.has_next = 1
    else:
        instance.has_executing = 1
        _start_batch(p, instance, s.batches[b], now)


@kernel
def _start_batch(p: Record, instance: Record, batch: Record, now: float) -> None:
    instance.iteration_end_s = now + batch.duration_s
    if p.async_scheduling == 1:
        instance.schedule_at_s = now


@kernel
def _may_leap(s: State, i: int) -> bool:
    """Whether the next batches can be steps of the decoding requests alone."""
    instance = s.instances[i]
    if instance.has_executing == 1 and s.batches[2 * i + instance.executing].n_done > 0:
        return False
    if instance.has_next == 1 and s.batches[2 * i + 1 - instance.executing].n_done > 0:
        return False
    scheduler = s.params[0].scheduler
    if scheduler == VLLM:
        return vllm.stuck(s, i)
    return vllm_v0.stuck(s, i) if scheduler == VLLM_V0 else sarathi.stuck(s, i)


@kernel
def _leap(s: State, i: int, t: float) -> float:
    """Play steps of the decoding requests up to ``t``, or to where a step finishes one or lacks memory.

    Returns:
        A time until which there will be nothing but more such steps.
    """
    p, instance = s.params[0], s.instances[i]
    executing, following = s.batches[2 * i + instance.executing], s.batches[2 * i + 1 - instance.executing]
    size, n = p.block_size, instance.n_decoding
    fixed_s, per_context_token_s = p.base_s + p.per_token_s * n, p.per_context_token_s
    asynchronous = p.async_scheduling == 1
    turn, end = instance.schedule_at_s, instance.iteration_end_s
    duration_s, next_s, has_next = executing.duration_s, following.duration_s, instance.has_next == 1
    steps, ended_steps, context = instance.steps, instance.ended_steps, instance.decode_context
    busy_s = instance.busy_s
    last_step = next_finish(s, i) - 1
    spare = 0 if p.scheduler == VLLM else 1  # blocks that must be left after a step
    first_residue = i * size
    residue = residue_of(size, i, 0, steps)
    while True:
        if turn < t:
            blocks = s.residues[residue]
            if steps == last_step or blocks + spare > p.kv_blocks - instance.blocks_used:
                break
            if blocks > 0:
                take_blocks(instance, blocks, turn)
            residue = residue - 1 if residue > first_residue else first_residue + size - 1
            steps += 1
            step_s = fixed_s + per_context_token_s * context
            context += n
            if end < math.inf:
                next_s, has_next = step_s, True
                turn = math.inf
            else:
                duration_s = step_s
                end = turn + step_s
                if not asynchronous:
                    turn = math.inf
        elif end <= t:
            busy_s += duration_s
            ended_steps += 1
            turn = end
            if has_next:
                duration_s, has_next = next_s, False
                end += duration_s
            else:
                end = math.inf
        else:
            break
    executing.duration_s, following.duration_s = duration_s, next_s
    instance.schedule_at_s, instance.iteration_end_s = turn, end
    instance.has_executing, instance.has_next = end < math.inf, has_next
    instance.steps, instance.ended_steps, instance.decode_context = steps, ended_steps, context
    instance.busy_s = busy_s
    # Whatever the leap scheduled is done when it ends.
    executing.n_done, following.n_done = 0, 0
    executing.advances, following.advances = 1, 1
    # Any block_size steps in a row take n blocks. Steps only get longer; one less makes up for rounding.
    more = min(last_step - steps, (p.kv_blocks - instance.blocks_used - spare) // n * size) - 1
    return turn if end == math.inf else end + max(more, 0) * (fixed_s + per_context_token_s * context)


@kernel
def _end_batch(s: State, i: int) -> None:
    instance = s.instances[i]
    b = 2 * i + instance.executing
    now = instance.iteration_end_s
    instance.iteration_end_s = math.inf
    instance.has_executing = 0
    instance.busy_s += s.batches[b].duration_s
    instance.ended_steps += s.batches[b].advances
    _hand_out(s, i, b, now)
    if instance.has_next == 1:
        instance.executing = 1 - instance.executing
        instance.has_executing = 1
        instance.has_next = 0
        _start_batch(s.params[0], instance, s.batches[2 * i + instance.executing], now)
    elif instance.n_running + instance.n_waiting > 0:
        instance.schedule_at_s = now
    elif instance.state == DRAINING:
        instance.state = OFF
        instance.instance_s += now - instance.started_s


@kernel
def _hand_out(s: State, i: int, b: int, now: float) -> None:
    """Batch ``b`` has ended: first tokens, and requests that are finished."""
    p, instance, totals = s.params[0], s.instances[i], s.totals[0]
    first = b * p.max_num_seqs
    for k in range(first, first + s.batches[b].n_done):
        r = s.batch_requests[k]
        request = s.requests[r]
        if math.isnan(request.first_token_s):
            request.first_token_s = now
            instance.queued_prefill_tokens -= request.prompt_tokens
            totals.first_tokens += 1
            totals.ttft_sum_s += now - request.arrival_s
        if request.lag < 0:
            request.lag = 0
        if request.status == LEAVING:
            if request.first_step + request.output_tokens - request.generated > instance.ended_steps:
                continue  # its last token is in the next batch
            stop_running(s, instance, r)
            computed = request.prompt_tokens + request.output_tokens - 1
            take_blocks(instance, -blocks_for(p, computed), now)
            _finish(p, instance, totals, request, now)
        elif request.status == WAITING and request.generated == request.output_tokens:
            # Preempted with its last token in flight.
            stop_waiting(s, instance, r)
            _finish(p, instance, totals, request, now)


@kernel
def _finish(p: Record, instance: Record, totals: Record, request: Record, now: float) -> None:
    request.status = FINISHED
    request.completed_s = now
    instance.expected_tokens -= request.prompt_tokens + request.predicted_tokens
    totals.completed += 1
    totals.output_tokens += request.output_tokens
    totals.decode_sum_s += now - request.first_token_s
    in_time = request.first_token_s <= first_token_deadline_s(p, request)
    if in_time and now <= completion_deadline_s(p, request):
        totals.compliant += 1
