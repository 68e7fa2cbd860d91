"""Every rule of every policy on hand-made observations, then all of them in the environment."""

from __future__ import annotations

import pickle
import re
import runpy
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from baselines import POLICIES, Hpa, PreServe, Reactive, Static, make_policy, peak_instances
from preserve_gym import ClusterConfig, InputError, Trace, Workload, WorkloadConfig
from preserve_gym.envs.observation import SCALARS
from preserve_gym.sim.profile import InstanceProfile

CLUSTER = ClusterConfig(min_instances=1, max_instances=8)
# 0.7 * 20 = 14 requests in flight per instance are the HPA's target.
PROFILE = InstanceProfile(
    requests_per_s=2.0,
    prompt_tokens_per_s=1000.0,
    output_tokens_per_s=200.0,
    total_tokens_per_s=1100.0,
    in_flight=20.0,
    unloaded_attainment=1.0,
)
OFF, STARTING, READY, DRAINING = range(4)
WINDOW_S = 600.0


def observe(
    *, ready: int = 1, starting: int = 0, draining: int = 0, time_s: float = 600.0, **values: Any
) -> dict[str, Any]:
    """What a policy sees: ready slots first, then starting and draining ones; idle unless told.

    Values per instance are given for the first slots.
    """
    slots = CLUSTER.max_instances
    state = [READY] * ready + [STARTING] * starting + [DRAINING] * draining
    names = ("running", "waiting", "kv_use", "anticipated_peak", "anticipated_overload")
    arrays = {"state": np.array(state + [OFF] * (slots - len(state)), np.float64)}
    for name in names:
        given = np.atleast_1d(np.asarray(values.pop(name, []), np.float64))
        arrays[name] = np.concatenate((given, np.zeros(slots - len(given))))
    return {
        "time_s": time_s,
        "target": float(ready + starting),
        "window_s": WINDOW_S,
        "window_elapsed": time_s / WINDOW_S % 1.0,
        "forecast_prompt_tokens": np.full(3, 100.0),
        "forecast_output_tokens": np.full(3, 100.0),
        **arrays,
        **{name: np.asarray(value) for name, value in values.items()},
    }


def as_observed(obs: dict[str, Any]) -> dict[str, np.ndarray]:
    """The same as the environment gives it: scalars have shape (1,)."""
    return {name: np.reshape(value, (1,)) if name in SCALARS else value for name, value in obs.items()}


def forecast(*instances: float) -> dict[str, Any]:
    """Forecasts whose need is so many instances in each window, set by the output tokens."""
    output = np.array(instances) * PROFILE.output_tokens_per_s * WINDOW_S
    return {"forecast_prompt_tokens": np.zeros(len(instances)), "forecast_output_tokens": output}


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
        times = [1e5 + 0.1 + 15.0 * k for k in range(21)]
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


