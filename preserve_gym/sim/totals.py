"""Cumulative counts and sums of a cluster."""

from __future__ import annotations

import math

from preserve_gym.sim.jit import entry
from preserve_gym.sim.state import F8, OFF, State

TOTALS: dict[str, str] = {
    "arrived": "requests that arrived, rejected ones included",
    "rejected": "requests that can never fit and were rejected",
    "prompt_tokens": "prompt tokens of the requests that arrived",
    "predicted_tokens": "predicted output tokens of the requests that arrived",
    "first_tokens": "requests that got their first token",
    "completed": "requests that completed",
    "compliant": "requests that completed within all deadlines",
    "output_tokens": "output tokens of the requests that completed",
    "compliant_output_tokens": "of these, those of requests that completed within all deadlines (goodput)",
    "violations": "SLO violations (need the true output length: for reward and metrics, not for policies)",
    "ttft_misses": "first tokens that were not there when due",
    "preemptions": "preemptions",
    "scale_ups": "instances started or taken back",
    "scale_downs": "instances cancelled or drained",
    "ttft_sum_s": "sum of TTFT over first_tokens, s",
    "decode_sum_s": "sum of the time from first token to completion over completed, s",
    "e2e_sum_s": "sum of the time from arrival to completion over completed, s",
    "generated_tokens": "output tokens generated, those of unfinished requests included",
    "iterations": "iterations that have ended, summed over the instances",
    "in_flight_s": "requests running and waiting, integrated over time, s",
    "waiting_s": "requests waiting, integrated over time, s",
    "instance_s": "instance-seconds billed",
    "busy_s": "time in executed iterations, summed over the instances, s",
    "prefill_busy_s": "time in executed iterations that prefilled, summed over the instances, s",
    "kv_use_s": "KV use (0 to 1) integrated over time, summed over the instances, s",
}

_REAL = frozenset(name for name in TOTALS if name.endswith("_s"))


def named_totals(sums: F8) -> dict[str, float]:
    """What ``sum_totals`` filled, by name; counts as int."""
    values = zip(TOTALS, sums.tolist(), strict=True)
    return {name: value if name in _REAL else int(value) for name, value in values}


@entry
def sum_totals(s: State, sums: F8) -> None:
    """Fill ``sums``, float64 of shape (len(TOTALS),), in the order of ``TOTALS``, with those of now."""
    now = s.totals[0].now_s
    for k in range(len(sums)):
        sums[k] = 0.0
    for c in range(len(s.counts)):
        counts = s.counts[c]
        sums[0] += counts.arrived
        sums[1] += counts.rejected
        sums[2] += counts.prompt_tokens
        sums[3] += counts.predicted_tokens
        sums[4] += counts.first_tokens
        sums[5] += counts.completed
        sums[6] += counts.compliant
        sums[7] += counts.output_tokens
        sums[8] += counts.compliant_output_tokens
        sums[9] += counts.violations
        sums[10] += counts.ttft_misses
        sums[11] += counts.preemptions
        sums[14] += counts.ttft_sum_s
        sums[15] += counts.decode_sum_s
        sums[16] += counts.e2e_sum_s
    sums[12] = s.totals[0].scale_ups
    sums[13] = s.totals[0].scale_downs
    for i in range(len(s.instances)):
        instance = s.instances[i]
        sums[17] += instance.generated_tokens
        sums[18] += instance.iterations
        sums[19] += instance.in_flight_s + s.in_flight[i] * (now - instance.load_since_s)
        sums[20] += instance.waiting_s + s.waiting[i] * (now - instance.load_since_s)
        sums[21] += instance.instance_s
        sums[22] += instance.busy_s
        sums[23] += instance.prefill_busy_s
        sums[24] += instance.block_s + s.blocks_used[i] * (now - instance.blocks_since_s)
        if instance.state != OFF:
            sums[21] += now - instance.started_s
        if not math.isinf(instance.iteration_end_s):
            # The part of an executing iteration that has passed counts as busy.
            batch = s.batches[2 * i + instance.executing]
            passed_s = now - (instance.iteration_end_s - batch.duration_s)
            sums[22] += passed_s
            if batch.quad > 0.0:
                sums[23] += passed_s
    sums[24] /= s.params[0].kv_blocks
