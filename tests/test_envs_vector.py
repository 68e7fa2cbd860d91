"""Vector environments: to the bit what as many single ones give."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence as equivalent
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import vector as wrappers

from preserve_gym import InputError, Workload, WorkloadConfig, router
from preserve_gym.envs.vector import TaskVectorEnv
from tests.env_play import GENERAL_IDS

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "preserve/Autoscale-v0": [
        {"interval_s": 25.0},
        {"interval_s": 25.0, "action_mode": "target", "reward": {"violation_weight": (1.0, 40.0)}},
    ],
    "preserve/Cluster-v0": [{"interval_s": 25.0}],
    "preserve/Route-v0": [{}, {"fleet": ((0.0, 2), (2000.0, 3), (30_000.0, 1)), "warmup_router": "least-kv"}],
}
CASES = [(env_id, options) for env_id in GENERAL_IDS for options in OPTIONS[env_id]]


@pytest.fixture(scope="module")
def workload() -> Workload:
    """Episodes of 100 s, so that many end."""
    return Workload(WorkloadConfig(horizon_s=100.0, warmup_s=60.0, rate_scale=0.3))


def make_vec(env_id: str, n: int, **options: Any) -> TaskVectorEnv:
    envs = gym.make_vec(env_id, num_envs=n, **options)
    assert isinstance(envs, TaskVectorEnv)
    return envs


@pytest.mark.parametrize("obs_mode", ["flat", "dict"])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize(("env_id", "options"), CASES)
def test_it_equals_single_environments_in_lockstep(
    workload: Workload, env_id: str, options: dict[str, Any], mode: AutoresetMode, obs_mode: str
) -> None:
    options = {**options, "obs_mode": obs_mode, "workload": workload, "cluster": {"max_instances": 4}}
    many = make_vec(env_id, 9, autoreset_mode=mode, num_threads=2, **options)
    single = [lambda: gym.make(env_id, disable_env_checker=True, **options) for _ in range(9)]
    one_by_one = SyncVectorEnv(single, autoreset_mode=mode)
    assert many.metadata["autoreset_mode"] == mode
    assert many.observation_space == one_by_one.observation_space
    assert many.action_space == one_by_one.action_space
    many.action_space.seed(1)
    # Different steps per episode in Route, so that environments end at different times.
    for seeds in (5, [7, 3, 5, 11, 2, 13, 17, 19, 23]):
        assert equivalent(many.reset(seed=seeds), one_by_one.reset(seed=seeds), exact=True)
        ends = 0
        for _ in range(1200 if "Route" in env_id else 12):
            actions = many.action_space.sample()
            result = many.step(actions)
            assert equivalent(result, one_by_one.step(actions), exact=True)
            ends += int(result[3].sum())
        assert ends >= 9
    many.close()


@pytest.mark.parametrize("env_id", GENERAL_IDS)
def test_threads_change_nothing(workload: Workload, env_id: str) -> None:
    def play(threads: int) -> list[Any]:
        envs = make_vec(env_id, 32, num_threads=threads, workload=workload)
        envs.action_space.seed(0)
        steps: list[Any] = [envs.reset(seed=0)]
        steps += [envs.step(envs.action_space.sample()) for _ in range(60)]
        envs.close()
        return steps

    assert equivalent(play(1), play(4), exact=True)


@pytest.mark.parametrize("env_id", GENERAL_IDS)
def test_a_copy_goes_on_alike(workload: Workload, env_id: str) -> None:
    envs = make_vec(env_id, 3, num_threads=2, workload=workload)
    envs.reset(seed=0)
    envs.action_space.seed(0)
    twin = pickle.loads(pickle.dumps(envs))
    for _ in range(15):
        actions = envs.action_space.sample()
        assert equivalent(envs.step(actions), twin.step(actions), exact=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_goes_on_with_threads_of_its_own(workload: Workload) -> None:
    envs = make_vec("preserve/Autoscale-v0", 16, num_threads=2, workload=workload)
    envs.reset(seed=0)
    envs.step(np.full(16, 2))
    child = multiprocessing.get_context("fork").Process(target=envs.step, args=(np.full(16, 2),))
    child.start()
    child.join(60.0)
    if child.is_alive():
        child.kill()
    assert child.exitcode == 0


@pytest.mark.parametrize("env_id", GENERAL_IDS)
def test_what_it_returned_stays_as_it_was(workload: Workload, env_id: str) -> None:
    envs = make_vec(env_id, 3, workload=workload, autoreset_mode="SAME_STEP")
    observations, infos = envs.reset(seed=0)
    envs.action_space.seed(0)
    kept = [(observations, observations.copy(), infos["time_s"], infos["time_s"].copy())]
    for _ in range(15):
        observations, rewards, _, truncated, infos = envs.step(envs.action_space.sample())
        kept.append((observations, observations.copy(), infos["time_s"], infos["time_s"].copy()))
        assert rewards.dtype == np.float64
        assert truncated.dtype == np.bool_
    for observations, then, times, times_then in kept:
        np.testing.assert_array_equal(observations, then)
        np.testing.assert_array_equal(times, times_then)


@pytest.mark.parametrize("env_id", GENERAL_IDS)
def test_gymnasiums_vector_wrappers_fit(workload: Workload, env_id: str) -> None:
    envs = wrappers.RecordEpisodeStatistics(make_vec(env_id, 4, workload=workload))
    envs = wrappers.NormalizeObservation(wrappers.NormalizeReward(envs))
    envs.action_space.seed(0)
    observations, _ = envs.reset(seed=0)
    episodes = 0
    for _ in range(700 if "Route" in env_id else 40):
        observations, _, _, _, infos = envs.step(envs.action_space.sample())
        episodes += int(infos.get("_episode", np.zeros(4)).sum())
    assert episodes >= 4
    assert np.isfinite(observations).all()


def test_masks_are_those_of_each_environment(workload: Workload) -> None:
    envs = make_vec("preserve/Autoscale-v0", 3, workload=workload, cluster={"max_instances": 4})
    envs.reset(seed=0)
    for _ in range(2):
        envs.step(np.array([0, 2, 4]))
    masks = envs.action_masks()
    assert masks[0].tolist() == [False, False, True, True, True]
    assert masks[2].tolist() == [True, True, True, False, False]
    routes = make_vec("preserve/Route-v0", 2, workload=workload, fleet=2, cluster={"max_instances": 4})
    routes.reset(seed=0)
    assert routes.action_masks().tolist() == [[True, True, False, False]] * 2
    with pytest.raises(InputError, match="action_masks: exist for action_mode='delta' only"):
        make_vec("preserve/Cluster-v0", 2, workload=workload).action_masks()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_envs": 0}, "num_envs: expected an integer >= 1, got 0"),
        ({"num_envs": 2.0}, "num_envs: expected an integer >= 1, got 2.0"),
        ({"num_threads": 0}, "num_threads: expected an integer >= 1, got 0"),
        ({"autoreset_mode": "disabled"}, "autoreset_mode: expected NEXT_STEP or SAME_STEP, got 'disabled'"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    workload: Workload, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as error:
        gym.make_vec("preserve/Autoscale-v0", **{"num_envs": 2, "workload": workload, **options})
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("env_id", "actions", "message"),
    [
        ("preserve/Autoscale-v0", np.array([2, 5]), "action: expected an integer in [0, 4], got 5"),
        ("preserve/Autoscale-v0", np.array([2.0, 2.0]), "action: expected an integer in [0, 4]"),
        ("preserve/Autoscale-v0", np.array([2]), "action: expected an integer in [0, 4]"),
        ("preserve/Route-v0", np.array([-1, 0]), "action: expected an integer in [0, 15], got -1"),
        ("preserve/Cluster-v0", np.zeros((2, 7)), "action: expected 8 finite numbers in [-1, 1]"),
        ("preserve/Cluster-v0", np.full((2, 8), np.nan), "action: expected 8 finite numbers in [-1, 1]"),
    ],
)
def test_what_is_no_action_is_refused_and_nothing_happens(
    workload: Workload, env_id: str, actions: Any, message: str
) -> None:
    envs, untouched = (make_vec(env_id, 2, workload=workload) for _ in range(2))
    with pytest.raises(gym.error.ResetNeeded):
        envs.step(envs.action_space.sample())
    envs.reset(seed=0)
    untouched.reset(seed=0)
    with pytest.raises(InputError) as error:
        envs.step(actions)
    assert message in str(error.value)
    envs.action_space.seed(0)
    good = envs.action_space.sample()
    assert equivalent(envs.step(good), untouched.step(good), exact=True)


def test_seeds_are_one_or_as_many_as_environments(workload: Workload) -> None:
    envs = make_vec("preserve/Autoscale-v0", 2, workload=workload)
    with pytest.raises(InputError, match="seed: expected an integer >= 0, or 2 of them"):
        envs.reset(seed=[1, 2, 3])


@router
def sends_nowhere_after_a_while(view: Any, request: Any) -> int:
    return -5 if view.routed > 40 else view.ready[0]


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_of_a_router_reaches_the_caller(workload: Workload, threads: int) -> None:
    envs = make_vec(
        "preserve/Autoscale-v0",
        16,
        workload=workload,
        router=sends_nowhere_after_a_while,
        num_threads=threads,
    )

    def play() -> None:
        envs.reset(seed=0)
        for _ in range(10):
            envs.step(np.full(16, 2))

    with pytest.raises(ValueError, match="the router returned an instance that is not ready"):
        play()
