"""The reference simulator against results worked out on paper.

In the paper cases an iteration takes one second whatever is in it, and a block holds one token, unless a
case says otherwise.
"""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from preserve_gym.config import ClusterConfig, InstanceConfig, SloConfig
from preserve_gym.latency.law import LatencyLaw
from tests.reference import (
    DRAINING,
    OFF,
    READY,
    ROUTERS,
    STARTING,
    ReferenceCluster,
    least_requests,
    round_robin,
    uniform,
)

ONE_SECOND = LatencyLaw(1.0, 0.0, 0.0, 0.0)
NO_SLO = SloConfig(ttft_s=1e9, tpot_s=None)


def make(
    *requests: tuple[float, int, int] | tuple[float, int, int, int],
    router: Any = round_robin,
    initial: int = 1,
    latency: LatencyLaw = ONE_SECOND,
    slo: SloConfig = NO_SLO,
    max_instances: int = 3,
    cold_start_s: float | tuple[float, ...] = 5.0,
    too_long: Any = "reject",
    start_s: float = 0.0,
    seed: int = 0,
    look_ahead: int = 100,
    anticipator: str = "paper",
    router_weights: tuple[float, ...] = (1.0,) * 7,
    request_class: list[int] | None = None,
    **instance: Any,
) -> ReferenceCluster:
    """A cluster for requests (arrival, prompt, output[, predicted output]); 1,000 blocks of one token."""
    limits: dict[str, Any] = {
        "num_gpu_blocks": 1001,
        "block_size": 1,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 100,
        "max_model_len": 100,
        "async_scheduling": False,
    }
    config = ClusterConfig(
        instance=InstanceConfig(latency, **{**limits, **instance}),
        slo=slo,
        max_instances=max_instances,
        cold_start_s=cold_start_s,
        too_long=too_long,
    )
    return ReferenceCluster(
        config,
        [request[0] for request in requests],
        [request[1] for request in requests],
        [request[2] for request in requests],
        [request[-1] for request in requests],
        router,
        initial,
        start_s=start_s,
        debug=True,
        seed=seed,
        look_ahead=look_ahead,
        anticipator=anticipator,
        router_weights=router_weights,
        request_class=request_class,
    )


def play(*requests: tuple[float, int, int], **config: Any) -> ReferenceCluster:
    cluster = make(*requests, **config)
    cluster.run_until(math.inf)
    return cluster


def times(cluster: ReferenceCluster) -> list[tuple[float | None, float | None, float | None, int]]:
    """(first scheduled, first token, completion, preemptions) of each request."""
    return [(r.first_scheduled_s, r.first_token_s, r.completed_s, r.preemptions) for r in cluster.requests]


def states(cluster: ReferenceCluster) -> list[int]:
    return [instance.state for instance in cluster.instances]


# One instance, on paper.


def test_iteration_time() -> None:
    law = LatencyLaw(base_s=1.0, per_token_s=0.5, per_context_token_s=0.25, per_quad_s=0.125)
    # Prefill of 4: 1 + 0.5*4 + 0.125*4*(4/2) = 4. Decode after 4: 1 + 0.5*1 + 0.25*5 = 2.75.
    cluster = play((0.0, 4, 2), latency=law)
    assert times(cluster) == [(0.0, 4.0, 6.75, 0)]
    assert cluster.busy_s == 6.75


def test_iteration_time_beyond_the_knee_and_of_a_mixed_batch() -> None:
    law = LatencyLaw(1.0, 0.0, 0.25, 0.0, 3, 0.5, 0.125)
    # [0, 1] prefill of A's 2 tokens, below the knee. [1, 2.75] A decodes: 1 + 0.25*3. [2.75, 5.75] A decodes
    # and B prefills, 4 tokens, one beyond the knee: 1 + 0.5 + (0.25 + 0.125)*4.
    assert times(play((0.0, 2, 3), (1.5, 3, 1), latency=law)) == [(0.0, 1.0, 5.75, 0), (2.75, 5.75, 5.75, 0)]


