"""Autoscalers of serving systems on cases computed by hand from their sources."""

from __future__ import annotations

from typing import Any

import pytest

from baselines import (
    Aibrix,
    Autoscaler,
    DynamoLoad,
    KedaEndpointPicker,
    KedaQueue,
    Knative,
    Llumnix,
    Prism,
    RayServe,
    SageServeByUse,
    SageServeImmediate,
    SkyServe,
)
from preserve_gym import ClusterConfig, InputError, InstanceConfig, LatencyLaw
from tests.baseline_observations import CLUSTER, PROFILE, forecast, observe

Look = dict[str, Any]
SMALL = ClusterConfig(
    instance=InstanceConfig(LatencyLaw(0.02, 0.001, 0.0, 0.0), num_gpu_blocks=1001), max_instances=8
)
"""Instances of 1,000 blocks of 16 tokens."""


def decides(policy: Autoscaler, *looks: tuple[float, Look]) -> list[int]:
    state = policy.initial_state()
    return [policy.decide(observe(time_s=time_s, **look), state) for time_s, look in looks]


def every(policy: Autoscaler, n: int, **look: Any) -> list[int]:
    """What it asks for in ``n`` decisions that see the same."""
    return decides(policy, *((policy.interval_s * k, look) for k in range(n)))


class TestKeda:
    @pytest.mark.parametrize(
        ("waiting", "wanted"),
        [
            ([0, 0], 2),  # nothing waits, but nothing goes in the first 300 s
            ([5, 5], 2),
            ([5, 6], 2),  # 11/5 = 2.2 is 1.1 times 2: within the tolerance
            ([6, 6], 3),  # 12/5 = 2.4
            ([0, 40], 6),  # 8, but at most 4 more in 15 s
        ],
    )
    def test_queue_of_the_pool_over_the_threshold(self, waiting: list[float], wanted: int) -> None:
        assert every(KedaQueue(CLUSTER, PROFILE), 1, ready=2, waiting=waiting) == [wanted]

    def test_goes_down_to_the_minimum_without_a_queue(self) -> None:
        busy = {"ready": 4, "running": [20.0] * 4}
        assert every(KedaQueue(CLUSTER, PROFILE), 21, **busy) == [4] * 20 + [1]

    def test_endpoint_picker_counts_all_requests_in_the_pool(self) -> None:
        # 80 in flight, 20 of them at an instance that drains.
        look = {"ready": 2, "draining": 1, "running": [20, 20, 20], "waiting": [0, 20, 0]}
        assert every(KedaEndpointPicker(CLUSTER, PROFILE), 1, **look) == [4]  # 5, but at most twice 2
        assert every(KedaEndpointPicker(CLUSTER, PROFILE), 1, **look | {"starting": 2}) == [5]

    def test_endpoint_picker_adds_at_most_as_many_as_there_are(self) -> None:
        assert every(KedaEndpointPicker(CLUSTER, PROFILE), 1, ready=1, running=[100]) == [2]


class TestKnative:
    # 20 * 0.7 = 14 requests are aimed at.
    def policy(self) -> Knative:
        return Knative(CLUSTER, PROFILE, container_concurrency=20.0)

    def test_target_of_the_defaults_is_70(self) -> None:
        assert every(Knative(CLUSTER, PROFILE), 1, ready=2, running=[70, 70]) == [2]
        assert every(Knative(CLUSTER, PROFILE), 1, ready=2, running=[70, 71]) == [3]

    def test_mean_over_60_s(self) -> None:
        light, heavy = {"ready": 2, "running": [14, 14]}, {"ready": 2, "running": [21, 21]}
        looks = [(2.0 * k, light) for k in range(30)] + [(60.0 + 2.0 * k, heavy) for k in range(16)]
        wanted = decides(self.policy(), *looks)
        assert wanted[:30] == [2] * 30
        # After the first heavy look the mean is (29*28 + 42)/30 = 28.5: 2.03.
        assert wanted[30:] == [3] * 16

    def test_panic_takes_the_mean_over_6_s_and_never_goes_down(self) -> None:
        calm, surge = {"ready": 2, "running": [7, 7]}, {"ready": 2, "running": [42, 42]}
        looks = [(2.0 * k, calm) for k in range(30)] + [(60.0 + 2.0 * k, surge) for k in range(3)]
        looks += [(66.0 + 2.0 * k, calm) for k in range(60)]
        wanted = decides(self.policy(), *looks)
        # Means over 6 s: 37.3, 60.7 and 84 requests: 3, 5 and 6 instances; 4 or more are twice those ready.
        assert wanted[29:33] == [1, 2, 5, 6]
        # The last that calls for panic is the mean of 84, 84 and 14 at 66 s: 60.7. Then 60 s without.
        ends = wanted.index(1, 33)
        assert wanted[33:ends] == [6] * (ends - 33)
        assert 2.0 * ends > 66.0 + 60.0 >= 2.0 * (ends - 1)

    def test_at_most_halves_the_ready_ones(self) -> None:
        assert every(self.policy(), 1, ready=7, running=[1]) == [3]


