"""The end of a batch: first tokens, tokens after a preemption, and completions."""

from __future__ import annotations

import math

from preserve_gym.sim.anticipator import forget_peak, leave_ghost, track_end, track_first_token
from preserve_gym.sim.decoding import done_list
from preserve_gym.sim.histograms import E2E, NORMALIZED_LATENCY, TPOT, TTFT, bin_of, count, inter_token_base
from preserve_gym.sim.jit import kernel
from preserve_gym.sim.memory import blocks_for, take_blocks
from preserve_gym.sim.queues import settle_load, stop_running, stop_waiting
from preserve_gym.sim.slo import (
    MET_COMPLETION,
    MET_FIRST_TOKEN,
    completion_deadline_s,
    first_token_deadline_s,
)
from preserve_gym.sim.state import ARTIFACT, FINISHED, LEAVING, WAITING, State


@kernel
def hand_out(s: State, i: int, b: int, now: float) -> None:
    """Batch ``b`` has ended: tokens for the requests that end their prefill or their output in it."""
    p, instance, batch = s.params[0], s.instances[i], s.batches[b]
    first = done_list(p, b)
    for k in range(first, first + batch.n_prefilled):
        _hand_out_first(s, i, s.batch_requests[k], now)
    for k in range(first, first + batch.n_done):
        r = s.batch_requests[k]
        request = s.requests[r]
        if request.status == LEAVING:
            if request.first_step + request.output_tokens - request.generated > instance.ended_steps:
                continue  # its last token is in the next batch
            track_end(s, i, r)
            if p.anticipator == ARTIFACT:
                leave_ghost(s, i, r)
            stop_running(s, i, r)
            computed = request.prompt_tokens + request.output_tokens - 1
            take_blocks(s, i, -blocks_for(p, computed), now)
            _finish(s, i, r, now)
        elif request.status == WAITING and request.generated == request.output_tokens:
            # Preempted with its last token in flight.
            settle_load(s, i, now)
            stop_waiting(s, i, r)
            _finish(s, i, r, now)


@kernel
def _hand_out_first(s: State, i: int, r: int, now: float) -> None:
    """A token that ends a prefill: the first of a request, or the first after a preemption."""
    instance, request = s.instances[i], s.requests[r]
    if request.lag < 0:
        request.lag = 1  # of a batch in which no other request advanced
    if math.isnan(request.first_token_s):
        request.first_token_s = now
        s.queued_prefill_tokens[i] -= request.prompt_tokens
        instance.first_prompt_tokens += request.prompt_tokens
        if now <= first_token_deadline_s(s.params[0], request):
            s.met[r] |= MET_FIRST_TOKEN
        counts = s.counts[request.request_class]
        counts.first_tokens += 1
        counts.ttft_sum_s += now - request.arrival_s
        count(s, request.request_class, TTFT, now - request.arrival_s)
        if s.totals[0].tracks_peaks == 1 and request.status != WAITING:
            track_first_token(s, i, r)
    else:
        forget_peak(s, i)
        s.histograms[inter_token_base(s) + bin_of(now - request.token_s)] += 1
    request.token_s = now


@kernel
def _finish(s: State, i: int, r: int, now: float) -> None:
    """A request is complete and out of the queues."""
    p, request = s.params[0], s.requests[r]
    k, output = request.request_class, request.output_tokens
    settle_load(s, i, now)
    s.in_flight[i] -= 1
    s.prompt_tokens[i] -= request.prompt_tokens
    s.expected_tokens[i] -= request.prompt_tokens + request.predicted_tokens
    request.status = FINISHED
    request.token_s = now
    counts = s.counts[k]
    counts.completed += 1
    counts.output_tokens += output
    decode_s, e2e_s = now - request.first_token_s, now - request.arrival_s
    counts.decode_sum_s += decode_s
    counts.e2e_sum_s += e2e_s
    count(s, k, E2E, e2e_s)
    count(s, k, NORMALIZED_LATENCY, e2e_s / output)
    if output > 1:
        count(s, k, TPOT, decode_s / (output - 1))
    if now <= completion_deadline_s(p, request):
        s.met[r] |= MET_COMPLETION
    if s.met[r] == MET_FIRST_TOKEN | MET_COMPLETION:
        counts.compliant += 1
        counts.compliant_output_tokens += output
