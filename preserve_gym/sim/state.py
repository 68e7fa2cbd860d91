"""The state of a simulated cluster: flat arrays, allocated once, changed in place.

What belongs to one request or one instance and is used together is a record: a record array costs a kernel
one argument, and a record in it one pointer, whatever it holds. What routers scan over the instances is an
array of its own, so that a scan reads nothing else.

Sizes: ``R`` requests of the episode, ``I`` = ``max_instances`` slots, ``S`` = ``max_num_seqs``,
``B`` = ``block_size``, ``C`` classes of requests. Times are seconds on the episode's clock, float64; ``inf``
means "no such event", ``nan`` "not yet".
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numba import float64, from_dtype, int32, int64, uint8
from numpy.typing import NDArray

from preserve_gym.config import ClusterConfig
from preserve_gym.errors import InputError
from preserve_gym.sim.by_reference import ByReference

SCHEDULERS = ("vllm", "vllm_v0", "sarathi")
VLLM, VLLM_V0, SARATHI = 0, 1, 2

ANTICIPATORS = ("paper", "artifact")
PAPER, ARTIFACT = 0, 1

# Instance states.
OFF, STARTING, READY, DRAINING = 0, 1, 2, 3

# Request states. A decoding request gets one token in every iteration; a leaving one has its last token in
# an iteration that is scheduled and has not ended; a skipped one goes without a token for lack of budget.
PENDING, WAITING, PREFILLING, DECODING, SKIPPED, LEAVING, FINISHED, REJECTED = 0, 1, 2, 3, 4, 5, 6, 7

HISTOGRAM_BINS = 2050
"""Bins of a histogram of times; see ``histograms``."""
N_HISTOGRAMS = 4
"""Histograms of each class."""
DEADLINE_SLOTS = 4096
"""Slots of the wheel of deadlines; see ``slo``."""
GROUP_SHIFT = 4
"""2**GROUP_SHIFT instances share a lower bound of their next events."""
GHOST_SLOTS = 16
"""Steps for which a request that ended early may stay in the artifact's look-ahead map, and some more."""
ROUTER_WEIGHTS = 7
"""Of the router ``linear``."""
MOST_WEIGHTS = 512
"""Of a router of one's own."""
MAX_CLASSES = 256

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
I4 = NDArray[np.int32]
U1 = NDArray[np.uint8]
Records = NDArray[np.void]
Record = Any
"""One record of an array below, by reference."""

PARAMS = np.dtype(
    [
        ("base_s", "f8"),
        ("per_token_s", "f8"),
        ("per_context_token_s", "f8"),
        ("per_quad_s", "f8"),
        ("per_token_beyond_knee_s", "f8"),
        ("per_mixed_context_token_s", "f8"),
        ("knee_tokens", "i8"),
        ("seed", "i8"),  # of routers and cold starts that are drawn
        ("scheduler", "i8"),  # VLLM, VLLM_V0 or SARATHI
        ("kv_blocks", "i8"),
        ("watermark_blocks", "i8"),
        ("block_size", "i8"),  # a power of two
        ("block_shift", "i8"),  # which one
        ("max_num_seqs", "i8"),
        ("max_num_batched_tokens", "i8"),
        ("long_prefill_token_threshold", "i8"),
        ("chunked_prefill", "i8"),
        ("async_scheduling", "i8"),
        ("full_isl_gate", "i8"),
        ("min_instances", "i8"),
        ("max_instances", "i8"),
        ("slo_ttft_s", "f8"),  # inf: no such deadline
        ("slo_ttft_per_prompt_token_s", "f8"),
        ("slo_tpot_s", "f8"),  # inf: no such deadline
        ("slo_normalized_latency_s", "f8"),  # inf: no such deadline
        ("deadline_slots_per_s", "f8"),
        ("start_s", "f8"),  # where the clock started
        ("anticipator", "i8"),  # PAPER or ARTIFACT
    ],
    align=True,
)
"""What does not change during an episode; see ``ClusterConfig``."""

