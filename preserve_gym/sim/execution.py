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
from preserve_gym.sim.slo import completion_deadline_s, first_token_deadline_s
from preserve_gym.sim.state import DRAINING, FINISHED, OFF, RUNNING, WAITING, Record, State


@kernel
def enqueue(s: State, i: int, r: int, now: float) -> None:
    """Request ``r`` reaches instance ``i``, which has been advanced to ``now``."""
    instance, request = s.instances[i], s.requests[r]
    request.instance = i
    instance.queued_prefill_tokens += request.prompt_tokens
    instance.expected_tokens += request.prompt_tokens + request.predicted_tokens
    if instance.n_waiting == 0:  # otherwise the head of the queue is stuck, and this one behind it
        _end_leap_early(s, i, now)
    push_back(s, instance, r)
    if instance.has_executing == 0:
        instance.schedule_at_s = now


@kernel
def advance(s: State, i: int, t: float) -> None:
    """Play instance ``i`` up to ``t``: iterations that end by ``t``, scheduling turns before ``t``."""
    instance = s.instances[i]
    while True:
        if instance.has_executing == 1 and s.groups[2 * i + instance.executing].iterations > 1:
            _advance_leap(s, i, t)
        turn = instance.schedule_at_s
        if turn < t:
            instance.schedule_at_s = math.inf
            _scheduling_turn(s, i, turn)
        elif instance.iteration_end_s <= t:
            _end_iteration(s, i)
        else:
            return


@kernel
def _scheduling_turn(s: State, i: int, now: float) -> None:
    """Schedule the next group."""
    p, instance = s.params[0], s.instances[i]
    g = 2 * i + instance.executing
    start = now
    if instance.has_executing == 1:
        g = 2 * i + 1 - instance.executing
        start = instance.iteration_end_s
    tokens, context, quad, decode_only = schedule(s, i, g, now, start)
    if tokens == 0:
        return
    group = s.groups[g]
    group.iterations = 1
    group.scheduled = 1
    group.ended = 0
    group.fixed_s = p.base_s + p.per_token_s * tokens
    if decode_only:
        group.context = context
        _plan_leap(s, i, g)
    else:
        group.fixed_s = group.fixed_s + p.per_context_token_s * context + p.per_quad_s * quad
        group.context = 0
    if instance.has_executing == 1:
        instance.has_next = 1
    else:
        instance.has_executing = 1
        _start_iteration(p, instance, group, now)


@kernel
def _plan_leap(s: State, i: int, g: int) -> None:
    """Make group ``g``, whose first iteration is scheduled, as many iterations long as can be foreseen."""
    p, instance, group = s.params[0], s.instances[i], s.groups[g]
    n = group.size
    first = g * p.max_num_seqs
    most = 2**62
    for k in range(first, first + n):
        request = s.requests[s.group_requests[k]]
        most = min(most, request.output_tokens - request.generated - request.in_flight)
    if most == 0:
        return
    size = p.block_size
    residues = s.residues[i * size : (i + 1) * size]
    for k in range(size):
        residues[k] = 0
    for k in range(first, first + n):
        residues[(s.requests[s.group_requests[k]].computed - 1) % size] += 1
    # Any block_size iterations in a row take one block per request; then look at single ones.
    free = p.kv_blocks - instance.blocks_used
    rounds = free // n
    more = rounds * size
    free -= rounds * n
    while more < most:
        free -= residues[(-(more + 1)) % size]
        if free < 0:
            break
        more += 1
    more = min(more, most)
    for k in range(first, first + n):
        request = s.requests[s.group_requests[k]]
        request.computed += more
        request.in_flight += more
    group.iterations = 1 + more


@kernel
def _advance_leap(s: State, i: int, t: float) -> None:
    """Play the executing leap up to ``t``, except for the end of its last iteration.

    The scheduler's turns within a leap decide the same again, and take the blocks that it needs.
    """
    p, instance = s.params[0], s.instances[i]
    group = s.groups[2 * i + instance.executing]
    per_context_token_s, fixed_s, n = p.per_context_token_s, group.fixed_s, group.size
    iterations, scheduled, ended = group.iterations, group.scheduled, group.ended
    duration_s, context, busy_s = group.duration_s, group.context, instance.busy_s
    turn, end = instance.schedule_at_s, instance.iteration_end_s
    first_residue = i * p.block_size
    residue = first_residue + (-scheduled) % p.block_size
    while True:
        if turn < t:
            if scheduled == iterations:
                break
            blocks = s.residues[residue]
            if blocks > 0:
                take_blocks(instance, blocks, turn)
            residue = residue - 1 if residue > first_residue else first_residue + p.block_size - 1
            scheduled += 1
            if end == math.inf:  # synchronous scheduling: the iteration starts now
                duration_s = fixed_s + per_context_token_s * context
                context += n
                end = turn + duration_s
            turn = math.inf
        elif end <= t and ended + 1 < iterations:
            busy_s += duration_s
            ended += 1
            turn = end
            if ended < scheduled:  # asynchronous scheduling: the next iteration is ready
                duration_s = fixed_s + per_context_token_s * context
                context += n
                end = end + duration_s
            else:
                end = math.inf
        else:
            break
    group.scheduled, group.ended, group.duration_s, group.context = scheduled, ended, duration_s, context
    instance.busy_s, instance.schedule_at_s, instance.iteration_end_s = busy_s, turn, end