class TestPreServeTier1:
    @pytest.mark.parametrize(
        ("prompt", "output", "wanted"),
        [
            (1_200_000.0, 24_000.0, 2),  # P/(mu_p*W) = 2 exactly; (P+D)/(mu_t*W) = 1.85
            (600_000.0, 300_000.0, 3),  # D/(mu_d*W) = 2.5
            (1_260_000.0, 252_000.0, 3),  # (P+D)/(mu_t*W) = 2.29
            (0.0, 0.0, 1),
        ],
    )
    def test_algorithm_2(self, prompt: float, output: float, wanted: int) -> None:
        policy = PreServe(CLUSTER, PROFILE)
        obs = observe(forecast_prompt_tokens=[prompt, 9e9], forecast_output_tokens=[output, 9e9])
        assert policy.decide(obs, policy.initial_state()) == wanted

    def test_acts_at_the_first_decision_even_inside_a_window(self) -> None:
        policy = PreServe(CLUSTER, PROFILE)
        assert policy.decide(observe(time_s=777.0, ready=6, **forecast(3, 8)), policy.initial_state()) == 3

    def test_acts_once_per_window_and_at_its_boundary(self) -> None:
        policy = PreServe(CLUSTER, PROFILE, variant="paper-up-only")
        state = policy.initial_state()
        wanted = {
            time_s: policy.decide(observe(time_s=time_s, ready=5, **forecast(3, 8)), state)
            for time_s in (600.0, 610.0, 1190.0, 1200.0, 1210.0, 1800.0)
        }
        assert wanted == {600.0: 3, 610.0: 5, 1190.0: 5, 1200.0: 3, 1210.0: 5, 1800.0: 3}

    def test_decisions_need_not_fall_on_the_boundary(self) -> None:
        policy, state = PreServe(CLUSTER, PROFILE, variant="paper-up-only"), None
        state = policy.initial_state()
        times = [1183.4 + 10.0 * k for k in range(4)]
        looks = [observe(time_s=time_s, ready=5, **forecast(3)) for time_s in times]
        assert [policy.decide(look, state) for look in looks] == [3, 5, 3, 5]

    def test_an_interval_of_a_window_or_more_acts_every_time(self) -> None:
        for interval_s in (600.0, 1500.0):
            policy = PreServe(CLUSTER, PROFILE, interval_s=interval_s)
            state = policy.initial_state()
            looks = [observe(time_s=600.0 + interval_s * k, ready=5, **forecast(3)) for k in range(5)]
            assert [policy.decide(look, state) for look in looks] == [3] * 5

    def test_lead_brings_additions_forward(self) -> None:
        policy = PreServe(CLUSTER, PROFILE, lead_s=60.0)
        state = policy.initial_state()
        times = (600.0, 1130.0, 1140.0, 1150.0)
        wanted = [policy.decide(observe(time_s=t, ready=3, **forecast(3, 5, 8)), state) for t in times]
        assert wanted[0] == 3
        assert wanted[2] == 5

    def test_lead_leaves_removals_to_the_boundary(self) -> None:
        policy = PreServe(CLUSTER, PROFILE, variant="paper-up-only", lead_s=60.0)
        state = policy.initial_state()
        looks = [observe(time_s=t, ready=5, **forecast(5, 2)) for t in (600.0, 1140.0, 1190.0)]
        looks.append(observe(time_s=1200.0, ready=5, **forecast(2, 2)))
        assert [policy.decide(look, state) for look in looks] == [5, 5, 5, 2]

    def test_what_the_lead_added_is_not_removed_before_its_window(self) -> None:
        policy = PreServe(CLUSTER, PROFILE, lead_s=60.0)
        state = policy.initial_state()
        for time_s, ready in ((600.0, 1), (1140.0, 1)):
            policy.decide(observe(time_s=time_s, ready=ready, **forecast(1, 5)), state)
        assert policy.decide(observe(time_s=1190.0, ready=5, **forecast(1, 5)), state) == 5

    def test_lead_beyond_the_forecast(self) -> None:
        policy = PreServe(CLUSTER, PROFILE, lead_s=700.0)
        with pytest.raises(InputError, match=r"PreServe.lead_s: expected to stay within the 2 forecast"):
            policy.decide(observe(time_s=1190.0, **forecast(1, 1)), policy.initial_state())


def in_window(policy: PreServe, **look: Any) -> Any:
    """A state in the middle of a window, after its Tier 1."""
    state = policy.initial_state()
    policy.decide(observe(time_s=600.0, anticipated_peak=[0.5] * 8, **look), state)
    return state


