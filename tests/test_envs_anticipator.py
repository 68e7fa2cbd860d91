"""The option ``anticipator`` of the environments: which look-ahead map is observed and routed by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from preserve_gym import AnticipatorConfig, Cluster, ClusterConfig, InputError, Workload, WorkloadConfig
from preserve_gym.traces import synthetic_trace
from tests.env_play import GENERAL_IDS

CLUSTER = ClusterConfig(
    instance=replace(ClusterConfig().instance, num_gpu_blocks=2100, max_model_len=32_768), max_instances=3
)
ARTIFACT = AnticipatorConfig("artifact", look_ahead=200, overload_use=0.6)


@pytest.fixture(scope="module")
def workload() -> Workload:
    """Busy, with a small KV cache, and with predictions that are often wrong."""
    trace = synthetic_trace("chat", duration_s=1200.0, mean_rate_rps=6.0, start_clock_s=40_000.0, seed=4)
    return Workload(WorkloadConfig(horizon_s=300.0, window_s=300.0), trace)


def twin(workload: Workload, anticipator: AnticipatorConfig) -> Cluster:
    """The cluster of an environment of 3 instances in its first scored moment, made by hand."""
    episode = workload.episode_at(600.0)
    cluster = Cluster(
        CLUSTER,
        episode.trace,
        "preserve-look-ahead",
        predicted_tokens=episode.predicted_tokens,
        initial_instances=3,
        start_s=300.0,
        look_ahead=anticipator.look_ahead,
        overload_use=anticipator.overload_use,
        anticipator=anticipator.variant,
    )
    cluster.run_until(600.0)
    return cluster


@pytest.mark.parametrize("anticipator", [None, ARTIFACT, {"look_ahead": 30}])
def test_observes_and_routes_by_it(workload: Workload, anticipator: Any) -> None:
    chosen = AnticipatorConfig(**anticipator) if isinstance(anticipator, dict) else anticipator
    expected = twin(workload, chosen or AnticipatorConfig())
    env = gym.make(
        "preserve/Autoscale-v0",
        cluster=CLUSTER,
        workload=workload,
        router="preserve-look-ahead",
        obs_mode="dict",
        initial_instances=3,
        anticipator=anticipator,
    )
    observation, _ = env.reset(seed=0, options={"start_s": 600.0})
    snapshot = expected.snapshot()
    np.testing.assert_array_equal(observation["running"], snapshot.running)
    np.testing.assert_array_equal(observation["anticipated_peak"], snapshot.anticipated_peak)
    np.testing.assert_array_equal(observation["anticipated_overload"], snapshot.anticipated_overload)
    core: Any = env.unwrapped
    np.testing.assert_array_equal(core.cluster.look_ahead(1), expected.look_ahead(1))


def test_the_maps_of_the_test_differ(workload: Workload) -> None:
    paper, artifact = (twin(workload, chosen).snapshot() for chosen in (AnticipatorConfig(), ARTIFACT))
    assert (paper.anticipated_peak != artifact.anticipated_peak).any()
    assert (paper.anticipated_overload != artifact.anticipated_overload).any()


@pytest.mark.parametrize("env_id", GENERAL_IDS)
def test_every_environment_takes_it(workload: Workload, env_id: str) -> None:
    options: dict[str, Any] = {"cluster": CLUSTER, "workload": workload, "obs_mode": "dict"}
    peaks = []
    for anticipator in (AnticipatorConfig(), ARTIFACT):
        env = gym.make(env_id, anticipator=anticipator, **options)
        peaks.append(env.reset(seed=0, options={"start_s": 600.0})[0]["anticipated_peak"])
        core: Any = env.unwrapped
        assert len(core.cluster.look_ahead(0)) == anticipator.look_ahead
        several: Any = gym.make_vec(env_id, num_envs=2, anticipator=anticipator, **options)
        observed = several.reset(seed=0, options={"start_s": 600.0})[0]["anticipated_peak"]
        np.testing.assert_array_equal(observed, np.stack([peaks[-1]] * 2))
        several.close()
    assert (peaks[0] != peaks[1]).any()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"variant": "printed"}, "AnticipatorConfig.variant: expected one of paper, artifact, got 'printed'"),
        ({"look_ahead": 0}, r"AnticipatorConfig.look_ahead: expected an integer in \[1, 1048576\], got 0"),
        ({"overload_use": -1.0}, "AnticipatorConfig.overload_use: expected a number in"),
        ({"window": 3}, "AnticipatorConfig.window: no such field"),
        ("paper", "expected a AnticipatorConfig or a mapping of its fields, got 'paper'"),
    ],
)
def test_refuses_what_is_none(workload: Workload, given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        gym.make("preserve/Autoscale-v0", workload=workload, anticipator=given)
