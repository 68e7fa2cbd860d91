"""The registry, ``predict``, and all policies in the environment."""

from __future__ import annotations

import dataclasses
import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from baselines import (
    ABLATIONS,
    POLICIES,
    PreServe,
    Reactive,
    Static,
    make_fitted_policy,
    make_policy,
    peak_instances,
)
from preserve_gym import AnticipatorConfig, ClusterConfig, InputError, Trace, Workload, WorkloadConfig
from preserve_gym.sim.state import DRAINING, READY, STARTING
from tests.baseline_observations import CLUSTER, NEEDED, PROFILE, as_observed, forecast, observe


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
        ("preserve", {"tier_1": 1}, "tier_1"),
        ("preserve", {"tier_1": False, "tier_2": False}, "tier_2"),
        ("preserve-up-only", {"tier_1": False}, "tier_1"),
        ("hybrid", {"high_kv_use": 1.5}, "high_kv_use"),
        ("preserve-artifact", {"workload_interval_s": 0.0}, "workload_interval_s"),
        ("preserve-artifact", {"tier_2": None}, "tier_2"),
        ("preserve-artifact", {"lock_s": -1.0}, "lock_s"),
        ("preserve-artifact", {"up_headroom": 0.4}, "up_headroom"),
        ("preserve-artifact", {"low_use": 0.75}, "low_use"),
        ("preserve-artifact", {"high_use": 0.9}, "high_use"),
        ("preserve-artifact", {"emergency_target_use": 0.9}, "emergency_target_use"),
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
            policy = make_policy(name, CLUSTER, PROFILE, **NEEDED.get(name, {}))
            assert policy.name == name
            assert "\n" not in entry.description

    def test_static_with_its_size(self) -> None:
        policy = make_policy("static-5", CLUSTER, PROFILE)
        assert policy.name == "static-5"
        assert policy.decide(observe(), None) == 5
        with pytest.raises(InputError, match=r"Static.instances: expected an integer in \[1, 8\]"):
            make_policy("static-9", CLUSTER, PROFILE)

    def test_unknown_names_list_the_known_ones(self) -> None:
        expected = (
            r"^policy: expected one of static, reactive, proactive, .*static-N, file.py:Class, "
            r"the folder of a model, got 'best'$"
        )
        with pytest.raises(InputError, match=expected):
            make_policy("best", CLUSTER, PROFILE)

    def test_up_only_is_the_variant(self) -> None:
        policy = make_policy("preserve-up-only", CLUSTER, PROFILE)
        assert isinstance(policy, PreServe)
        assert (policy.variant, policy.router) == ("paper-up-only", "preserve")


