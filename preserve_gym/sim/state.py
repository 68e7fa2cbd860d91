"""The state of a simulated cluster: flat arrays of records, allocated once, changed in place.

A record array costs a kernel one argument, and a record in it one pointer, whatever it holds; dozens of
separate arrays would be passed by value at every call. Kernels read ``s.instances[i].n_running``.

Sizes: ``R`` requests of the episode, ``I`` = ``max_instances`` slots, ``S`` = ``max_num_seqs``,
``B`` = ``block_size``. Times are seconds on the episode's clock, float64; ``inf`` means "no such
event", ``nan`` "not yet".
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numba import float64, from_dtype, int32, int64
from numpy.typing import NDArray

from preserve_gym.config import ClusterConfig
from preserve_gym.sim.by_reference import ByReference

SCHEDULERS = ("vllm", "vllm_v0", "sarathi")
VLLM, VLLM_V0, SARATHI = 0, 1, 2

# Instance states.
OFF, STARTING, READY, DRAINING = 0, 1, 2, 3

# Request states. A decoding request gets one token in every iteration; a leaving one has its last token in
# an iteration that is scheduled and has not ended; a skipped one goes without a token for lack of budget.
PENDING, WAITING, PREFILLING, DECODING, SKIPPED, LEAVING, FINISHED, REJECTED = 0, 1, 2, 3, 4, 5, 6, 7

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
I4 = NDArray[np.int32]
Records = NDArray[np.void]
Record = Any
"""One record of an array below, by reference."""

PARAMS = np.dtype(
    [
        ("base_s", "f8"),
        ("per_token_s", "f8"),
        ("per_context_token_s", "f8"),
        ("per_quad_s", "f8"),
        ("seed", "i8"),  # of routers that draw
        ("scheduler", "i8"),  # VLLM, VLLM_V0 or SARATHI
        ("kv_blocks", "i8"),
        ("watermark_blocks", "i8"),
        ("block_size", "i8"),
        ("max_num_seqs", "i8"),
        ("max_num_batched_tokens", "i8"),
        ("long_prefill_token_threshold", "i8"),
        ("chunked_prefill", "i8"),
        ("async_scheduling", "i8"),
        ("full_isl_gate", "i8"),
        ("min_instances", "i8"),
        ("max_instances", "i8"),
        ("cold_start_s", "f8"),
        ("slo_ttft_s", "f8"),  # inf: no such deadline
        ("slo_ttft_per_prompt_token_s", "f8"),
        ("slo_tpot_s", "f8"),  # inf: no such deadline
        ("slo_normalized_latency_s", "f8"),  # inf: no such deadline
    ],
    align=True,
)
"""What does not change during an episode; see ``ClusterConfig``."""

REQUEST = np.dtype(
    [
        ("arrival_s", "f8"),
        ("first_scheduled_s", "f8"),
        ("first_token_s", "f8"),
        ("completed_s", "f8"),
        ("violated_s", "f8"),  # when its first missed deadline passed
        ("prompt_tokens", "i4"),
        ("output_tokens", "i4"),  # true; routers and observations never read it
        ("predicted_tokens", "i4"),  # predicted output tokens
        ("generated", "i4"),  # output tokens; of a decoding request, those up to first_step
        ("computed", "i4"),  # prompt (or recomputed) tokens that are scheduled or done
        ("prefill_target", "i4"),  # tokens to compute before it decodes; then, tokens computed at first_step
        ("lag", "i4"),  # first_step minus the step of its last token at first_step
        ("next", "i4"),  # behind it in the waiting or the running queue of its instance, or -1
        ("previous", "i4"),  # before it in the running queue, or -1
        ("instance", "i4"),  # where it was routed, or -1
        ("preemptions", "i4"),
        ("status", "i4"),
        ("first_step", "i8"),  # the step after which it decodes in each one
    ],
    align=True,
)
"""A request, 96 bytes."""

INSTANCE = np.dtype(
    [
        # Iterations. At most two batches are scheduled: one executing and, with asynchronous scheduling,
        # the next. Steps number the batches in which the decoding requests advance.
        ("schedule_at_s", "f8"),  # scheduler's next turn
        ("iteration_end_s", "f8"),  # end of the executing batch
        ("executing", "i8"),  # which of its two batches executes: 0 or 1
        ("has_executing", "i8"),
        ("has_next", "i8"),
        ("steps", "i8"),  # scheduled so far
        ("ended_steps", "i8"),  # of these, ended
        ("busy_s", "f8"),  # time executing iterations that have ended
        # Queues.
        ("n_running", "i8"),  # requests that hold a place: prefilling, decoding or leaving
        ("n_waiting", "i8"),
        ("n_prefilling", "i8"),
        ("n_decoding", "i8"),
        ("n_skipped", "i8"),  # decoding requests without budget, while a batch is put together
        ("decode_context", "i8"),  # context of the decoding requests in the next step
        ("waiting_head", "i4"),
        ("waiting_tail", "i4"),
        ("running_head", "i4"),
        ("running_tail", "i4"),
        ("queued_prefill_tokens", "i8"),  # prompts of requests here without a first token
        ("expected_tokens", "i8"),  # prompt plus predicted output of requests here
        # KV-cache memory.
        ("blocks_used", "i8"),
        ("blocks_since_s", "f8"),  # last change of blocks_used
        ("block_s", "f8"),  # integral of blocks_used over time, up to blocks_since_s
        # Lifecycle.
        ("state", "i8"),
        ("started_s", "f8"),  # start of the cold start: billing runs from here
        ("ready_at_s", "f8"),  # end of the cold start
        ("draining_order", "i8"),  # rank among all drains ever begun, to take back the latest
        ("instance_s", "f8"),  # instance-seconds billed, up to the last time it went off
    ],
    align=True,
)
"""An instance slot."""

BATCH = np.dtype(
    [
        ("duration_s", "f8"),
        ("tokens", "i8"),  # tokens, context and quad as LatencyLaw has them
        ("context", "i8"),
        ("quad", "f8"),
        ("advances", "i8"),  # 1 if the decoding requests advance in it
        ("n_done", "i8"),  # requests that end their prefill or their output in it
    ],
    align=True,
)
"""An iteration that is scheduled; instance ``i`` has the batches ``2*i`` and ``2*i + 1``."""

TOTALS = np.dtype(
    [
        ("now_s", "f8"),
        ("next_request", "i8"),  # the first request that has not arrived
        ("routed", "i8"),
        ("n_ready", "i8"),
        ("n_deadlines", "i8"),
        ("drains", "i8"),
        ("arrived", "i8"),
        ("rejected", "i8"),
        ("prompt_tokens", "i8"),
        ("predicted_tokens", "i8"),
        ("first_tokens", "i8"),
        ("completed", "i8"),
        ("compliant", "i8"),
        ("output_tokens", "i8"),
        ("violations", "i8"),
        ("ttft_misses", "i8"),
        ("preemptions", "i8"),
        ("scale_ups", "i8"),
        ("scale_downs", "i8"),
        ("ttft_sum_s", "f8"),
        ("decode_sum_s", "f8"),
    ],
    align=True,
)
"""The clock and the cumulative totals of the cluster; ``cluster.TOTALS`` says what the latter are."""


class State(ByReference):
    """Everything the kernels work on."""

    params: Records  # PARAMS, (1,)
    totals: Records  # TOTALS, (1,)
    requests: Records  # REQUEST, (R,), in order of arrival
    instances: Records  # INSTANCE, (I,)
    batches: Records  # BATCH, (2*I,)
    batch_requests: I4  # (2*I*S,) requests that end their prefill or their output in each batch
    prefilling: I4  # (I*S,) prefilling requests of each instance, in order of admission
    finish_step: I8  # (I*S,) binary heap: the last step of each decoding request
    finish_of: I4  # (I*S,) which request that is
    residues: I4  # (I*B,) decoding requests by (tokens computed - steps) modulo the block size
    quiet_until_s: F8  # (I,) until then nothing happens but steps of the decoding requests
    ready: I8  # (I,) slots that are ready, ascending; the first n_ready count
    deadline_s: F8  # (R,) binary heap of the requests' next deadlines
    deadline_of: I8  # (R,) r for the first token of request r, ~r for its completion

    ARRAYS: ClassVar[dict[str, Any]] = {
        "params": from_dtype(PARAMS)[::1],
        "totals": from_dtype(TOTALS)[::1],
        "requests": from_dtype(REQUEST)[::1],
        "instances": from_dtype(INSTANCE)[::1],
        "batches": from_dtype(BATCH)[::1],
        "batch_requests": int32[::1],
        "prefilling": int32[::1],
        "finish_step": int64[::1],
        "finish_of": int32[::1],
        "residues": int32[::1],
        "quiet_until_s": float64[::1],
        "ready": int64[::1],
        "deadline_s": float64[::1],
        "deadline_of": int64[::1],
    }


def make_state(
    config: ClusterConfig,
    arrival_s: F8,
    prompt_tokens: NDArray[np.integer[Any]],
    output_tokens: NDArray[np.integer[Any]],
    predicted_tokens: NDArray[np.integer[Any]],
) -> State:
    """A cluster with all slots off, and requests that have not arrived yet."""
    n, slots = len(arrival_s), config.max_instances
    instance, slo = config.instance, config.slo
    inf = float("inf")

    def records(dtype: np.dtype[np.void], size: int, **fields: Any) -> NDArray[np.void]:
        # A recarray, so that s.instances[i].state also works with the JIT off.
        array = np.zeros(size, dtype).view(np.recarray)
        for name, values in fields.items():
            array[name] = values
        return array

    return State(
        params=records(
            PARAMS,
            1,
            base_s=instance.latency.base_s,
            per_token_s=instance.latency.per_token_s,
            per_context_token_s=instance.latency.per_context_token_s,
            per_quad_s=instance.latency.per_quad_s,
            scheduler=SCHEDULERS.index(instance.scheduler),
            kv_blocks=instance.kv_blocks,
            watermark_blocks=instance.watermark_blocks,
            block_size=instance.block_size,
            max_num_seqs=instance.max_num_seqs,
            max_num_batched_tokens=instance.max_num_batched_tokens,
            long_prefill_token_threshold=instance.long_prefill_token_threshold,
            chunked_prefill=instance.enable_chunked_prefill,
            async_scheduling=instance.async_scheduling,
            full_isl_gate=instance.scheduler_reserve_full_isl,
            min_instances=config.min_instances,
            max_instances=config.max_instances,
            cold_start_s=config.cold_start_s,
            slo_ttft_s=inf if slo.ttft_s is None else slo.ttft_s,
            slo_ttft_per_prompt_token_s=slo.ttft_per_prompt_token_s,
            slo_tpot_s=inf if slo.tpot_s is None else slo.tpot_s,
            slo_normalized_latency_s=inf if slo.normalized_latency_s is None else slo.normalized_latency_s,
        ),
        totals=records(TOTALS, 1),
        requests=records(
            REQUEST,
            n,
            arrival_s=arrival_s,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            predicted_tokens=predicted_tokens,
            first_scheduled_s=np.nan,
            first_token_s=np.nan,
            completed_s=np.nan,
            violated_s=np.nan,
            next=-1,
            previous=-1,
            instance=-1,
        ),
        instances=records(
            INSTANCE,
            slots,
            schedule_at_s=inf,
            iteration_end_s=inf,
            ready_at_s=inf,
            waiting_head=-1,
            waiting_tail=-1,
            running_head=-1,
            running_tail=-1,
        ),
        batches=records(BATCH, 2 * slots),
        batch_requests=np.zeros(2 * slots * instance.max_num_seqs, np.int32),
        prefilling=np.zeros(slots * instance.max_num_seqs, np.int32),
        finish_step=np.zeros(slots * instance.max_num_seqs, np.int64),
        finish_of=np.zeros(slots * instance.max_num_seqs, np.int32),
        residues=np.zeros(slots * instance.block_size, np.int32),
        quiet_until_s=np.full(slots, inf),
        ready=np.zeros(slots, np.int64),
        deadline_s=np.zeros(max(n, 1)),
        deadline_of=np.zeros(max(n, 1), np.int64),
    )
