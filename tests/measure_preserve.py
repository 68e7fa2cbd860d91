"""Measures PreServe's variants and ablations, as the docs record them.

Run as ``python -m tests.measure_preserve``: prints the tables of docs/preserve.md. Two hours of
``synthetic-chat`` from 10:00 on, at a rate that needs four of eight instances on average; mean over
``SEEDS`` of the traffic.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from baselines import ABLATIONS
from experiments.evaluate import Setting, play_windows
from experiments.policies import build_policy
from preserve_gym import ClusterConfig, InstanceConfig, WorkloadConfig

SEEDS = (0, 1, 2)
SCALE_DOWN = ("preserve", "preserve-up-only", "preserve-artifact")

# The instance of PreServe's evaluation: vLLM 0.6.6, 2,306 KV blocks of 16 tokens, 128 sequences.
_OWN = InstanceConfig.from_preset(
    "llama-2-7b",
    "a100-80gb",
    num_gpu_blocks=2307,
    max_num_seqs=128,
    max_model_len=4096,
    max_num_batched_tokens=4096,
    scheduler="vllm_v0",
    async_scheduling=False,
)
INSTANCES: dict[str, tuple[InstanceConfig, float]] = {
    "own pool": (_OWN, 1.05),
    "80 GB": (InstanceConfig.from_preset("llama-3.1-8b", "a100-80gb"), 2.5),
}
"""Instances, and the factor on the rate at which four of them are needed on average."""

ABLATED = tuple(
    (pool, variant)
    for pool, variant in (
        ("own pool", "preserve"),
        ("own pool", "preserve-artifact"),
        ("80 GB", "preserve-artifact"),
    )
)


def figures(pool: str, policy: str, seeds: Sequence[int] = SEEDS) -> dict[str, float]:
    """What came of a policy, mean over the seeds: shares in %, counts per run."""
    instance, rate_scale = INSTANCES[pool]
    setting = Setting(
        "synthetic-chat",
        ClusterConfig(instance=instance, max_instances=8, cold_start_s=30.0, too_long="clip_prompt"),
        WorkloadConfig(start_s=36_000.0, horizon_s=7200.0, rate_scale=rate_scale, forecaster="noisy"),
    )
    runs = []
    for seed in seeds:
        workload = setting.make_workload(seed)
        runs += play_windows(workload, setting.cluster, build_policy(policy, setting.cluster, workload), seed)

    def mean(name: str) -> float:
        return float(np.mean([run.figures[name] for run in runs]))

    return {
        "attainment": 100.0 * mean("slo_attainment"),
        "instances": mean("mean_instances"),
        "removals": mean("scale_downs"),
        "kv_mean": 100.0 * float(np.mean([run.intervals["kv_use_mean"].mean() for run in runs])),
        "kv_p95": 100.0 * float(np.mean([run.intervals["kv_use_mean"].quantile(0.95) for run in runs])),
        "ttft_p99_s": mean("ttft_p99_s"),
        "normalized_p99_s": mean("normalized_latency_p99_s"),
    }


def scale_down_row(pool: str, policy: str) -> list[str]:
    """A row of the table on scaling down."""
    f = figures(pool, policy)
    kv_tokens = f"{INSTANCES[pool][0].kv_tokens:,}"
    return [pool, kv_tokens, f"`{policy}`", f"{f['attainment']:.2f}", f"{f['instances']:.2f}",
            f"{f['removals']:.1f}", f"{f['kv_mean']:.0f}", f"{f['kv_p95']:.0f}"]  # fmt: skip


def ablation_rows(pool: str, variant: str) -> list[list[str]]:
    """Rows of the table of ablations: the variant itself, then each of its ablations."""
    rows = []
    for policy in (variant, *(f"{variant}-{ablation}" for ablation in ABLATIONS)):
        f = figures(pool, policy)
        rows.append([pool, f"`{policy}`", f"{f['attainment']:.2f}", f"{f['instances']:.2f}",
                     f"{f['ttft_p99_s']:.2f}", f"{f['normalized_p99_s']:.3f}"])  # fmt: skip
    return rows


def _print(row: Sequence[str]) -> None:
    print(f"| {' | '.join(row)} |", flush=True)


def main() -> int:
    """Print both tables."""
    for pool in INSTANCES:
        for policy in SCALE_DOWN:
            _print(scale_down_row(pool, policy))
    print()
    for pool, variant in ABLATED:
        for row in ablation_rows(pool, variant):
            _print(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