class TestAblations:
    def test_names(self) -> None:
        ablated = {name for name in POLICIES for end in ABLATIONS if name.endswith(f"-{end}")}
        assert len(ablated) == 13
        assert {name.removeprefix("preserve-artifact-") for name in ablated} >= set(ABLATIONS)

    @pytest.mark.parametrize("variant", ["preserve", "preserve-artifact"])
    @pytest.mark.parametrize("ablation", ABLATIONS)
    def test_change_what_they_say_and_nothing_else(self, variant: str, ablation: str) -> None:
        whole, ablated = (make_policy(name, CLUSTER, PROFILE) for name in (variant, f"{variant}-{ablation}"))
        differing = {
            f.name for f in dataclasses.fields(whole) if getattr(whole, f.name) != getattr(ablated, f.name)
        }
        assert type(whole) is type(ablated)
        assert differing - {"name"} == set(ABLATIONS[ablation][1])

    def test_without_tier_2_the_look_ahead_map_changes_nothing(self) -> None:
        policy = make_policy("preserve-without-tier-2", CLUSTER, PROFILE)
        state = policy.initial_state()
        full = {"anticipated_peak": [2.0] * 4, "anticipated_overload": [1.0] * 4}
        looks = [observe(time_s=600.0, ready=4, **full, **forecast(3))]
        looks += [observe(time_s=610.0, ready=3, **full), observe(time_s=620.0, ready=3)]
        assert [policy.decide(look, state) for look in looks] == [3, 3, 3]

    def test_without_tier_1_the_look_ahead_map_alone_scales(self) -> None:
        policy = make_policy("preserve-without-tier-1", CLUSTER, PROFILE)
        state = policy.initial_state()
        hot = {"anticipated_peak": [1.0], "anticipated_overload": [0.5]}
        looks = [observe(time_s=600.0, ready=4, anticipated_peak=[0.1] * 4, **forecast(8))]
        looks += [observe(time_s=610.0, ready=2, anticipated_peak=[0.1] * 2, **forecast(8))]
        looks += [observe(time_s=620.0, ready=2, **hot), observe(time_s=1200.0, ready=3, **forecast(8))]
        # Removes at a boundary, once per window.
        assert [policy.decide(look, state) for look in looks] == [2, 2, 3, 1]


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

    def test_a_new_episode_in_one_of_two_environments(self) -> None:
        policy = PreServe(CLUSTER, PROFILE, variant="paper-up-only")
        looks = [as_observed(observe(time_s=t, ready=5, **forecast(3))) for t in (600.0, 610.0)]
        both = [{key: np.stack([values, values]) for key, values in look.items()} for look in looks]
        first, state = policy.predict(both[0])
        second, _ = policy.predict(both[1], state, episode_start=np.array([False, True]))
        assert second[1] == first[1] != second[0]

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
    """20 minutes at 1.5 requests/s, 10 at 9, 10 at 1.5: needs 1, 3 and 1 instances, as forecast."""
    rng = np.random.default_rng(0)
    spans = ((0.0, SURGE_S, 1.5), (SURGE_S, 1800.0, 9.0), (1800.0, 2400.0, 1.5))
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
    workload = workload.with_predictions(policy.forecaster, policy.predictor)
    return gym.make("preserve/Autoscale-v0", workload=workload, **policy.env_options())


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
    @pytest.mark.parametrize(
        "name",
        ["static-3", *(name for name, entry in POLICIES.items() if name != "static" and not entry.oracle)],
    )
    def test_plays_an_episode(self, name: str, surge: Workload) -> None:
        policy = make_fitted_policy(name, CLUSTER, surge)
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

    def test_plays_with_the_map_and_the_predictions_that_it_asks_for(self, surge: Workload) -> None:
        policy = make_policy("preserve-artifact-no-predictions", CLUSTER, surge.profile(CLUSTER))
        core: Any = make_env(policy, surge).unwrapped
        assert core.task.setting.anticipator == AnticipatorConfig("artifact", look_ahead=200)
        assert core.interval_s == 5.0
        assert (core.workload.config.forecaster, core.workload.config.predictor) == ("naive", "mean")
        assert len(np.unique(core.workload.predicted_tokens)) == 1

    @pytest.mark.parametrize("name", ["preserve", "preserve-look-ahead", "preserve-artifact"])
    def test_requests_go_to_ready_instances_alone(self, name: str, surge: Workload) -> None:
        policy = make_policy(name, CLUSTER, surge.profile(CLUSTER))
        env = make_env(policy, surge)
        observation, _ = env.reset(seed=0)
        rng, seen, ended = np.random.default_rng(0), set(), False
        while not ended:
            there = observation["running"] + observation["waiting"]
            was_draining = observation["state"] == DRAINING
            target = np.array([rng.uniform(-1.0, 1.0)], np.float32)
            observation, _, _, ended, _ = env.step(target)
            now_there = observation["running"] + observation["waiting"]
            assert (now_there[observation["state"] == STARTING] == 0).all()
            drains = was_draining & (observation["state"] == DRAINING)
            assert (now_there <= there)[drains].all()
            seen |= set(observation["state"].tolist())
        assert seen >= {STARTING, READY, DRAINING}

    def test_preserve_is_ready_for_a_forecast_surge_before_the_others(self, surge: Workload) -> None:
        profile = surge.profile(CLUSTER)
        policies = {
            "lead": make_policy("preserve", CLUSTER, profile, lead_s=CLUSTER.mean_cold_start_s),
            **{name: make_policy(name, CLUSTER, profile) for name in ("preserve", "hpa", "reactive")},
        }
        played = {key: play(policy, surge) for key, policy in policies.items()}
        began_s = {key: first_addition_s(played[key][0], policies[key].interval_s) for key in played}
        assert began_s["lead"] == SURGE_S - CLUSTER.mean_cold_start_s
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