@kernel
def _start_iteration(p: Record, instance: Record, group: Record, now: float) -> None:
    """The first iteration of ``group`` starts."""
    group.duration_s = group.fixed_s
    if group.context > 0:
        group.duration_s = group.fixed_s + p.per_context_token_s * group.context
        group.context += group.size
    instance.iteration_end_s = now + group.duration_s
    if p.async_scheduling == 1:
        instance.schedule_at_s = now


@kernel
def _end_iteration(s: State, i: int) -> None:
    """The last iteration of the executing group ends."""
    instance = s.instances[i]
    group = s.groups[2 * i + instance.executing]
    now = instance.iteration_end_s
    instance.iteration_end_s = math.inf
    instance.busy_s += group.duration_s
    group.ended += 1
    _end_group(s, i, now)
    if instance.has_next == 1:
        instance.executing = 1 - instance.executing
        instance.has_executing = 1
        instance.has_next = 0
        _start_iteration(s.params[0], instance, s.groups[2 * i + instance.executing], now)
    elif instance.n_running + instance.n_waiting > 0:
        instance.schedule_at_s = now
    elif instance.state == DRAINING:
        instance.state = OFF
        instance.instance_s += now - instance.started_s


@kernel
def _end_leap_early(s: State, i: int, now: float) -> None:
    """A request arrives: take back the iterations of a leap that are not scheduled yet."""
    instance = s.instances[i]
    if instance.has_executing == 0:
        return
    g = 2 * i + instance.executing
    if instance.has_next == 1:
        g = 2 * i + 1 - instance.executing
    group = s.groups[g]
    surplus = group.iterations - group.scheduled
    if surplus == 0:
        return
    first = g * s.params[0].max_num_seqs
    for k in range(first, first + group.size):
        request = s.requests[s.group_requests[k]]
        request.computed -= surplus
        request.in_flight -= surplus
    group.iterations = group.scheduled
    if group.ended == group.iterations:
        # Synchronous scheduling, and the scheduler's turn is due right now.
        _end_group(s, i, now)


@kernel
def _end_group(s: State, i: int, now: float) -> None:
    """The executing group is over: hand out its tokens, let finished requests go."""
    p, instance, totals = s.params[0], s.instances[i], s.totals[0]
    instance.has_executing = 0
    g = 2 * i + instance.executing
    iterations = s.groups[g].iterations
    first = g * p.max_num_seqs
    any_finished = False
    for k in range(first, first + s.groups[g].size):
        r = s.group_requests[k]
        request = s.requests[r]
        if request.generated == 0:
            request.first_token_s = now
            instance.queued_prefill_tokens -= request.prompt_tokens
            totals.first_tokens += 1
            totals.ttft_sum_s += now - request.arrival_s
        request.generated += iterations
        request.in_flight -= iterations
        if request.generated == request.output_tokens:
            if request.status == WAITING:  # preempted with its last token in flight
                remove(s, instance, r)
            else:
                release_all(p, instance, request, now)
                any_finished = True
            _complete(p, instance, totals, request, now)
    if any_finished:
        run = i * p.max_num_seqs
        kept = run
        for k in range(run, run + instance.n_running):
            r = s.running[k]
            if s.requests[r].status == RUNNING:
                s.running[kept] = r
                kept += 1
        instance.n_running = kept - run


@kernel
def _complete(p: Record, instance: Record, totals: Record, request: Record, now: float) -> None:
    request.status = FINISHED
    request.completed_s = now
    instance.expected_tokens -= request.prompt_tokens + request.predicted_tokens
    totals.completed += 1
    totals.output_tokens += request.output_tokens
    totals.decode_sum_s += now - request.first_token_s
    in_time = request.first_token_s <= first_token_deadline_s(p, request)
    if in_time and now <= completion_deadline_s(p, request):
        totals.compliant += 1


@kernel
def tokens_so_far(s: State, i: int, r: int) -> int:
    """Output tokens of running request ``r`` of instance ``i`` whose iteration has ended, leap or not."""
    instance, request = s.instances[i], s.requests[r]
    group = s.groups[2 * i + instance.executing]
    if instance.has_executing == 1 and group.iterations > 1 and request.in_flight >= group.iterations:
        return request.generated + group.ended
    return request.generated