class TestRayServe:
    def test_acts_on_what_was_wanted_for_30_s(self) -> None:
        # 10 requests at a target of 2: 5 instances.
        wanted = every(RayServe(CLUSTER, PROFILE), 5, ready=2, running=[5, 5])
        assert wanted == [2, 2, 2, 5, 2]  # the wait begins anew

    def test_goes_down_after_600_s(self) -> None:
        wanted = every(RayServe(CLUSTER, PROFILE), 61, ready=4, running=[1, 1, 1, 1])
        assert wanted == [4] * 60 + [2]

    def test_another_wish_in_between_starts_the_wait_anew(self) -> None:
        low, right = {"ready": 4, "running": [1] * 4}, {"ready": 4, "running": [2] * 4}
        looks = [(10.0 * k, right if k in (30, 31, 32) else low) for k in range(62)]
        assert set(decides(RayServe(CLUSTER, PROFILE), *looks)) == {4}

    def test_mean_over_30_s(self) -> None:
        policy = RayServe(CLUSTER, PROFILE, upscale_delay_s=0.0)
        looks = [(10.0 * k, {"ready": 2, "running": [requests]}) for k, requests in enumerate((4, 4, 13))]
        assert decides(policy, *looks) == [2, 2, 4]  # 7 on average


class TestSkyServe:
    # 0.7 * 2 = 1.4 requests per second are aimed at.
    def test_acts_on_the_15th_decision_that_wants_more(self) -> None:
        wanted = every(SkyServe(CLUSTER, PROFILE), 16, ready=2, request_rate=5.0)
        assert wanted == [2] * 14 + [4, 2]

    def test_acts_on_the_60th_decision_that_wants_fewer(self) -> None:
        assert every(SkyServe(CLUSTER, PROFILE), 60, ready=4, request_rate=2.0) == [4] * 59 + [2]

    def test_rate_is_that_of_60_s(self) -> None:
        policy = SkyServe(CLUSTER, PROFILE, upscale_delay_s=20.0)
        assert every(policy, 1, ready=2, request_rate=[9.0, 9.0, 2.8, 9.0, 9.0]) == [2]
        assert every(policy, 1, ready=2, request_rate=[0.0, 0.0, 2.9, 0.0, 0.0]) == [3]

    def test_what_the_cluster_cannot_have_is_not_wanted(self) -> None:
        assert set(every(SkyServe(CLUSTER, PROFILE), 20, ready=8, request_rate=50.0)) == {8}


