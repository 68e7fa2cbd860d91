"""Rewards that are vectors: MO-Gymnasium's convention, and what they have to do with the scalar ones."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from preserve_gym import InputError, Workload, WorkloadConfig

IDS = pytest.mark.parametrize("env_id", ["preserve/Autoscale-v0", "preserve/Cluster-v0"])


@pytest.fixture(scope="module")
def workload() -> Workload:
    """Ten minutes of traffic from random starts; shared, as it is never changed."""
    return Workload(WorkloadConfig(horizon_s=600.0, rate_scale=0.5))


def make(env_id: str, vector_reward: bool = True, **options: Any) -> Any:
    return gym.make(env_id, disable_env_checker=True, vector_reward=vector_reward, **options)


@IDS
@pytest.mark.parametrize("weight", [8.0, 0.0, (0.3, 70.0)])
def test_its_weights_give_back_the_scalar_reward(workload: Workload, env_id: str, weight: Any) -> None:
    cluster = {"max_instances": 4, "slo": {"ttft_s": 2.0, "tpot_s": 0.03}}
    options = {"workload": workload, "reward": {"violation_weight": weight}, "cluster": cluster}
    if env_id == "preserve/Autoscale-v0":
        options["action_mode"] = "target"
    env, scalar = make(env_id, **options), make(env_id, vector_reward=False, **options)
    assert scalar.unwrapped.reward_space is None
    assert env.observation_space == scalar.observation_space
    env.action_space.seed(0)
    missed, changed = 0, 0
    for seed in range(3):
        env.reset(seed=seed)
        scalar.reset(seed=seed)
        price = float(env.unwrapped._batch.episodes["violation_weight"][0])
        ended = False
        while not ended:
            before = env.unwrapped.cluster.totals()
            action = env.action_space.sample()
            observation, reward, _, ended, info = env.step(action)
            expected, number, *_ = scalar.step(action)
            np.testing.assert_array_equal(observation, expected)
            assert (reward * np.array([1.0, price, 0.0])).sum() == number
            assert reward.dtype == np.float64
            assert env.unwrapped.reward_space.contains(reward)
            after = env.unwrapped.cluster.totals()
            changes = sum(after[name] - before[name] for name in ("scale_ups", "scale_downs"))
            assert reward[0] == info["reward_cost"]
            assert reward[2] == pytest.approx(-0.05 * changes / 4)
            missed, changed = missed + (reward[1] < 0.0), changed + (reward[2] < 0.0)
    assert missed > 5
    assert changed > 5


def test_bounds_hold_where_starts_are_cancelled_and_nothing_is_forecast(workload: Workload) -> None:
    env = make(
        "preserve/Autoscale-v0",
        workload=workload,
        action_mode="target",
        reward={"baseline_headroom": 0.0, "scale": 3.0},
        cluster={"cold_start_s": (20.0, 200.0)},
    )
    lowest = env.unwrapped.reward_space.low
    assert lowest.tolist() == pytest.approx([-63.0, -3.0, -3.0])
    env.reset(seed=0)
    rewards = [env.step(np.array([action], np.float32))[1] for action in [1.0, -1.0] * 30]
    assert all(env.unwrapped.reward_space.contains(reward) for reward in rewards)
    assert np.min(rewards, axis=0)[0] < -3.0  # billed to the end of their cold starts at once
    assert np.min(rewards, axis=0)[2] == -3.0 * 15 / 16


@IDS
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_the_vector_environment_gives_those_of_single_ones(
    workload: Workload, env_id: str, mode: AutoresetMode
) -> None:
    options = {"workload": workload, "cluster": {"max_instances": 4}}
    envs: Any = gym.make_vec(
        env_id, num_envs=5, autoreset_mode=mode, num_threads=1, vector_reward=True, **options
    )
    singles = [make(env_id, **options) for _ in range(5)]
    assert envs.reward_space == singles[0].unwrapped.reward_space
    envs.action_space.seed(0)
    envs.reset(seed=3)
    for i, env in enumerate(singles):
        env.reset(seed=3 + i)
    ended = False
    while not ended:
        actions = envs.action_space.sample()
        _, rewards, _, truncated, _ = envs.step(actions)
        expected = [env.step(action) for env, action in zip(singles, actions, strict=True)]
        np.testing.assert_array_equal(rewards, [reward for _, reward, *_ in expected])
        ended = bool(truncated.all())
    assert rewards.shape == (5, 3)
    _, rewards, *_ = envs.step(actions)
    assert rewards.any() == (mode == AutoresetMode.SAME_STEP)
    envs.close()


@pytest.mark.slow
def test_wrappers_of_mo_gymnasium_fit(workload: Workload) -> None:
    mo_gymnasium = pytest.importorskip("mo_gymnasium")
    env = mo_gymnasium.make("preserve/Autoscale-v0", workload=workload, vector_reward=True)
    env = mo_gymnasium.wrappers.MORecordEpisodeStatistics(env, gamma=0.98)
    env = mo_gymnasium.wrappers.LinearReward(env, weight=np.array([1.0, 8.0, 0.0]))
    scalar = gym.make("preserve/Autoscale-v0", workload=workload)
    env.action_space.seed(0)
    env.reset(seed=0)
    scalar.reset(seed=0)
    total, ended = np.zeros(3), False
    while not ended:
        action = env.action_space.sample()
        _, reward, _, ended, info = env.step(action)
        # 8 is a power of two, so a fused sum of products rounds no differently.
        assert reward == scalar.step(action)[1]
        total += info["vector_reward"]
    np.testing.assert_allclose(info["episode"]["r"], total, rtol=1e-5)
    assert (info["episode"]["r"] < 0.0).all()


@pytest.mark.slow
def test_vector_wrappers_of_mo_gymnasium_fit(workload: Workload) -> None:
    mo_gymnasium = pytest.importorskip("mo_gymnasium")
    wrap = mo_gymnasium.wrappers.vector.MORecordEpisodeStatistics
    envs = wrap(gym.make_vec("preserve/Autoscale-v0", num_envs=3, workload=workload, vector_reward=True))
    envs.action_space.seed(0)
    envs.reset(seed=0)
    total, ended = np.zeros((3, 3)), False
    while not ended:
        _, rewards, _, truncated, infos = envs.step(envs.action_space.sample())
        total, ended = total + rewards, bool(truncated.all())
    np.testing.assert_allclose(infos["episode"]["r"], total, rtol=1e-5)
    envs.close()


def test_another_value_than_a_bool_is_refused(workload: Workload) -> None:
    with pytest.raises(InputError, match="vector_reward: expected True or False, got 1"):
        make("preserve/Autoscale-v0", workload=workload, vector_reward=1)