class TestPreServeTier2:
    def test_one_more_for_each_overloaded_instance(self) -> None:
        policy = PreServe(CLUSTER, PROFILE)
        overload = [0.11, 0.10, 0.5, 0.0]  # 10 % itself is not more than 10 %
        look = observe(time_s=610.0, ready=4, anticipated_overload=overload, anticipated_peak=[1.0] * 4)
        assert policy.decide(look, in_window(policy)) == 6

    def test_once_per_episode_and_not_per_tick(self) -> None:
        policy = PreServe(CLUSTER, PROFILE)
        state, target, targets = in_window(policy), 2, []
        for k, overload in enumerate([0.2, 0.9, 0.2, 0.0, 0.2, 0.2]):
            ready_and_starting = {"ready": 2, "starting": target - 2}
            look = observe(
                time_s=610.0 + 10 * k,
                **ready_and_starting,
                anticipated_overload=[overload, 0.0],
                anticipated_peak=[1.0, 0.5],
            )
            target = policy.decide(look, state)
            targets.append(target)
        assert targets == [3, 3, 3, 3, 4, 4]

    def test_an_episode_goes_on_over_the_boundary(self) -> None:
        policy = PreServe(CLUSTER, PROFILE)
        state = in_window(policy)
        hot = {"anticipated_overload": [0.5], "anticipated_peak": [1.0]}
        assert policy.decide(observe(time_s=1190.0, ready=1, **hot), state) == 2
        assert policy.decide(observe(time_s=1200.0, ready=2, **hot, **forecast(1)), state) == 1

    def test_adds_to_tier_1_at_the_boundary(self) -> None:
        policy = PreServe(CLUSTER, PROFILE)
        hot = {"anticipated_overload": [0.5, 0.5], "anticipated_peak": [1.0, 1.0]}
        obs = observe(time_s=1200.0, ready=2, **hot, **forecast(3))
        assert policy.decide(obs, in_window(policy)) == 5

    def test_draining_instances_are_not_overloaded(self) -> None:
        policy = PreServe(CLUSTER, PROFILE)
        hot = {"anticipated_overload": [0.0, 0.9], "anticipated_peak": [0.5, 1.0]}
        assert policy.decide(observe(time_s=610.0, ready=1, draining=1, **hot), in_window(policy)) == 1

    @pytest.mark.parametrize(
        ("peaks", "kept"),
        [
            ([0.1, 0.1, 0.1, 0.1], 2),  # 0.4/0.3 = 1.33
            ([0.2, 0.2, 0.1, 0.1], 2),  # 0.6/0.3 = 2 exactly
            ([0.0, 0.0, 0.0, 0.0], 1),
            ([0.29, 0.29, 0.29, 0.29], 4),
            ([0.3, 0.0, 0.0, 0.0], 4),  # not below the threshold
        ],
    )
    def test_keeps_what_the_maps_fill(self, peaks: list[float], kept: int) -> None:
        policy = PreServe(CLUSTER, PROFILE)
        assert (
            policy.decide(observe(time_s=610.0, ready=4, anticipated_peak=peaks), in_window(policy)) == kept
        )

    def test_removes_once_per_window(self) -> None:
        policy = PreServe(CLUSTER, PROFILE)
        state = in_window(policy)
        looks = [(610.0, 4), (620.0, 2), (1200.0, 4), (1210.0, 4), (1220.0, 3)]
        peaks = {610.0: 0.15, 620.0: 0.1, 1200.0: 0.1, 1210.0: 0.16, 1220.0: 0.1}
        wanted = [
            policy.decide(observe(time_s=t, ready=n, anticipated_peak=[peaks[t]] * n, **forecast(4)), state)
            for t, n in looks
        ]
        assert wanted == [2, 2, 4, 3, 3]

    def test_a_look_that_removes_nothing_does_not_use_the_window_up(self) -> None:
        policy = PreServe(CLUSTER, PROFILE)
        state = in_window(policy)
        assert policy.decide(observe(time_s=610.0, ready=2, anticipated_peak=[0.29] * 2), state) == 2
        assert policy.decide(observe(time_s=620.0, ready=2, anticipated_peak=[0.1] * 2), state) == 1

    def test_keeps_what_is_starting(self) -> None:
        policy = PreServe(CLUSTER, PROFILE)
        look = observe(time_s=610.0, ready=2, starting=3, anticipated_peak=[0.1, 0.1])
        assert policy.decide(look, in_window(policy)) == 4

    def test_up_only_removes_nothing_inside_a_window(self) -> None:
        policy = PreServe(CLUSTER, PROFILE, variant="paper-up-only")
        state = in_window(policy)
        assert policy.decide(observe(time_s=610.0, ready=4), state) == 4
        assert policy.decide(observe(time_s=1200.0, ready=4), state) == 1

    def test_nothing_ready(self) -> None:
        policy = PreServe(CLUSTER, PROFILE)
        assert policy.decide(observe(time_s=610.0, ready=0, starting=2), in_window(policy)) == 2