def test_decodes_beyond_the_knee() -> None:
    law = LatencyLaw(1.0, 0.0, 0.0, 0.0, 2, 0.5)
    # Prefill of 4 tokens, and two iterations of 4 decodes, two tokens beyond the knee: 2 s each. Then 3
    # decode in 1.5 s, then 1.
    requests = (0.0, 1, 3), (0.0, 1, 4), (0.0, 1, 4), (0.0, 1, 5)
    assert [completed_s for _, _, completed_s, _ in times(play(*requests, latency=law))] == [
        6.0,
        7.5,
        7.5,
        8.5,
    ]


def test_a_prompt_is_split_by_the_budget() -> None:
    law = LatencyLaw(base_s=1.0, per_token_s=0.0, per_context_token_s=0.0, per_quad_s=1.0)
    # 4 tokens: 1 + 4*(4/2) = 9. 2 tokens after 4: 1 + 2*(2/2 + 4) = 11.
    cluster = play((0.0, 6, 1), latency=law, max_num_batched_tokens=4, max_num_seqs=4)
    assert times(cluster) == [(0.0, 20.0, 20.0, 0)]


def test_with_and_without_chunked_prefill() -> None:
    requests = (0.0, 6, 1), (0.0, 6, 1)
    limits = {"max_num_batched_tokens": 10, "max_model_len": 10}
    # Chunked, the second prompt starts with the 4 tokens that the first one leaves.
    assert times(play(*requests, **limits)) == [(0.0, 1.0, 1.0, 0), (0.0, 2.0, 2.0, 0)]
    whole = play(*requests, **limits, enable_chunked_prefill=False)
    assert times(whole) == [(0.0, 1.0, 1.0, 0), (1.0, 2.0, 2.0, 0)]


def test_threshold_of_long_prefills() -> None:
    # 5 tokens in chunks of 2, 2 and 1.
    assert times(play((0.0, 5, 1), long_prefill_token_threshold=2)) == [(0.0, 3.0, 3.0, 0)]


def test_running_requests_are_capped() -> None:
    cluster = play((0.0, 2, 2), (0.0, 2, 1), max_num_seqs=1)
    assert times(cluster) == [(0.0, 1.0, 2.0, 0), (2.0, 3.0, 3.0, 0)]


def test_decodes_take_their_budget_first() -> None:
    # Budget 3. [0, 1]: A prefills 1, B 2 of 4. [1, 2]: A decodes, B's other 2. Then C gets in.
    cluster = play((0.0, 1, 2), (0.0, 4, 1), (0.0, 1, 1), max_num_batched_tokens=3, max_num_seqs=3)
    assert times(cluster) == [(0.0, 1.0, 2.0, 0), (0.0, 2.0, 2.0, 0), (2.0, 3.0, 3.0, 0)]


def test_null_block_and_last_token() -> None:
    # 3 + 3 tokens, of which the last is never stored: 5 blocks, and the null block.
    assert not play((0.0, 3, 3), num_gpu_blocks=6).requests[0].rejected
    assert play((0.0, 3, 3), num_gpu_blocks=5).requests[0].rejected


def test_full_sequence_gate() -> None:
    # 10 blocks, budget 8. A takes 5 tokens, which leaves 3 tokens of budget and 5 blocks for B.
    requests = (0.0, 5, 4), (0.0, 8, 1)
    limits = {"num_gpu_blocks": 11, "max_num_batched_tokens": 8}
    # Gate on: all 8 of B do not fit before A completes, at 4.
    gated = play(*requests, **limits)
    assert times(gated) == [(0.0, 1.0, 4.0, 0), (4.0, 5.0, 5.0, 0)]
    # Gate off: B takes 3 at 0; at 1 A grows to 6 blocks, B's other 5 do not fit into 4: it evicts itself.
    # At 2 A holds 7 blocks and B wants 7 tokens (the budget less A's one), at 3 A holds 8.
    ungated = play(*requests, **limits, scheduler_reserve_full_isl=False)
    assert times(ungated) == [(0.0, 1.0, 4.0, 0), (0.0, 5.0, 5.0, 1)]