class TestAibrix:
    @pytest.mark.parametrize(
        ("kv_use", "wanted"),
        [
            ([0.5, 0.6], 2),  # ratio 1.1: the tolerance includes its edge
            ([0.6, 0.6], 3),  # 2 * 1.2
            ([1.0, 1.0], 4),
        ],
    )
    def test_up_at_once(self, kv_use: list[float], wanted: int) -> None:
        assert every(Aibrix(CLUSTER, PROFILE), 1, ready=2, kv_use=kv_use) == [wanted]

    def test_up_at_most_twice(self) -> None:
        policy = Aibrix(CLUSTER, PROFILE, target_kv_use=0.1)
        assert every(policy, 1, ready=2, kv_use=[0.9, 0.9]) == [4]

    def test_down_after_300_s_and_at_most_to_half(self) -> None:
        assert every(Aibrix(CLUSTER, PROFILE), 31, ready=5, kv_use=[0.05] * 5) == [5] * 30 + [2]
        assert every(Aibrix(CLUSTER, PROFILE), 31, ready=4, kv_use=[0.35] * 4)[-1] == 3  # 2.8

    def test_starting_ones_are_empty_upwards_and_at_the_target_downwards(self) -> None:
        policy = Aibrix(CLUSTER, PROFILE, scale_down_cooldown_s=5.0)
        # 2 of use at a target of 0.5 are 4 instances; 3 are there.
        assert every(policy, 1, ready=2, starting=1, kv_use=[1.0, 1.0]) == [4]
        assert every(policy, 1, ready=2, starting=2, kv_use=[1.0, 1.0]) == [4]
        # 1.2 of use are 2.4, and the two that start: 5.
        assert every(policy, 2, ready=4, starting=2, kv_use=[0.3] * 4)[-1] == 5


class TestLlumnix:
    @pytest.mark.parametrize(
        ("requests", "starting", "wanted"),
        [
            (90, 0, 2),  # (1,000 - 100)/90 = 10
            (91, 0, 3),  # below 10, one empty instance makes it 20.9
            (191, 0, 4),  # two make it 10 at 290 requests, one at 190
            (91, 1, 3),  # it is starting
            (191, 1, 4),
            (15, 0, 2),  # 60
            (14, 0, 1),
            (0, 0, 1),
        ],
    )
    def test_adds_until_the_freeness_is_10(self, requests: int, starting: int, wanted: int) -> None:
        look = {
            "ready": 2,
            "starting": starting,
            "kv_use": [0.5, 0.5],
            "queued_prefill_tokens": [1600.0, 0.0],
            "running": [requests],
        }
        assert every(Llumnix(SMALL, PROFILE), 1, **look) == [wanted]

    def test_scale_is_a_factor_on_both(self) -> None:
        look = {"ready": 2, "kv_use": [0.5, 0.5], "running": [90]}
        assert every(Llumnix(SMALL, PROFILE, scale=2.0), 1, **look) == [3]
        assert every(Llumnix(SMALL, PROFILE, scale=0.15), 1, **look) == [1]


class TestPrism:
    @pytest.mark.parametrize(
        ("kv_use", "wanted"),
        [
            ([0.9, 0.5, 0.5, 0.5, 0.5], 5),  # 20 % are not more than 20 %
            ([0.9, 0.9, 0.5, 0.5, 0.5], 6),
            ([0.85] * 5, 5),
            ([0.1, 0.1, 0.1, 0.1, 0.5], 5),  # 80 % are not more than 80 %
            ([0.1] * 5, 4),
            ([0.9, 0.9, 0.1, 0.1, 0.1], 6),
        ],
    )
    def test_shares_of_hot_and_cold(self, kv_use: list[float], wanted: int) -> None:
        assert every(Prism(CLUSTER, PROFILE), 1, ready=5, kv_use=kv_use) == [wanted]

    def test_starting_ones_are_not_hot(self) -> None:
        policy = Prism(CLUSTER, PROFILE)
        assert every(policy, 1, ready=1, starting=3, kv_use=[1.0]) == [5]  # 25 %
        assert every(policy, 1, ready=1, starting=4, kv_use=[1.0]) == [5]  # 20 %


class TestDynamoLoad:
    @pytest.mark.parametrize(("kv_use", "wanted"), [(0.91, 4), (0.9, 3), (0.5, 3), (0.49, 2)])
    def test_thresholds(self, kv_use: float, wanted: int) -> None:
        assert every(DynamoLoad(CLUSTER, PROFILE), 1, ready=3, kv_use=[kv_use] * 3) == [wanted]

    def test_waits_for_what_is_starting(self) -> None:
        look = {"ready": 2, "starting": 1}
        assert set(every(DynamoLoad(CLUSTER, PROFILE), 5, **look, kv_use=[1.0, 1.0])) == {3}
        assert set(every(DynamoLoad(CLUSTER, PROFILE), 5, **look, kv_use=[0.1, 0.1])) == {3}

    def test_removes_none_in_the_3_decisions_after_an_addition(self) -> None:
        full, empty = {"ready": 2, "kv_use": [1.0, 1.0]}, {"ready": 3, "kv_use": [0.1] * 3}
        looks = [(0.0, full), *((10.0 * k, empty) for k in range(1, 5))]
        assert decides(DynamoLoad(CLUSTER, PROFILE), *looks) == [3, 3, 3, 3, 2]


