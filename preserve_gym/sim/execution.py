"""Iterations of an instance: scheduling turns, leaps, and what happens when an iteration ends.

An instance evolves on its own between two requests that reach it. ``advance`` plays it up to a time;
nothing it does depends on where the caller stops, so looking never changes the outcome.

A *group* is one scheduled iteration, or a *leap*: consecutive iterations in which the same requests
decode, one token each. While nobody finishes, no memory runs out and nobody can be admitted, the
scheduler's decision is the same at each of its turns, so it is made once. Only the clock is summed
iteration by iteration, in the order of operations of the reference, which keeps leaps bit-exact.

With synchronous scheduling the scheduler's turn comes when an iteration ends; with asynchronous
scheduling (vLLM's default) when one starts, for the one after it.
"""

from __future__ import annotations

import math

from preserve_gym.sim.batching.vllm import schedule
from preserve_gym.sim.jit import kernel
from preserve_gym.sim.memory import release_all, take_blocks
from preserve_gym.sim.queues import push_back, remove
from preserve_gym.sim.state import (
    COMPLETED,
    COMPLIANT,
    DECODE_SUM_S,
    DRAINING,
    FINISHED,
    FIRST_TOKENS,
    OFF,
    OUTPUT_TOKENS,
    RUNNING,
    TTFT_SUM_S,
    WAITING,
    Instances,
    Params,
    Requests,
    Totals,
)


@kernel
def completion_deadline_s(p: Params, rq: Requests, r: int) -> float:
    """The earlier of the deadlines for the completion of ``r``; inf if there is none."""
    output = rq.output_tokens[r]
    deadline = math.inf
    if p.slo_tpot_s < math.inf:
        deadline = first_token_deadline_s(p, rq, r) + p.slo_tpot_s * (output - 1)
    if p.slo_normalized_latency_s < math.inf:
        deadline = min(deadline, rq.arrival_s[r] + p.slo_normalized_latency_s * output)
    return deadline


@kernel
def first_token_deadline_s(p: Params, rq: Requests, r: int) -> float:
    """The deadline for the first token of ``r``; inf if there is none."""
    return rq.arrival_s[r] + p.slo_ttft_s + p.slo_ttft_per_prompt_token_s * rq.prompt_tokens[r]


@kernel
def enqueue(p: Params, rq: Requests, ins: Instances, tot: Totals, i: int, r: int, now: float) -> None:
    """Request ``r`` reaches instance ``i``, which has been advanced to ``now``."""
    rq.instance[r] = i
    ins.queued_prefill_tokens[i] += rq.prompt_tokens[r]
    ins.expected_tokens[i] += rq.prompt_tokens[r] + rq.predicted_tokens[r]
    if ins.n_waiting[i] == 0:  # otherwise the head of the queue is stuck, and this one behind it
        _end_leap_early(p, rq, ins, tot, i, now)
    push_back(rq, ins, i, r)
    if ins.has_executing[i] == 0:
        ins.schedule_at_s[i] = now


@kernel
def advance(p: Params, rq: Requests, ins: Instances, tot: Totals, i: int, t: float) -> None:
    """Play instance ``i`` up to ``t``: iterations that end by ``t``, scheduling turns before ``t``."""
    while True:
        if ins.has_executing[i] == 1 and ins.group_iterations[2 * i + ins.executing[i]] > 1:
            _advance_leap(p, ins, i, t)
        turn = ins.schedule_at_s[i]
        if turn < t:
            ins.schedule_at_s[i] = math.inf
            _scheduling_turn(p, rq, ins, tot, i, turn)
        elif ins.iteration_end_s[i] <= t:
            _end_iteration(p, rq, ins, tot, i)
        else:
            return


@kernel
def _scheduling_turn(p: Params, rq: Requests, ins: Instances, tot: Totals, i: int, now: float) -> None:
    e = 2 * i + ins.executing[i]
    executing = ins.has_executing[i] == 1
    g = 2 * i + 1 - ins.executing[i] if executing else e
    start = ins.iteration_end_s[i] if executing else now
    tokens, context, quad, decode_only = schedule(p, rq, ins, tot, i, g, now, start)
    if tokens == 0:
        return
    ins.group_iterations[g] = 1
    ins.group_scheduled[g] = 1
    ins.group_ended[g] = 0
    if decode_only:
        ins.group_fixed_s[g] = p.base_s + p.per_token_s * tokens
        ins.group_context[g] = context
        _plan_leap(p, rq, ins, i, g)
    else:
        ins.group_fixed_s[g] = (
            p.base_s + p.per_token_s * tokens + p.per_context_token_s * context + p.per_quad_s * quad
        )
        ins.group_context[g] = 0
    if executing:
        ins.has_next[i] = 1
    else:
        ins.has_executing[i] = 1
        _start_iteration(p, ins, i, g, now)