def test_preemption_by_recomputation() -> None:
    # 6 blocks. [0, 1] prefill of A and B, 4 blocks. [1, 2] both decode, 6 blocks. At 2 A needs a 4th
    # block: B, with two tokens produced, loses its 3 and goes to the head of the queue, before C. A goes
    # on alone and completes at 4. B recomputes 2 + 2 tokens in [4, 5]. C's 4 do not fit beside: [5, 6].
    cluster = play((0.0, 2, 4), (0.0, 2, 3), (0.5, 4, 1), num_gpu_blocks=7)
    assert times(cluster) == [(0.0, 1.0, 4.0, 0), (0.0, 1.0, 5.0, 1), (5.0, 6.0, 6.0, 0)]
    assert cluster.kv_block_s == 4 + 6 + 4 + 5 + 4 + 4
    assert cluster.instances[0].scheduled_tokens == (2 + 3) + (2 + 1) + 4 + 4


def test_preemption_shuts_admission_for_the_step() -> None:
    # As above with chunks of one token and no gate: [0, 2] prefill, [2, 3] both decode, at 3 B is evicted.
    # Its first chunk would fit at once beside A's 4 blocks, but it must wait for the step at 4.
    # [4, 5] A and B's first; A completes at 5; B's other three in [5, 8].
    cluster = play(
        (0.0, 2, 4),
        (0.0, 2, 3),
        num_gpu_blocks=7,
        long_prefill_token_threshold=1,
        scheduler_reserve_full_isl=False,
    )
    assert times(cluster) == [(0.0, 2.0, 5.0, 0), (0.0, 2.0, 8.0, 1)]


def test_a_recomputation_is_prefill_even_with_one_token_left() -> None:
    law = LatencyLaw(base_s=1.0, per_token_s=0.0, per_context_token_s=0.0, per_quad_s=1.0)
    # Budget 3, 6 blocks. [0, 3.5] both prefill: 1 + 1*0.5 + 2*1 = 3.5 s. [3.5, 4.5] both decode, 2 + 3
    # blocks. At 4.5 A takes a third; B needs a fourth and evicts itself, with 2 tokens produced. A goes
    # on alone, as B's 4 tokens do not fit, and completes at 6.5. B recomputes 2 + 2 tokens in chunks of 3
    # and 1: 1 + 3*1.5 = 5.5 s and 1 + 1*(0.5 + 3) = 4.5 s, gets its third token at 16.5 and its last one
    # by a decode at 17.5.
    cluster = play(
        (0.0, 1, 4), (0.0, 2, 4), latency=law, num_gpu_blocks=7, max_num_batched_tokens=3, max_num_seqs=3
    )
    assert times(cluster) == [(0.0, 3.5, 6.5, 0), (0.0, 3.5, 17.5, 1)]


# Asynchronous scheduling, on paper.


def test_async_forms_the_second_batch_at_once() -> None:
    synchronous = play((0.0, 2, 2))
    asynchronous = play((0.0, 2, 2), async_scheduling=True)
    assert times(synchronous) == times(asynchronous) == [(0.0, 1.0, 2.0, 0)]
    # The block of the second iteration is taken at 0 instead of at 1.
    assert synchronous.kv_block_s == 2 + 3
    assert asynchronous.kv_block_s == 3 + 3
    # At 1 the last token is in flight, so there is nothing to schedule.
    assert asynchronous.instances[0].iterations == 2
    assert asynchronous.instances[0].empty_schedules == 1


def test_async_arrivals_wait_for_one_more_iteration() -> None:
    requests = (0.0, 2, 4), (0.5, 2, 1)
    assert times(play(*requests))[1] == (1.0, 2.0, 2.0, 0)
    # The batch of [1, 2] was formed at 0, that of [2, 3] is formed at 1.
    assert times(play(*requests, async_scheduling=True))[1] == (2.0, 3.0, 3.0, 0)


def test_async_token_in_flight_survives_preemption() -> None:
    # 6 blocks, 4 of them at 0 for [0, 1] and all at 0 for [1, 2]. At 1 the batch of [2, 3] is formed: A
    # needs a 4th block and evicts B, whose second token is in flight and arrives at 2. A holds 5 blocks
    # until 4, then B recomputes 2 + 2 tokens in [4, 5], which gives its third and last.
    cluster = play((0.0, 2, 4), (0.0, 2, 3), num_gpu_blocks=7, async_scheduling=True)
    assert times(cluster) == [(0.0, 1.0, 4.0, 0), (0.0, 1.0, 5.0, 1)]


