"""Runs of iterations in which nothing happens but decoding: steps, and requests that complete.

While no prompt is being computed, no memory runs out and nobody can be admitted, a batch is nothing but one
more step of the decoding requests. ``leap`` plays a run of those with a few operations each. It sums the
clock batch by batch, in the order of operations of any other batch, so leaping changes no bit.
"""

from __future__ import annotations

import math

from preserve_gym.sim.batching import sarathi, vllm, vllm_v0
from preserve_gym.sim.decoding import finish_due, next_finish, residue_of
from preserve_gym.sim.handing_out import hand_out
from preserve_gym.sim.histograms import bin_of, inter_token_base
from preserve_gym.sim.iteration_time import without_attention_s
from preserve_gym.sim.jit import inlined, kernel
from preserve_gym.sim.state import VLLM, VLLM_V0, Record, State

_ROUNDING = 1.0 - 1e-9
"""Takes more off a sum of durations than rounding can add to it."""
_ULP = 2.0**-52
"""Relative distance of float64 numbers; a clock that goes on by a duration loses at most half of it."""


@inlined
def may_leap(s: State, i: int) -> bool:
    """Whether the next batches can be steps of the decoding requests alone."""
    instance = s.instances[i]
    if instance.n_decoding == 0 or instance.n_prefilling + instance.n_lagging + instance.n_special > 0:
        return False
    if s.waiting[i] == 0:
        return True
    scheduler = s.params[0].scheduler
    if scheduler == VLLM:
        return vllm.stuck(s, i)
    return vllm_v0.stuck(s, i) if scheduler == VLLM_V0 else sarathi.stuck(s, i)


