"""What the environments observe, against the slow reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from preserve_gym import ClusterConfig, Workload, WorkloadConfig
from preserve_gym.sim.totals import named_totals
from preserve_gym.traces import synthetic_trace
from tests import reference_observation as reference

CLUSTER = ClusterConfig(
    instance=replace(ClusterConfig().instance, num_gpu_blocks=2100, max_model_len=32_768),
    max_instances=5,
    cold_start_s=(20.0, 70.0),
)


@pytest.fixture(scope="module", params=["synthetic-chat", "synthetic-code"])
def workload(request: pytest.FixtureRequest) -> Workload:
    """Busy, and with a small KV cache, so that requests wait and are preempted."""
    kind = request.param.removeprefix("synthetic-")
    trace = synthetic_trace(kind, duration_s=4000.0, mean_rate_rps=6.0, start_clock_s=40_000.0, seed=4)
    return Workload(WorkloadConfig(horizon_s=900.0, window_s=300.0, forecaster="naive"), trace)


def started_s(env: Any) -> Any:
    """When each instance began its cold start."""
    return np.asarray(env.cluster.compiled()[0].instances["started_s"])


@pytest.mark.parametrize("weight", [8.0, 0.0])
def test_autoscale_observes_what_the_reference_does(workload: Workload, weight: float) -> None:
    options: dict[str, Any] = {"cluster": CLUSTER, "workload": workload, "interval_s": 7.0}
    options |= {"reward": {"violation_weight": weight}, "router": "preserve"}
    flat = gym.make("preserve/Autoscale-v0", **options).unwrapped
    physical = gym.make("preserve/Autoscale-v0", obs_mode="dict", **options).unwrapped
    rng = np.random.default_rng(0)
    for seed in range(2):
        (features, _), (quantities, info) = flat.reset(seed=seed), physical.reset(seed=seed)
        before, last_target, ended = None, info["target"], False
        while not ended:
            if before is not None:  # the interval of a reset is the end of the warm-up
                interval = {k: v - before[k] for k, v in physical.cluster.totals().items()}
                expected = reference.scale_physical(
                    physical.cluster.snapshot(), interval, workload, CLUSTER, started_s(physical), weight
                )
                assert expected.keys() == quantities.keys()
                for name, values in expected.items():
                    np.testing.assert_allclose(quantities[name], values, rtol=1e-9, atol=1e-12, err_msg=name)
                check_features(flat, features, quantities, workload, last_target)
            before, last_target = physical.cluster.totals(), info["target"]
            action = int(rng.integers(5))
            features, _, _, ended, _ = flat.step(action)
            quantities, _, _, _, info = physical.step(action)


def check_features(env: Any, features: Any, quantities: Any, workload: Workload, last_target: int) -> None:
    expected = reference.scale_features(quantities, CLUSTER, workload, env.profile, last_target)
    assert tuple(expected) == env.feature_names
    low, high = env.observation_space.low, env.observation_space.high
    values = np.clip(np.array(list(expected.values())), low, high)
    np.testing.assert_allclose(features, values, rtol=1e-6, atol=1e-7)


def test_cluster_observes_the_weights_too(workload: Workload) -> None:
    options: dict[str, Any] = {"cluster": CLUSTER, "workload": workload}
    flat = gym.make("preserve/Cluster-v0", **options).unwrapped
    physical = gym.make("preserve/Cluster-v0", obs_mode="dict", **options).unwrapped
    (features, _), (quantities, _) = flat.reset(seed=0), physical.reset(seed=0)
    np.testing.assert_array_equal(features[-7:], [1.0] * 6 + [0.0])
    action = np.array([0.6, -1.0, 1.0, 0.0, 0.5, -0.5, 2.0, -0.75], np.float32)
    features, *_ = flat.step(action)
    quantities, *_ = physical.step(action)
    weights = [0.0, 1.0, 0.5, 0.75, 0.25, 1.0, 0.125]
    np.testing.assert_allclose(quantities["router_weights"], weights)
    np.testing.assert_allclose(features[-7:], weights)
    assert flat.feature_names[-7] == "router_weight_queued_prefill_tokens"


def test_route_observes_what_the_reference_does(workload: Workload) -> None:
    options: dict[str, Any] = {"cluster": CLUSTER, "workload": workload, "fleet": ((0.0, 2), (1500.0, 4))}
    flat = gym.make("preserve/Route-v0", **options).unwrapped
    physical = gym.make("preserve/Route-v0", obs_mode="dict", **options).unwrapped
    rng = np.random.default_rng(0)
    start = {"start_s": 1400.0}
    (features, _), (quantities, info) = flat.reset(options=start), physical.reset(options=start)
    last_s, ended, loads = 1400.0, False, []
    while not ended:
        trace = workload.trace
        row = int(physical._batch.episodes["first_row"][0]) + int(physical.cluster.totals()["arrived"])
        expected = reference.route_physical(
            physical.cluster,
            CLUSTER,
            workload,
            (trace.prompt_tokens[row], workload.predicted_tokens[row]),
            last_s,
        )
        expected["ready_in_s"] = quantities["ready_in_s"]  # checked above
        assert expected.keys() == quantities.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(quantities[name], values, rtol=1e-9, atol=1e-12, err_msg=name)
        values = reference.route_features(quantities, CLUSTER, flat.profile, 2.0)
        low, high = flat.observation_space.low, flat.observation_space.high
        np.testing.assert_allclose(features, np.clip(values, low, high), rtol=1e-6, atol=1e-7)
        loads.append(quantities["waiting"].sum())
        last_s = info["time_s"]
        action = int(rng.integers(2))
        features, _, _, ended, _ = flat.step(action)
        quantities, _, _, _, info = physical.step(action)
    assert max(loads) > 0
    assert quantities["request"][0] == 0.0
    assert quantities["time_s"][0] == 2300.0


def test_totals_are_those_of_the_results(workload: Workload) -> None:
    env = gym.make("preserve/Autoscale-v0", cluster=CLUSTER, workload=workload).unwrapped
    env.reset(seed=0)
    for _ in range(30):
        env.step(2)
    assert named_totals(env._batch.now[0]) == env.cluster.totals()
