"""Every rule of the artifact's PreServe on hand-made observations."""

from __future__ import annotations

from typing import Any

import pytest

from baselines import PreServeArtifact
from preserve_gym import InputError
from tests.baseline_observations import CLUSTER, PROFILE, forecast, observe

CALM = 0.5
"""A peak of the map at which Tier 2 asks for nothing."""


def look(time_s: float, ready: int, peak: float = CALM, need: float = 1.0, **values: Any) -> dict[str, Any]:
    """All ready instances with the same peak; every window forecast to need ``need`` instances."""
    values = {"anticipated_peak": [peak] * ready, **forecast(need, need, need), **values}
    return observe(time_s=time_s, ready=ready, **values)


def play(policy: PreServeArtifact, looks: list[dict[str, Any]]) -> list[int]:
    state = policy.initial_state()
    return [policy.decide(each, state) for each in looks]


def decide(policy: PreServeArtifact, **values: Any) -> int:
    return play(policy, [look(600.0, **values)])[0]


class TestTier1:
    @pytest.mark.parametrize(
        ("need", "wanted"),
        [
            (3.9, 5),  # ceil(4.1) above 4
            (3.8, 4),  # ceil(4.0) is not
            (3.0, 4),  # ceil(3.3) not below 4
            (2.75, 4),  # ceil(3.05)
            (2.7, 3),  # ceil(3.0) below 4
            (0.0, 1),
            (7.9, 8),  # ceil(8.1) is more than the cluster has
        ],
    )
    def test_headroom(self, need: float, wanted: int) -> None:
        assert decide(PreServeArtifact(CLUSTER, PROFILE), ready=4, need=need) == wanted

    def test_factor_on_the_need(self) -> None:
        assert decide(PreServeArtifact(CLUSTER, PROFILE, headroom=1.5), ready=4, need=3.9) == 7

    def test_starting_instances_count(self) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE)
        assert decide(policy, ready=2, starting=3, need=4.7) == 5

    def test_looks_at_the_window_that_holds_the_time_in_20_s(self) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE)
        for time_s, wanted in ((600.0, 3), (1179.0, 3), (1180.0, 6)):
            obs = look(time_s, ready=4, **forecast(2.5, 5.5, 1.0))
            assert policy.decide(obs, policy.initial_state()) == wanted

    def test_of_windows_as_short_as_its_own_it_takes_the_next(self) -> None:
        obs = look(600.0, ready=4, window_s=20.0, window_elapsed=0.0)
        output = [rate * PROFILE.output_tokens_per_s * 20.0 for rate in (1.0, 5.5, 8.0)]
        policy = PreServeArtifact(CLUSTER, PROFILE)
        assert policy.decide(obs | {"forecast_output_tokens": output}, policy.initial_state()) == 6

    def test_every_20_s(self) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE)
        needs = {600.0: 4, 605.0: 6, 610.0: 6, 615.0: 6, 620.0: 6}
        assert play(policy, [look(t, ready=4, need=n - 0.5) for t, n in needs.items()]) == [4, 4, 4, 4, 6]

    def test_locks_for_60_s(self) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE)
        looks = [look(600.0, ready=4, need=5.5)]
        looks += [look(600.0 + 20.0 * k, ready=6, need=2.5) for k in (1, 2, 3)]
        assert play(policy, looks) == [6, 6, 6, 3]

    def test_what_changes_nothing_does_not_lock(self) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE)
        looks = [look(600.0, ready=8, need=20.0), look(620.0, ready=8, need=6.5)]
        assert play(policy, looks) == [8, 7]

    def test_beyond_the_forecast(self) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE, lead_s=1900.0)
        with pytest.raises(InputError, match=r"PreServeArtifact.lead_s: expected to stay within the 3"):
            decide(policy, ready=1)


class TestTier2:
    @pytest.mark.parametrize(
        ("peak", "wanted"),
        [(0.7, 4), (0.71, 5), (0.8, 5), (0.2, 4), (0.19, 3), (0.0, 3)],
    )
    def test_thresholds_on_the_mean_peak(self, peak: float, wanted: int) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE, tier_1=False)
        assert decide(policy, ready=4, peak=peak) == wanted
        spread = [peak + 0.1, peak - 0.1, peak, peak] if peak >= 0.1 else [peak] * 4
        assert decide(policy, ready=4, anticipated_peak=spread) == wanted

    def test_two_more_where_the_emergency_lies_higher(self) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE, tier_1=False, emergency_use=2.0)
        assert decide(policy, ready=4, peak=0.85) == 5
        assert decide(policy, ready=4, peak=0.86) == 6

    def test_one_more_for_an_overload_and_not_one_per_tick(self) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE, tier_1=False)
        looks = [look(600.0, ready=4, peak=0.75)]
        # The new instance starts for 60 s and then takes its share.
        looks += [look(600.0 + 5.0 * k, ready=4, starting=1, peak=0.75) for k in range(1, 12)]
        looks += [look(660.0, ready=5, peak=0.6), look(665.0, ready=5, peak=0.6)]
        assert play(policy, looks) == [5] * 14

    def test_locks_for_60_s_both_ways(self) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE, tier_1=False)
        looks = [look(600.0, ready=4, peak=0.1)]
        looks += [look(600.0 + 5.0 * k, ready=3, peak=0.75) for k in range(1, 13)]
        assert play(policy, looks) == [3] * 12 + [4]

    def test_a_starting_instance_is_empty_for_an_addition_and_left_out_for_a_removal(self) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE, tier_1=False)
        assert decide(policy, ready=2, starting=1, peak=1.0) == 3
        assert decide(policy, ready=2, starting=2, peak=0.3) == 4
        assert decide(policy, ready=2, starting=2, peak=0.19) == 3

    def test_draining_instances_do_not_count(self) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE, tier_1=False)
        assert decide(policy, ready=1, draining=2, anticipated_peak=[0.5, 3.0, 3.0]) == 1

    def test_nothing_ready(self) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE, tier_1=False)
        assert decide(policy, ready=0, starting=2) == 2

    def test_the_last_instance_stays_and_does_not_lock(self) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE, tier_1=False)
        looks = [look(600.0, ready=1, peak=0.0), look(605.0, ready=1, peak=0.75)]
        assert play(policy, looks) == [1, 2]


