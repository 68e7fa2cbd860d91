"""The adapter to Stable-Baselines3: to the bit what its own DummyVecEnv makes of single environments."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence as equivalent

pytest.importorskip("sb3_contrib")

import torch
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize

from agents.joined_vec_env import JoinedVecEnv
from agents.sb3_vec_env import SB3VecEnv
from preserve_gym import InputError, Workload, WorkloadConfig
from preserve_gym.sim import TOTALS
from tests.env_play import GENERAL_IDS

MASKED_IDS = ("preserve/Autoscale-v0", "preserve/Route-v0")


@pytest.fixture(scope="module")
def workload() -> Workload:
    """Episodes of 100 s, so that many end."""
    return Workload(WorkloadConfig(horizon_s=100.0, warmup_s=60.0, rate_scale=0.3))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def options_of(env_id: str, workload: Workload, **options: Any) -> dict[str, Any]:
    interval = {} if "Route" in env_id else {"interval_s": 25.0}
    return {"workload": workload, "cluster": {"max_instances": 4}, **interval, **options}


def make(env_id: str, n: int, workload: Workload, **options: Any) -> SB3VecEnv:
    options = options_of(env_id, workload, **options)
    return SB3VecEnv(gym.make_vec(env_id, num_envs=n, autoreset_mode="SAME_STEP", **options))  # type: ignore[arg-type]


def make_dummy(env_id: str, n: int, workload: Workload, **options: Any) -> DummyVecEnv:
    options = options_of(env_id, workload, **options)
    return DummyVecEnv([lambda: gym.make(env_id, disable_env_checker=True, **options)] * n)


def sample(envs: VecEnv, rng: np.random.Generator) -> np.ndarray:
    if isinstance(envs.action_space, gym.spaces.Discrete):
        return rng.integers(envs.action_space.n, size=envs.num_envs)
    shape = (envs.num_envs, *(envs.action_space.shape or ()))
    return rng.uniform(-1.0, 1.0, shape).astype(np.float32)


def assert_same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs)
        for name, value in theirs.items():
            assert_same(ours[name], value)
        return
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("obs_mode", ["flat", "dict"])
@pytest.mark.parametrize("env_id", GENERAL_IDS)
def test_it_equals_single_environments_of_sb3(workload: Workload, env_id: str, obs_mode: str) -> None:
    ours = make(env_id, 5, workload, obs_mode=obs_mode)
    theirs = make_dummy(env_id, 5, workload, obs_mode=obs_mode)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    rng = np.random.default_rng(0)
    ends = 0
    for seed in (3, None):  # without a seed, the generators go on
        if seed is not None:
            assert ours.seed(seed) == theirs.seed(seed)
        assert_same(ours.reset(), theirs.reset())
        assert ours.reset_infos == theirs.reset_infos
        for _ in range(700 if "Route" in env_id else 12):
            actions = sample(ours, rng)
            observations, rewards, dones, infos = ours.step(actions)
            wanted, wanted_rewards, wanted_dones, wanted_infos = theirs.step(actions)
            assert_same(observations, wanted)
            assert_same(rewards, wanted_rewards)
            assert_same(dones, wanted_dones)
            assert rewards.dtype == np.float32
            assert ours.reset_infos == theirs.reset_infos
            for i, (info, full) in enumerate(zip(infos, wanted_infos, strict=True)):
                assert type(info["TimeLimit.truncated"]) is bool
                if not dones[i]:
                    assert info == {"TimeLimit.truncated": False}
                    for name in full.keys() - {"TimeLimit.truncated"}:
                        assert ours.step_infos[name][i] == full[name]
                    continue
                ends += 1
                assert_same(info.pop("terminal_observation"), full.pop("terminal_observation"))
                assert set(info.pop("episode_totals")) == set(TOTALS)
                assert info == full
    assert ends >= 10
    ours.close()


@pytest.mark.parametrize("env_id", GENERAL_IDS)
def test_totals_are_those_of_the_episode_that_has_ended(workload: Workload, env_id: str) -> None:
    ours = make(env_id, 2, workload)
    ours.seed(7)
    ours.reset()
    singles = [gym.make(env_id, **options_of(env_id, workload)) for _ in range(2)]
    for i, env in enumerate(singles):
        env.reset(seed=7 + i)
    rng, seen = np.random.default_rng(0), 0
    while seen < 4:
        actions = sample(ours, rng)
        _, _, dones, infos = ours.step(actions)
        for i, env in enumerate(singles):
            env.step(actions[i])
            if dones[i]:
                totals = env.unwrapped.episode_totals()  # type: ignore[attr-defined]
                assert infos[i]["episode_totals"] == totals
                assert totals["arrived"] > 0
                env.reset()
                seen += 1


@pytest.mark.parametrize("obs_mode", ["flat", "dict"])
@pytest.mark.parametrize("env_id", GENERAL_IDS)
def test_what_it_returned_stays_as_it_was(workload: Workload, env_id: str, obs_mode: str) -> None:
    envs = make(env_id, 3, workload, obs_mode=obs_mode)
    kept: list[Any] = [envs.reset()]
    rng = np.random.default_rng(0)
    for _ in range(400 if "Route" in env_id else 10):
        kept.append((*envs.step(sample(envs, rng)), envs.step_infos))
    then = copy.deepcopy(kept)
    for _ in range(10):
        _, rewards, dones, infos = envs.step(sample(envs, rng))
        # What a learner does to them must not come back.
        rewards[:] = np.nan
        dones[:] = True
        for info in infos:
            info["mine"] = 1
    envs.reset()
    assert equivalent(kept, then, exact=True)
    assert all("mine" not in info for info in envs.step(sample(envs, rng))[3])
    assert np.isfinite(envs.step(sample(envs, rng))[1]).all()


def test_seeds_and_options_hold_for_the_next_reset_only(workload: Workload) -> None:
    envs = make("preserve/Autoscale-v0", 3, workload)
    starts = [1000.0, 2000.0, 3000.0]
    envs.set_options([{"start_s": start_s} for start_s in starts])
    envs.reset()
    assert [info["time_s"] for info in envs.reset_infos] == starts
    envs.set_options({"start_s": 500.0})
    envs.reset()
    assert [info["time_s"] for info in envs.reset_infos] == [500.0] * 3
    envs.seed(1)
    first = envs.reset()
    assert [info["time_s"] for info in envs.reset_infos] != [500.0] * 3
    assert not np.array_equal(envs.reset(), first)
    envs.seed(1)
    np.testing.assert_array_equal(envs.reset(), first)
    envs.set_options([{"start_s": 500.0}])
    with pytest.raises(InputError, match="options: expected a mapping, got"):
        envs.reset()


@pytest.mark.parametrize("env_id", MASKED_IDS)
def test_masks_are_found_where_actions_are_discrete(workload: Workload, env_id: str) -> None:
    envs = VecMonitor(make(env_id, 3, workload))
    envs.reset()
    rng = np.random.default_rng(0)
    assert is_masking_supported(envs)
    for _ in range(5):
        envs.step(sample(envs, rng))
        masks = get_action_masks(envs)
        np.testing.assert_array_equal(masks, envs.unwrapped.vector_env.action_masks())  # type: ignore[attr-defined]
        assert masks.shape == (3, envs.action_space.n)  # type: ignore[attr-defined]
        last = envs.env_method("action_masks", indices=2)
        np.testing.assert_array_equal(last, masks[2:])
        np.testing.assert_array_equal(
            [mask() for mask in envs.get_attr("action_masks", [2, 0])], masks[[2, 0]]
        )


def test_there_are_no_masks_of_continuous_actions(workload: Workload) -> None:
    for envs in (
        make("preserve/Cluster-v0", 2, workload),
        make("preserve/Autoscale-v0", 2, workload, action_mode="target"),
    ):
        assert not is_masking_supported(envs)
        with pytest.raises(AttributeError, match="action_masks"):
            envs.env_method("action_masks")


def test_attributes(workload: Workload) -> None:
    envs = make("preserve/Route-v0", 3, workload)
    assert envs.get_attr("workload") == [workload] * 3
    assert envs.get_attr("render_mode", indices=[1]) == [None]
    assert envs.get_attr("action_space", 0) == [envs.action_space]
    assert len(envs.get_attr("feature_names")[0]) == envs.observation_space.shape[0]  # type: ignore[index]
    assert not envs.has_attr("fleet_manager")
    assert envs.env_is_wrapped(Monitor) == [False] * 3
    with pytest.raises(AttributeError, match="fleet_manager"):
        envs.get_attr("fleet_manager")
    with pytest.raises(AttributeError, match="restart"):
        envs.env_method("restart")
    with pytest.raises(InputError, match="interval_s: expected to be set when the environments are made"):
        envs.set_attr("interval_s", 5.0)


def test_what_it_cannot_adapt_is_refused(workload: Workload) -> None:
    options = options_of("preserve/Route-v0", workload)
    with pytest.raises(InputError, match="autoreset_mode: expected SAME_STEP, got NEXT_STEP"):
        SB3VecEnv(gym.make_vec("preserve/Route-v0", num_envs=2, **options))  # type: ignore[arg-type]
    single = gym.make("preserve/Route-v0", **options)
    with pytest.raises(InputError, match="vector_env: expected what gymnasium"):
        SB3VecEnv(single)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="vector_reward: expected False, as SB3 learns from numbers"):
        make("preserve/Cluster-v0", 2, workload, vector_reward=True)


@pytest.mark.parametrize("obs_mode", ["flat", "dict"])
@pytest.mark.parametrize("env_id", GENERAL_IDS)
def test_ppo_learns(workload: Workload, env_id: str, obs_mode: str, tmp_path: Path) -> None:
    envs = VecNormalize(VecMonitor(make(env_id, 8, workload, obs_mode=obs_mode)))
    policy = "MlpPolicy" if obs_mode == "flat" else "MultiInputPolicy"
    model = PPO(policy, envs, n_steps=64, batch_size=128, n_epochs=2, seed=0, device="cpu")
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(1024)
    after = list(model.policy.parameters())
    assert all(torch.isfinite(parameter).all() for parameter in after)
    assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True))
    if "Route" not in env_id:
        episodes = list(model.ep_info_buffer or ())
        assert len(episodes) >= 8
        assert {episode["l"] for episode in episodes} == {4}
    check_that_it_comes_back(PPO, model, envs, tmp_path)


@pytest.mark.parametrize("env_id", MASKED_IDS)
def test_maskable_ppo_never_chooses_what_is_masked(workload: Workload, env_id: str, tmp_path: Path) -> None:
    envs = make(env_id, 8, workload)
    step, masks = envs.step_async, envs.vector_env.action_masks
    chosen: list[bool] = []

    def checked_step(actions: np.ndarray) -> None:
        chosen.extend(masks()[np.arange(8), actions])
        step(actions)

    envs.step_async = checked_step  # type: ignore[method-assign]
    normalised = VecNormalize(VecMonitor(envs))
    model = MaskablePPO("MlpPolicy", normalised, n_steps=64, batch_size=128, n_epochs=2, seed=0, device="cpu")
    model.learn(1024)
    assert len(chosen) == 1024
    assert all(chosen)
    check_that_it_comes_back(MaskablePPO, model, normalised, tmp_path)


def check_that_it_comes_back(algorithm: Any, model: Any, envs: VecNormalize, folder: Path) -> None:
    """A saved model and saved statistics of VecNormalize act as before."""
    model.save(folder / "model.zip")
    envs.save(str(folder / "statistics.pkl"))
    loaded = algorithm.load(folder / "model.zip", device="cpu")
    other = VecNormalize.load(str(folder / "statistics.pkl"), envs.venv)
    envs.training = other.training = False
    envs.seed(4)
    observations = envs.reset()
    other.seed(4)
    assert_same(other.reset(), observations)
    np.testing.assert_array_equal(
        loaded.predict(observations, deterministic=True)[0],
        model.predict(observations, deterministic=True)[0],
    )


def test_a_model_is_evaluated_on_it(workload: Workload) -> None:
    envs = VecMonitor(make("preserve/Autoscale-v0", 4, workload))
    model = PPO("MlpPolicy", envs, n_steps=16, batch_size=32, seed=0, device="cpu")
    returns, lengths = evaluate_policy(model, envs, n_eval_episodes=6, return_episode_rewards=True)
    assert lengths == [4] * 6
    assert all(np.isfinite(returns))


def test_joined_environments_are_each_what_they_are_alone(workload: Workload) -> None:
    env_id = "preserve/Autoscale-v0"
    joined = JoinedVecEnv([make(env_id, 2, workload), make(env_id, 3, workload)])
    alone = [make(env_id, n, workload) for n in (2, 3)]
    joined.seed(5)
    alone[0].seed(5)
    alone[1].seed(7)
    assert_same(joined.reset(), np.concatenate([envs.reset() for envs in alone]))
    assert joined.reset_infos == [info for envs in alone for info in envs.reset_infos]
    rng, ended = np.random.default_rng(0), 0
    for _ in range(9):
        actions = sample(joined, rng)
        observations, rewards, dones, infos = joined.step(actions)
        parts = [envs.step(own) for envs, own in zip(alone, (actions[:2], actions[2:]), strict=True)]
        assert_same(observations, np.concatenate([part[0] for part in parts]))
        assert_same(rewards, np.concatenate([part[1] for part in parts]))
        assert_same(dones, np.concatenate([part[2] for part in parts]))
        assert equivalent(infos, [info for part in parts for info in part[3]])
        masks = joined.env_method("action_masks")
        assert_same(np.stack(masks), np.concatenate([envs.env_method("action_masks") for envs in alone]))
        ended += int(dones.sum())
    assert ended
    joined.close()
