"""``python -m experiments.bench policies``: what deciding and routing cost beside the serving itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from rich.console import Console

from baselines import Autoscaler
from baselines.router_name import router_options
from experiments.bench_parts import Part, Row
from experiments.bench_setup import timed
from experiments.policies import build_policy
from preserve_gym import Cluster, ClusterConfig, InputError, Workload, WorkloadConfig
from preserve_gym.sim.anticipator import look_ahead_all

PUBLISHED_SHARE = 0.0023
"""Overhead of PreServe in its paper (arXiv 2504.03702, first version)."""

_PLAIN_ROUTER = "round-robin"


@dataclass(frozen=True)
class Policies:
    """Overhead of policies: time per decision and per request, as a share of the serving time.

    Each policy plays part of a day. Of every decision the law and the look-ahead map of all instances are
    timed. What a router costs a request is the time of the simulator with it less that with round robin, the
    best of the repeats each. The serving time is the sum of the latencies of all requests. Predictions are
    made before and not part of it.
    """

    policies: tuple[str, ...] = ("reactive", "hpa", "preserve", "preserve-look-ahead", "preserve-artifact")
    """Names as for ``experiments.run``."""
    trace: str = "synthetic-chat"
    """Workload: a name, or a file."""
    start_s: float = 36_000.0
    """Where on the trace's clock the part begins."""
    minutes: float = 60.0
    """How long it is."""
    instances: int = 8
    """Most instances that there may be; so many the routers route between."""
    repeats: int = 25
    """Measurements of each router."""
    out: Path | None = None
    """File for the figures, as JSON."""

    def run(self, console: Console, show: Callable[[Part, Console], None]) -> None:
        """Measure, print, and write if there is a file to write."""
        for name in ("minutes", "instances", "repeats"):
            if not getattr(self, name) > 0:
                raise InputError(f"--{name}: expected a number > 0, got {getattr(self, name)}")
        part = self.measure(console)
        show(part, console)
        if self.out is not None:
            try:
                self.out.write_text(json.dumps({"rows": part.rows}, indent=2) + "\n", encoding="utf-8")
            except OSError as error:
                raise InputError(f"{self.out}: cannot be written ({error.strerror})") from None

    def measure(self, console: Console) -> Part:
        """The table."""
        config = WorkloadConfig(trace=self.trace, start_s=self.start_s, horizon_s=60.0 * self.minutes)
        workload = Workload(config)
        cluster = ClusterConfig(max_instances=self.instances)
        with console.status(_PLAIN_ROUTER) as status:
            plain_s = self._routed_s(cluster, workload, _PLAIN_ROUTER)
            rows = []
            for name in self.policies:
                status.update(name)
                rows.append(self._row(build_policy(name, cluster, workload), workload, plain_s))
        return Part(
            f"Overhead of policies: {self.minutes:g} minutes of {workload.trace.name}, up to "
            f"{self.instances} instances; PreServe reports {PUBLISHED_SHARE:.2%} of its own",
            rows,
        )

    def _row(self, policy: Autoscaler, workload: Workload, plain_s: float) -> Row:
        workload = workload.with_predictions(policy.forecaster, policy.predictor)
        decision_s, map_s, latency_s = _play(policy, workload)
        requests = len(workload.episode_at(self.start_s).trace)
        routed_s = self._routed_s(policy.cluster, workload, policy.router or "linear")
        routing_s = max(routed_s - plain_s, 0.0) / requests
        scored = len(latency_s)
        spent_s = sum(decision_s) + sum(map_s) + scored * routing_s
        return {
            "policy": policy.name,
            "router": policy.router,
            "decisions": len(decision_s),
            "us_per_decision": 1e6 * float(np.median(decision_s)),
            "us_per_map": 1e6 * float(np.median(map_s)),
            "us_routing": 1e6 * routing_s,
            "latency_s": float(latency_s.mean()),
            "of_serving": spent_s / float(latency_s.sum()),
        }

    def _routed_s(self, config: ClusterConfig, workload: Workload, router: Any) -> float:
        """Time of the simulator for the part with that router, all instances ready, best of the repeats."""
        episode = workload.episode_at(self.start_s)

        def measure() -> float:
            cluster = Cluster(
                config,
                episode.trace,
                **router_options(router),
                predicted_tokens=episode.predicted_tokens,
                initial_instances=config.max_instances,
                start_s=episode.start_s - episode.warmup_s,
            )
            return timed(cluster.settle)

        measure()  # compiles
        return min(measure() for _ in range(self.repeats))


def _play(policy: Autoscaler, workload: Workload) -> tuple[list[float], list[float], Any]:
    """Seconds of each decision and of the maps that it reads; latencies of the requests, s."""
    env: Any = gym.make(
        "preserve/Autoscale-v0", disable_env_checker=True, workload=workload, **policy.env_options()
    ).unwrapped
    slots = policy.cluster.max_instances
    peak, overload = np.empty(slots), np.empty(slots)
    observation, _ = env.reset(seed=0)
    policy.predict(observation)  # imports and compiles
    look_ahead_all(env.cluster.compiled()[0], policy.anticipator.overload_use, peak, overload)
    decision_s, map_s = [], []
    state, truncated = None, False
    while not truncated:
        compiled = env.cluster.compiled()[0]
        started = time.perf_counter()
        look_ahead_all(compiled, policy.anticipator.overload_use, peak, overload)
        looked = time.perf_counter()
        action, state = policy.predict(observation, state)
        decision_s.append(time.perf_counter() - looked)
        map_s.append(looked - started)
        observation, _, _, truncated, _ = env.step(action)
    results = env.results()
    latency_s = (results["completed_s"] - results["arrival_s"]).dropna().to_numpy(np.float64)
    return decision_s, map_s, latency_s
