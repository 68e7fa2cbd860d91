"""The reference's routers and its anticipator against results worked out on paper.

An iteration takes one second whatever is in it, and a block holds one token, unless a case says otherwise.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.reference import (
    OFF,
    READY,
    ROUTERS,
    Request,
    Router,
    RouterView,
    anticipated,
    anticipated_tokens,
    uniform,
)
from tests.reference_anticipator import artifact_end, paper_end
from tests.reference_routers import loads, peak, throughputs
from tests.test_reference import make, play, states


def placed(*instances: int, then: str) -> Router:
    """Places the first requests as told; after them the router chooses."""

    def route(view: RouterView, request: Request) -> int:
        return instances[view.routed] if view.routed < len(instances) else ROUTERS[then](view, request)

    return route


def routed(*requests: Any, **config: Any) -> list[int | None]:
    return [request.instance for request in play(*requests, **config).requests]


# What routers read.


def test_what_routers_read() -> None:
    requests = (0.0, 10, 9, 80), (0.0, 40, 9, 5), (0.5, 1, 1, 1), (1.0, 1, 1, 1)
    cluster = make(*requests, initial=2, router=ROUTERS["preserve"])
    cluster.run_until(0.5)
    instances = cluster.instances[:2]
    assert [i.queued_prefill_tokens for i in instances] == [10, 40]
    assert [i.expected_tokens for i in instances] == [90, 45]
    assert [i.kv_blocks_used for i in instances] == [10, 40]
    # 2*10 + 90 = 110 < 2*40 + 45 = 125, so the third goes to instance 0; at 1 its score is
    # 2*1 + 92 = 94 and that of instance 1 is 45, as the first tokens are out.
    cluster.run_until(math.inf)
    assert [request.instance for request in cluster.requests] == [0, 1, 0, 1]


def test_blocks_that_the_queue_waits_for() -> None:
    # Blocks of 4. A runs; B needs 2 blocks, C one.
    cluster = make((0.0, 5, 9), (0.5, 5, 1), (0.5, 4, 1), block_size=4)
    cluster.run_until(0.75)
    assert cluster.instances[0].waiting_blocks == 2 + 1


@pytest.mark.parametrize("async_scheduling", [False, True])
def test_a_preempted_request_waits_for_the_blocks_of_its_output_too(async_scheduling: bool) -> None:
    # Synchronous: B is preempted at 2 with two tokens. Asynchronous: at 1, with one token and one in flight.
    cluster = make((0.0, 2, 4), (0.0, 2, 3), num_gpu_blocks=7, async_scheduling=async_scheduling)
    cluster.run_until(1.5 if async_scheduling else 2.5)
    (b,) = cluster.instances[0].waiting
    assert (b.generated, b.pending) == ((1, 1) if async_scheduling else (2, 0))
    assert cluster.instances[0].waiting_blocks == 4
    cluster.run_until(2.75)
    assert (b.generated, b.pending) == (2, 0)
    assert cluster.instances[0].waiting_blocks == 4


@pytest.mark.parametrize("start_s", [0.0, 7.0])
def test_throughputs_are_those_of_the_last_closed_10_s(start_s: float) -> None:
    requests = (0.0, 10, 15), (0.0, 4, 30), (9.5, 1, 1), (10.0, 3, 1)
    cluster = make(
        *((start_s + arrival_s, prompt, output) for arrival_s, prompt, output in requests),
        initial=3,
        start_s=start_s,
        router=placed(0, 1, 0, then="aibrix_throughput"),
    )

    def at(since_start_s: float) -> list[tuple[float, float]]:
        cluster.run_until(start_s + since_start_s)
        return [throughputs(cluster.view(), instance) for instance in cluster.instances]

    assert at(9.99) == [(0.0, 0.0)] * 3
    # Both have got tokens at 1, 2, ..., 10.
    assert at(10.0) == [(1.0, 1.0), (0.4, 1.0), (0.0, 0.0)]
    # The third request gets its token at 11, and the first its last at 15. At 10 the empty instance has the
    # lowest score, so the fourth goes there and gets its token at 11 too.
    assert at(19.99) == [(1.0, 1.0), (0.4, 1.0), (0.0, 0.0)]
    assert at(20.0) == [(0.1, 0.6), (0.0, 1.0), (0.3, 0.1)]
    assert at(30.0) == [(0.0, 0.0), (0.0, 1.0), (0.0, 0.0)]


def test_a_new_replica_in_a_slot_knows_nothing_of_the_last_one() -> None:
    # B completes at 12 on instance 1, 5 tokens before its predicted end, and its instance is off. The next
    # one there starts at once; at 20 nothing of the tokens at 11 and 12 is its.
    cluster = make((0.0, 2, 50), (0.0, 2, 12, 17), initial=2, cold_start_s=0.0)
    cluster.run_until(11.5)
    cluster.scale_to(1)
    cluster.run_until(12.0)
    assert states(cluster) == [READY, OFF, OFF]
    cluster.scale_to(2)
    assert states(cluster) == [READY, READY, OFF]
    assert anticipated_tokens(cluster.instances[1], 3, "artifact") == [0, 0, 0]
    cluster.run_until(20.0)
    assert throughputs(cluster.view(), cluster.instances[0]) == (0.0, 1.0)
    assert throughputs(cluster.view(), cluster.instances[1]) == (0.0, 0.0)


# Routers.


@pytest.mark.parametrize("name", sorted(set(ROUTERS) - {"random", "power_of_two"}))
def test_of_equal_instances_the_first_is_chosen(name: str) -> None:
    cluster = make((0.25, 4, 9), initial=3, router=ROUTERS[name])
    cluster.run_until(math.inf)
    assert cluster.requests[0].instance == 0
    # Equally loaded ones too; round robin starts with the first.
    router = placed(0, 1, 2, then=name)
    expected = [0, 1, 2, 0]
    assert routed(*[(0.0, 4, 9)] * 3, (0.5, 4, 9), initial=3, router=router) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("round_robin", [0, 1, 0, 1]),
        # In flight before the third and the fourth: 1, 1 and 2, 1. Blocks: 10, 40 and 12, 41.
        ("least_requests", [0, 1, 0, 1]),
        ("least_kv", [0, 1, 0, 0]),
    ],
)
def test_routers(name: str, expected: list[int]) -> None:
    # The second comes after the first batch is formed: before that, no block is in use.
    requests = (0.0, 10, 9), (0.25, 40, 9), (0.5, 1, 9), (1.5, 1, 9)
    assert routed(*requests, initial=2, router=ROUTERS[name]) == expected


def test_random_routers_draw_by_the_seed_of_the_cluster() -> None:
    requests = [(0.0, 1, 1)] * 6
    # uniform(2, k) in thirds, for k = 0, 1, ...
    assert routed(*requests, initial=3, router=ROUTERS["random"], seed=2) == [0, 1, 2, 2, 1, 2]
    assert routed(*requests, initial=3, router=ROUTERS["random"], seed=3) == [2, 1, 0, 1, 2, 0]
    first = [int(uniform(seed, 0) * 3) for seed in range(6)]
    drawn = [routed((0.0, 1, 1), initial=3, router=ROUTERS["power_of_two"], seed=k) for k in range(6)]
    assert drawn == [[k] for k in first]


def test_llumnix() -> None:
    # 10 blocks of 2. A takes 5 blocks on instance 0. B comes: instance 1 has no request, so it is the
    # freest; B takes 2 there. C: (10-5)/1 = 5 against (10-2)/1 = 8. It waits for 3 blocks. D: 5 against
    # (10-2-3)/2 = 2.5; it waits for one. E: (10-5-1)/2 = 2 against 2.5.
    requests = (0.0, 9, 9), (0.25, 3, 9), (0.5, 5, 1), (0.5, 1, 1), (0.5, 1, 1)
    limits = {"num_gpu_blocks": 11, "block_size": 2}
    assert routed(*requests, initial=2, router=ROUTERS["llumnix"], **limits) == [0, 1, 1, 0, 1]


def test_llumnix_counts_the_blocks_waited_for() -> None:
    # 10 blocks. Instance 0: (10-2-8)/2 = 0, instance 1: (10-5-1)/2 = 2.
    requests = (0.0, 2, 9), (0.0, 5, 5), (0.5, 8, 1), (0.5, 1, 1), (0.5, 1, 1)
    router = placed(0, 1, 0, 1, then="llumnix")
    assert routed(*requests, initial=2, router=router, num_gpu_blocks=11)[4] == 1


def test_llumnix_below_zero() -> None:
    # 10 blocks. Instance 0: (10-6-5)/2 = -0.5, instance 1: (10-6-5-1)/3 = -2/3.
    requests = (0.0, 6, 5), (0.0, 6, 5), (0.5, 5, 1), (0.5, 5, 1), (0.5, 1, 1), (0.5, 1, 1)
    router = placed(0, 1, 0, 1, 1, then="llumnix")
    assert routed(*requests, initial=2, router=router, num_gpu_blocks=11) == [0, 1, 0, 1, 1, 0]


def test_llm_d() -> None:
    # Of 10 blocks 5, 1 and 9 are used: KV scores, twice, 1.0, 1.8 and 0.2. Queue scores, twice, by requests
    # waiting: (2, 1, 0): 0, 1, 2; so 1.0, 2.8, 2.2. (2, 2, 0), and then (2, 2, 1): 0, 0, 2; so 1.0, 1.8, 2.2.
    # (2, 2, 2): 2, 2, 2; so 3.0, 3.8, 2.2.
    running = (0.0, 5, 6), (0.0, 1, 9), (0.0, 9, 2)
    waiting = [(0.5, 1, 1)] * 7
    router = placed(0, 1, 2, 0, 0, 1, then="llm_d")
    instances = routed(*running, *waiting, initial=3, router=router, num_gpu_blocks=11)
    assert instances[6:] == [1, 2, 2, 1]


def test_aibrix_throughput() -> None:
    # Before the first tick all throughputs are 0.
    router = ROUTERS["aibrix_throughput"]
    assert routed((9.0, 5, 9), (9.9, 5, 9), initial=2, router=router) == [0, 0]
    # Instance 0 has two requests, with prompts of 10 tokens together, instance 1 has one, of 17. At 10:
    # 2*1.0 + 2.0 < 2*1.7 + 1.0. At 20 and until 30: 2*0.1 + 2.1, with the fourth, > 1.0.
    requests = (0.0, 5, 30), (0.0, 5, 30), (0.0, 17, 30), (10.0, 1, 1), (20.0, 1, 1), (20.5, 1, 1)
    router = placed(0, 0, 1, then="aibrix_throughput")
    assert routed(*requests, initial=2, router=router)[3:] == [0, 1, 1]


@pytest.mark.parametrize(
    ("blocks", "instance"),
    [
        # P = 1000, D = 1. Beside a prompt of 60: h = 940/1060, 1 + h + 1.001 = 2.8878, beside one of 100:
        # h = 900/1100, 2.8192. Times 1.06 and 1.1, or 1.006 and 1.01.
        (1000, 0),  # 3.061 < 3.101
        (10_000, 1),  # 2.905 > 2.847
    ],
)
def test_prism(blocks: int, instance: int) -> None:
    requests = (0.0, 60, 9), (0.0, 100, 9), (0.5, 1000, 1)
    router = placed(0, 1, then="prism")
    limits = {"num_gpu_blocks": blocks + 1, "max_model_len": 2000}
    assert routed(*requests, initial=2, router=router, **limits)[2] == instance


@pytest.mark.parametrize("initial", [2, 3])
def test_prism_takes_the_mean_of_all_requests_there(initial: int) -> None:
    # P = 500, D = 1, 10,000 blocks. Instance 0 has 60 running and 1000 waiting: mean 530, h = 30/1030,
    # (0.25*1.0291 + 0.501) * 1.006 = 0.763. Instance 1 has 100: h = 400/600, (0.25*1.6667 + 0.501) * 1.01 =
    # 0.927. An empty instance: 0.25 + 0.501 = 0.751.
    requests = (0.0, 60, 9), (0.0, 100, 9), (0.5, 1000, 1), (0.5, 500, 1)
    router = placed(0, 1, 0, then="prism")
    limits = {"num_gpu_blocks": 10_001, "max_model_len": 2000}
    assert routed(*requests, initial=initial, router=router, **limits)[3] == (0 if initial == 2 else 2)


@pytest.mark.parametrize(
    ("predicted", "instance"),
    [
        # P = 500, 2000 blocks. Beside 60: h = 440/560, 0.4464, beside 100: h = 400/600, 0.4167.
        (1, 1),  # (0.4464 + 0.501) * 1.03 = 0.976 > (0.4167 + 0.501) * 1.05 = 0.964
        (1000, 0),  # (0.4464 + 1.5) * 1.03 = 2.005 < (0.4167 + 1.5) * 1.05 = 2.013
    ],
)
def test_prism_counts_the_predicted_output(predicted: int, instance: int) -> None:
    requests = (0.0, 60, 9), (0.0, 100, 9), (0.5, 500, 1, predicted)
    router = placed(0, 1, then="prism")
    limits = {"num_gpu_blocks": 2001, "max_model_len": 2000}
    assert routed(*requests, initial=2, router=router, **limits)[2] == instance


@pytest.mark.parametrize(
    ("look_ahead", "anticipator", "peaks", "instance"),
    [
        # P = 5, D = 2, so it adds 5, 6. Instance 0 stores 10, 11, 12, instance 1 stores 4, 5, ..., 23; or
        # one more each. Prompts of 0 and 5 tokens are queued.
        (100, "paper", [17, 23], 0),
        (2, "paper", [17, 11], 1),
        (1, "paper", [15, 9], 1),
        (100, "artifact", [18, 24], 0),
        (2, "artifact", [18, 12], 1),
    ],
)
def test_preserve_look_ahead(look_ahead: int, anticipator: str, peaks: list[int], instance: int) -> None:
    requests = (0.0, 10, 9, 3), (0.0, 4, 9, 20), (0.5, 5, 1, 2), (1.5, 5, 1, 2)
    cluster = make(
        *requests,
        initial=2,
        router=placed(0, 1, then="preserve_look_ahead"),
        look_ahead=look_ahead,
        anticipator=anticipator,
    )
    cluster.run_until(0.75)
    # Nothing was anticipated at 0.5, so the shorter queued prompt decided.
    assert cluster.requests[2].instance == 1
    cluster.run_until(1.5)
    assert [peak(cluster.view(), i, cluster.requests[3]) for i in cluster.instances[:2]] == peaks
    cluster.run_until(math.inf)
    assert cluster.requests[3].instance == instance


@pytest.mark.parametrize(("anticipator", "instance"), [("paper", 1), ("artifact", 0)])
def test_look_ahead_past_a_predicted_end(anticipator: str, instance: int) -> None:
    # At 4.5 both have produced 4 tokens. Paper: A is extended to 4 and stores 13 now, B 9, 10: with 5, 6 of
    # the new one 18 and 16. Artifact: A counts no more, B stores 10, 11: 6 and 17.
    requests = (0.0, 10, 9, 3), (0.0, 6, 9, 20), (4.5, 5, 1, 2)
    router = placed(0, 1, then="preserve_look_ahead")
    options = {"look_ahead": 2, "anticipator": anticipator}
    assert routed(*requests, initial=2, router=router, **options)[2] == instance


@pytest.mark.parametrize(
    ("weights", "instance"),
    [
        ((1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0), 0),
        ((0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0), 0),
        ((0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0), 1),
        ((0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0), 1),
        ((0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0), 1),
        ((0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0), 0),
        ((1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0), 1),  # 0.885 > 0.795
        ((2.0, 2.0, 0.0, 0.0, 1.0, 0.0, 0.0), 0),  # 0.585 < 0.8
        ((0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0), 0),
        ((0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.2), 1),  # 0.276 > 0.245
        ((1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0), 0),  # 1.015 < 1.395
        ((0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0), 0),
    ],
)
def test_linear(weights: tuple[float, ...], instance: int) -> None:
    # 50 blocks of 2 hold 100 tokens. Instance 0: A is in its prefill, C waits. Instance 1: B is in its
    # prefill. The new request would store 5, then 6.
    requests = (0.0, 9, 9, 3), (0.0, 20, 9, 1), (0.5, 4, 1, 6), (0.75, 5, 1, 2)
    router = placed(0, 1, 0, then="linear")
    limits = {"num_gpu_blocks": 51, "block_size": 2}
    cluster = make(*requests, initial=2, router=router, router_weights=weights, **limits)
    cluster.run_until(0.75)
    first, second = (loads(cluster.view(), i, cluster.requests[3]) for i in cluster.instances[:2])
    assert first == [0.13, 5 / 50, 0.22, 2 / 8, 1 / 8, 0.06, 1.5 / 11.5]
    assert second == [0.2, 10 / 50, 0.21, 1 / 8, 0.0, 0.06, 15 / 25]
    cluster.run_until(math.inf)
    assert cluster.requests[3].instance == instance


def test_linear_weighs_the_anticipated_peak() -> None:
    # At 1.5, 2 iterations ahead: 10, 11 and 4, 5, and 5, 6 of the new one: 17 and 11 tokens.
    requests = (0.0, 10, 9, 3), (0.0, 4, 9, 20), (1.5, 5, 1, 2)
    router = placed(0, 1, then="linear")
    weights = (0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    assert routed(*requests, initial=2, router=router, router_weights=weights, look_ahead=2)[2] == 1


# The anticipator.


def test_anticipated() -> None:
    # 10 blocks of 2 tokens: M = 20. A is predicted to produce 3 tokens, B 5, C 1.
    cluster = make((0.0, 4, 9, 3), (0.0, 2, 9, 5), (3.5, 2, 2, 1), num_gpu_blocks=11, block_size=2)
    cluster.run_until(0.5)
    instance = cluster.instances[0]
    assert anticipated(instance, 3) == [0.0, 0.0, 0.0]  # no first token yet
    cluster.run_until(2.0)  # both have produced 2: A stores 5, 6 until its end, B 3, 4, 5, 6
    assert anticipated_tokens(instance, 5) == [8, 10, 5, 6, 0]
    assert anticipated(instance, 5) == [8 / 20, 10 / 20, 5 / 20, 6 / 20, 0.0]
    assert anticipated_tokens(instance, 5, "artifact") == [10, 12, 6, 7, 0]
    cluster.run_until(4.0)  # 4 produced: A is past its prediction, which grows to 4; C waits
    assert anticipated(instance, 3) == [(7 + 5) / 20, 6 / 20, 0.0]
    # A counts no more in the artifact.
    assert anticipated(instance, 3, "artifact") == [6 / 20, 7 / 20, 0.0]
    cluster.run_until(7.0)  # 7 produced: A's prediction is 7 by now, B's 7 too
    assert anticipated(instance, 3) == [(10 + 8) / 20, 0.0, 0.0]


@pytest.mark.parametrize(
    ("predicted", "decoded", "paper", "artifact"),
    [
        (8, 7, 8, 8),
        (8, 8, 10, 8),  # a fifth is 2
        (8, 17, 18, 8),
        (8, 18, 20, 48),  # 10 past the end: 30 more tokens from here
        (8, 57, 58, 48),
        (8, 58, 60, 88),
        (8, 98, 100, 128),
        (1, 0, 1, 1),
        (1, 1, 2, 1),
        (1, 11, 12, 41),
    ],
)
def test_predicted_ends(predicted: int, decoded: int, paper: int, artifact: int) -> None:
    assert paper_end(predicted, decoded) == paper
    assert artifact_end(predicted, decoded) == artifact


def test_the_artifact_extends_10_tokens_past_the_end() -> None:
    cluster = make((0.0, 4, 70, 3))
    instance = cluster.instances[0]

    def at(time_s: float) -> list[int]:
        cluster.run_until(time_s)
        return anticipated_tokens(instance, 40, "artifact")

    assert at(1.0) == [5, 6, 7] + [0] * 37
    assert at(3.0) == [7] + [0] * 39
    assert at(4.0) == at(13.0) == [0] * 40  # 0 to 9 tokens past the end
    assert at(14.0) == [*range(18, 48)] + [0] * 10
    assert at(43.0) == [47] + [0] * 39
    assert at(44.0) == at(53.0) == [0] * 40
    assert at(54.0) == [*range(58, 88)] + [0] * 10


@pytest.mark.parametrize(
    ("predicted", "left"),
    # It completes with its third token, when it stores 4 + 1 + 2 tokens by the artifact's count.
    [(2, []), (3, [7]), (4, [7, 8]), (12, [*range(7, 17)]), (13, []), (14, [])],
)
def test_the_artifact_forgets_to_subtract_the_last_10(predicted: int, left: list[int]) -> None:
    cluster = make((0.0, 4, 3, predicted))
    instance = cluster.instances[0]
    cluster.run_until(3.0)
    assert cluster.requests[0].completed_s == 3.0
    assert anticipated_tokens(instance, 20, "artifact") == left + [0] * (20 - len(left))
    assert anticipated_tokens(instance, 20) == [0] * 20
    # While the instance is idle, nothing moves on.
    cluster.run_until(9.0)
    assert anticipated_tokens(instance, 20, "artifact") == left + [0] * (20 - len(left))


@pytest.mark.parametrize(
    ("output", "left"),
    # Predicted 3 tokens, extended to 43 with the 14th. 4 + 1 + (output - 1) tokens when it completes.
    [(10, []), (33, []), (34, [*range(38, 48)]), (43, [47]), (44, [])],
)
def test_the_end_may_be_an_extended_one(output: int, left: list[int]) -> None:
    cluster = play((0.0, 4, output, 3))
    assert anticipated_tokens(cluster.instances[0], 20, "artifact") == left + [0] * (20 - len(left))


@pytest.mark.parametrize(
    ("scheduler", "prefilled", "decoded"),
    [
        # What A left is 7, 8, ..., 12 at 3. B stores 10 + 1 tokens once it has its first token, at 6.5.
        ("vllm", [8 + 11, 9, 10, 11, 12, 0], [9, 10, 11, 12, 0, 0]),
        ("sarathi", [8 + 11, 9, 10, 11, 12, 0], [9, 10, 11, 12, 0, 0]),
        # An iteration that only prefills does not move it on.
        ("vllm_v0", [7 + 11, 8, 9, 10, 11, 12], [8, 9, 10, 11, 12, 0]),
    ],
)
def test_what_is_left_moves_on_with_the_iterations(
    scheduler: str, prefilled: list[int], decoded: list[int]
) -> None:
    cluster = make((0.0, 4, 3, 8), (5.5, 10, 9, 1), scheduler=scheduler)
    instance = cluster.instances[0]
    cluster.run_until(6.0)
    assert anticipated_tokens(instance, 6, "artifact") == [7, 8, 9, 10, 11, 12]
    cluster.run_until(6.5)
    assert anticipated_tokens(instance, 6, "artifact") == prefilled
    cluster.run_until(7.5)  # B is past its end
    assert anticipated_tokens(instance, 6, "artifact") == decoded
    cluster.run_until(13.5)
    assert anticipated_tokens(instance, 6, "artifact") == [0] * 6


def test_a_request_that_completes_in_the_queue_leaves_nothing() -> None:
    # B is preempted at 1 with its last token in flight, which arrives at 2; it was predicted to go on. A has
    # produced 2 of 4 tokens then.
    cluster = make((0.0, 2, 4), (0.0, 2, 2, 8), num_gpu_blocks=7, async_scheduling=True)
    cluster.run_until(1.5)
    assert anticipated_tokens(cluster.instances[0], 4, "artifact") == [3, 4, 5, 6]  # it waits
    cluster.run_until(2.0)
    assert cluster.requests[1].completed_s == 2.0
    assert anticipated_tokens(cluster.instances[0], 4, "artifact") == [4, 5, 6, 0]
