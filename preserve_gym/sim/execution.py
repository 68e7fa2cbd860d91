"""Iterations of an instance: scheduling turns, and what happens when a batch ends.

An instance evolves on its own between two requests that reach it. ``advance`` plays it up to a time;
nothing it does depends on where the caller stops, so looking never changes the outcome.

With synchronous scheduling the scheduler's turn comes when a batch ends; with asynchronous scheduling
(vLLM's default) when one starts, for the one after it. Here batches are visited one by one; runs of batches
that need not be are left to ``leap``.
"""

from __future__ import annotations

import math

from preserve_gym.sim.anticipator import note_held
from preserve_gym.sim.batching import sarathi, vllm, vllm_v0
from preserve_gym.sim.decoding import late_list
from preserve_gym.sim.handing_out import hand_out
from preserve_gym.sim.histograms import bin_of, inter_token_base
from preserve_gym.sim.jit import inlined, kernel
from preserve_gym.sim.leap import leap, may_leap
from preserve_gym.sim.queues import settle_load, wait_at_the_end
from preserve_gym.sim.state import DRAINING, GROUP_SHIFT, OFF, VLLM, VLLM_V0, Record, State


@inlined
def enqueue(s: State, i: int, r: int, now: float) -> None:
    """Request ``r`` reaches instance ``i``, which has been advanced to ``now``."""
    instance, request = s.instances[i], s.requests[r]
    s.instance_of[r] = i
    settle_load(s, i, now)
    s.in_flight[i] += 1
    s.prompt_tokens[i] += request.prompt_tokens
    s.queued_prefill_tokens[i] += request.prompt_tokens
    s.expected_tokens[i] += request.prompt_tokens + request.predicted_tokens
    wait_at_the_end(s, i, r)
    if instance.has_executing == 0:
        instance.schedule_at_s = now
    _be_quiet_until(s, i, min(instance.schedule_at_s, instance.iteration_end_s))


@inlined
def advance_due(s: State, t: float) -> None:
    """Advance the instances at which something happens by ``t``."""
    for group in range(len(s.group_quiet_s)):
        if s.group_quiet_s[group] <= t:
            quiet_s = math.inf
            for i in range(group << GROUP_SHIFT, min((group + 1) << GROUP_SHIFT, len(s.instances))):
                if s.quiet_until_s[i] <= t:
                    advance(s, i, t)
                quiet_s = min(quiet_s, s.quiet_until_s[i])
            s.group_quiet_s[group] = quiet_s


@kernel
def advance(s: State, i: int, t: float) -> None:
    """Play instance ``i`` up to ``t``: iterations that end by ``t``, scheduling turns before ``t``."""
    instance = s.instances[i]
    while True:
        if may_leap(s, i):
            quiet_until_s = leap(s, i, t)
            if quiet_until_s >= 0.0:
                _be_quiet_until(s, i, quiet_until_s)
                return
        turn = instance.schedule_at_s
        if turn < t:
            instance.schedule_at_s = math.inf
            _scheduling_turn(s, i, turn)
        elif instance.iteration_end_s <= t:
            _end_batch(s, i)
        else:
            _be_quiet_until(s, i, min(turn, instance.iteration_end_s))
            return


@kernel
def _be_quiet_until(s: State, i: int, quiet_until_s: float) -> None:
    s.quiet_until_s[i] = quiet_until_s
    if s.totals[0].tracks_peaks == 1:
        note_held(s, i)
    group = i >> GROUP_SHIFT
    s.group_quiet_s[group] = min(s.group_quiet_s[group], quiet_until_s)


@inlined
def _schedule(s: State, i: int, b: int, now: float, start: float) -> bool:
    scheduler = s.params[0].scheduler
    if scheduler == VLLM:
        return vllm.schedule(s, i, b, now, start)
    if scheduler == VLLM_V0:
        return vllm_v0.schedule(s, i, b, now, start)
    return sarathi.schedule(s, i, b, now, start)


@inlined
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


@inlined
def _end_batch(s: State, i: int) -> None:
    instance = s.instances[i]
    b = 2 * i + instance.executing
    batch = s.batches[b]
    now = instance.iteration_end_s
    instance.iteration_end_s = math.inf
    instance.has_executing = 0
    instance.busy_s += batch.duration_s
    if batch.quad > 0.0:
        instance.prefill_busy_s += batch.duration_s
    instance.iterations += 1
    instance.ended_steps += batch.advances
    instance.generated_tokens += batch.decodes + batch.n_prefilled
    _count_inter_token(s, i, b, now)
    if batch.n_done > 0:
        hand_out(s, i, b, now)
    if batch.quad > 0.0 or batch.n_late > 0:
        instance.n_special -= 1
    if batch.advances == 1:
        instance.step_end_s = now
    if instance.has_next == 1:
        instance.executing = 1 - instance.executing
        instance.has_executing = 1
        instance.has_next = 0
        _start_batch(s.params[0], instance, s.batches[2 * i + instance.executing], now)
    elif s.in_flight[i] > 0:
        instance.schedule_at_s = now
    elif instance.state == DRAINING:
        instance.state = OFF
        instance.instance_s += now - instance.started_s


@inlined
def _count_inter_token(s: State, i: int, b: int, now: float) -> None:
    """Inter-token latencies of the requests that decode in batch ``b``."""
    batch = s.batches[b]
    base = inter_token_base(s)
    if batch.decodes > batch.n_late:
        s.histograms[base + bin_of(now - s.instances[i].step_end_s)] += batch.decodes - batch.n_late
    if batch.n_late > 0:
        first = late_list(s.params[0], b)
        for k in range(first, first + batch.n_late):
            s.histograms[base + bin_of(now - s.requests[s.batch_requests[k]].token_s)] += 1
