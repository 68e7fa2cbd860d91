"""Every registered id: Gymnasium's rules, SB3's rules, and our own contract."""

from __future__ import annotations

import copy
import hashlib
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.utils.env_checker import data_equivalence as equivalent
from gymnasium.wrappers import FrameStackObservation, NormalizeObservation, RecordEpisodeStatistics, TimeLimit

import preserve_gym
from preserve_gym import ClusterConfig, InputError, Trace, Workload, WorkloadConfig, router
from preserve_gym.scenarios import Scenario, load_scenario, scenario_names
from tests.env_play import GENERAL_IDS, IDS, play

NAMES = ("Autoscale", "Cluster", "Route")
MODES = [
    ("preserve/Autoscale-v0", {"action_mode": "delta"}),
    ("preserve/Autoscale-v0", {"action_mode": "target"}),
    ("preserve/Autoscale-v0", {"reward": {"violation_weight": (1.0, 40.0)}}),
    ("preserve/Cluster-v0", {}),
    ("preserve/Route-v0", {}),
    ("preserve/Route-v0", {"fleet": 3}),
]
EVERY_MODE = [
    (env_id, {"obs_mode": mode, **options}) for env_id, options in MODES for mode in ("flat", "dict")
]


@pytest.fixture(scope="module")
def workload() -> Workload:
    """Ten minutes of traffic from random starts; shared, as it is never changed."""
    return Workload(WorkloadConfig(horizon_s=600.0, rate_scale=0.5))


def steady_trace() -> Trace:
    """Two requests a second, in waves, made by arithmetic alone."""
    k = np.arange(4000)
    return Trace(
        arrival_s=k / 2.0 + 0.2 * np.sin(k / 50.0) + 1.0,
        prompt_tokens=100 + k * 37 % 900,
        output_tokens=20 + k * 61 % 300,
        span_s=2100.0,
    )


def test_ids_are_registered_once() -> None:
    expected = {f"preserve/{name}-v0" for name in NAMES} | {
        f"preserve/{name}-{scenario}-v0" for name in NAMES for scenario in scenario_names()
    }
    assert set(IDS) == expected
    preserve_gym.register()
    assert sum(env_id.startswith("preserve/") for env_id in gym.registry) == len(expected)


@pytest.mark.parametrize("env_id", GENERAL_IDS)
def test_gymnasium_accepts_the_defaults(env_id: str) -> None:
    check_env(gym.make(env_id).unwrapped)


@pytest.mark.parametrize(("env_id", "options"), EVERY_MODE)
def test_checkers_accept_every_mode(workload: Workload, env_id: str, options: dict[str, Any]) -> None:
    sb3 = pytest.importorskip("stable_baselines3.common.env_checker")
    env = gym.make(env_id, workload=workload, **options).unwrapped
    check_env(env, skip_render_check=True)
    sb3.check_env(env)


@pytest.mark.parametrize(("env_id", "options"), EVERY_MODE)
def test_equal_seeds_give_equal_episodes(workload: Workload, env_id: str, options: dict[str, Any]) -> None:
    one, other = (play(gym.make(env_id, workload=workload, **options), seed=5, steps=1000) for _ in range(2))
    assert len(one) >= 61
    assert equivalent(one, other, exact=True)
    different = play(gym.make(env_id, workload=workload, **options), seed=6, steps=1000)
    assert not equivalent(one, different, exact=True)


@pytest.mark.parametrize("env_id", GENERAL_IDS)
def test_an_episode_can_be_played_again(workload: Workload, env_id: str) -> None:
    env = gym.make(env_id, workload=workload)
    assert equivalent(play(env, seed=5, steps=200), play(env, seed=5, steps=200), exact=True)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
@pytest.mark.parametrize("env_id", GENERAL_IDS)
def test_copies_go_on_from_where_the_original_was(
    workload: Workload, env_id: str, duplicate: Callable[[Any], Any]
) -> None:
    env = gym.make(env_id, workload=workload).unwrapped
    assert equivalent(play(env, 1, steps=30), play(duplicate(env), 1, steps=30), exact=True)
    twin = duplicate(env)
    assert (twin.workload is env.workload) == (duplicate is copy.deepcopy)
    env.action_space.seed(7)
    for _ in range(20):
        action = env.action_space.sample()
        assert equivalent(env.step(action), twin.step(action), exact=True)
    # And neither moves the other.
    before = env.cluster.time_s
    twin.step(action)
    assert env.cluster.time_s == before