REQUEST = np.dtype(
    [
        ("arrival_s", "f8"),
        ("first_token_s", "f8"),
        ("token_s", "f8"),  # completion if finished; else its last token, if that was not in the last step
        ("prompt_tokens", "i4"),
        ("output_tokens", "i4"),  # true; routers and observations never read it
        ("predicted_tokens", "i4"),  # predicted output tokens
        ("generated", "i4"),  # output tokens; of a decoding request, those up to first_step
        ("computed", "i4"),  # prompt (or recomputed) tokens that are scheduled or done
        ("prefill_target", "i4"),  # tokens to compute before it decodes; then, tokens computed at first_step
        ("first_step", "i4"),  # the step after which it decodes in each one
        ("next", "i4"),  # behind it in the waiting or the running queue of its instance, or -1
        ("previous", "i4"),  # before it in the running queue, or -1
        ("status", "i1"),
        ("lag", "i1"),  # first_step minus the step of its last token at first_step, at most MAX_LAG
        ("request_class", "u1"),
    ],
    align=True,
)
"""A request: 64 bytes, a line of the processor's cache."""

INSTANCE = np.dtype(
    [
        # Iterations. At most two batches are scheduled: one executing and, with asynchronous scheduling,
        # the next. Steps number the batches in which the decoding requests advance.
        ("schedule_at_s", "f8"),  # scheduler's next turn
        ("iteration_end_s", "f8"),  # end of the executing batch
        ("step_end_s", "f8"),  # end of the last step that has ended
        ("steps", "i8"),  # scheduled so far
        ("ended_steps", "i8"),  # of these, ended
        ("decode_context", "i8"),  # context of the decoding requests in the next step
        ("executing", "i4"),  # which of its two batches executes: 0 or 1
        ("has_executing", "i4"),
        ("has_next", "i4"),
        ("n_decoding", "i4"),
        ("n_prefilling", "i4"),
        ("n_skipped", "i4"),  # decoding requests without budget, while a batch is put together
        ("n_lagging", "i4"),  # decoding requests whose last token is not of the step before their next one
        ("n_special", "i4"),  # scheduled batches in which anything but steps and completions happens
        # Queues.
        ("waiting_head", "i4"),
        ("waiting_tail", "i4"),
        ("running_head", "i4"),
        ("running_tail", "i4"),
        # Integrals over time.
        ("busy_s", "f8"),  # time executing iterations that have ended
        ("prefill_busy_s", "f8"),  # of this, in those that prefilled
        ("blocks_since_s", "f8"),  # last change of blocks_used
        ("block_s", "f8"),  # integral of blocks_used, up to blocks_since_s
        ("load_since_s", "f8"),  # last change of in_flight or waiting
        ("in_flight_s", "f8"),  # integral of in_flight, up to load_since_s
        ("waiting_s", "f8"),  # integral of waiting, up to load_since_s
        # Counts.
        ("iterations", "i8"),  # ended
        ("generated_tokens", "i8"),  # output tokens handed out
        ("first_prompt_tokens", "i8"),  # prompt tokens of the requests that got their first token
        ("tick_generated_tokens", "i8"),  # both at the last tick of the throughput
        ("tick_prompt_tokens", "i8"),
        # Lifecycle.
        ("state", "i8"),
        ("started_s", "f8"),  # start of the cold start: billing runs from here
        ("ready_at_s", "f8"),  # end of the cold start
        ("draining_order", "i8"),  # rank among all drains ever begun, to take back the latest
        ("instance_s", "f8"),  # instance-seconds billed, up to the last time it went off
        ("peak_step", "i8"),  # the step that peak_tokens are of
        ("joined_step", "i8"),  # first_step of the last request that began to decode
    ],
    align=True,
)
"""An instance slot: what routers need not scan."""

BATCH = np.dtype(
    [
        ("duration_s", "f8"),
        ("context", "i8"),  # tokens, context and quad as LatencyLaw has them
        ("quad", "f8"),
        ("tokens", "i4"),
        ("decodes", "i4"),  # decoding requests in it
        ("n_done", "i4"),  # requests that end their prefill or their output in it
        ("n_prefilled", "i4"),  # of these, the first ones: those that end their prefill
        ("n_late", "i4"),  # decoding requests in it whose last token is not of the step before
        ("advances", "i4"),  # 1 if the decoding requests advance in it
    ],
    align=True,
)
"""An iteration that is scheduled; instance ``i`` has the batches ``2*i`` and ``2*i + 1``."""

