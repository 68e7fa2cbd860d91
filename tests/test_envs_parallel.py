"""``Cluster`` for two agents: PettingZoo's rules, and to the bit what one agent plays."""

from __future__ import annotations

import pickle
import sys
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence as equivalent

from preserve_gym import InputError, Workload, WorkloadConfig
from preserve_gym.envs import parallel_env

pytest.importorskip("pettingzoo")
BOTH = {"scaler", "router"}


@pytest.fixture(scope="module")
def workload() -> Workload:
    """Five minutes of traffic from random starts; shared, as it is never changed."""
    return Workload(WorkloadConfig(horizon_s=300.0, rate_scale=0.3))


@pytest.fixture(scope="module")
def checks() -> Any:
    """PettingZoo's, which warn about PettingZoo's own games when they are imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import pettingzoo.test
    return pettingzoo.test


def play(env: Any, seed: int) -> list[Any]:
    """An episode with random actions: what each agent did and got."""
    for agent in env.possible_agents:
        env.action_space(agent).seed(seed)
    seen: list[Any] = [({}, env.reset(seed=seed))]
    while env.agents:
        mask = seen[-1][1][-1]["scaler"]["action_mask"]
        actions = {
            "scaler": env.action_space("scaler").sample(mask=mask),
            "router": env.action_space("router").sample(),
        }
        seen.append((actions, env.step(actions)))
    return seen


@pytest.mark.parametrize("obs_mode", ["flat", "dict"])
def test_pettingzoo_accepts_it(workload: Workload, checks: Any, obs_mode: str) -> None:
    def make() -> Any:
        return parallel_env(workload=workload, obs_mode=obs_mode)

    checks.parallel_api_test(make(), num_cycles=100)
    checks.parallel_seed_test(make, num_cycles=100)


@pytest.mark.filterwarnings("ignore:We recommend agents to be named")
def test_pettingzoo_knows_it_and_its_conversions(workload: Workload, checks: Any) -> None:
    import pettingzoo
    from pettingzoo.utils.conversions import parallel_to_aec

    env = parallel_env(workload=workload)
    assert isinstance(env, pettingzoo.ParallelEnv)
    checks.api_test(parallel_to_aec(env), num_cycles=50)


def test_equal_seeds_give_equal_episodes(workload: Workload) -> None:
    one, other, different = (play(parallel_env(workload=workload), seed) for seed in (5, 5, 6))
    assert len(one) == 31
    assert equivalent(one, other, exact=True)
    assert not equivalent(one, different, exact=True)


@pytest.mark.parametrize("obs_mode", ["flat", "dict"])
def test_it_plays_to_the_bit_what_one_agent_plays(workload: Workload, obs_mode: str) -> None:
    options = {"workload": workload, "obs_mode": obs_mode, "cluster": {"max_instances": 4}}
    env, single = parallel_env(**options), gym.make("preserve/Cluster-v0", **options)
    for seed in (0, 1):
        (_, begun), *steps = play(env, seed)
        observation, info = single.reset(seed=seed)
        for agent in BOTH:
            assert equivalent(begun[0][agent], observation, exact=True)
        for actions, (observations, rewards, terminated, truncated, infos) in steps:
            change = np.float32((actions["scaler"] - 2) / 2)
            joint = np.concatenate([[change], actions["router"]]).astype(np.float32)
            observation, reward, end, cut, info = single.step(joint)
            assert info["reward_cost"] + info["reward_slo"] == reward
            del infos["scaler"]["action_mask"]
            for agent in BOTH:
                assert equivalent(observations[agent], observation, exact=True)
                assert (rewards[agent], terminated[agent], truncated[agent]) == (reward, end, cut)
                assert infos[agent] == info
        assert cut


def test_agents_share_no_arrays(workload: Workload) -> None:
    env = parallel_env(workload=workload)
    observations, infos = env.reset(seed=0)
    observations["scaler"][:] = 9.0
    infos["scaler"]["target"] = -1
    assert observations["router"].max() < 9.0
    assert infos["router"]["target"] > 0


def test_masks_say_which_changes_are_carried_out(workload: Workload) -> None:
    env = parallel_env(workload=workload, cluster={"max_instances": 3}, initial_instances=1)
    _, infos = env.reset(seed=0)
    weights = np.zeros(7, np.float32)
    for change in (4, 0, 3, 1):
        target, mask = infos["scaler"]["target"], infos["scaler"]["action_mask"]
        assert mask.dtype == np.int8
        assert mask.tolist() == [1 <= target + k <= 3 for k in range(-2, 3)]
        *_, infos = env.step({"scaler": change, "router": weights})
        assert infos["scaler"]["target"] == min(max(target + change - 2, 1), 3)


def test_a_copy_goes_on_from_where_the_original_was(workload: Workload) -> None:
    env = parallel_env(workload=workload)
    env.reset(seed=0)
    twin = pickle.loads(pickle.dumps(env))
    actions = {"scaler": 3, "router": np.zeros(7, np.float32)}
    assert equivalent(env.step(actions), twin.step(actions), exact=True)


def test_it_renders_as_cluster_does(workload: Workload) -> None:
    env = parallel_env(workload=workload, render_mode="ansi")
    single = gym.make("preserve/Cluster-v0", workload=workload, render_mode="ansi")
    env.reset(seed=0)
    single.reset(seed=0)
    assert env.render() == single.render()
    assert env.render_mode in env.metadata["render_modes"]
    assert parallel_env(workload=workload).render() is None


def test_reset_options_are_those_of_cluster(workload: Workload) -> None:
    env = parallel_env(workload=workload)
    _, infos = env.reset(options={"start_s": 7200.0, "violation_weight": 3.0})
    assert infos["scaler"]["time_s"] == 7200.0
    with pytest.raises(InputError, match=r"options: expected .*, got 'start' \(did you mean start_s\?\)"):
        env.reset(options={"start": 7200.0})
    with pytest.raises(InputError, match="start_s: expected a number in"):
        env.reset(options={"start_s": -1.0})


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (None, "actions: expected one of scaler and one of router, got None"),
        ({}, "actions: expected one of scaler and one of router, got none"),
        ({"scaler": 2}, "actions: expected one of scaler and one of router, got scaler"),
        ({"scaler": 5, "router": np.zeros(7)}, "scaler: action: expected an integer in [0, 4], got 5"),
        ({"scaler": 0.5, "router": np.zeros(7)}, "scaler: action: expected an integer in [0, 4], got 0.5"),
        ({"scaler": 2, "router": np.zeros(6)}, "router: action: expected 7 finite numbers in [-1, 1]"),
        ({"scaler": 2, "router": [np.nan] * 7}, "router: action: expected 7 finite numbers in [-1, 1]"),
    ],
)
def test_what_is_no_action_is_refused(workload: Workload, actions: Any, message: str) -> None:
    env = parallel_env(workload=workload)
    with pytest.raises(gym.error.ResetNeeded, match="there is no episode yet"):
        env.step(actions)
    _, infos = env.reset(seed=0)
    with pytest.raises(InputError) as error:
        env.step(actions)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert env.env.cluster.time_s == infos["scaler"]["time_s"]


def test_an_episode_that_has_ended_goes_no_further(workload: Workload) -> None:
    env = parallel_env(workload=workload)
    play(env, seed=0)
    assert env.agents == []
    with pytest.raises(gym.error.ResetNeeded, match="the episode has ended"):
        env.step({})


def test_vector_rewards_are_refused(workload: Workload) -> None:
    with pytest.raises(InputError, match="vector_reward: expected False"):
        parallel_env(workload=workload, vector_reward=True)


def test_without_pettingzoo_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pettingzoo", None)
    with pytest.raises(InputError) as error:
        parallel_env()
    message = "parallel_env: PettingZoo is missing: pip install 'preserve-gym[multiagent]'"
    assert str(error.value) == message