@router
def first_ready(view: Any, request: Any) -> int:
    return int(view.ready[0])


@pytest.mark.parametrize(
    ("env_id", "options"),
    [("preserve/Route-v0", {}), ("preserve/Autoscale-v0", {"router": first_ready, "action_mode": "delta"})],
)
def test_a_copy_in_another_process_goes_on_alike(
    workload: Workload, env_id: str, options: dict[str, Any]
) -> None:
    env = gym.make(env_id, workload=workload, **options).unwrapped
    env.reset(seed=0)
    copied = pickle.dumps(env)
    play_on = (
        "import pickle, sys; env = pickle.load(sys.stdin.buffer); "
        "print(repr([env.step(0)[1] for _ in range(3)]))"
    )
    there = subprocess.run([sys.executable, "-c", play_on], input=copied, capture_output=True, check=True)
    assert there.stdout.decode().strip() == repr([env.step(0)[1] for _ in range(3)])


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
@pytest.mark.slow
def test_workers_of_their_own_play_the_same(context: str) -> None:
    def make(env_id: str) -> Callable[[], gym.Env[Any, Any]]:
        # A new process imports the module before the colon, which registers the ids.
        return lambda: gym.make(f"preserve_gym:{env_id}", workload={"horizon_s": 60.0})

    for env_id in GENERAL_IDS:
        workers = gym.vector.AsyncVectorEnv([make(env_id)] * 2, context=context)
        same = gym.vector.SyncVectorEnv([make(env_id)] * 2)
        assert equivalent(workers.reset(seed=3)[0], same.reset(seed=3)[0], exact=True)
        same.action_space.seed(0)
        for _ in range(5):
            actions = same.action_space.sample()
            assert equivalent(workers.step(actions)[:4], same.step(actions)[:4], exact=True)
        workers.close()


@pytest.mark.parametrize("env_id", GENERAL_IDS)
def test_common_wrappers_fit(workload: Workload, env_id: str) -> None:
    env = TimeLimit(gym.make(env_id, workload=workload), max_episode_steps=30)
    env = NormalizeObservation(FrameStackObservation(RecordEpisodeStatistics(env), stack_size=4))
    steps = play(env, seed=0)
    assert len(steps) == 31
    assert steps[-1][2]["episode"]["l"] == 30
    assert steps[-1][2]["episode"]["r"] == pytest.approx(sum(reward for _, reward, _ in steps))