@pytest.mark.parametrize(
    ("name", "parameters", "field"),
    [
        ("static", {"instances": 3, "interval_s": 0.0}, "interval_s"),
        ("reactive", {"high_kv_use": 1.5}, "high_kv_use"),
        ("reactive", {"low_kv_use": float("nan")}, "low_kv_use"),
        ("hpa", {"target_share": 0.0}, "target_share"),
        ("hpa", {"tolerance": -0.1}, "tolerance"),
        ("hpa", {"scale_up_instances": 1.5}, "scale_up_instances"),
        ("hpa", {"scale_down_percent": 101}, "scale_down_percent"),
        ("preserve", {"variant": "v3"}, "variant"),
        ("preserve", {"lead_s": -1.0}, "lead_s"),
        ("preserve", {"overload_share": 1.0}, "overload_share"),
        ("preserve", {"low_use": 0.0}, "low_use"),
        ("preserve", {"low_use": "small"}, "low_use"),
        ("hpa", {"target": 3}, "target: no such parameter"),
        ("static", {}, "instances"),
    ],
)
def test_parameters_outside_their_meaning(name: str, parameters: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=rf"^\w+\.{field}\b.*expected") as raised:
        make_policy(name, CLUSTER, PROFILE, **parameters)
    assert "\n" not in str(raised.value)


class TestRegistry:
    def test_every_name_makes_a_policy_of_that_name(self) -> None:
        for name, entry in POLICIES.items():
            parameters = {"instances": 2} if name == "static" else {}
            policy = make_policy(name, CLUSTER, PROFILE, **parameters)
            assert policy.name == name
            assert "\n" not in entry.description

    def test_static_with_its_size(self) -> None:
        policy = make_policy("static-5", CLUSTER, PROFILE)
        assert policy.name == "static-5"
        assert policy.decide(observe(), None) == 5
        with pytest.raises(InputError, match=r"Static.instances: expected an integer in \[1, 8\]"):
            make_policy("static-9", CLUSTER, PROFILE)

    def test_unknown_names_list_the_known_ones(self) -> None:
        expected = r"^policy: expected one of static, reactive, hpa, .*static-N, got 'best'$"
        with pytest.raises(InputError, match=expected):
            make_policy("best", CLUSTER, PROFILE)

    def test_up_only_is_the_variant(self) -> None:
        policy = make_policy("preserve-up-only", CLUSTER, PROFILE)
        assert isinstance(policy, PreServe)
        assert (policy.variant, policy.router) == ("paper-up-only", "preserve")