@kernel
def leap(s: State, i: int, t: float) -> float:
    """Play steps of the decoding requests up to ``t``, or to where one is more than a step.

    Returns:
        A time, ``t`` or later, until which there will be nothing but such steps; -1 if the next event is
        none and is due.
    """
    p, instance = s.params[0], s.instances[i]
    asynchronous = p.async_scheduling == 1
    per_context_token_s = p.per_context_token_s
    first_residue, size = i * p.block_size, p.block_size
    spare = 0 if p.scheduler == VLLM else 1  # blocks that must be left after a step
    inter_token = inter_token_base(s)

    turn, end, step_end = instance.schedule_at_s, instance.iteration_end_s, instance.step_end_s
    has_next = instance.has_next == 1
    executing, following = 2 * i + instance.executing, 2 * i + 1 - instance.executing
    n, steps, ended = instance.n_decoding, instance.steps, instance.ended_steps
    context, residue = instance.decode_context, residue_of(size, i, 0, instance.steps)
    fixed_s = without_attention_s(p, n)
    finish_step = next_finish(s, i)
    duration_s, next_s = s.batches[executing].duration_s, s.batches[following].duration_s
    tokens, next_tokens = s.batches[executing].decodes, s.batches[following].decodes
    done = s.batches[executing].n_done if end < math.inf else 0
    next_done = s.batches[following].n_done if has_next else 0
    busy_s, generated = instance.busy_s, instance.generated_tokens
    used, since, block_s = s.blocks_used[i], instance.blocks_since_s, instance.block_s
    before = ended
    stopped = False
    while True:
        # Steps in which nobody finishes and for which there is memory.
        if asynchronous and end <= t and turn < end and done == 0:
            safe_step = steps + _steps_in_memory(p, finish_step - 1 - steps, n, p.kv_blocks - used - spare)
            same_bin, same_tokens = 0, 0
            while steps < safe_step and end <= t:
                block_s += used * (turn - since)
                since = turn
                used += s.residues[residue]
                residue = residue - 1 if residue > first_residue else first_residue + size - 1
                steps += 1
                step_s = fixed_s + per_context_token_s * context
                context += n
                busy_s += duration_s
                ended += 1
                generated += tokens
                k = bin_of(end - step_end)
                if k != same_bin:
                    s.histograms[inter_token + same_bin] += same_tokens
                    same_bin, same_tokens = k, 0
                same_tokens += tokens
                turn = step_end = end
                end += step_s
                duration_s, tokens = step_s, n
            s.histograms[inter_token + same_bin] += same_tokens
        if turn < t:
            blocks = s.residues[residue]
            if blocks + spare > p.kv_blocks - used:
                stopped = True
                break
            if blocks > 0:
                block_s += used * (turn - since)
                since = turn
                used += blocks
            residue = residue - 1 if residue > first_residue else first_residue + size - 1
            steps += 1
            step_s = fixed_s + per_context_token_s * context
            context += n
            idle = end == math.inf
            scheduled = executing if idle else following
            step_tokens, step_done = n, 0
            if steps == finish_step:
                instance.steps, instance.decode_context = steps, context
                s.batches[scheduled].n_done, s.batches[scheduled].n_prefilled = 0, 0
                finish_due(s, i, scheduled)
                n, context = instance.n_decoding, instance.decode_context
                step_done = s.batches[scheduled].n_done
                fixed_s = without_attention_s(p, n)
                finish_step = next_finish(s, i)
            if idle:
                duration_s, tokens, done = step_s, step_tokens, step_done
                end = turn + step_s
                if not asynchronous:
                    turn = math.inf
            else:
                next_s, next_tokens, next_done, has_next = step_s, step_tokens, step_done, True
                turn = math.inf
            if step_done > 0 and (n == 0 or s.waiting[i] > 0):
                stopped = True
                break
        elif end <= t:
            if done > 0 and (done >= s.in_flight[i] or s.waiting[i] > 0):
                stopped = True
                break
            busy_s += duration_s
            ended += 1
            generated += tokens
            s.histograms[inter_token + bin_of(end - step_end)] += tokens
            step_end = end
            if done > 0:
                instance.ended_steps = ended
                s.blocks_used[i], instance.blocks_since_s, instance.block_s = used, since, block_s
                hand_out(s, i, executing, end)
                used, since, block_s = s.blocks_used[i], instance.blocks_since_s, instance.block_s
            turn = end
            executing, following = following, executing
            if has_next:
                duration_s, tokens, done, has_next = next_s, next_tokens, next_done, False
                end += duration_s
            else:
                end = math.inf
        else:
            break
    instance.executing = executing - 2 * i
    instance.schedule_at_s, instance.iteration_end_s, instance.step_end_s = turn, end, step_end
    instance.has_executing, instance.has_next = end < math.inf, has_next
    instance.steps, instance.ended_steps, instance.decode_context = steps, ended, context
    instance.busy_s, instance.generated_tokens = busy_s, generated
    instance.iterations += ended - before
    s.blocks_used[i], instance.blocks_since_s, instance.block_s = used, since, block_s
    _write(s, executing, duration_s, tokens, done)
    _write(s, following, next_s, next_tokens, next_done)
    if stopped:
        return -1.0
    if turn < math.inf:
        return turn
    if done > 0:
        return end
    # With asynchronous scheduling a step is chosen when the one before it starts: the step behind the last
    # one of a request that finishes must fit into the memory too.
    ahead = 1 if asynchronous else 0
    left = finish_step - steps
    more = _steps_in_memory(p, left + ahead, n, p.kv_blocks - used - spare)
    if has_next:
        if more <= 0:
            return end
        end += next_s
        if next_done > 0:
            return end
    more = max(min(more - ahead, left), 0)
    if more == left and asynchronous and p.chunked_prefill == 0 and s.waiting[i] > 0:
        more -= 1  # who finishes leaves budget for a whole prompt before that
    until_s = end + _ROUNDING * more * (fixed_s + per_context_token_s * (context + 0.5 * n * (more - 1)))
    return until_s - _ULP * more * until_s


@kernel
def _steps_in_memory(p: Record, steps: int, n: int, free: int) -> int:
    """Of the next ``steps`` steps of n requests, how many certainly fit into the ``free`` blocks."""
    # Any block_size steps in a row take n blocks.
    if ((steps + p.block_size - 1) >> p.block_shift) * n <= free:
        return steps
    return (free // n) << p.block_shift


@kernel
def _write(s: State, b: int, duration_s: float, tokens: int, done: int) -> None:
    batch = s.batches[b]
    batch.duration_s = duration_s
    batch.tokens, batch.decodes, batch.quad = tokens, tokens, 0.0
    batch.n_done = done
    batch.n_prefilled, batch.n_late = 0, 0
    batch.advances = 1