@pytest.mark.parametrize(
    ("env_id", "digest"),
    [
        ("preserve/Autoscale-v0", "dd2b423db71e6d5b"),
        ("preserve/Cluster-v0", "ad96bbb3eb3acfeb"),
        ("preserve/Route-v0", "c9e48c2a4e90016e"),
    ],
)
def test_golden_trajectory(env_id: str, digest: str) -> None:
    """Another hash means a new version of the id, or a mistake."""
    workload = Workload(WorkloadConfig(start_s=900.0, horizon_s=600.0, forecaster="naive"), steady_trace())
    env = gym.make(env_id, workload=workload, cluster={"max_instances": 4}).unwrapped
    observation, _ = env.reset(seed=0)
    rows = [np.append(observation, 0.0)]
    for k in range(60):
        action = k * 7 % env.action_space.n if env_id != "preserve/Cluster-v0" else np.sin(k + np.arange(8))
        observation, reward, *_ = env.step(action)
        rows.append(np.append(observation, reward))
    # Rounded, so that another processor's last bit is none of its business.
    rounded = (np.round(np.array(rows), 3) + 0.0).astype("<f4")
    assert hashlib.sha256(rounded.tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("obs_mode", ["flat", "dict"])
@pytest.mark.parametrize("env_id", GENERAL_IDS)
@pytest.mark.parametrize("load", ["usual", "overload", "none"])
def test_observations_stay_within_their_bounds(env_id: str, obs_mode: str, load: str) -> None:
    trace = steady_trace()
    if load == "overload":
        trace = Trace(trace.arrival_s / 4.0, trace.prompt_tokens * 4, trace.output_tokens * 4, span_s=2100.0)
    if load == "none":
        trace = Trace([5.0, 2090.0], [10, 10], [10, 10], span_s=2100.0)
    workload = Workload(WorkloadConfig(start_s=310.0, horizon_s=600.0, forecaster="naive"), trace)
    cluster = {"max_instances": 3, "slo": {"ttft_s": 20.0}}
    env = gym.make(env_id, workload=workload, cluster=cluster, obs_mode=obs_mode)
    for seed in range(2):
        for observation, *_ in play(env, seed):
            assert env.observation_space.contains(observation)


def check_scenario(scenario: str, data: Any) -> None:
    sb3 = pytest.importorskip("stable_baselines3.common.env_checker")
    workload = load_scenario(scenario).make_workload("train")
    for name in NAMES:
        env_id = f"preserve/{name}-{scenario}-v0"
        env = gym.make(env_id, workload=workload)
        check_env(env.unwrapped, skip_render_check=True)
        sb3.check_env(env.unwrapped)
        one, other = (play(gym.make(env_id, workload=workload), seed=2, steps=1000) for _ in range(2))
        assert equivalent(one, other, exact=True)
        envs = gym.make_vec(env_id, num_envs=20, workload=workload)
        envs.action_space.seed(0)
        envs.reset(seed=0)
        space = envs.single_observation_space
        for _ in range(500):
            observations, rewards, *_ = envs.step(envs.action_space.sample())
            assert np.isfinite(rewards).all()
            assert ((space.low <= observations) & (observations <= space.high)).all()
        envs.close()


@pytest.mark.slow
@pytest.mark.parametrize("scenario", scenario_names())
def test_every_id_of_a_scenario(scenario: str, data_dir: Any) -> None:
    check_scenario(scenario, data_dir)


@pytest.mark.parametrize("env_id", GENERAL_IDS)
def test_an_environment_must_be_reset_first(workload: Workload, env_id: str) -> None:
    env = gym.make(env_id, workload=workload).unwrapped
    with pytest.raises(gym.error.ResetNeeded):
        env.step(env.action_space.sample())
    with pytest.raises(gym.error.ResetNeeded):
        _ = env.cluster
    play(env, seed=0)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(env.action_space.sample())


@pytest.mark.parametrize("env_id", GENERAL_IDS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 3.0}, "options: expected start_s"),
        ({"start_s": -1.0}, "start_s: expected a number in"),
        ({"start_s": True}, "start_s: expected a number in"),
    ],
)
def test_reset_options_that_do_not_fit_are_refused(
    workload: Workload, env_id: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        gym.make(env_id, workload=workload).unwrapped.reset(options=options)


@pytest.mark.parametrize("env_id", GENERAL_IDS)
def test_unknown_options_are_refused(env_id: str) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'routr'"):
        gym.make(env_id, routr="random")
    with pytest.raises(TypeError, match="unexpected keyword argument 'routr'"):
        gym.make_vec(env_id, num_envs=2, routr="random")


def test_environments_of_one_process_share_their_workload() -> None:
    one = gym.make("preserve/Autoscale-v0", workload={"horizon_s": 61.0}).unwrapped
    other = gym.make("preserve/Route-v0", workload={"horizon_s": 61.0}).unwrapped
    different = gym.make("preserve/Route-v0", workload={"horizon_s": 62.0}).unwrapped
    assert one.workload is other.workload
    assert one.workload is not different.workload


def test_a_scenario_shares_its_workload_as_long_as_it_is_the_same() -> None:
    # Only a named scenario as it stands in its file has the evaluation windows that were fixed for it.
    named = Scenario("chat", "", WorkloadConfig(horizon_s=61.0), ClusterConfig())
    changed = replace(named, cluster=ClusterConfig(max_instances=3))
    one, other, different = (
        gym.make("preserve/Autoscale-v0", scenario=scenario).unwrapped.workload
        for scenario in (named, replace(named), changed)
    )
    assert one is other
    assert one is not different
