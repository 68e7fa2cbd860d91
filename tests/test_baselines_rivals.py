"""Every rule of static, reactive and the HPA on hand-made observations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from baselines import Hpa, Hybrid, Reactive, Static, make_policy, peak_instances
from preserve_gym import ClusterConfig, InputError
from tests.baseline_observations import CLUSTER, PROFILE, WINDOW_S, forecast, observe


class TestStatic:
    def test_is_always_the_same(self) -> None:
        policy = Static(CLUSTER, PROFILE, instances=5)
        assert policy.decide(observe(ready=2), None) == 5

    @pytest.mark.parametrize("instances", [0, 9, 2.5, True, "3"])
    def test_refuses_what_the_cluster_cannot_have(self, instances: Any) -> None:
        with pytest.raises(InputError, match=r"^Static.instances: expected an integer in \[1, 8\]"):
            Static(CLUSTER, PROFILE, instances=instances)

    def test_peak_is_the_need_of_the_busiest_window(self) -> None:
        prompt = np.array([60_000.0, 1_260_000.0, 60_000.0])  # 2.1 instances by prompt tokens
        output = np.array([12_000.0, 12_000.0, 12_000.0])
        assert peak_instances(CLUSTER, PROFILE, prompt, output, WINDOW_S) == 3
        assert peak_instances(CLUSTER, PROFILE, 100 * prompt, output, WINDOW_S) == 8
        assert peak_instances(CLUSTER, PROFILE, 0 * prompt, 0 * output, WINDOW_S) == 1


class TestReactive:
    @pytest.mark.parametrize(
        ("kv_use", "wanted"),
        [
            ([0.92, 0.92], 2),  # at the threshold is not above it
            ([0.90, 0.96], 3),
            ([1.00, 0.10], 2),  # the mean counts, not the maximum
            ([0.10, 0.10], 2),
            ([0.08, 0.10], 1),
        ],
    )
    def test_thresholds(self, kv_use: list[float], wanted: int) -> None:
        assert Reactive(CLUSTER, PROFILE).decide(observe(ready=2, kv_use=kv_use), None) == wanted

    def test_starting_instances_count_at_zero_use_towards_an_addition(self) -> None:
        full = [1.0] * 2
        policy = Reactive(CLUSTER, PROFILE)
        assert policy.decide(observe(ready=2, kv_use=full), None) == 3
        assert policy.decide(observe(ready=2, starting=1, kv_use=full), None) == 3

    def test_starting_instances_are_left_out_for_a_removal(self) -> None:
        policy = Reactive(CLUSTER, PROFILE)
        assert policy.decide(observe(ready=2, starting=2, kv_use=[0.15, 0.15]), None) == 4
        assert policy.decide(observe(ready=2, starting=2, kv_use=[0.05, 0.05]), None) == 3

    def test_draining_instances_do_not_count(self) -> None:
        policy = Reactive(CLUSTER, PROFILE)
        assert policy.decide(observe(ready=1, draining=2, kv_use=[0.5, 1.0, 1.0]), None) == 1

    def test_thresholds_must_be_in_order(self) -> None:
        with pytest.raises(InputError, match=r"Reactive.low_kv_use: expected a number below high_kv_use"):
            Reactive(CLUSTER, PROFILE, high_kv_use=0.3, low_kv_use=0.3)


def hpa_decides(policy: Hpa, *looks: tuple[float, dict[str, Any]]) -> list[int]:
    state = policy.initial_state()
    return [policy.decide(observe(time_s=time_s, **look), state) for time_s, look in looks]


class TestHpa:
    @pytest.mark.parametrize(
        ("running", "waiting", "wanted"),
        [
            ([14, 14], [0, 0], 2),
            ([15, 15.8], [0, 0], 2),  # ratio 1.1: the tolerance includes its edge
            ([16, 15], [0, 0], 3),  # 31/14 = 2.21
            ([14, 14], [7, 7], 3),  # waiting requests count: 42/14 = 3 exactly
            ([10, 10], [90, 0], 6),  # 110/14 = 7.86, but at most 2 + 4
        ],
    )
    def test_law_and_tolerance(self, running: list[float], waiting: list[float], wanted: int) -> None:
        look = {"ready": 2, "running": running, "waiting": waiting}
        assert hpa_decides(Hpa(CLUSTER, PROFILE), (0.0, look)) == [wanted]

    def test_no_removal_before_the_window_is_over(self) -> None:
        look = {"ready": 4, "running": [7] * 4}  # 28/14 = 2
        times = [15.0 * k for k in range(22)]
        wanted = hpa_decides(Hpa(CLUSTER, PROFILE), *((time_s, look) for time_s in times))
        assert wanted == [4] * 20 + [2, 2]  # the 4 at the start is 300 s old at 300 s

    def test_down_to_the_highest_recommendation_of_the_window(self) -> None:
        policy = Hpa(CLUSTER, PROFILE)
        low = {"ready": 4, "running": [7] * 4}
        middle = {"ready": 4, "running": [10.5] * 4}  # 42/14 = 3
        looks = [(15.0 * k, middle if k == 10 else low) for k in range(32)]
        wanted = hpa_decides(policy, *looks)
        assert wanted[19] == 4
        assert wanted[20:30] == [3] * 10
        assert wanted[30] == 2

    def test_within_tolerance_renews_the_current_number(self) -> None:
        low, just_right = {"ready": 4, "running": [7] * 4}, {"ready": 4, "running": [13.5] * 4}
        looks = [(15.0 * k, just_right if k == 19 else low) for k in range(21)]
        assert hpa_decides(Hpa(CLUSTER, PROFILE), *looks)[-1] == 4

    def test_odd_clock_does_not_lengthen_the_window(self) -> None:
        look = {"ready": 4, "running": [7] * 4}
        start_s = 3937.9
        assert (start_s + 300.0) - 300.0 < start_s, "rounding must make the first look appear younger"
        times = [start_s + 15.0 * k for k in range(21)]
        assert hpa_decides(Hpa(CLUSTER, PROFILE), *((time_s, look) for time_s in times))[-2:] == [4, 2]

    def test_starting_instances_are_at_zero_when_scaling_up(self) -> None:
        policy = Hpa(CLUSTER, PROFILE)
        # 70/14 = 5 over 2 ready and 1 starting instance: ratio 5/3, still up, to 5.
        assert hpa_decides(policy, (0.0, {"ready": 2, "starting": 1, "running": [35, 35]})) == [5]
        # Over 2 ready and 3 starting: ratio 1, nothing more.
        assert hpa_decides(policy, (0.0, {"ready": 2, "starting": 3, "running": [35, 35]})) == [5]
        # Over 2 ready and 5 starting: ratio 5/7 has crossed 1, nothing changes.
        assert hpa_decides(policy, (0.0, {"ready": 2, "starting": 5, "running": [35, 35]})) == [7]

    def test_starting_instances_are_at_the_target_when_scaling_down(self) -> None:
        policy = Hpa(CLUSTER, PROFILE, scale_down_window_s=0.0)
        # 14/14 = 1 of 4 ready ones, and the 2 starting ones count in full: 3.
        assert hpa_decides(policy, (0.0, {"ready": 4, "starting": 2, "running": [3.5] * 4})) == [3]

    def test_load_at_the_target_keeps_what_is_starting(self) -> None:
        policy = Hpa(CLUSTER, PROFILE, scale_down_window_s=0.0)
        assert hpa_decides(policy, (0.0, {"ready": 2, "starting": 3, "running": [14, 14]})) == [5]

    def test_draining_instances_do_not_count(self) -> None:
        look = {"ready": 1, "draining": 2, "running": [14, 90, 90]}
        assert hpa_decides(Hpa(CLUSTER, PROFILE), (0.0, look)) == [1]

    def test_nothing_ready_says_nothing(self) -> None:
        assert hpa_decides(Hpa(CLUSTER, PROFILE), (0.0, {"ready": 0, "starting": 3})) == [3]

    def test_rates_hold_over_the_period_whatever_the_interval(self) -> None:
        policy = Hpa(ClusterConfig(max_instances=8), PROFILE, interval_s=5.0, scale_up_instances=1)
        flood = {"running": [200.0]}
        wanted = hpa_decides(
            policy,
            (0.0, {"ready": 2, **flood}),  # 100 % of 2
            (5.0, {"ready": 2, "starting": 2, **flood}),  # in the same period: still 4
            (15.0, {"ready": 4, **flood}),
        )
        assert wanted == [4, 4, 8]

    def test_rate_of_removals(self) -> None:
        policy = Hpa(CLUSTER, PROFILE, scale_down_window_s=0.0, scale_down_percent=50.0)
        wanted = hpa_decides(policy, (0.0, {"ready": 6}), (10.0, {"ready": 3}), (15.0, {"ready": 3}))
        assert wanted == [3, 3, 1]

    def test_stabilized_scale_up_takes_the_lowest_of_the_window(self) -> None:
        policy = Hpa(CLUSTER, PROFILE, scale_up_window_s=30.0)
        high, middle = {"ready": 2, "running": [35, 35]}, {"ready": 2, "running": [21, 21]}
        looks = [(0.0, high), (15.0, middle), (30.0, high), (45.0, high), (60.0, high)]
        assert hpa_decides(policy, *looks) == [2, 2, 3, 5, 5]

    def test_bounds_of_the_cluster(self) -> None:
        assert hpa_decides(Hpa(CLUSTER, PROFILE), (0.0, {"ready": 7, "running": [200.0] * 7})) == [8]

    def test_remembers_no_more_than_its_windows(self) -> None:
        policy, state = Hpa(CLUSTER, PROFILE), Hpa(CLUSTER, PROFILE).initial_state()
        for k in range(1000):
            policy.decide(observe(time_s=15.0 * k, running=[14 + 10 * (k % 2)]), state)
        assert len(state.recommendations) <= 22
        assert len(state.changes) <= 2


class TestProactive:
    def test_is_tier_1_alone(self) -> None:
        policy = make_policy("proactive", CLUSTER, PROFILE)
        state = policy.initial_state()
        full = {"anticipated_peak": [2.0] * 4, "anticipated_overload": [1.0] * 4, "kv_use": [1.0] * 4}
        looks = [observe(time_s=600.0, ready=4, **full, **forecast(2.5, 9))]
        looks += [observe(time_s=t, ready=3, **full, **forecast(6)) for t in (610.0, 1190.0, 1200.0)]
        assert [policy.decide(look, state) for look in looks] == [3, 3, 3, 6]
        assert policy.router == "least-requests"


class TestHybrid:
    @pytest.mark.parametrize(
        ("ready", "kv_use", "need", "wanted"),
        [
            (4, 0.95, 6.0, 6),  # (5 + 6)/2 = 5.5
            (4, 0.95, 2.5, 4),  # (5 + 3)/2 = 4
            (4, 0.50, 5.0, 5),  # (4 + 5)/2 = 4.5
            (4, 0.05, 2.5, 3),  # (3 + 3)/2
            (4, 0.05, 1.0, 2),
        ],
    )
    def test_mean_of_both_rounded_up(self, ready: int, kv_use: float, need: float, wanted: int) -> None:
        obs = observe(ready=ready, kv_use=[kv_use] * ready, **forecast(need, 8))
        assert Hybrid(CLUSTER, PROFILE).decide(obs, None) == wanted

    def test_starting_instances_count(self) -> None:
        obs = observe(ready=2, starting=2, kv_use=[1.0] * 2, **forecast(4))
        assert Hybrid(CLUSTER, PROFILE).decide(obs, None) == 4

    def test_comes_to_rest_under_constant_load(self) -> None:
        policy, target, targets = Hybrid(CLUSTER, PROFILE), 8, []
        for _ in range(20):
            target = policy.decide(observe(ready=target, kv_use=[2.0 / target] * target, **forecast(3)), None)
            targets.append(target)
        assert targets[-10:] == [targets[-1]] * 10