class TestBothTiers:
    def test_the_larger_of_both(self) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE)
        assert decide(policy, ready=4, peak=0.75, need=6.5) == 7
        assert decide(policy, ready=4, peak=0.75, need=2.5) == 5
        assert decide(policy, ready=4, peak=0.1, need=3.7) == 4

    def test_tier_2_removes_only_what_the_forecast_does_not_need(self) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE)
        looks = [look(600.0, ready=4, need=3.7), look(605.0, ready=4, need=3.7, peak=0.1)]
        looks += [look(610.0, ready=5, need=3.7, peak=0.1), look(665.0, ready=4, need=3.7, peak=0.1)]
        assert play(policy, looks) == [4, 4, 4, 4]

    def test_tier_1_does_not_take_back_at_once_what_tier_2_added(self) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE)
        looks = [look(600.0, ready=4, need=3.7), look(605.0, ready=4, need=3.7, peak=0.75)]
        looks += [look(600.0 + 20.0 * k, ready=5, need=3.7) for k in (1, 2, 3, 4)]
        assert play(policy, looks) == [4, 5, 5, 5, 5, 4]

    def test_no_flapping_under_constant_load(self) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE)
        state, target, targets = policy.initial_state(), 4, []
        for k in range(200):
            target = policy.decide(look(600.0 + 5.0 * k, ready=target, peak=2.0 / target, need=3.9), state)
            targets.append(target)
        assert targets == [5] * 200

    def test_returns_to_the_minimum_after_a_spike(self) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE)
        state, target, targets = policy.initial_state(), 1, []
        for k in range(200):
            load = 4.0 if k < 20 else 0.05
            target = policy.decide(
                look(600.0 + 5.0 * k, ready=target, peak=load / target, need=0.5 * load), state
            )
            targets.append(target)
        assert max(targets) == 8
        assert targets[-1] == 1


class TestEmergency:
    @pytest.mark.parametrize(
        ("ready", "peak", "wanted"),
        [
            (1, 0.81, 2),  # floor(2.03)
            (2, 0.9, 4),  # floor(4.5)
            (3, 1.0, 7),  # floor(7.5)
            (3, 0.8, 4),  # at the threshold is not above it: Tier 2's one more
            (4, 1.2, 8),  # floor(12) is more than the cluster has
        ],
    )
    def test_brings_the_mean_peak_down(self, ready: int, peak: float, wanted: int) -> None:
        assert decide(PreServeArtifact(CLUSTER, PROFILE), ready=ready, peak=peak) == wanted

    def test_ignores_the_lock_and_takes_it(self) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE)
        looks = [look(600.0, ready=1, need=1.5), look(605.0, ready=2, peak=1.0, need=1.5)]
        looks += [look(605.0 + 20.0 * k, ready=5, need=1.5) for k in (1, 2, 3)]
        assert play(policy, looks) == [2, 5, 5, 5, 2]

    def test_is_armed_again_after_15_s(self) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE)
        looks = [look(600.0 + 5.0 * k, ready=ready, peak=0.9) for k, ready in enumerate((1, 2, 2, 2))]
        assert play(policy, looks) == [2, 2, 2, 4]

    def test_starting_instances_count_so_that_it_does_not_escalate(self) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE)
        looks = [look(600.0, ready=2, peak=0.9)]
        looks += [look(600.0 + 15.0 * k, ready=2, starting=2, peak=0.9) for k in (1, 2, 3)]
        assert play(policy, looks) == [4, 4, 4, 4]

    def test_never_removes(self) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE, emergency_use=0.8, emergency_target_use=0.8)
        assert decide(policy, ready=4, peak=0.81) == 4

    def test_belongs_to_tier_2(self) -> None:
        policy = PreServeArtifact(CLUSTER, PROFILE, tier_2=False)
        assert decide(policy, ready=2, peak=2.0, need=2.5) == 3
        state = policy.initial_state()
        assert policy.decide(look(600.0, ready=2, need=1.5), state) == 2
        assert policy.decide(look(605.0, ready=2, need=5.0, peak=0.0), state) == 2


def test_what_it_needs_of_the_environment() -> None:
    options = PreServeArtifact(CLUSTER, PROFILE).env_options()
    anticipator = options["anticipator"]
    assert (options["interval_s"], options["router"]) == (5.0, "preserve")
    assert (anticipator.variant, anticipator.look_ahead) == ("artifact", 200)