def test_async_a_preempted_request_may_complete_in_the_queue() -> None:
    # As before, but the token in flight is B's last. B would not be scheduled at 1, but it is the tail of
    # the list: it loses its blocks, and completes at 2 nevertheless.
    cluster = make((0.0, 2, 4), (0.0, 2, 2), num_gpu_blocks=7, async_scheduling=True)
    cluster.run_until(1.5)
    instance = cluster.instances[0]
    assert [request.index for request in instance.waiting] == [1]
    assert instance.kv_blocks_used == 4
    cluster.run_until(math.inf)
    assert times(cluster) == [(0.0, 1.0, 4.0, 0), (0.0, 1.0, 2.0, 1)]


# Order at equal times.


def test_arrival_at_the_end_of_an_iteration_is_in_time_for_the_next() -> None:
    assert times(play((0.0, 2, 3), (1.0, 2, 1)))[1] == (1.0, 2.0, 2.0, 0)


def test_simultaneous_arrivals_share_the_first_batch() -> None:
    assert times(play((3.0, 2, 1), (3.0, 2, 1))) == [(3.0, 4.0, 4.0, 0)] * 2


def test_router_sees_the_iteration_that_ends_at_the_arrival() -> None:
    # At 1 the first request has just left instance 0; the other still runs on instance 1.
    cluster = play((0.0, 2, 1), (0.0, 2, 2), (1.0, 2, 1), router=least_requests, initial=2)
    assert [request.instance for request in cluster.requests] == [0, 1, 0]


def test_snapshot_and_action_lie_between_ends_and_arrivals() -> None:
    cluster = make((0.0, 2, 2), (1.0, 2, 1), router=least_requests, cold_start_s=0.0)
    cluster.run_until(1.0)
    assert cluster.requests[0].first_token_s == 1.0
    assert not cluster.instances[0].batches
    assert cluster.requests[1].instance is None
    cluster.scale_to(2)  # ready at once, before the arrival at 1
    assert states(cluster) == [READY, READY, OFF]
    cluster.run_until(math.inf)
    assert cluster.requests[1].instance == 1
    assert times(cluster) == [(0.0, 1.0, 2.0, 0), (1.0, 2.0, 2.0, 0)]


def test_clock_starts_where_told() -> None:
    cluster = make((100.0, 2, 1), start_s=90.0)
    cluster.run_until(110.0)
    assert times(cluster) == [(100.0, 101.0, 101.0, 0)]
    assert (cluster.gpu_s, cluster.busy_s, cluster.kv_block_s) == (20.0, 1.0, 2.0)


# Lifecycle.


def test_cold_start() -> None:
    # Started at 1, ready at 6: the arrival at 5.5 must go to instance 0, that at 6 goes to instance 1.
    cluster = make((0.0, 2, 9), (5.5, 2, 1), (6.0, 2, 1), router=least_requests)
    cluster.run_until(1.0)
    cluster.scale_to(2)
    assert states(cluster) == [READY, STARTING, OFF]
    assert cluster.instances[1].ready_at_s == 6.0
    cluster.run_until(5.75)
    assert states(cluster) == [READY, STARTING, OFF]
    cluster.run_until(6.0)
    assert states(cluster) == [READY, READY, OFF]
    cluster.run_until(10.0)
    assert [request.instance for request in cluster.requests] == [0, 0, 1]
    assert cluster.gpu_s == 10.0 + 9.0
    assert (cluster.scale_ups, cluster.scale_downs) == (1, 0)