COUNTS = np.dtype(
    [
        ("arrived", "i8"),
        ("rejected", "i8"),
        ("prompt_tokens", "i8"),
        ("predicted_tokens", "i8"),
        ("first_tokens", "i8"),
        ("completed", "i8"),
        ("compliant", "i8"),
        ("output_tokens", "i8"),
        ("compliant_output_tokens", "i8"),
        ("violations", "i8"),
        ("ttft_misses", "i8"),
        ("preemptions", "i8"),
        ("ttft_sum_s", "f8"),
        ("decode_sum_s", "f8"),
        ("e2e_sum_s", "f8"),
    ],
    align=True,
)
"""Cumulative totals of a class of requests; ``totals.TOTALS`` says what they are."""

TOTALS = np.dtype(
    [
        ("now_s", "f8"),
        ("next_request", "i8"),  # the first request that has not arrived
        ("admitted", "i8"),  # requests before this one arrive also at the time up to which is played
        ("decision", "i8"),  # where the caller sends the next request, for the router that asks
        ("routed", "i8"),
        ("tracks_peaks", "i8"),  # 1 while the router reads anticipated tokens
        ("n_ready", "i8"),
        ("deadline_slot", "i8"),  # the first slot of deadlines, numbered from time 0, that is not over
        ("tick", "i8"),  # the next tick of the throughput
        ("drains", "i8"),
        ("starts", "i8"),  # instances started, ever
        ("scale_ups", "i8"),
        ("scale_downs", "i8"),
    ],
    align=True,
)
"""The clock and the totals of the cluster."""


class State(ByReference):
    """Everything the kernels work on."""

    params: Records  # PARAMS, (1,)
    totals: Records  # TOTALS, (1,)
    counts: Records  # COUNTS, (C,)
    histograms: I8  # ((N_HISTOGRAMS*C + 1)*HISTOGRAM_BINS,), see ``histograms``
    requests: Records  # REQUEST, (R,), in order of arrival
    first_scheduled_s: F8  # (R,) start of its first iteration
    instance_of: I4  # (R,) where it was routed, or -1
    preemptions: I4  # (R,)
    met: U1  # (R,) deadlines that it has met, see ``slo``
    # Of a decoding request, what its first_step, generated and lengths say, side by side to be read fast:
    predicted_last: I8  # (R,) how many steps will have ended when it ends, as predicted
    predicted_held: I4  # (R,) tokens that it will hold then
    deadline_next: I4  # (2*R,) of both its deadlines, the one behind it in its slot, or -1
    deadline_head: I4  # (DEADLINE_SLOTS,) first in each slot, or -1
    instances: Records  # INSTANCE, (I,)
    batches: Records  # BATCH, (2*I,)
    batch_requests: I4  # (2*I*2*S,) of each batch S requests that are done, and S that are late
    prefilling: I4  # (I*S,) prefilling requests of each instance, in order of admission
    finish: I8  # (I*S,) binary heap of the decoding requests: (their last step << 31) + which
    residues: I4  # (I*B,) decoding requests by (tokens computed - steps) modulo the block size
    quiet_until_s: F8  # (I,) until then nothing happens but steps of the decoding requests
    group_quiet_s: F8  # (I/2**GROUP_SHIFT + 1,) at most the least of a group
    cold_starts_s: F8  # (any,) one of which each start takes
    map_tokens: I8  # (look_ahead + 1,) scratch of the look-ahead map
    map_counts: I8  # (look_ahead + 1,)
    ghost_step: I8  # (I*GHOST_SLOTS,) artifact: when requests that ended early leave the map,
    ghost_tokens: I8  # (I*GHOST_SLOTS,) the tokens that they would hold at step 0,
    ghost_count: I8  # (I*GHOST_SLOTS,) and how many they are
    # A lower bound of the peak of the look-ahead map, where the router reads it.
    peak_tokens: I8  # (I,) tokens anticipated for one step,
    peak_ahead: I4  # (I,) which was so many ahead,
    peak_until_s: F8  # (I,) and is not over before
    held_tokens: I8  # (I,) and what all that decode hold, at least
    # What routers see.
    refined_for: I4  # (I,) the last request for which lazily read quantities were brought up to date
    ready: I8  # (I,) slots that are ready, ascending; the first n_ready count
    in_flight: I4  # (I,) requests running and waiting
    waiting: I4  # (I,)
    queued_prefill_tokens: I8  # (I,) prompts of requests there without a first token
    prompt_tokens: I8  # (I,) prompts of requests there
    expected_tokens: I8  # (I,) prompts plus predicted outputs of requests there
    blocks_used: I4  # (I,) KV-cache blocks
    waiting_blocks: I8  # (I,) that the waiting requests will take when they are admitted
    anticipated_tokens: I8  # (I,) peak of the look-ahead map with the new request, see ``routing``
    prompt_throughput: F8  # (I,) tokens/s over the last whole 10 s
    generation_throughput: F8  # (I,)
    weights: F8  # (MOST_WEIGHTS,)

    COLUMNS: ClassVar[dict[str, Any]] = {
        "params": from_dtype(PARAMS)[::1],
        "totals": from_dtype(TOTALS)[::1],
        "counts": from_dtype(COUNTS)[::1],
        "histograms": int64[::1],
        "requests": from_dtype(REQUEST)[::1],
        "first_scheduled_s": float64[::1],
        "instance_of": int32[::1],
        "preemptions": int32[::1],
        "met": uint8[::1],
        "predicted_last": int64[::1],
        "predicted_held": int32[::1],
        "deadline_next": int32[::1],
        "deadline_head": int32[::1],
        "instances": from_dtype(INSTANCE)[::1],
        "batches": from_dtype(BATCH)[::1],
        "batch_requests": int32[::1],
        "prefilling": int32[::1],
        "finish": int64[::1],
        "residues": int32[::1],
        "quiet_until_s": float64[::1],
        "group_quiet_s": float64[::1],
        "cold_starts_s": float64[::1],
        "map_tokens": int64[::1],
        "map_counts": int64[::1],
        "ghost_step": int64[::1],
        "ghost_tokens": int64[::1],
        "ghost_count": int64[::1],
        "peak_tokens": int64[::1],
        "peak_ahead": int32[::1],
        "peak_until_s": float64[::1],
        "held_tokens": int64[::1],
        "refined_for": int32[::1],
        "ready": int64[::1],
        "in_flight": int32[::1],
        "waiting": int32[::1],
        "queued_prefill_tokens": int64[::1],
        "prompt_tokens": int64[::1],
        "expected_tokens": int64[::1],
        "blocks_used": int32[::1],
        "waiting_blocks": int64[::1],
        "anticipated_tokens": int64[::1],
        "prompt_throughput": float64[::1],
        "generation_throughput": float64[::1],
        "weights": float64[::1],
    }