class TestSageServe:
    def test_plans_the_highest_forecast_and_a_tenth(self) -> None:
        policy = SageServeImmediate(CLUSTER, PROFILE)
        looks = [
            (600.0, {"ready": 2, **forecast(1, 4, 2)}),  # 4.4
            (900.0, {"ready": 5, **forecast(1, 1, 1)}),  # the same window
            (1200.0, {"ready": 5, **forecast(1.8, 1, 1)}),  # 1.98
        ]
        assert decides(policy, *looks) == [5, 5, 2]

    @pytest.mark.parametrize(
        ("kv_use", "plan", "wanted"),
        [
            (0.5, 4, 2),  # planned, but the memory does not ask for it
            (0.51, 4, 3),
            (0.51, 2, 2),
            (0.91, 2, 3),  # not planned, but urgent
            (0.25, 1, 2),
            (0.24, 1, 1),
            (0.24, 2, 2),
        ],
    )
    def test_follows_its_plan_as_the_memory_asks(self, kv_use: float, plan: int, wanted: int) -> None:
        policy = SageServeByUse(CLUSTER, PROFILE, headroom=1.0)
        looks = (600.0, {"ready": 2, "kv_use": [kv_use] * 2, **forecast(plan, plan, plan)})
        assert decides(policy, looks) == [wanted]

    def test_starting_ones_are_empty(self) -> None:
        policy = SageServeByUse(CLUSTER, PROFILE, headroom=1.0)
        look = {"ready": 2, "kv_use": [0.8, 0.8], **forecast(6, 6, 6)}
        assert decides(policy, (600.0, look | {"starting": 1})) == [4]  # 1.6/3
        assert decides(policy, (600.0, look | {"starting": 2})) == [4]  # 1.6/4

    def test_starting_ones_do_not_lower_the_use_for_a_removal(self) -> None:
        policy = SageServeByUse(CLUSTER, PROFILE, headroom=1.0)
        look = {"ready": 2, "starting": 2, **forecast(1, 1, 1)}
        assert decides(policy, (600.0, look | {"kv_use": [0.4, 0.4]})) == [4]
        assert decides(policy, (600.0, look | {"kv_use": [0.2, 0.2]})) == [3]


@pytest.mark.parametrize(
    ("policy", "parameters", "field"),
    [
        (KedaQueue, {"threshold": 0.0}, "threshold"),
        (KedaEndpointPicker, {"threshold": -1.0}, "threshold"),
        (Knative, {"container_concurrency": 0.0}, "container_concurrency"),
        (Knative, {"max_scale_down": 1.0}, "max_scale_down"),
        (RayServe, {"target_ongoing_requests": 0.0}, "target_ongoing_requests"),
        (SkyServe, {"downscale_delay_s": -1.0}, "downscale_delay_s"),
        (Aibrix, {"target_kv_use": 0.0}, "target_kv_use"),
        (Llumnix, {"low_freeness": 60.0}, "low_freeness"),
        (Prism, {"low_kv_use": 0.9}, "low_kv_use"),
        (DynamoLoad, {"low_kv_use": 0.9}, "low_kv_use"),
        (DynamoLoad, {"grace_intervals": 1.5}, "grace_intervals"),
        (SageServeImmediate, {"headroom": 0.0}, "headroom"),
        (SageServeByUse, {"add_kv_use": 0.25}, "add_kv_use"),
    ],
)
def test_parameters_outside_their_meaning(policy: Any, parameters: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=rf"^\w+\.{field}: expected .*got") as raised:
        policy(CLUSTER, PROFILE, **parameters)
    assert "\n" not in str(raised.value)