@pytest.mark.parametrize("async_scheduling", [False, True])
def test_drain(async_scheduling: bool) -> None:
    # Equally loaded, so the highest index drains, and is off when its request ends, at 2.
    cluster = make((0.0, 2, 3), (0.0, 2, 2), (0.75, 2, 1), initial=2, async_scheduling=async_scheduling)
    cluster.run_until(0.5)
    cluster.scale_to(1)
    assert states(cluster) == [READY, DRAINING, OFF]
    cluster.run_until(2.0)
    assert states(cluster) == [READY, OFF, OFF]
    cluster.run_until(4.0)
    assert [request.instance for request in cluster.requests] == [0, 1, 0]
    assert cluster.gpu_s == 4.0 + 2.0
    assert (cluster.scale_ups, cluster.scale_downs) == (0, 1)


def test_the_least_loaded_drains_and_an_idle_one_is_off_at_once() -> None:
    # Round robin: instance 0 gets two requests, 1 gets one of two tokens, 2 one of three.
    cluster = make((0.0, 2, 3), (0.0, 2, 2), (0.0, 2, 3), (0.0, 2, 3), initial=3)
    cluster.run_until(2.0)  # now they have 2, 0 and 1
    cluster.scale_to(2)
    assert states(cluster) == [READY, OFF, READY]
    cluster.scale_to(1)
    assert states(cluster) == [READY, OFF, DRAINING]
    assert (cluster.scale_ups, cluster.scale_downs) == (0, 2)


def test_take_back_the_latest_to_begin_draining() -> None:
    cluster = make((0.0, 2, 9), (0.0, 2, 9), (0.0, 2, 9), initial=3)
    cluster.run_until(0.5)
    cluster.scale_to(1)  # drains 2, then 1
    assert states(cluster) == [READY, DRAINING, DRAINING]
    cluster.scale_to(2)
    assert states(cluster) == [READY, READY, DRAINING]
    cluster.scale_to(3)
    assert states(cluster) == [READY, READY, READY]
    cluster.run_until(10.0)
    assert cluster.gpu_s == 30.0
    assert (cluster.scale_ups, cluster.scale_downs) == (2, 2)


def test_take_back_comes_before_starting() -> None:
    cluster = make((0.0, 2, 9), (0.0, 2, 9), initial=2)
    cluster.run_until(0.5)
    cluster.scale_to(1)
    cluster.run_until(1.5)
    cluster.scale_to(3)
    assert states(cluster) == [READY, READY, STARTING]


def test_cancelled_start_is_billed_in_full() -> None:
    cluster = make(cold_start_s=10.0, gpus=2)
    cluster.scale_to(3)
    cluster.run_until(4.0)
    cluster.scale_to(2)  # both were started at 0: the highest index goes first
    assert states(cluster) == [READY, STARTING, OFF]
    assert cluster.gpu_s == 2 * (3 * 4.0 + 6.0)
    cluster.scale_to(1)
    assert states(cluster) == [READY, OFF, OFF]
    cluster.run_until(20.0)
    assert cluster.gpu_s == 2 * (20.0 + 10.0 + 10.0)
    assert (cluster.scale_ups, cluster.scale_downs) == (2, 2)


def test_cold_starts_are_drawn() -> None:
    cold_starts_s = (2.0, 4.0, 8.0)
    draws = [int(uniform(1, 2**62 + k) * 3) for k in range(4)]
    assert draws == [0, 2, 1, 1]
    # A keeps instance 0 busy, B instance 1.
    cluster = make((0.0, 2, 90), (0.0, 2, 90), initial=2, max_instances=4, cold_start_s=cold_starts_s, seed=1)
    cluster.run_until(1.0)
    cluster.scale_to(4)
    assert [i.ready_at_s for i in cluster.instances[2:]] == [1.0 + 2.0, 1.0 + 8.0]
    cluster.run_until(3.0)
    assert states(cluster) == [READY, READY, READY, STARTING]
    # The second start is cancelled and billed for its 8 s; then instance 2 goes, idle, and 1 drains.
    cluster.scale_to(1)
    assert states(cluster) == [READY, DRAINING, OFF, OFF]
    assert cluster.gpu_s == 2 * 3.0 + 2.0 + 8.0
    # Taking instance 1 back draws nothing; the third start is that of instance 2, the fourth that of 3.
    cluster.scale_to(3)
    assert states(cluster) == [READY, READY, STARTING, OFF]
    assert cluster.instances[2].ready_at_s == 3.0 + 4.0
    cluster.run_until(4.0)
    cluster.scale_to(4)
    assert cluster.instances[3].ready_at_s == 4.0 + 4.0


