"""Configurations: validated once, with errors that name the field."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import yaml

from preserve_gym import (
    ClusterConfig,
    InputError,
    InstanceConfig,
    LatencyLaw,
    RewardConfig,
    SloConfig,
    WorkloadConfig,
)

LAW = LatencyLaw(0.01, 1e-5, 1e-8, 1e-9)


def test_the_default_instance_is_a_measured_one() -> None:
    instance = ClusterConfig().instance
    assert instance.name == "llama-3.1-8b_rtx-4090_tp1"
    assert instance.kv_tokens == 16 * 2587
    assert instance.max_request_tokens == min(instance.max_model_len, 16 * 2587 + 1)


def test_the_pool_bounds_a_request_where_the_model_does_not() -> None:
    instance = InstanceConfig(LAW, num_gpu_blocks=11, block_size=4, max_model_len=1000)
    # The KV entry of the last output token is never computed.
    assert instance.max_request_tokens == 41


@pytest.mark.parametrize(
    "config",
    [
        ClusterConfig(),
        ClusterConfig(slo=SloConfig(None, 0.0, None, 0.25), cold_start_s=0.0),
        ClusterConfig(cold_start_s=[43.0, 51.5]),  # type: ignore[arg-type]
    ],
)
def test_mappings_go_there_and_back(config: ClusterConfig) -> None:
    assert ClusterConfig.from_mapping(config.to_mapping()) == config
    assert ClusterConfig.from_mapping(yaml.safe_load(yaml.safe_dump(config.to_mapping()))) == config
    assert ClusterConfig.from_mapping(json.loads(json.dumps(config.to_mapping()))) == config


@pytest.mark.parametrize(
    ("given", "stored", "all_s", "mean_s"),
    [
        (30, 30.0, (30.0,), 30.0),
        (0.1, 0.1, (0.1,), 0.1),
        ([30], (30.0,), (30.0,), 30.0),
        ((43, 51.5, 43), (43.0, 51.5, 43.0), (43.0, 51.5, 43.0), 137.5 / 3),
        (np.array([1, 2], np.int32), (1.0, 2.0), (1.0, 2.0), 1.5),
        ([np.float32(0.5), 0], (0.5, 0.0), (0.5, 0.0), 0.25),
        ([1.0] * 10_000, (1.0,) * 10_000, (1.0,) * 10_000, 1.0),
    ],
)
def test_a_cold_start_is_a_number_or_several(given: Any, stored: Any, all_s: Any, mean_s: float) -> None:
    config = ClusterConfig(cold_start_s=given)
    assert config.cold_start_s == stored
    assert type(config.cold_start_s) is type(stored)
    assert config.cold_starts_s == all_s
    assert all(type(cold_start_s) is float for cold_start_s in config.cold_starts_s)
    assert config.mean_cold_start_s == mean_s
    hash(config)


def test_numbers_of_numpy_become_numbers_of_python() -> None:
    config = ClusterConfig(max_instances=np.int64(3), cold_start_s=np.float32(1.5))  # type: ignore[arg-type]
    assert type(config.max_instances) is int
    assert type(config.cold_start_s) is float
    assert config == ClusterConfig(max_instances=3, cold_start_s=1.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: InstanceConfig(LAW, 1),
            "InstanceConfig.num_gpu_blocks: expected an integer in [2, 2147483647]",
        ),
        (lambda: InstanceConfig(LAW, 10.5), "InstanceConfig.num_gpu_blocks: expected an integer"),
        (
            lambda: InstanceConfig(LAW, 10, block_size=0),
            "InstanceConfig.block_size: expected an integer in [1",
        ),
        (lambda: InstanceConfig(LAW, 10, max_num_seqs=0), "InstanceConfig.max_num_seqs"),
        (
            lambda: InstanceConfig(LAW, 10, max_num_seqs=64, max_num_batched_tokens=32),
            "InstanceConfig.max_num_seqs: expected at most max_num_batched_tokens (32), got 64",
        ),
        (
            lambda: InstanceConfig(LAW, 10, enable_chunked_prefill=False),
            "InstanceConfig.max_num_batched_tokens: expected at least max_model_len (16384)",
        ),
        (
            lambda: InstanceConfig(LAW, 10, async_scheduling="no"),
            "InstanceConfig.async_scheduling: expected true or false, got 'no'",
        ),
        (lambda: InstanceConfig(5, 10), "InstanceConfig.latency: expected a LatencyLaw or a mapping"),
        (lambda: ClusterConfig(instance=5), "ClusterConfig.instance: expected a InstanceConfig or a mapping"),
        (lambda: ClusterConfig(slo=5), "ClusterConfig.slo: expected a SloConfig or a mapping"),
        (
            lambda: InstanceConfig.from_preset("llama-3.1-8b", gpu="rtx-4090", blocks=3),
            "InstanceConfig.blocks: no such field",
        ),
        (lambda: SloConfig(None, 0, None), "SloConfig: expected at least one of ttft_s"),
        (lambda: SloConfig(None, 0, 0.1, 0.2), "SloConfig.tpot_s: needs ttft_s"),
        (lambda: SloConfig(float("nan")), "SloConfig.ttft_s: expected a number >= 0, got nan"),
        (lambda: ClusterConfig(min_instances=0), "ClusterConfig.min_instances: expected an integer in [1"),
        (lambda: ClusterConfig(min_instances=3, max_instances=2), "ClusterConfig.max_instances: expected an"),
        (lambda: ClusterConfig(min_instances=True), "ClusterConfig.min_instances: expected an integer"),
        (
            lambda: ClusterConfig(cold_start_s=-1),
            "ClusterConfig.cold_start_s: expected a finite number >= 0, or a sequence of them, got -1",
        ),
        (lambda: ClusterConfig(cold_start_s=float("inf")), "ClusterConfig.cold_start_s: expected a finite"),
        (lambda: ClusterConfig(cold_start_s=True), "ClusterConfig.cold_start_s: expected a finite"),
        (
            lambda: ClusterConfig(cold_start_s="60"),
            "ClusterConfig.cold_start_s: expected a finite number >= 0",
        ),
        (
            lambda: InstanceConfig.from_preset("llama-3.1-8b", gpu="rtx-4090", cold_start_s=None),
            "InstanceConfig.cold_start_s: expected a finite number >= 0",
        ),
        (
            lambda: ClusterConfig(cold_start_s=[60.0, float("nan")]),
            "ClusterConfig.cold_start_s[1]: expected a finite number >= 0, got nan",
        ),
        (
            lambda: ClusterConfig(cold_start_s=[[60.0]]),
            "ClusterConfig.cold_start_s[0]: expected a finite number >= 0, got [60.0]",
        ),
        (
            lambda: ClusterConfig(cold_start_s=[]),
            "ClusterConfig.cold_start_s: expected 1 to 10,000 numbers, got 0",
        ),
        (
            lambda: ClusterConfig(cold_start_s=[1.0] * 10_001),
            "ClusterConfig.cold_start_s: expected 1 to 10,000 numbers, got 10,001",
        ),
        (
            lambda: ClusterConfig(too_long="drop"),
            "ClusterConfig.too_long: expected one of reject, clip_prompt",
        ),
        (
            lambda: WorkloadConfig(rate_scale=0),
            "WorkloadConfig.rate_scale: expected a number in [1e-06, 1000000]",
        ),
        (
            lambda: WorkloadConfig(start_s=10.0),
            "WorkloadConfig.start_s: expected a number in [300, 1000000000]",
        ),
        (lambda: WorkloadConfig(seed=-1), "WorkloadConfig.seed: expected an integer"),
        (lambda: WorkloadConfig(forecast_windows=0), "WorkloadConfig.forecast_windows: expected an integer"),
        (lambda: RewardConfig(scale=-1), "RewardConfig.scale: expected a number in [0"),
        (
            lambda: ClusterConfig.from_mapping({"instance": {"num_gpu_blocks": 5}}),
            "ClusterConfig.instance.latency: expected a value, as it has no default",
        ),
        (
            lambda: ClusterConfig.from_mapping({"instance": {"latency": {"base": 1}, "num_gpu_blocks": 5}}),
            "ClusterConfig.instance.latency.base: no such field; expected one of base_s, knee_tokens, per_",
        ),
        (
            lambda: ClusterConfig.from_mapping({"cold_start_s": {"mean": 3}}),
            "ClusterConfig.cold_start_s: expected",
        ),
    ],
)
def test_bad_values_are_named(make: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