@kernel
def _plan_leap(p: Params, rq: Requests, ins: Instances, i: int, g: int) -> None:
    """Make group ``g``, whose first iteration is scheduled, as many iterations long as can be foreseen."""
    n = ins.group_size[g]
    first = g * p.max_num_seqs
    most = 2**62
    for k in range(first, first + n):
        r = ins.group_requests[k]
        most = min(most, rq.output_tokens[r] - rq.generated[r] - rq.in_flight[r])
    if most == 0:
        return
    size = p.block_size
    base = i * size
    for k in range(size):
        ins.residues[base + k] = 0
    for k in range(first, first + n):
        ins.residues[base + (rq.computed[ins.group_requests[k]] - 1) % size] += 1
    # Any block_size iterations in a row take one block per request; then look at single ones.
    free = p.kv_blocks - ins.blocks_used[i]
    rounds = free // n
    more = rounds * size
    free -= rounds * n
    while more < most:
        free -= ins.residues[base + (-(more + 1)) % size]
        if free < 0:
            break
        more += 1
    more = min(more, most)
    for k in range(first, first + n):
        r = ins.group_requests[k]
        rq.computed[r] += more
        rq.in_flight[r] += more
    ins.group_iterations[g] = 1 + more


@kernel
def _advance_leap(p: Params, ins: Instances, i: int, t: float) -> None:
    """Play the executing leap up to ``t``, except for the end of its last iteration.

    The scheduler's turns within a leap decide the same again, and take the blocks that it needs.
    """
    g = 2 * i + ins.executing[i]
    iterations = ins.group_iterations[g]
    scheduled = ins.group_scheduled[g]
    ended = ins.group_ended[g]
    n = ins.group_size[g]
    fixed_s = ins.group_fixed_s[g]
    duration_s = ins.group_duration_s[g]
    context = ins.group_context[g]
    busy_s = ins.busy_s[i]
    end = ins.iteration_end_s[i]
    turn = ins.schedule_at_s[i]
    residues = i * p.block_size
    residue = (-scheduled) % p.block_size
    while True:
        if turn < t:
            if scheduled == iterations:
                break
            blocks = ins.residues[residues + residue]
            if blocks > 0:
                take_blocks(ins, i, blocks, turn)
            residue = residue - 1 if residue > 0 else p.block_size - 1
            scheduled += 1
            if end == math.inf:  # synchronous scheduling: the iteration starts now
                duration_s = fixed_s + p.per_context_token_s * context
                context += n
                end = turn + duration_s
            turn = math.inf
        elif end <= t and ended + 1 < iterations:
            busy_s += duration_s
            ended += 1
            turn = end
            if ended < scheduled:  # asynchronous scheduling: the next iteration is ready
                duration_s = fixed_s + p.per_context_token_s * context
                context += n
                end = end + duration_s
            else:
                end = math.inf
        else:
            break
    ins.group_scheduled[g] = scheduled
    ins.group_ended[g] = ended
    ins.group_duration_s[g] = duration_s
    ins.group_context[g] = context
    ins.busy_s[i] = busy_s
    ins.iteration_end_s[i] = end
    ins.schedule_at_s[i] = turn


@kernel
def _start_iteration(p: Params, ins: Instances, i: int, g: int, now: float) -> None:
    duration = ins.group_fixed_s[g]
    if ins.group_context[g] > 0:
        duration = duration + p.per_context_token_s * ins.group_context[g]
        ins.group_context[g] += ins.group_size[g]
    ins.group_duration_s[g] = duration
    ins.iteration_end_s[i] = now + duration
    if p.async_scheduling:
        ins.schedule_at_s[i] = now


