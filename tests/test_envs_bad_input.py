"""Bad input to the environments: one clear line, and nothing has happened."""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from preserve_gym import InputError, RewardConfig, Workload, WorkloadConfig
from preserve_gym.envs.autoscale import AutoscaleEnv
from preserve_gym.envs.route import RouteEnv
from tests.env_play import GENERAL_IDS


@pytest.fixture(scope="module")
def workload() -> Workload:
    """A minute of traffic; shared, as it is never changed."""
    return Workload(WorkloadConfig(horizon_s=60.0, rate_scale=0.2))


def assert_one_line(error: pytest.ExceptionInfo[InputError], message: str) -> None:
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("env_id", GENERAL_IDS)
def test_nothing_can_be_asked_before_the_first_reset(workload: Workload, env_id: str) -> None:
    base: Any = gym.make(env_id, workload=workload).unwrapped
    calls = [lambda: base.step(base.action_space.sample()), base.episode_totals, base.results]
    envs: Any = gym.make_vec(env_id, num_envs=2, workload=workload)
    calls.append(lambda: envs.step(envs.action_space.sample()))
    if env_id != "preserve/Cluster-v0":
        calls += [base.action_masks, envs.action_masks]
    for call in calls:
        with pytest.raises(gym.error.ResetNeeded, match="there is no episode yet"):
            call()


