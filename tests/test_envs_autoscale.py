"""``preserve/Autoscale-v0``: what its docstring promises."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
from gymnasium.utils.env_checker import data_equivalence as equivalent

from preserve_gym import ClusterConfig, InputError, RewardConfig, Trace, Workload, WorkloadConfig
from preserve_gym.envs.scale_action import MAX_DELTA
from preserve_gym.sim import TOTALS
from preserve_gym.traces import synthetic_trace
from tests.env_play import play


@pytest.fixture(scope="module")
def workload() -> Workload:
    """Ten minutes of traffic from random starts; shared, as it is never changed."""
    return Workload(WorkloadConfig(horizon_s=600.0, rate_scale=0.5))


def make(workload: Any, env_id: str = "preserve/Autoscale-v0", **options: Any) -> gym.Env[Any, Any]:
    return gym.make(env_id, workload=workload, **options)


def test_flat_features_move_and_are_named(workload: Workload) -> None:
    env = make(workload)
    observations = np.array([step[0] for seed in range(4) for step in play(env, seed)])
    names = env.unwrapped.feature_names
    assert observations.shape[1] == len(names) == len(set(names))
    still = {name for name, column in zip(names, observations.T, strict=True) if np.ptp(column) == 0}
    # Nothing drains long enough, nothing comes close to a full cache and nothing is late in these minutes.
    assert still <= {
        "log10_violation_weight",
        "draining",
        "anticipated_overloaded",
        "ttft_misses",
        "attainment",
    }


def test_the_reward_is_the_formula_of_its_docstring(workload: Workload) -> None:
    weights = RewardConfig(scale=0.3, violation_weight=5.0, baseline_headroom=1.1)
    cluster = ClusterConfig(max_instances=4)
    # 9 s do not divide the horizon: the last interval is shorter.
    options = {"initial_instances": 1, "action_mode": "target", "interval_s": 9.0}
    env = make(workload, reward=weights, cluster=cluster, **options)
    steps = play(env, seed=3, actions=np.array([-1.0], np.float32))
    core = env.unwrapped
    profile, forecast = core.profile, workload.forecast
    infos = [info for *_, info in steps]
    n = len(workload.trace) / workload.trace.span_s * 9.0
    for before, info, (_, reward, _) in zip(infos[:-1], infos[1:], steps[1:], strict=True):
        window = int(before["time_s"] // 600.0)
        need = max(
            forecast.prompt_tokens[window, 0] / 600.0 / profile.prompt_tokens_per_s,
            forecast.output_tokens[window, 0] / 600.0 / profile.output_tokens_per_s,
            (forecast.prompt_tokens[window, 0] + forecast.output_tokens[window, 0])
            / 600.0
            / profile.total_tokens_per_s,
        )
        duration_s = info["time_s"] - before["time_s"]
        cost = -0.3 * (info["instance_s"] - 1.1 * need * duration_s) / (4 * 9.0)
        slo = -0.3 * 5.0 * min(info["violations"] / n, 1.0)
        assert info["reward_cost"] == pytest.approx(cost, rel=1e-9)
        assert info["reward_slo"] == pytest.approx(slo, rel=1e-9)
        assert reward == info["reward_cost"] + info["reward_slo"]
    assert duration_s == pytest.approx(6.0)
    totals = core.episode_totals()
    assert totals["violations"] == sum(info["violations"] for info in infos[1:]) > 0
    assert totals["instance_s"] == pytest.approx(sum(info["instance_s"] for info in infos[1:]))
    assert totals.keys() == TOTALS.keys()


def test_the_future_does_not_show_in_observations(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = synthetic_trace("chat", duration_s=1800.0, mean_rate_rps=4.0)
    config = WorkloadConfig(start_s=700.0, horizon_s=200.0, forecaster="naive")
    first = Workload(config, trace)
    options = {"obs_mode": "dict", "action_mode": "target", "initial_instances": 2}
    env = make(first, cluster=ClusterConfig(max_instances=4), **options)
    seen = play(env, seed=0)
    env.unwrapped.results()
    played = env.unwrapped.cluster.results()
    # The same up to 900 s: then others arrive, and what is unfinished writes more than it would have.
    rows = trace.row_range(400.0, 900.0)
    unfinished = np.flatnonzero(played["completed_s"] > 900.0) + rows.start
    assert len(played) == rows.stop - rows.start > len(unfinished) > 3
    prompt_tokens, output_tokens = trace.prompt_tokens.copy(), trace.output_tokens.copy()
    prompt_tokens[rows.stop :] *= 2
    output_tokens[unfinished] += 500
    monkeypatch.setattr("preserve_gym.workload.predict_lengths", lambda *_, **__: first.predicted_tokens)
    other = Workload(config, Trace(trace.arrival_s, prompt_tokens, output_tokens, span_s=trace.span_s))
    again = play(make(other, cluster=ClusterConfig(max_instances=4), **options), seed=0)
    assert len(seen) == len(again) == 21
    for (look, *_), (other_look, *_) in zip(seen, again, strict=True):
        assert equivalent(look, other_look)


def test_before_anything_has_happened() -> None:
    trace = Trace(np.r_[np.arange(21.0), 60.0], [100] * 22, [10] * 22)
    workload = Workload(WorkloadConfig(warmup_s=20.0, start_s=20.0, horizon_s=None), trace)
    observation, _ = make(workload, obs_mode="dict").reset(seed=0)
    # The trace is 20 s old: no rate is a mean over more.
    np.testing.assert_array_equal(observation["request_rate"], [1.0] * 5)
    env = make(workload)
    attainment = env.unwrapped.feature_names.index("attainment")
    looks = [look for look, *_ in play(env, seed=0, actions=MAX_DELTA)]
    assert [look[attainment] for look in looks[2:4]] == [1.0, 1.0]  # nobody completed, nobody was late
    # Who arrives at the very start, and at the very end, belongs to the episode.
    assert env.unwrapped.results()["arrival_s"].tolist() == [20.0, 60.0]


def test_results_hold_each_scored_request_once_and_decided(workload: Workload) -> None:
    env = make(workload, initial_instances=1)
    steps = play(env, seed=2, actions=MAX_DELTA)
    results = env.unwrapped.results()
    start_s, end_s = steps[0][2]["time_s"], steps[-1][2]["time_s"]
    rows = workload.trace.row_range(start_s, end_s)
    np.testing.assert_array_equal(results["arrival_s"], workload.trace.arrival_s[rows])
    assert (results["completed_s"].notna() | results["rejected"]).all()
    with pytest.raises(gym.error.ResetNeeded):
        env.unwrapped.step(MAX_DELTA)


@pytest.mark.parametrize("interval_s", [1.0, 7.0, 60.0, 1e6])
def test_the_control_interval_changes_nothing_under_a_constant_policy(
    workload: Workload, interval_s: float
) -> None:
    def results(interval_s: float) -> tuple[pd.DataFrame, dict[str, float]]:
        env = make(workload, interval_s=interval_s, initial_instances=2)
        play(env, seed=8, actions=MAX_DELTA)
        return env.unwrapped.results(), env.unwrapped.episode_totals()

    (one, one_totals), (other, other_totals) = results(10.0), results(interval_s)
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert one_totals == pytest.approx(other_totals, rel=1e-12)


def test_masks_leave_what_stays_within_the_bounds(workload: Workload) -> None:
    env = make(
        workload, cluster=ClusterConfig(min_instances=2, max_instances=5), initial_instances=3
    ).unwrapped
    env.reset(seed=0)
    assert env.action_masks().tolist() == [False, True, True, True, True]
    env.step(4)
    assert env.action_masks().tolist() == [True, True, True, False, False]
    _, _, _, _, info = env.step(4)
    assert info["target"] == 5


@pytest.mark.parametrize(("low", "high"), [(1, 16), (3, 3), (2, 7)])
def test_targets_survive_the_way_through_the_action_space(workload: Workload, low: int, high: int) -> None:
    cluster = ClusterConfig(min_instances=low, max_instances=high)
    env = make(workload, cluster=cluster, action_mode="target").unwrapped
    env.reset(seed=0)
    for target in range(low, high + 1):
        action = env.target_to_action(target)
        assert env.action_space.contains(action)
        assert env.task.scale_action.decode([action], np.array([low]))[0][0] == target
    np.testing.assert_array_equal(env.target_to_action(0), env.target_to_action(low))
    np.testing.assert_array_equal(env.target_to_action(99), env.target_to_action(high))


def test_configurations_may_be_mappings() -> None:
    env = gym.make(
        "preserve/Autoscale-v0",
        cluster={"max_instances": 3, "slo": {"ttft_s": 1.0}, "cold_start_s": 5.0},
        workload={"trace": "synthetic-code", "horizon_s": 60.0},
        reward={"scale": 1.0},
    ).unwrapped
    assert env.cluster_config.slo.ttft_s == 1.0
    assert env.workload.config.trace == "synthetic-code"
    assert env.reward_config.scale == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"obs_mode": "image"}, "obs_mode: expected one of flat, dict, got 'image'"),
        ({"action_mode": "absolute"}, "action_mode: expected one of delta, target, got 'absolute'"),
        ({"interval_s": 0.0}, "interval_s: expected a finite number > 0, got 0.0"),
        ({"interval_s": float("inf")}, "interval_s: expected a finite number > 0"),
        ({"router": "fastest"}, "router: expected one of round-robin"),
        ({"cluster": {"max_instance": 3}}, "ClusterConfig.max_instance: no such field"),
        (
            {"cluster": {"max_instances": 0}},
            "ClusterConfig.max_instances: expected an integer in [1, 1048576], got 0",
        ),
        ({"cluster": {"slo": {"ttft_s": -1}}}, "SloConfig.ttft_s: expected a number >= 0, got -1"),
        ({"cluster": 3}, "expected a ClusterConfig or a mapping of its fields, got 3"),
        ({"initial_instances": 17}, "initial_instances: expected an integer in [1, 16], got 17"),
        ({"workload": {"trace": "nowhere"}}, "trace 'nowhere'"),
        ({"workload": {"horizon_s": 1e6}}, "trace 'synthetic-chat'"),
        ({"workload": {"forecaster": "oracles"}}, "forecast"),
    ],
)
def test_options_that_do_not_fit_are_refused_at_construction(
    workload: Workload, options: dict[str, Any], message: str
) -> None:
    from preserve_gym.envs.autoscale import AutoscaleEnv

    with pytest.raises(InputError) as error:
        AutoscaleEnv(**{"workload": workload, **options})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_actions_outside_the_space_are_refused(workload: Workload) -> None:
    env = make(workload).unwrapped
    env.reset(seed=0)
    for action in (5, -1, 2.5, None):
        with pytest.raises(InputError, match="action: expected an integer in"):
            env.step(action)
    env = make(workload, action_mode="target").unwrapped
    env.reset(seed=0)
    for action in (np.array([np.nan], np.float32), np.zeros(2, np.float32)):
        with pytest.raises(InputError, match="action: expected one finite number"):
            env.step(action)


def test_ppo_trains_on_it(workload: Workload) -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    import torch

    torch.set_num_threads(1)
    model = sb3.PPO("MlpPolicy", make(workload), n_steps=64, batch_size=32, n_epochs=1, seed=0, device="cpu")
    model.learn(128)
    observation, _ = make(workload).reset(seed=0)
    action, _ = model.predict(observation)
    assert 0 <= int(action) <= 2 * MAX_DELTA


def test_the_weight_of_violations_may_be_drawn_and_is_observed(workload: Workload) -> None:
    env = make(workload, obs_mode="dict", reward={"violation_weight": (1.0, 40.0)}).unwrapped
    weights = [env.reset(seed=seed)[0]["violation_weight"][0] for seed in range(200)]
    assert 1.0 <= min(weights) < 1.5
    assert 25.0 < max(weights) <= 40.0
    assert np.median(weights) == pytest.approx(np.sqrt(40.0), rel=0.3)  # even in the logarithm
    observation, _ = env.reset(seed=0, options={"violation_weight": 3.0})
    assert observation["violation_weight"][0] == 3.0
    for wrong in (-1.0, float("nan"), True, "much"):
        with pytest.raises(InputError, match="violation_weight: expected a number in"):
            env.reset(options={"violation_weight": wrong})


def test_episodes_do_not_depend_on_whether_the_weight_is_drawn(workload: Workload) -> None:
    fixed, drawn = (
        make(workload, reward={"violation_weight": weight}).unwrapped for weight in (8.0, (1.0, 40.0))
    )
    assert fixed.reset(seed=4)[1]["time_s"] == drawn.reset(seed=4)[1]["time_s"]


@pytest.mark.parametrize("starved", [1, 2, 3, 6])
def test_nothing_is_gained_by_starving_the_end(starved: int) -> None:
    """One who knew when the episode ends would not save by draining the fleet before."""
    busy = Workload(WorkloadConfig(start_s=50_000.0, horizon_s=600.0))
    env = make(busy, action_mode="target").unwrapped

    def total(last: int) -> float:
        _, info = env.reset(seed=0)
        usual, reward_sum = env.target_to_action(info["target"]), 0.0
        for k in range(60):
            action = env.target_to_action(1) if k >= 60 - last else usual
            reward_sum += env.step(action)[1]
        return reward_sum

    assert total(starved) < total(0)


def test_a_cold_start_that_is_drawn_is_not_observed(workload: Workload) -> None:
    cluster = ClusterConfig(max_instances=6, cold_start_s=(10.0, 110.0))
    options = {"obs_mode": "dict", "initial_instances": 1, "interval_s": 5.0}
    env = make(workload, cluster=cluster, **options).unwrapped
    env.reset(seed=0)
    observation, *_ = env.step(4)
    starting = observation["state"] == 1
    assert starting.sum() == 2
    # Both say the mean of 60 s, less the 5 s that have passed, whatever was drawn.
    np.testing.assert_allclose(observation["ready_in_s"][starting], 55.0)


def test_every_start_draws_its_own_cold_starts(workload: Workload) -> None:
    cluster = ClusterConfig(max_instances=12, cold_start_s=tuple(float(s) for s in range(10, 100)))
    env = make(
        workload, cluster=cluster, obs_mode="dict", action_mode="target", initial_instances=1
    ).unwrapped

    def ready(start_s: float) -> list[int]:
        env.reset(seed=0, options={"start_s": start_s})
        return [int((env.step(np.array([1.0], np.float32))[0]["state"] == 2).sum()) for _ in range(12)]

    first_s, last_s = workload._possible_starts()
    starts = np.linspace(first_s, last_s, 5).tolist()
    found = [ready(start_s) for start_s in starts]
    assert found == [ready(start_s) for start_s in starts]
    assert len({tuple(counts) for counts in found}) == 5