@kernel
def _end_iteration(p: Params, rq: Requests, ins: Instances, tot: Totals, i: int) -> None:
    e = 2 * i + ins.executing[i]
    now = ins.iteration_end_s[i]
    ins.iteration_end_s[i] = math.inf
    ins.busy_s[i] += ins.group_duration_s[e]
    ins.group_ended[e] += 1
    _end_group(p, rq, ins, tot, i, now)
    if ins.has_next[i] == 1:
        ins.executing[i] = 1 - ins.executing[i]
        ins.has_executing[i] = 1
        ins.has_next[i] = 0
        _start_iteration(p, ins, i, 2 * i + ins.executing[i], now)
    elif ins.n_running[i] + ins.n_waiting[i] > 0:
        ins.schedule_at_s[i] = now
    elif ins.state[i] == DRAINING:
        ins.state[i] = OFF
        ins.instance_s[i] += now - ins.started_s[i]


@kernel
def _end_leap_early(p: Params, rq: Requests, ins: Instances, tot: Totals, i: int, now: float) -> None:
    """A request arrives: take back the iterations of a leap that are not scheduled yet."""
    if ins.has_executing[i] == 0:
        return
    g = 2 * i + (1 - ins.executing[i] if ins.has_next[i] == 1 else ins.executing[i])
    surplus = ins.group_iterations[g] - ins.group_scheduled[g]
    if surplus == 0:
        return
    first = g * p.max_num_seqs
    for k in range(first, first + ins.group_size[g]):
        r = ins.group_requests[k]
        rq.computed[r] -= surplus
        rq.in_flight[r] -= surplus
    ins.group_iterations[g] = ins.group_scheduled[g]
    if ins.group_ended[g] == ins.group_iterations[g]:
        # Synchronous scheduling, and the scheduler's turn is due right now.
        _end_group(p, rq, ins, tot, i, now)


@kernel
def _end_group(p: Params, rq: Requests, ins: Instances, tot: Totals, i: int, now: float) -> None:
    """The executing group is over: hand out its tokens, let finished requests go."""
    e = 2 * i + ins.executing[i]
    ins.has_executing[i] = 0
    iterations = ins.group_iterations[e]
    first = e * p.max_num_seqs
    any_finished = False
    for k in range(first, first + ins.group_size[e]):
        r = ins.group_requests[k]
        if rq.generated[r] == 0:
            rq.first_token_s[r] = now
            ins.queued_prefill_tokens[i] -= rq.prompt_tokens[r]
            tot.counts[FIRST_TOKENS] += 1
            tot.sums[TTFT_SUM_S] += now - rq.arrival_s[r]
        rq.generated[r] += iterations
        rq.in_flight[r] -= iterations
        if rq.generated[r] == rq.output_tokens[r]:
            if rq.status[r] == WAITING:  # preempted with its last token in flight
                remove(rq, ins, i, r)
            else:
                release_all(p, rq, ins, i, r, now)
                any_finished = True
            rq.status[r] = FINISHED
            _complete(p, rq, ins, tot, i, r, now)
    if any_finished:
        run = i * p.max_num_seqs
        kept = 0
        for k in range(ins.n_running[i]):
            r = ins.running[run + k]
            if rq.status[r] == RUNNING:
                ins.running[run + kept] = r
                kept += 1
        ins.n_running[i] = kept


@kernel
def _complete(p: Params, rq: Requests, ins: Instances, tot: Totals, i: int, r: int, now: float) -> None:
    rq.completed_s[r] = now
    ins.expected_tokens[i] -= rq.prompt_tokens[r] + rq.predicted_tokens[r]
    tot.counts[COMPLETED] += 1
    tot.counts[OUTPUT_TOKENS] += rq.output_tokens[r]
    tot.sums[DECODE_SUM_S] += now - rq.first_token_s[r]
    in_time = rq.first_token_s[r] <= first_token_deadline_s(p, rq, r)
    if in_time and now <= completion_deadline_s(p, rq, r):
        tot.counts[COMPLIANT] += 1


@kernel
def tokens_so_far(ins: Instances, rq: Requests, i: int, r: int) -> int:
    """Output tokens of running request ``r`` whose iteration has ended, leap or not."""
    e = 2 * i + ins.executing[i]
    leap = ins.group_iterations[e]
    if ins.has_executing[i] == 1 and leap > 1 and rq.in_flight[r] >= leap:
        return rq.generated[r] + ins.group_ended[e]
    return rq.generated[r]
