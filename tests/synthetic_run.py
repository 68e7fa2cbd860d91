"""A run folder of made-up but plausible cells, as large as wanted, for tests of what reads one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from experiments.latency_histogram import Histogram

DAY_S = 84_600.0
BINS = 288
CORE = ("preserve", "best-static", "hindsight", "hpa", "keda", "static-4", "static-8")
SCENARIOS = (
    *("api-burst", "chat", "chat-week", "code", "code-week", "drift", "flash-crowd", "kv-bound"),
    *("length-drift", "long-prompt", "recurring-surges", "sharegpt-poisson", "step"),
)
_CLUSTER = {
    "instance": {"name": "llama-3.1-8b_h100_tp1", "cold_start_s": 60.0},
    "min_instances": 1,
    "max_instances": 16,
    "cold_start_s": None,
    "slo": {"ttft_s": 2.0, "ttft_per_prompt_token_s": 0.0, "tpot_s": 0.1, "normalized_latency_s": None},
}
_WORKLOAD = {"service_scale": 1.0, "rate_scale": 1.0, "forecaster": "noisy", "predictor": "noisy"}


def policy_names(n: int) -> tuple[str, ...]:
    """Names of ``n`` policies, some of them like real ones."""
    return (*CORE, *(f"variant-{chr(97 + k // 10)}{k % 10}" for k in range(n)))[:n]


def write_run(
    folder: Path, *, scenarios: int = 13, policies: int = 45, seeds: int = 8, windows: int = 2
) -> Path:
    """Write ``config.yaml``, ``episodes.csv``, ``cells/`` and ``timelines/`` of such a run."""
    names = policy_names(policies)
    rows: list[dict[str, Any]] = []
    for s, scenario in enumerate(SCENARIOS[:scenarios]):
        rng = np.random.default_rng(s)
        size = rng.uniform(3.0, 8.0)
        for p, policy in enumerate(names):
            cost = (
                0.55 if policy == "hindsight" else 1.6 if policy == "best-static" else 0.7 + 0.03 * (p % 30)
            )
            miss = 0.01 * np.exp(1.2 - 2.5 * (cost - 0.55) + rng.normal(0.0, 0.6))
            for seed in range(seeds):
                cell = _cell(rng, scenario, policy, seed, windows, size * cost, min(miss, 0.9))
                rows += [
                    {"scenario": scenario, "policy": policy, "seed": seed}
                    | {"window": w["window"], "start_s": w["start_s"]}
                    | w["figures"]
                    for w in cell["windows"]
                ]
                path = folder / "cells" / scenario / policy / f"seed{seed}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(cell), encoding="utf-8")
            path = folder / "timelines" / scenario / policy / "seed0.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            _timeline(np.random.default_rng(s), rng, windows, size, cost).to_parquet(path)
    pd.DataFrame(rows).to_csv(folder / "episodes.csv", index=False)
    (folder / "config.yaml").write_text(
        yaml.safe_dump(_config(names, scenarios, seeds), sort_keys=False), encoding="utf-8"
    )
    return folder


def _config(policies: tuple[str, ...], scenarios: int, seeds: int) -> dict[str, Any]:
    return {
        "command": "python -m experiments.run benchmark",
        "split": "test",
        "seeds": list(range(seeds)),
        "policy_names": list(policies),
        "versions": {"preserve_gym": "0.0", "python": "3.11", "numpy": "2.2"},
        "scenarios": {
            name: {"cluster": _CLUSTER, "workload": _WORKLOAD | {"trace": name}}
            for name in SCENARIOS[:scenarios]
        },
        "policies": {
            name: {policy: {"interval_s": 10.0, "headroom": 1.2} for policy in policies}
            for name in SCENARIOS[:scenarios]
        },
    }


def _cell(
    rng: np.random.Generator, scenario: str, policy: str, seed: int, windows: int, size: float, miss: float
) -> dict[str, Any]:
    record: dict[str, Any] = {"scenario": scenario, "policy": policy, "seed": seed, "error": None}
    return record | {"windows": [_window(rng, w, size, miss) for w in range(windows)]}


def _window(rng: np.random.Generator, window: int, size: float, miss: float) -> dict[str, Any]:
    arrived = int(200_000 * rng.uniform(0.95, 1.05))
    ttft = np.exp(rng.normal(-1.0 + 30.0 * miss, 0.8, 3000))
    tpot = np.exp(rng.normal(-3.2, 0.25, 3000))
    violations = int(rng.binomial(arrived, min(miss * np.exp(rng.normal(0.0, 0.2)), 1.0)))
    hours = size * DAY_S / 3600.0 * np.exp(rng.normal(0.0, 0.02))
    latencies = {"ttft_s": ttft, "tpot_s": tpot, "normalized_latency_s": tpot + ttft / 100.0}
    return {
        "window": window,
        "start_s": 432_900.0 + window * DAY_S,
        "figures": {
            "arrived": arrived,
            "completed": arrived - 3,
            "rejected": 3,
            "violations": violations,
            "slo_attainment": 1.0 - violations / arrived,
            "gpu_hours": hours,
            "cost_usd": 2.1 * hours,
            "energy_kwh": 0.5 * hours,
            "scaling_actions": int(rng.poisson(90)),
            "preemptions": 0,
            "horizon_s": DAY_S,
        },
        "latency": {name: Histogram.of(values).to_mapping() for name, values in latencies.items()},
        "targets": [[0, 3], [60, 4]],
    }


def _timeline(
    shared: np.random.Generator, own: np.random.Generator, windows: int, size: float, cost: float
) -> pd.DataFrame:
    tables = []
    for window in range(windows):
        hour = np.arange(BINS) * DAY_S / BINS / 3600.0
        load = (
            size
            * (0.7 + 0.35 * np.sin((hour - 9.0) / 24.0 * 2.0 * np.pi))
            * shared.lognormal(0.0, 0.08, BINS)
        )
        forecast = np.repeat(load.reshape(-1, 2).mean(axis=1), 2) * shared.lognormal(0.0, 0.05, BINS)
        ready = np.maximum(1.0, np.round(forecast * cost * 1.3 + own.normal(0.0, 0.3, BINS), 1))
        short = np.maximum(load - ready, 0.0)
        arrived = np.round(load * 60.0)
        start_s = 432_900.0 + window * DAY_S
        tables.append(
            pd.DataFrame(
                {
                    "time_s": start_s + 3600.0 * hour,
                    "time_of_day_s": (900.0 + 3600.0 * hour) % 86_400.0,
                    "arrived": arrived,
                    "violations": np.round(arrived * np.minimum(short / load, 1.0)),
                    "ttft_mean_s": 0.2 + short * own.lognormal(0.0, 0.3, BINS),
                    "load": load,
                    "forecast_load": forecast,
                    "target": ready,
                    "ready": ready,
                    "starting": own.random(BINS) * 0.2,
                    "draining": own.random(BINS) * 0.1,
                    "running": load * 20.0,
                    "waiting": short * 30.0,
                    "kv_use_mean": np.minimum(load / ready, 1.0),
                    "kv_use_max": np.minimum(1.2 * load / ready, 1.0),
                    "window": window,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)