def test_a_cold_start_drawn_as_0_is_ready_at_once() -> None:
    assert [int(uniform(1, 2**62 + k) * 2) for k in range(4)] == [0, 1, 0, 1]
    cluster = make(max_instances=5, cold_start_s=(0.0, 3.0), seed=1)
    cluster.scale_to(5)
    assert states(cluster) == [READY, READY, STARTING, READY, STARTING]


def test_target_is_clamped() -> None:
    cluster = make(cold_start_s=0.0)
    cluster.scale_to(99)
    assert states(cluster) == [READY] * 3
    cluster.scale_to(-1)
    assert states(cluster) == [READY, OFF, OFF]


# Deadlines.


@pytest.mark.parametrize(
    ("slo", "violated_at_s"),
    [
        # First token at 1, completion at 3.
        (SloConfig(ttft_s=1.0, tpot_s=None), None),
        (SloConfig(ttft_s=0.5, tpot_s=None), 0.5),
        (SloConfig(ttft_s=0.5, ttft_per_prompt_token_s=0.25, tpot_s=None), None),
        (SloConfig(ttft_s=1.0, tpot_s=1.0), None),
        (SloConfig(ttft_s=1.0, tpot_s=0.75), 2.5),
        (SloConfig(ttft_s=0.5, tpot_s=0.25), 0.5),
        (SloConfig(ttft_s=0.0, tpot_s=None), 0.0),
        (SloConfig(ttft_s=None, tpot_s=None, normalized_latency_s=1.0), None),
        (SloConfig(ttft_s=None, tpot_s=None, normalized_latency_s=0.5), 1.5),
        (SloConfig(ttft_s=2.0, tpot_s=0.25, normalized_latency_s=0.5), 1.5),
    ],
)
def test_first_missed_deadline(slo: SloConfig, violated_at_s: float | None) -> None:
    cluster = play((0.0, 2, 3), slo=slo)
    assert times(cluster) == [(0.0, 1.0, 3.0, 0)]
    assert cluster.requests[0].violated_at_s == violated_at_s


def test_a_deadline_is_decided_at_its_instant() -> None:
    cluster = make((0.0, 2, 3), slo=SloConfig(ttft_s=1.0, tpot_s=0.75))
    cluster.run_until(2.49)
    assert cluster.requests[0].violated_at_s is None
    cluster.run_until(2.5)
    assert cluster.requests[0].violated_at_s == 2.5


# Requests that are too long.


def test_too_long_is_rejected_at_arrival_and_not_routed() -> None:
    cluster = play((1.5, 60, 41), (2.0, 60, 40), (3.0, 2, 1), initial=2)
    first, *others = cluster.requests
    assert (first.rejected, first.violated_at_s, first.instance) == (True, 1.5, None)
    assert [request.instance for request in others] == [0, 1]


@pytest.mark.parametrize(
    ("prompt", "output", "limits", "clipped"),
    [
        (60, 5, {"max_model_len": 20}, 15),
        (10, 5, {"max_model_len": 20}, 10),
        (60, 5, {"num_gpu_blocks": 3, "block_size": 4}, 4),  # 8 tokens stored, and the last one
        (60, 19, {"max_model_len": 20}, 1),
        (60, 20, {"max_model_len": 20}, None),
    ],
)
def test_clip_prompt(prompt: int, output: int, limits: dict[str, int], clipped: int | None) -> None:
    (request,) = play((0.0, prompt, output), too_long="clip_prompt", **limits).requests
    assert request.rejected == (clipped is None)
    if clipped is not None:
        assert request.prompt_tokens == clipped
        assert request.generated == request.output_tokens == output


# Properties.


