"""``preserve/Route-v0``: what its docstring promises."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest

from baselines import make_policy
from preserve_gym import Cluster, ClusterConfig, InputError, Trace, Workload, WorkloadConfig
from preserve_gym.envs.route import RouteEnv
from preserve_gym.traces import synthetic_trace
from tests.env_play import play

ENV_ID = "preserve/Route-v0"


@pytest.fixture(scope="module")
def workload() -> Workload:
    """Five minutes of traffic from random starts; shared, as it is never changed."""
    return Workload(WorkloadConfig(horizon_s=300.0))


def make(workload: Workload, **options: Any) -> RouteEnv:
    env = gym.make(ENV_ID, workload=workload, **options).unwrapped
    assert isinstance(env, RouteEnv)
    return env


def least_requests(observation: dict[str, Any]) -> int:
    """Join the shortest queue, ties to the lowest slot."""
    in_flight = observation["running"] + observation["waiting"]
    return int(np.where(observation["state"] == 2, in_flight, np.inf).argmin())


def play_least_requests(env: RouteEnv, **options: Any) -> list[dict[str, Any]]:
    observation, info = env.reset(seed=3, options=options)
    infos, ended = [info], False
    while not ended:
        observation, reward, terminated, ended, info = env.step(least_requests(observation))
        infos.append({**info, "reward": reward})
        assert not terminated
    return infos


@pytest.mark.parametrize("fleet", [4, ((0.0, 2), (30_050.0, 5), (30_200.0, 3))])
def test_it_serves_as_the_same_router_inside_the_engine_does(workload: Workload, fleet: Any) -> None:
    config = ClusterConfig(max_instances=6)
    env = make(workload, cluster=config, fleet=fleet, obs_mode="dict")
    infos = play_least_requests(env, start_s=30_000.0)
    totals, routed = env.episode_totals(), env.results()
    episode = workload.episode_at(30_000.0)
    initial, changes = (fleet, ()) if isinstance(fleet, int) else (2, fleet[1:])
    cluster = Cluster(
        config,
        episode.trace,
        predicted_tokens=episode.predicted_tokens,
        initial_instances=initial,
        start_s=29_700.0,
    )
    cluster.run_until(30_000.0)
    start = cluster.totals()
    for time_s, count in changes:
        cluster.run_until(time_s)
        cluster.scale_to(count)
    cluster.run_until(30_300.0)
    end = cluster.totals()
    cluster.settle()
    expected = cluster.results()
    scored = expected[expected["arrival_s"] >= 30_000.0].reset_index(drop=True)
    pd.testing.assert_frame_equal(routed, scored, check_exact=True)
    assert totals == pytest.approx({name: end[name] - start[name] for name in end}, rel=1e-9, abs=1e-6)
    assert len(infos) == len(routed) + 1
    assert [info["instance"] for info in infos] == [-1, *routed["instance"]]
    assert len({info["target"] for info in infos}) == 1 + len(changes)


def test_the_reward_is_the_formula_of_its_docstring(workload: Workload) -> None:
    slo = {"ttft_s": 0.15}
    options = {"cluster": {"max_instances": 3, "slo": slo}, "fleet": 3, "obs_mode": "dict"}
    env = make(workload, reward={"scale": 0.3, "violation_weight": 7.0}, **options)
    infos = play_least_requests(env)[1:]
    totals = env.episode_totals()
    latency = -0.3 * totals["in_flight_s"] / env.profile.unloaded_e2e_s
    assert sum(info["reward_latency"] for info in infos) == pytest.approx(latency, rel=1e-9)
    assert sum(info["violations"] for info in infos) == totals["violations"] > 0
    assert sum(info["reward_slo"] for info in infos) == pytest.approx(-0.3 * 7.0 * totals["violations"])
    for info in infos:
        assert info["reward"] == info["reward_latency"] + info["reward_slo"]
        assert info["reward_slo"] == pytest.approx(-0.3 * 7.0 * info["violations"])
    # In latencies of an unloaded request: every request served alone would cost 1.
    assert 1.0 < -latency / 0.3 / len(infos) < 3.0


def test_a_better_router_earns_more(workload: Workload) -> None:
    options = {"cluster": {"max_instances": 6}, "fleet": 6, "obs_mode": "dict"}
    good = sum(info["reward"] for info in play_least_requests(make(workload, **options))[1:])
    everything_to_one = sum(reward for _, reward, _ in play(make(workload, **options), seed=3, actions=0))
    assert everything_to_one < 2.0 * good < 0.0


def test_an_instance_that_is_not_ready_is_replaced_by_the_nearest(workload: Workload) -> None:
    env = make(workload, cluster={"max_instances": 5}, fleet=2)
    env.reset(seed=0)
    assert env.action_masks().tolist() == [True, True, False, False, False]
    assert [env.step(action)[4]["instance"] for action in (0, 1, 2, 4)] == [0, 1, 1, 1]


def test_requests_that_arrive_together_are_steps_with_no_time_between() -> None:
    arrival_s = [1.0, 20.0, 20.0, 20.0, 21.5, 40.0, 40.0]
    trace = Trace(arrival_s, [100] * 7, [150] * 7, span_s=60.0)
    config = WorkloadConfig(warmup_s=20.0, start_s=20.0, horizon_s=20.0, forecaster="naive")
    env = make(Workload(config, trace), cluster={"max_instances": 3}, fleet=3, obs_mode="dict")
    observation, info = env.reset(seed=0)
    assert info["time_s"] == 20.0
    seen = []
    for action in (1, 1, 2, 0):
        assert observation["request"][0] == 1.0
        observation, _, _, truncated, info = env.step(action)
        running = (observation["running"] + observation["waiting"]).tolist()
        seen.append((info["time_s"], observation["since_last_s"][0], running, truncated))
    # Those at the very end are of the next interval.
    assert seen == [
        (20.0, 0.0, [0, 1, 0], False),
        (20.0, 0.0, [0, 2, 0], False),
        (21.5, 1.5, [0, 2, 1], False),
        (40.0, 18.5, [0, 0, 0], True),
    ]
    assert observation["request"][0] == 0.0


def test_a_request_that_can_never_fit_is_rejected_without_asking() -> None:
    prompts = [100, 10**6, 100, 10**6, 10**6, 100]
    trace = Trace([1.0, 21.0, 22.0, 22.0, 23.0, 24.0], prompts, [50] * 6, span_s=60.0)
    config = WorkloadConfig(warmup_s=20.0, start_s=20.0, horizon_s=20.0, forecaster="naive")
    env = make(Workload(config, trace), fleet=2)
    _, info = env.reset(seed=0)
    assert info["time_s"] == 22.0
    _, _, _, truncated, info = env.step(1)
    assert (info["time_s"], info["violations"], truncated) == (24.0, 3, False)
    _, _, _, truncated, info = env.step(1)
    assert (info["time_s"], truncated) == (40.0, True)
    results = env.results()
    assert results["rejected"].tolist() == [True, False, True, True, False]
    assert env.episode_totals()["violations"] == 3


def test_an_episode_without_a_request_ends_with_its_first_step() -> None:
    trace = Trace([1.0, 59.0], [100] * 2, [50] * 2, span_s=60.0)
    config = WorkloadConfig(warmup_s=20.0, start_s=20.0, horizon_s=20.0, forecaster="naive")
    env = make(Workload(config, trace), obs_mode="dict")
    observation, info = env.reset(seed=0)
    assert (observation["request"][0], info["time_s"]) == (0.0, 40.0)
    observation, reward, terminated, truncated, info = env.step(0)
    assert (reward, terminated, truncated, info["instance"]) == (0.0, False, True, -1)


def test_an_episode_without_a_request_ends_so_under_an_autoscaler_too() -> None:
    trace = Trace([1.0, 59.0], [100] * 2, [50] * 2, span_s=60.0)
    config = WorkloadConfig(warmup_s=20.0, start_s=20.0, horizon_s=20.0, forecaster="naive")
    env = make(Workload(config, trace), fleet=Looks(), obs_mode="dict")
    assert env.reset(seed=0)[1]["time_s"] == 40.0
    assert env.step(0)[1:4] == (0.0, False, True)


def test_a_first_moment_gives_no_endless_rates() -> None:
    trace = Trace([0.0, 0.0, 0.0, 0.0], [10**6, 10**6, 10**6, 100], [10] * 4, span_s=60.0)
    config = WorkloadConfig(warmup_s=0.0, horizon_s=20.0, start_s=0.0, forecaster="naive")
    env = make(Workload(config, trace), obs_mode="dict")
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    np.testing.assert_array_equal(observation["request_rate"], [3.0] * 5)


@pytest.mark.parametrize("warmup_router", ["preserve-look-ahead", "llumnix", "aibrix-throughput"])
def test_the_warm_up_is_served_as_by_a_cluster_with_that_router(warmup_router: str) -> None:
    trace = synthetic_trace("chat", duration_s=300.0, mean_rate_rps=25.0)
    config = WorkloadConfig(start_s=200.0, warmup_s=200.0, horizon_s=60.0, forecaster="naive")
    workload, cluster_config = Workload(config, trace), ClusterConfig(max_instances=5)
    env = make(workload, cluster=cluster_config, fleet=4, warmup_router=warmup_router)
    env.reset(seed=0)
    episode = workload.episode_at(200.0)
    cluster = Cluster(
        cluster_config,
        episode.trace,
        warmup_router,
        predicted_tokens=episode.predicted_tokens,
        initial_instances=4,
    )
    cluster.run_until(200.0)
    routed, expected = (one.results()["instance"] for one in (env.cluster, cluster))
    assert len(expected) > 1000
    np.testing.assert_array_equal(routed[: len(expected)], expected)


def test_results_of_an_unfinished_episode_are_of_what_has_been_routed(workload: Workload) -> None:
    env = make(workload, fleet=4)
    env.reset(seed=0)
    chosen = [env.step(k % 4)[4]["instance"] for k in range(50)]
    results = env.results()
    assert results["instance"].tolist() == chosen
    assert results["completed_s"].notna().all()


def test_by_default_the_fleet_follows_the_forecast(workload: Workload) -> None:
    env = make(workload, cluster={"min_instances": 2, "max_instances": 4})
    for start_s in (10_000.0, 45_000.0):
        _, info = env.reset(options={"start_s": start_s})
        row = workload.window_at(start_s)
        need = env.profile.need(
            workload.forecast.prompt_tokens[row, 0] / 600.0, workload.forecast.output_tokens[row, 0] / 600.0
        )
        assert info["target"] == min(max(int(np.ceil(need)), 2), 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fleet": 0}, "fleet: expected an integer in [1, 16], got 0"),
        ({"fleet": 17}, "fleet: expected an integer in [1, 16], got 17"),
        ({"fleet": 2.5}, "fleet: expected a number of instances, or pairs"),
        ({"fleet": "many"}, "fleet: expected a number of instances, or pairs"),
        ({"fleet": ()}, "fleet: expected a number of instances, or pairs"),
        ({"fleet": ((0.0, 2), (0.0, 3))}, "fleet: expected a number of instances, or pairs"),
        ({"fleet": ((0.0, 2), (5.0,))}, "fleet: expected a number of instances, or pairs"),
        ({"fleet": ((0.0, 2), (5.0, 2.5))}, "fleet: expected an integer in [1, 16], got 2.5"),
        ({"obs_mode": "image"}, "obs_mode: expected one of flat, dict, got 'image'"),
        ({"warmup_router": "fastest"}, "router: expected one of round-robin"),
        ({"reward": {"scale": -1.0}}, "RouteRewardConfig.scale: expected a number in [0"),
        ({"render_mode": "human"}, "render_mode: expected None or one of ansi, rgb_array"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    workload: Workload, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as error:
        RouteEnv(**{"workload": workload, **options})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("action", [16, -1, 2.5, None, np.zeros(2, np.int64), True])
def test_what_is_no_action_is_refused(workload: Workload, action: Any) -> None:
    env = make(workload)
    env.reset(seed=0)
    with pytest.raises(InputError, match=r"action: expected an integer in \[0, 15\]"):
        env.step(action)


@pytest.mark.parametrize("name", ["hpa", "preserve-up-only"])
def test_an_autoscaler_decides_its_fleet_as_in_autoscale(workload: Workload, name: str) -> None:
    config = ClusterConfig(max_instances=8, cold_start_s=20.0)
    policy = make_policy(name, config, workload.profile(config))
    env = make(workload, cluster=config, fleet=policy, obs_mode="dict")
    infos = play_least_requests(env, start_s=30_000.0)
    other = gym.make(
        "preserve/Autoscale-v0",
        workload=workload,
        cluster=config,
        router="least-requests",
        interval_s=policy.interval_s,
        obs_mode="dict",
        action_mode="target",
    ).unwrapped
    observation, _ = other.reset(options={"start_s": 30_000.0})
    state, ended, targets = None, False, []
    while not ended:
        action, state = policy.predict(observation, state)
        observation, _, _, ended, info = other.step(action)
        targets.append(info["target"])
    assert env.episode_totals() == pytest.approx(other.episode_totals(), rel=1e-9, abs=1e-6)
    pd.testing.assert_frame_equal(env.results(), other.results(), check_exact=True)
    assert {info["target"] for info in infos} >= set(targets[:-1])
    assert infos[0]["reward_latency"] == infos[0]["violations"] == 0


class Looks:
    """Asks for half of the instances and keeps what it saw."""

    obs_mode = "flat"

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def predict(self, observation: Any, state: Any = None, deterministic: bool = False) -> Any:
        self.seen.append(observation)
        return np.zeros(1, np.float32), state


def test_an_autoscaler_sees_what_autoscale_shows(workload: Workload) -> None:
    policy = Looks()
    play_least_requests(make(workload, fleet=policy, obs_mode="dict"), start_s=30_000.0)
    other = gym.make("preserve/Autoscale-v0", workload=workload, action_mode="target").unwrapped
    expected = [other.reset(options={"start_s": 30_000.0})[0]]
    while len(expected) < len(policy.seen):
        expected.append(other.step(np.zeros(1, np.float32))[0])
    # Only what happened in the interval before its first look is not known to it.
    interval = [other.feature_names.index(name) for name in ("attainment", "ttft_misses", "ttft", "tpot")]
    policy.seen[0][interval] = expected[0][interval]
    np.testing.assert_array_equal(policy.seen, expected)


def test_an_autoscaler_is_not_asked_in_a_rounding_error_before_the_end() -> None:
    trace = Trace(np.arange(61.0), [100] * 61, [10] * 61, span_s=61.0)
    config = WorkloadConfig(start_s=20.0, warmup_s=20.0, horizon_s=10.1, forecaster="naive")
    policy = Looks()
    policy.interval_s = 10.1 / 3.0 - 1e-13  # type: ignore[attr-defined]
    env = make(Workload(config, trace), fleet=policy, obs_mode="dict")
    play_least_requests(env)
    assert len(policy.seen) == 3


def test_what_an_autoscaler_needs_is_refused_at_construction(workload: Workload) -> None:
    class Odd:
        action_mode = "joint"

        def predict(self, observation: Any, state: Any = None, deterministic: bool = False) -> Any:
            raise AssertionError

    with pytest.raises(InputError, match="fleet: action_mode: expected delta or target, got 'joint'"):
        make(workload, fleet=Odd())
    with pytest.raises(InputError, match="fleet: expected a number of instances, or pairs"):
        gym.make_vec(ENV_ID, num_envs=2, workload=workload, fleet=Odd())