def make_state(
    config: ClusterConfig,
    arrival_s: F8,
    prompt_tokens: NDArray[np.integer[Any]],
    output_tokens: NDArray[np.integer[Any]],
    predicted_tokens: NDArray[np.integer[Any]],
    request_class: NDArray[np.integer[Any]] | None = None,
    *,
    start_s: float = 0.0,
    look_ahead: int = 100,
    anticipator: str = "paper",
    seed: int = 0,
) -> State:
    """A cluster with all slots off, and requests that have not arrived yet.

    Args:
        request_class: numbers from 0 on without a gap; None: all of class 0.

    Raises:
        InputError: if there are more requests or classes than their numbers have room for.
    """
    n, slots = len(arrival_s), config.max_instances
    if n >= 2**30:
        raise InputError(f"trace: expected fewer than 2**30 requests, got {n}")
    classes = 1 if request_class is None or n == 0 else int(request_class.max()) + 1
    if classes > MAX_CLASSES:
        raise InputError(f"trace: expected at most {MAX_CLASSES} request classes, got {classes}")
    instance, slo = config.instance, config.slo
    inf = float("inf")
    # About four deadlines in a slot; a rotation of the wheel should not be shorter than most deadlines.
    span_s = float(arrival_s[-1] - arrival_s[0]) if n else 0.0
    slots_per_s = min(max(n / max(span_s, 1.0) / 4.0, 1.0), 250.0)

    def records(dtype: np.dtype[np.void], size: int, **fields: Any) -> NDArray[np.void]:
        # A recarray, so that s.instances[i].state also works with the JIT off.
        array = np.zeros(size, dtype).view(np.recarray)
        for name, values in fields.items():
            array[name] = values
        return array

    def zeros(dtype: Any, *names: str) -> dict[str, NDArray[Any]]:
        return {name: np.zeros(slots, dtype) for name in names}

    return State(
        params=records(
            PARAMS,
            1,
            base_s=instance.latency.base_s,
            per_token_s=instance.latency.per_token_s,
            per_context_token_s=instance.latency.per_context_token_s,
            per_quad_s=instance.latency.per_quad_s,
            per_token_beyond_knee_s=instance.latency.per_token_beyond_knee_s,
            per_mixed_context_token_s=instance.latency.per_mixed_context_token_s,
            knee_tokens=instance.latency.knee_tokens,
            seed=seed,
            scheduler=SCHEDULERS.index(instance.scheduler),
            kv_blocks=instance.kv_blocks,
            watermark_blocks=instance.watermark_blocks,
            block_size=instance.block_size,
            block_shift=instance.block_size.bit_length() - 1,
            max_num_seqs=instance.max_num_seqs,
            max_num_batched_tokens=instance.max_num_batched_tokens,
            long_prefill_token_threshold=instance.long_prefill_token_threshold,
            chunked_prefill=instance.enable_chunked_prefill,
            async_scheduling=instance.async_scheduling,
            full_isl_gate=instance.scheduler_reserve_full_isl,
            min_instances=config.min_instances,
            max_instances=config.max_instances,
            slo_ttft_s=inf if slo.ttft_s is None else slo.ttft_s,
            slo_ttft_per_prompt_token_s=slo.ttft_per_prompt_token_s,
            slo_tpot_s=inf if slo.tpot_s is None else slo.tpot_s,
            slo_normalized_latency_s=inf if slo.normalized_latency_s is None else slo.normalized_latency_s,
            deadline_slots_per_s=slots_per_s,
            start_s=start_s,
            anticipator=ANTICIPATORS.index(anticipator),
        ),
        totals=records(
            TOTALS,
            1,
            now_s=start_s,
            deadline_slot=int(start_s * slots_per_s),
            tick=1,
        ),
        counts=records(COUNTS, classes),
        histograms=np.zeros((N_HISTOGRAMS * classes + 1) * HISTOGRAM_BINS, np.int64),
        requests=records(
            REQUEST,
            n,
            arrival_s=arrival_s,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            predicted_tokens=predicted_tokens,
            request_class=0 if request_class is None else request_class,
            first_token_s=np.nan,
            token_s=np.nan,
            next=-1,
            previous=-1,
        ),
        first_scheduled_s=np.full(n, np.nan),
        instance_of=np.full(n, -1, np.int32),
        preemptions=np.zeros(n, np.int32),
        met=np.zeros(n, np.uint8),
        predicted_last=np.zeros(n, np.int64),
        predicted_held=np.zeros(n, np.int32),
        deadline_next=np.full(2 * n, -1, np.int32),
        deadline_head=np.full(DEADLINE_SLOTS, -1, np.int32),
        instances=records(
            INSTANCE,
            slots,
            schedule_at_s=inf,
            iteration_end_s=inf,
            step_end_s=start_s,
            started_s=start_s,
            blocks_since_s=start_s,
            load_since_s=start_s,
            ready_at_s=inf,
            waiting_head=-1,
            waiting_tail=-1,
            running_head=-1,
            running_tail=-1,
            peak_step=-1,
        ),
        batches=records(BATCH, 2 * slots),
        batch_requests=np.zeros(4 * slots * instance.max_num_seqs, np.int32),
        prefilling=np.zeros(slots * instance.max_num_seqs, np.int32),
        finish=np.zeros(slots * instance.max_num_seqs, np.int64),
        residues=np.zeros(slots * instance.block_size, np.int32),
        quiet_until_s=np.full(slots, inf),
        group_quiet_s=np.full((slots >> GROUP_SHIFT) + 1, inf),
        cold_starts_s=np.array(config.cold_starts_s),
        map_tokens=np.zeros(look_ahead + 1, np.int64),
        map_counts=np.zeros(look_ahead + 1, np.int64),
        ghost_step=np.full(slots * GHOST_SLOTS, -1, np.int64),
        ghost_tokens=np.zeros(slots * GHOST_SLOTS, np.int64),
        ghost_count=np.zeros(slots * GHOST_SLOTS, np.int64),
        refined_for=np.full(slots, -1, np.int32),
        peak_until_s=np.full(slots, -inf),
        **zeros(np.int64, "peak_tokens", "held_tokens"),
        **zeros(np.int32, "peak_ahead"),
        **zeros(np.int32, "in_flight", "waiting", "blocks_used"),
        **zeros(np.int64, "ready", "queued_prefill_tokens", "prompt_tokens", "expected_tokens"),
        **zeros(np.int64, "anticipated_tokens", "waiting_blocks"),
        **zeros(np.float64, "prompt_throughput", "generation_throughput"),
        weights=np.zeros(MOST_WEIGHTS),
    )
