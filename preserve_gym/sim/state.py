"""The state of a simulated cluster: flat arrays, allocated once, changed in place by the kernels.

Sizes: ``R`` requests of the episode, ``I`` = ``max_instances`` slots, ``S`` = ``max_num_seqs``,
``B`` = ``block_size``.  Arrays over ``I*k`` hold ``k`` entries for each instance, one after the other.
Times are seconds on the episode's clock, float64; ``inf`` means "no such event", ``nan`` "not yet".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preserve_gym.config import ClusterConfig

# Instance states.
OFF, STARTING, READY, DRAINING = 0, 1, 2, 3

# Request states.
PENDING, WAITING, RUNNING, FINISHED, REJECTED = 0, 1, 2, 3, 4

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
I4 = NDArray[np.int32]
I1 = NDArray[np.int8]


class Params(NamedTuple):
    """What does not change during an episode."""

    base_s: float
    per_token_s: float
    per_context_token_s: float
    per_quad_s: float
    kv_blocks: int
    block_size: int
    max_num_seqs: int
    max_num_batched_tokens: int
    long_prefill_token_threshold: int
    chunked_prefill: bool
    async_scheduling: bool
    full_isl_gate: bool
    min_instances: int
    max_instances: int
    cold_start_s: float
    slo_ttft_s: float  # inf: no such deadline
    slo_ttft_per_prompt_token_s: float
    slo_tpot_s: float  # inf: no such deadline
    slo_normalized_latency_s: float  # inf: no such deadline


class Requests(NamedTuple):
    """Requests in order of arrival; every array has shape (R,)."""

    arrival_s: F8
    prompt_tokens: I4
    output_tokens: I4  # true; routers and observations never read it
    predicted_tokens: I4  # predicted output tokens
    status: I1
    generated: I4  # output tokens of iterations that have ended (a leap hands them out at its end)
    in_flight: I4  # output tokens of iterations that are scheduled and have not ended
    computed: I4  # tokens whose KV entries are scheduled or done
    prefill_target: I4  # tokens known at the last admission: below it, prefill; from it on, decode
    next_waiting: I4  # the request behind this one in its waiting queue, or -1
    instance: I4  # where it was routed, or -1
    preemptions: I4
    first_scheduled_s: F8
    first_token_s: F8
    completed_s: F8
    violated_s: F8  # when its first missed deadline passed


class Instances(NamedTuple):
    """Instances by slot; shape (I,) unless said otherwise."""

    state: I1
    started_s: F8  # start of the cold start: billing runs from here
    ready_at_s: F8  # end of the cold start
    draining_order: I8  # rank among all drains ever begun, to take back the latest
    instance_s: F8  # instance-seconds billed, up to the last time it went off
    busy_s: F8  # time executing iterations that have ended
    # Queues.
    n_running: I8
    n_waiting: I8
    waiting_head: I4
    waiting_tail: I4
    running: I4  # (I*S,) in order of (re-)admission
    queued_prefill_tokens: I8  # prompts of requests here without a first token
    expected_tokens: I8  # prompt plus predicted output of requests here
    # KV-cache memory.
    blocks_used: I8
    blocks_since_s: F8  # last change of blocks_used
    block_s: F8  # integral of blocks_used over time, up to blocks_since_s
    # Iterations. A group is one scheduled iteration, or a leap of several pure decode iterations.
    # An instance holds at most two: one executing and, with asynchronous scheduling, the next.
    schedule_at_s: F8  # scheduler's next turn
    iteration_end_s: F8  # end of the executing iteration
    executing: I1  # which of its two groups executes: 0 or 1
    has_executing: I1
    has_next: I1
    group_iterations: I8  # (I*2,) iterations of the group, 1 unless it is a leap
    group_scheduled: I8  # (I*2,) how many of them the scheduler has got to
    group_ended: I8  # (I*2,) how many of them have ended
    group_fixed_s: F8  # (I*2,) duration, without the context term if it is a leap
    group_duration_s: F8  # (I*2,) duration of the executing (or first) iteration
    group_context: I8  # (I*2,) context of the next iteration of a leap
    group_size: I8  # (I*2,) requests that get a token in it
    group_requests: I4  # (I*2*S,) those requests
    residues: I4  # (I*B,) requests of the leap by tokens computed before it, modulo the block size


# Counters: indices into Totals.counts and Totals.sums.
(
    ARRIVED,
    REJECTED_COUNT,
    ROUTED,
    PROMPT_TOKENS,  # arrived
    PREDICTED_TOKENS,  # predicted output of the arrived
    FIRST_TOKENS,
    COMPLETED,
    COMPLIANT,  # completed within all deadlines
    OUTPUT_TOKENS,  # of completed requests
    VIOLATIONS,
    TTFT_MISSES,
    PREEMPTIONS,
    SCALE_UPS,  # instances started or taken back
    SCALE_DOWNS,  # instances cancelled or drained
    NEXT_REQUEST,  # the first request that has not arrived
    HEAP_SIZE,
    DRAINS,
    N_READY,
) = range(18)
N_COUNTS = 18
(
    TTFT_SUM_S,  # of first tokens
    DECODE_SUM_S,  # first token to completion, of completed requests
    NOW_S,  # the clock
) = range(3)
N_SUMS = 3


class Totals(NamedTuple):
    """Cumulative totals of the cluster, the clock, and the heap of deadlines."""

    counts: I8  # (N_COUNTS,)
    sums: F8  # (N_SUMS,)
    ready: I8  # (I,) slots that are ready, ascending; the first N_READY count
    deadline_s: F8  # (R,) binary heap of the requests' next deadlines
    deadline_of: I8  # (R,) r for the first token of request r, ~r for its completion
    scratch: I8  # (max(I, S),)


def make_params(config: ClusterConfig) -> Params:
    """The kernels' view of a cluster configuration."""
    instance, slo = config.instance, config.slo
    inf = float("inf")
    return Params(
        base_s=instance.latency.base_s,
        per_token_s=instance.latency.per_token_s,
        per_context_token_s=instance.latency.per_context_token_s,
        per_quad_s=instance.latency.per_quad_s,
        kv_blocks=instance.kv_blocks,
        block_size=instance.block_size,
        max_num_seqs=instance.max_num_seqs,
        max_num_batched_tokens=instance.max_num_batched_tokens,
        long_prefill_token_threshold=instance.long_prefill_token_threshold,
        chunked_prefill=instance.enable_chunked_prefill,
        async_scheduling=instance.async_scheduling,
        full_isl_gate=instance.scheduler_reserve_full_isl,
        min_instances=config.min_instances,
        max_instances=config.max_instances,
        cold_start_s=float(config.cold_start_s),
        slo_ttft_s=inf if slo.ttft_s is None else float(slo.ttft_s),
        slo_ttft_per_prompt_token_s=float(slo.ttft_per_prompt_token_s),
        slo_tpot_s=inf if slo.tpot_s is None else float(slo.tpot_s),
        slo_normalized_latency_s=(
            inf if slo.normalized_latency_s is None else float(slo.normalized_latency_s)
        ),
    )


