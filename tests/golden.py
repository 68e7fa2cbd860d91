"""Recorded runs of other schedulers: the same law of iteration times, request by request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from preserve_gym import ClusterConfig, InstanceConfig, LatencyLaw, Trace

VLLM_V1 = (
    "async_conv_x0.7",
    "async_smallkv",
    "burst",
    "code_x1.0",
    "conv_x0.7",
    "longprefill",
    "mml",
    "overload_noisl",
    "seqcap",
    "smallkv",
    "smallkv_noisl",
)
VIDUR = (
    "a_conv_1rep_ts1.0_vllm",
    "a_conv_1rep_ts1.5_sarathi",
    "a_conv_1rep_ts1.5_vllm",
    "b_code_4rep_rr_ts0.25_sarathi",
    "b_conv_4rep_rr_ts0.2_sarathi",
    "b_conv_4rep_rr_ts0.2_vllm",
    "d_conv_1rep_overload_ts0.45_n5000_sarathi",
    "d_conv_1rep_overload_ts0.45_n5000_vllm",
)
CASES = (*VLLM_V1, *VIDUR)


@dataclass(frozen=True)
class Golden:
    """A recorded run.

    Attributes:
        config: of the cluster, in our words; requests are routed round robin.
        requests: ``instance``, ``first_scheduled_s``, ``first_token_s``, ``completed_s`` and
            ``preemptions`` of each request, beside what the trace holds.
        result: aggregates of the run, as recorded.
    """

    config: ClusterConfig
    requests: pd.DataFrame
    result: dict[str, Any]

    @property
    def trace(self) -> Trace:
        """What was served."""
        served = self.requests
        return Trace(served["arrival_s"], served["prompt_tokens"], served["output_tokens"])


def load(data_dir: Path, case: str) -> Golden:
    """The run of one of ``CASES``."""
    file = data_dir / "golden" / ("vllm_v1" if case in VLLM_V1 else "vidur") / case
    parameters = json.loads(file.with_name(f"{case}.json").read_text())
    requests = pd.read_csv(file.with_name(f"{case}.csv.gz"), float_precision="round_trip")
    requests = requests.rename(
        columns={
            "arrived_at": "arrival_s",
            "first_scheduled_at": "first_scheduled_s",
            "scheduled_at": "first_scheduled_s",
            "first_token_at": "first_token_s",
            "completed_at": "completed_s",
            "replica": "instance",
            "restarts": "preemptions",
        }
    )
    if case in VLLM_V1:
        requests["instance"] = 0
        instance = _vllm_instance(parameters)
    else:
        instance = _vidur_instance(parameters)
    replicas = parameters.get("replicas", 1)
    config = ClusterConfig(instance=instance, min_instances=replicas, max_instances=replicas)
    return Golden(config, requests, parameters["result"])


def _vllm_instance(parameters: dict[str, Any]) -> InstanceConfig:
    law = parameters["iteration_time"]
    limits = (
        "num_gpu_blocks",
        "block_size",
        "max_num_seqs",
        "max_num_batched_tokens",
        "max_model_len",
        "enable_chunked_prefill",
        "async_scheduling",
        "scheduler_reserve_full_isl",
        "long_prefill_token_threshold",
    )
    return InstanceConfig(
        LatencyLaw(law["base"], law["per_token"], law["per_ctx"], law["per_quad"]),
        **{name: parameters[name] for name in limits},
    )


def _vidur_instance(parameters: dict[str, Any]) -> InstanceConfig:
    law = parameters["latency_model"]
    instance = InstanceConfig(
        LatencyLaw(law["A"], law["B"], law["C"], law["D"]),
        scheduler="sarathi" if parameters["replica_scheduler"] == "sarathi" else "vllm_v0",
        num_gpu_blocks=parameters["num_blocks"] + 1,  # ours counts vLLM's null block
        block_size=parameters["block_size"],
        max_num_seqs=parameters["batch_size_cap"],
        max_num_batched_tokens=parameters["max_tokens_in_batch"] or parameters["chunk_size"],
        max_model_len=parameters["max_tokens"],
        async_scheduling=False,
        watermark=parameters["watermark_blocks"] / parameters["num_blocks"],
    )
    assert instance.watermark_blocks == parameters["watermark_blocks"]
    return instance