class TestPredict:
    def test_action_asks_for_the_decision_within_the_bounds(self) -> None:
        space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        for instances in range(1, 9):
            action, state = Static(CLUSTER, PROFILE, instances=instances).predict(as_observed(observe()))
            assert space.contains(action)
            assert round(1 + (float(action[0]) + 1) / 2 * 7) == instances
            assert state is None

    def test_clips_to_the_bounds(self) -> None:
        action, _ = Reactive(CLUSTER, PROFILE).predict(as_observed(observe(ready=8, kv_use=[1.0] * 8)))
        np.testing.assert_array_equal(action, np.ones(1, np.float32))

    def test_one_possible_number(self) -> None:
        cluster = ClusterConfig(min_instances=2, max_instances=2)
        action, _ = Static(cluster, PROFILE, instances=2).predict(as_observed(observe()))
        assert action.shape == (1,)
        assert np.isfinite(action).all()

    @pytest.mark.parametrize("start", [True, np.array([True])])
    def test_a_new_episode_forgets(self, start: Any) -> None:
        policy = PreServe(CLUSTER, PROFILE)
        looks = [as_observed(observe(time_s=t, ready=5, **forecast(3))) for t in (600.0, 610.0)]
        first, state = policy.predict(looks[0])
        _, same = policy.predict(looks[1], state, episode_start=np.array([False]))
        assert same is state
        again, fresh = policy.predict(looks[1], state, episode_start=start)
        np.testing.assert_array_equal(again, first)
        assert fresh is not state

    @pytest.mark.parametrize("name", ["hpa", "preserve"])
    def test_interleaved_episodes_do_not_mix(self, name: str) -> None:
        policy = make_policy(name, CLUSTER, PROFILE)
        rng = np.random.default_rng(0)

        def episode(start_s: float) -> list[dict[str, np.ndarray]]:
            return [
                as_observed(
                    observe(
                        time_s=start_s + policy.interval_s * k,
                        ready=4,
                        running=rng.integers(0, 40, 4),
                        anticipated_peak=rng.uniform(0.0, 0.4, 4),
                        anticipated_overload=rng.uniform(0.0, 0.2, 4),
                        **forecast(*rng.uniform(1.0, 8.0, 3)),
                    )
                )
                for k in range(100)
            ]

        def alone(looks: list[dict[str, np.ndarray]]) -> list[float]:
            state, actions = None, []
            for look in looks:
                action, state = policy.predict(look, state)
                actions.append(float(action[0]))
            return actions

        a, b = episode(600.0), episode(1033.0)
        state_a = state_b = batch = None
        together, batched = [], []
        for look_a, look_b in zip(a, b, strict=True):
            action_a, state_a = policy.predict(look_a, state_a)
            action_b, state_b = policy.predict(look_b, state_b)
            together.append((float(action_a[0]), float(action_b[0])))
            both = {key: np.stack([look_a[key], look_b[key]]) for key in look_a}
            action, batch = policy.predict(both, batch, episode_start=np.zeros(2, bool))
            assert action.shape == (2, 1)
            assert action.dtype == np.float32
            batched.append(tuple(action[:, 0].tolist()))
        expected = list(zip(alone(a), alone(b), strict=True))
        assert together == expected
        assert batched == expected
        assert len(set(expected)) > 10

    def test_a_batch_of_one_keeps_its_axis(self) -> None:
        policy = PreServe(CLUSTER, PROFILE)
        look = {key: value[None] for key, value in as_observed(observe(**forecast(3))).items()}
        action, state = policy.predict(look, None, np.ones(1, bool))
        assert action.shape == (1, 1)
        assert len(state) == 1

    def test_one_slot_and_one_window_stay_arrays(self) -> None:
        cluster = ClusterConfig(max_instances=1)
        look = as_observed(observe(**forecast(1)))
        per_instance = ("state", "running", "waiting", "kv_use", "anticipated_peak", "anticipated_overload")
        look |= {key: look[key][:1] for key in per_instance}
        for name in ("reactive", "hpa", "preserve"):
            action, _ = make_policy(name, cluster, PROFILE).predict(look)
            assert action.shape == (1,)

    def test_needs_the_dict_observation(self) -> None:
        with pytest.raises(InputError, match="expected the observation of obs_mode='dict'"):
            Reactive(CLUSTER, PROFILE).predict(np.zeros(40, np.float32))  # type: ignore[arg-type]

    def test_is_immutable_and_pickles(self) -> None:
        policy = PreServe(CLUSTER, PROFILE, lead_s=60.0)
        with pytest.raises(FrozenInstanceError):
            policy.lead_s = 0.0  # type: ignore[misc]
        assert pickle.loads(pickle.dumps(policy)) == policy


SURGE_S = 1200.0


@pytest.fixture(scope="module")
def surge() -> Workload:
    """20 minutes at 2 requests/s, 10 at 10, 10 at 2: needs 1, 3 and 1 instances, as forecast."""
    rng = np.random.default_rng(0)
    spans = ((0.0, SURGE_S, 2.0), (SURGE_S, 1800.0, 10.0), (1800.0, 2400.0, 2.0))
    arrival_s = np.sort(np.concatenate([rng.uniform(a, b, int((b - a) * rate)) for a, b, rate in spans]))
    n = len(arrival_s)
    trace = Trace(
        arrival_s=arrival_s,
        prompt_tokens=np.clip(rng.lognormal(6.5, 0.8, n), 16, 6000).astype(np.int32),
        output_tokens=np.clip(rng.lognormal(5.2, 0.6, n), 4, 1500).astype(np.int32),
        name="surge",
        span_s=2400.0,
    )
    return Workload(WorkloadConfig(start_s=900.0, horizon_s=1200.0, forecaster="oracle"), trace)


def make_env(policy: Any, workload: Workload) -> gym.Env[Any, Any]:
    return gym.make(
        "preserve/Autoscale-v0",
        cluster=policy.cluster,
        workload=workload,
        router=policy.router,
        interval_s=policy.interval_s,
        obs_mode="dict",
        action_mode="target",
    )