def make_requests(arrival_s: F8, prompt_tokens: I4, output_tokens: I4, predicted_tokens: I4) -> Requests:
    """Requests that have not arrived yet. Copies nothing: the inputs are only read."""
    n = len(arrival_s)

    def zeros() -> I4:
        return np.zeros(n, np.int32)

    def nans() -> F8:
        return np.full(n, np.nan)

    return Requests(
        arrival_s=arrival_s,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        predicted_tokens=predicted_tokens,
        status=np.zeros(n, np.int8),
        generated=zeros(),
        in_flight=zeros(),
        computed=zeros(),
        prefill_target=zeros(),
        next_waiting=np.full(n, -1, np.int32),
        instance=np.full(n, -1, np.int32),
        preemptions=zeros(),
        first_scheduled_s=nans(),
        first_token_s=nans(),
        completed_s=nans(),
        violated_s=nans(),
    )


def make_instances(config: ClusterConfig) -> Instances:
    """All slots off."""
    n, seqs = config.max_instances, config.instance.max_num_seqs

    def counts(k: int = 1) -> I8:
        return np.zeros(n * k, np.int64)

    def times(value: float, k: int = 1) -> F8:
        return np.full(n * k, value)

    inf = float("inf")
    return Instances(
        state=np.zeros(n, np.int8),
        started_s=times(0.0),
        ready_at_s=times(inf),
        draining_order=counts(),
        instance_s=times(0.0),
        busy_s=times(0.0),
        n_running=counts(),
        n_waiting=counts(),
        waiting_head=np.full(n, -1, np.int32),
        waiting_tail=np.full(n, -1, np.int32),
        running=np.zeros(n * seqs, np.int32),
        queued_prefill_tokens=counts(),
        expected_tokens=counts(),
        blocks_used=counts(),
        blocks_since_s=times(0.0),
        block_s=times(0.0),
        schedule_at_s=times(inf),
        iteration_end_s=times(inf),
        executing=np.zeros(n, np.int8),
        has_executing=np.zeros(n, np.int8),
        has_next=np.zeros(n, np.int8),
        group_iterations=counts(2),
        group_scheduled=counts(2),
        group_ended=counts(2),
        group_fixed_s=times(0.0, 2),
        group_duration_s=times(0.0, 2),
        group_context=counts(2),
        group_size=counts(2),
        group_requests=np.zeros(n * 2 * seqs, np.int32),
        residues=np.zeros(n * config.instance.block_size, np.int32),
    )


def make_totals(config: ClusterConfig, n_requests: int) -> Totals:
    """Everything at zero."""
    return Totals(
        counts=np.zeros(N_COUNTS, np.int64),
        sums=np.zeros(N_SUMS),
        ready=np.zeros(config.max_instances, np.int64),
        deadline_s=np.zeros(max(n_requests, 1)),
        deadline_of=np.zeros(max(n_requests, 1), np.int64),
        scratch=np.zeros(max(config.max_instances, config.instance.max_num_seqs), np.int64),
    )
