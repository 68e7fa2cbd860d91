"""Every rule of PreServe's autoscaler on hand-made observations."""

from __future__ import annotations

from typing import Any

import pytest

from baselines import PreServe
from preserve_gym import InputError
from tests.baseline_observations import CLUSTER, PROFILE, forecast, observe


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

    def test_headroom_is_on_the_need_before_it_is_rounded(self) -> None:
        for headroom, wanted in ((0.75, 2), (1.0, 2), (1.25, 3), (2.0, 4)):
            policy = PreServe(CLUSTER, PROFILE, headroom=headroom)
            assert policy.decide(observe(**forecast(2.0, 8.0)), policy.initial_state()) == wanted
        early = PreServe(CLUSTER, PROFILE, headroom=1.5, lead_s=60.0)
        state = early.initial_state()
        looks = [observe(time_s=t, ready=3, **forecast(2.0, 4.0, 8.0)) for t in (600.0, 1150.0)]
        assert [early.decide(look, state) for look in looks] == [3, 6]

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
        policy = PreServe(CLUSTER, PROFILE, variant="paper-up-only", lead_s=60.0)
        state = policy.initial_state()
        times = (600.0, 1130.0, 1140.0, 1150.0)
        wanted = [policy.decide(observe(time_s=t, ready=3, **forecast(3, 5, 8)), state) for t in times]
        assert wanted == [3, 3, 5, 3]

    def test_lead_leaves_removals_to_the_boundary(self) -> None:
        policy = PreServe(CLUSTER, PROFILE, variant="paper-up-only", lead_s=60.0)
        state = policy.initial_state()
        looks = [observe(time_s=t, ready=5, **forecast(5, 2)) for t in (600.0, 1140.0, 1190.0)]
        looks.append(observe(time_s=1200.0, ready=5, **forecast(2, 2)))
        assert [policy.decide(look, state) for look in looks] == [5, 5, 5, 2]

    def test_what_the_lead_added_is_not_removed_before_its_window(self) -> None:
        policy = PreServe(CLUSTER, PROFILE, lead_s=60.0)
        state = policy.initial_state()
        looks = [
            observe(time_s=t, ready=ready, **forecast(1, 5))
            for t, ready in ((600.0, 1), (1140.0, 1), (1190.0, 5))
        ]
        assert [policy.decide(look, state) for look in looks] == [1, 5, 5]

    def test_lead_keeps_what_tier_2_added(self) -> None:
        policy = PreServe(CLUSTER, PROFILE, lead_s=60.0)
        state = in_window(policy)
        assert policy.decide(observe(time_s=1140.0, ready=6, **forecast(1, 5)), state) == 6

    def test_lead_comes_in_every_window(self) -> None:
        policy = PreServe(CLUSTER, PROFILE, variant="paper-up-only", lead_s=60.0)
        state = policy.initial_state()
        times = (600.0, 1140.0, 1200.0, 1740.0)
        assert [policy.decide(observe(time_s=t, **forecast(1, 3)), state) for t in times] == [1, 3, 1, 3]

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
            ([0.1, 0.2, 0.0, 0.0], 1),  # 1 exactly, though 0.1 + 0.2 > 0.3 in floats
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

    def test_what_tier_1_removes_is_the_removal_of_that_window(self) -> None:
        policy = PreServe(CLUSTER, PROFILE)
        state = in_window(policy)
        wanted = [
            policy.decide(observe(time_s=t, ready=n, anticipated_peak=[0.1] * n, **forecast(2)), state)
            for t, n in ((1200.0, 4), (1210.0, 2), (1790.0, 2), (1800.0, 2), (1810.0, 2))
        ]
        assert wanted == [2, 2, 2, 2, 1]

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