def random_cluster(seed: int, router: str, **instance: Any) -> ReferenceCluster:
    rng = random.Random(seed)
    law = LatencyLaw(0.01, 1e-4, 1e-6, 1e-6, 4, 5e-5, 2e-6)
    arrival_s = 0.0
    requests = []
    for _ in range(300):
        # Multiples of a binary fraction, often zero, so that events coincide.
        arrival_s += rng.choice([0.0, 0.0, 1 / 64, 1 / 16, 1 / 8])
        requests.append((arrival_s, rng.randint(1, 60), rng.randint(1, 50), rng.randint(1, 50)))
    limits = {"num_gpu_blocks": 40, "block_size": 4, "max_model_len": 110, "max_num_batched_tokens": 110}
    slo = SloConfig(ttft_s=0.25, tpot_s=0.02, normalized_latency_s=0.03)
    return make(
        *requests,
        router=ROUTERS[router],
        initial=2,
        latency=law,
        slo=slo,
        max_instances=4,
        cold_start_s=0.5,
        **{**limits, **instance},
    )


def play_with_scaling(cluster: ReferenceCluster, interval_s: float) -> None:
    """Scale at fixed times; in between, stop at every multiple of ``interval_s`` for a snapshot."""
    for scale_at_s, target in ((1.0, 4), (1.25, 2), (2.0, 1), (2.25, 3), (4.0, 1), (6.0, 4)):
        while (stop_s := cluster.now_s + interval_s) < scale_at_s:
            cluster.run_until(stop_s)
        cluster.run_until(scale_at_s)
        cluster.scale_to(target)
    cluster.run_until(30.0)


@pytest.mark.parametrize(
    "instance",
    [
        {},
        {"async_scheduling": True},
        {"scheduler": "vllm_v0"},
        {"scheduler": "sarathi", "max_num_batched_tokens": 16},
    ],
)
@pytest.mark.parametrize("router", ROUTERS)
def test_snapshots_do_not_perturb(router: str, instance: dict[str, Any]) -> None:
    rare, frequent = (random_cluster(1, router, **instance) for _ in range(2))
    play_with_scaling(rare, interval_s=100.0)
    play_with_scaling(frequent, interval_s=1 / 64)
    assert [vars(request) for request in rare.requests] == [vars(request) for request in frequent.requests]
    assert states(rare) == states(frequent)
    for total in ("gpu_s", "busy_s", "prefill_busy_s", "kv_block_s", "requests_s", "waiting_s"):
        assert getattr(rare, total) == pytest.approx(getattr(frequent, total), rel=1e-12)


@pytest.mark.parametrize(
    "instance",
    [
        {},
        {"async_scheduling": True},
        {"scheduler_reserve_full_isl": False, "max_num_batched_tokens": 16},
        {"scheduler_reserve_full_isl": False, "max_num_batched_tokens": 16, "async_scheduling": True},
        {"long_prefill_token_threshold": 7},
        {"enable_chunked_prefill": False, "async_scheduling": True},
        {"max_num_seqs": 2},
        {"num_gpu_blocks": 20},
        {"scheduler": "vllm_v0"},
        {"scheduler": "vllm_v0", "num_gpu_blocks": 20, "watermark": 0.2},
        {"scheduler": "sarathi", "max_num_batched_tokens": 16},
        {"scheduler": "sarathi", "num_gpu_blocks": 20, "watermark": 0.0},
    ],
)
def test_every_request_is_served_or_rejected(instance: dict[str, Any]) -> None:
    cluster = random_cluster(2, "least_requests", **instance)
    play_with_scaling(cluster, interval_s=100.0)
    cluster.run_until(math.inf)
    for request in cluster.requests:
        assert request.rejected != (request.completed_s is not None)
        assert request.violated_at_s is not None or not request.rejected
        if not request.rejected:
            assert request.generated == request.output_tokens
            assert (
                request.arrival_s <= request.first_scheduled_s < request.first_token_s <= request.completed_s
            )
    served = [request for request in cluster.requests if not request.rejected]
    least_work = sum(request.prompt_tokens + request.output_tokens - 1 for request in served)
    preemptions = sum(request.preemptions for request in served)
    work = sum(i.scheduled_tokens for i in cluster.instances)
    assert work > least_work if preemptions else work == least_work
    assert all(i.kv_blocks_used == 0 for i in cluster.instances)