def play(policy: Any, workload: Workload) -> tuple[list[tuple[float, int]], Any]:
    """(time, target) at the start and after each step, and the per-request results."""
    env = make_env(policy, workload)
    observation, info = env.reset(seed=0)
    targets, state, ended = [(info["time_s"], info["target"])], None, False
    while not ended:
        action, state = policy.predict(observation, state)
        np.testing.assert_array_equal(action, env.unwrapped.target_to_action(_asked(policy, action)))
        observation, _, _, ended, info = env.step(action)
        targets.append((info["time_s"], info["target"]))
    return targets, env.unwrapped.results()


def _asked(policy: Any, action: np.ndarray) -> int:
    low, high = policy.cluster.min_instances, policy.cluster.max_instances
    return round(low + (float(action[0]) + 1.0) / 2.0 * (high - low))


def first_addition_s(targets: list[tuple[float, int]], interval_s: float) -> float:
    """When the policy first asked for more than there were at the start."""
    return min(time_s for time_s, target in targets if target > targets[0][1]) - interval_s


class TestInTheEnvironment:
    @pytest.mark.parametrize("name", ["static-3", *(name for name in POLICIES if name != "static")])
    def test_plays_an_episode(self, name: str, surge: Workload) -> None:
        policy = make_policy(name, CLUSTER, surge.profile(CLUSTER))
        targets, results = play(policy, surge)
        assert all(1 <= target <= 8 for _, target in targets)
        assert targets[-1][0] == 2100.0
        scored = surge.trace.row_range(900.0, 2100.0)
        assert len(results) == scored.stop - scored.start
        assert results["completed_s"].notna().all()
        if name == "static-3":
            assert {target for _, target in targets[1:]} == {3}
        else:
            assert max(target for _, target in targets) >= 3, "the surge needs three instances"

    def test_preserve_is_ready_for_a_forecast_surge_before_the_others(self, surge: Workload) -> None:
        profile = surge.profile(CLUSTER)
        policies = {
            "lead": make_policy("preserve", CLUSTER, profile, lead_s=CLUSTER.cold_start_s),
            **{name: make_policy(name, CLUSTER, profile) for name in ("preserve", "hpa", "reactive")},
        }
        played = {key: play(policy, surge) for key, policy in policies.items()}
        began_s = {key: first_addition_s(played[key][0], policies[key].interval_s) for key in played}
        assert began_s["lead"] == SURGE_S - CLUSTER.cold_start_s
        assert began_s["preserve"] == SURGE_S
        assert SURGE_S < began_s["hpa"] <= SURGE_S + 60.0
        assert began_s["reactive"] > SURGE_S
        in_time = {key: 1.0 - results["violated_s"].notna().mean() for key, (_, results) in played.items()}
        assert in_time["lead"] > 0.99
        assert in_time["lead"] > in_time["hpa"] > in_time["reactive"]

    def test_starts_at_the_need_of_tier_1_and_returns_to_it(self, surge: Workload) -> None:
        targets, _ = play(make_policy("preserve", CLUSTER, surge.profile(CLUSTER)), surge)
        assert targets[0][1] == targets[1][1] == targets[-1][1] == 1

    def test_peak_provisioning_fits_the_surge(self, surge: Workload) -> None:
        tokens = (surge.forecast.prompt_tokens[:, 0], surge.forecast.output_tokens[:, 0])
        assert peak_instances(CLUSTER, surge.profile(CLUSTER), *tokens, surge.config.window_s) == 3

    def test_same_through_stable_baselines(self, surge: Workload) -> None:
        evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
        monitor = pytest.importorskip("stable_baselines3.common.monitor")
        policy = make_policy("preserve", CLUSTER, surge.profile(CLUSTER))
        seen: list[int] = []
        evaluation.evaluate_policy(
            policy,
            monitor.Monitor(make_env(policy, surge)),
            n_eval_episodes=2,
            callback=lambda scope, _: seen.append(scope["info"]["target"]),
        )
        once = [target for _, target in play(policy, surge)[0][1:]]
        assert seen == once + once


def test_write_your_own_policy_runs_as_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs" / "write-your-own-policy.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    script = tmp_path / "policy.py"
    script.write_text("\n".join(blocks))
    names = runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    assert re.fullmatch(r"SLO attainment \d+\.\d\d% with \d+\.\d\d instance-hours\n", printed)
    assert names["attainment"] > 0.9