@pytest.mark.parametrize(
    ("env_class", "options", "message"),
    [
        (AutoscaleEnv, {"reward": 3}, "reward: expected a RewardConfig or a mapping of its fields, got 3"),
        (AutoscaleEnv, {"workload": "chat"}, "workload: expected a WorkloadConfig or a mapping"),
        (AutoscaleEnv, {"cluster": 3}, "cluster: expected a ClusterConfig or a mapping"),
        (AutoscaleEnv, {"router_weights": "123"}, "router_weights: expected at most 512 finite numbers"),
        (AutoscaleEnv, {"router_weights": 3}, "router_weights: expected at most 512 finite numbers"),
        (AutoscaleEnv, {"router_weights": [[1], [1, 2]]}, "router_weights: expected at most 512 finite"),
        (AutoscaleEnv, {"router_weights": np.ones((2, 2))}, "router_weights: expected at most 512 finite"),
        (AutoscaleEnv, {"interval_s": True}, "interval_s: expected a finite number > 0, got True"),
        (RouteEnv, {"warmup_router": "fastest"}, "warmup_router: expected one of round-robin"),
        (RouteEnv, {"warmup_router": "linear"}, "warmup_router: linear needs one above 0"),
        (RouteEnv, {"fleet": True}, "fleet: expected a number of instances, or pairs"),
        (RouteEnv, {"fleet": np.array([[0, 1], [60, 2]])}, "fleet: expected a number of instances, or pairs"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    workload: Workload, env_class: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as error:
        env_class(**{"workload": workload, **options})
    assert_one_line(error, message)


@pytest.mark.parametrize("number", [np.int64, np.float32])
def test_numbers_of_numpy_are_numbers(workload: Workload, number: Any) -> None:
    env: Any = gym.make("preserve/Autoscale-v0", workload=workload, interval_s=number(20)).unwrapped
    assert (env.interval_s, type(env.interval_s)) == (20.0, float)
    observation, _ = env.reset(options={"start_s": number(900), "violation_weight": number(100)})
    assert env.cluster.time_s == 900.0
    assert observation[env.feature_names.index("log10_violation_weight")] == 2.0


@pytest.mark.parametrize("action", [np.zeros(8, complex), ["0"] * 8, [None] * 8, [True] * 8, [[0], [0, 0]]])
def test_what_holds_no_numbers_is_no_action(workload: Workload, action: Any) -> None:
    env = gym.make("preserve/Cluster-v0", workload=workload).unwrapped
    env.reset(seed=0)
    with pytest.raises(InputError) as error:
        env.step(action)
    assert_one_line(error, "action: expected 8 finite numbers in [-1, 1], got ")


@pytest.mark.parametrize(
    ("env_id", "actions", "message"),
    [
        ("preserve/Autoscale-v0", 1, "in [0, 4] for each of 3, got 1"),
        ("preserve/Autoscale-v0", [1, 1], "in [0, 4] for each of 3, got int64 of shape (2,)"),
        ("preserve/Autoscale-v0", [[0], [0, 0]], "in [0, 4] for each of 3, got [[0], [0, 0]]"),
        ("preserve/Route-v0", np.ones(3), "in [0, 15] for each of 3, got float64 of shape (3,)"),
        (
            "preserve/Cluster-v0",
            np.full((3, 8), np.nan),
            "8 finite numbers in [-1, 1] for each of 3, got float64 of shape (3, 8), not all finite",
        ),
    ],
)
def test_actions_of_many_environments_are_described_in_short(
    workload: Workload, env_id: str, actions: Any, message: str
) -> None:
    envs = gym.make_vec(env_id, num_envs=3, workload=workload)
    envs.reset(seed=0)
    with pytest.raises(InputError) as error:
        envs.step(actions)
    assert_one_line(error, message)


@pytest.mark.parametrize("seed", ["abc", 1.5, True, -1, [1, 2], ["a", "b", "c"], [1.5, 2, 3], {1, 2, 3}])
def test_seeds_that_are_none_are_refused(workload: Workload, seed: Any) -> None:
    envs = gym.make_vec("preserve/Route-v0", num_envs=3, workload=workload)
    with pytest.raises(InputError) as error:
        envs.reset(seed=seed)
    assert_one_line(error, "seed: expected an integer >= 0, or 3 of them, got ")


def test_seeds_may_be_an_array(workload: Workload) -> None:
    envs = gym.make_vec("preserve/Route-v0", num_envs=3, workload=workload)
    observations, _ = envs.reset(seed=4)
    np.testing.assert_array_equal(envs.reset(seed=np.arange(4, 7))[0], observations)  # type: ignore[arg-type]


@pytest.mark.parametrize("env_id", GENERAL_IDS)
@pytest.mark.parametrize("options", ["abc", [1]])
def test_reset_options_are_a_mapping(workload: Workload, env_id: str, options: Any) -> None:
    env = gym.make(env_id, workload=workload).unwrapped
    for one in (env, gym.make_vec(env_id, num_envs=2, workload=workload)):
        with pytest.raises(InputError, match=re.escape(f"options: expected a mapping, got {options!r}")):
            one.reset(options=options)


@pytest.mark.parametrize("env_id", GENERAL_IDS)
def test_many_environments_do_not_render(workload: Workload, env_id: str) -> None:
    assert gym.make_vec(env_id, num_envs=2, workload=workload, render_mode=None).render_mode is None
    with pytest.raises(InputError, match="render_mode: expected None for many environments, got 'ansi'"):
        gym.make_vec(env_id, num_envs=2, workload=workload, render_mode="ansi")


@pytest.mark.parametrize("env_id", GENERAL_IDS)
def test_options_stay_as_they_were_given(workload: Workload, env_id: str) -> None:
    env: Any = gym.make(env_id, workload=workload).unwrapped
    for one in (env, gym.make_vec(env_id, num_envs=2, workload=workload)):
        with pytest.raises(InputError, match="workload: cannot be changed after construction"):
            one.workload = workload
    with pytest.raises(InputError, match="reward_config: cannot be changed after construction"):
        env.reward_config = RewardConfig()


def test_targets_have_actions_in_their_own_mode_only(workload: Workload) -> None:
    with pytest.raises(InputError, match="target_to_action: exists for action_mode='target' only"):
        AutoscaleEnv(workload=workload).target_to_action(3)
    with pytest.raises(InputError, match="target_to_action: expected an integer, got 'three'"):
        AutoscaleEnv(workload=workload, action_mode="target").target_to_action("three")  # type: ignore[arg-type]
