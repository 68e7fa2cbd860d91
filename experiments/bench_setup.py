"""What the benchmarks serve, on what, and how it is timed."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np

import preserve_gym
from preserve_gym import Cluster, ClusterConfig, InputError, Trace, load_trace
from preserve_gym.config import default_instance
from preserve_gym.prediction import predict_lengths
from preserve_gym.sim.profile import profile_instance
from preserve_gym.traces import DATASETS
from tests.reference import ROUTERS as REFERENCE_ROUTERS
from tests.reference import ReferenceCluster

MAX_MODEL_LEN = 8192
# As each is run: vLLM V1 with its defaults, V0 with a budget that holds the longest prompt, as it must.
SCHEDULERS: dict[str, dict[str, Any]] = {
    "vllm": {"async_scheduling": True, "max_num_batched_tokens": 2048},
    "vllm_v0": {"async_scheduling": False, "max_num_batched_tokens": MAX_MODEL_LEN},
    "sarathi": {"async_scheduling": False, "max_num_batched_tokens": 2048},
}
ROUTERS = ("round-robin", "least-requests", "preserve", "preserve-look-ahead")
"""Those of them that the engine has are measured."""
REFERENCE_ROUTER = "least-requests"
FALLBACK_TRACE = "synthetic-chat"


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        instances: fleets of the main table.
        requests: served in each measurement of it.
        repeats: measurements of each; the fastest counts.
        patience_s: no further measurement once those of one case took so long together.
        reference_instances: fleets that the slow reference serves too.
        reference_requests: that each of their instances serves.
        overload_requests: served in overload.
        request_counts: numbers of requests, for time against requests.
        fleets: numbers of instances, for time against instances.
        fleet_requests: served by each of them.
        memory_requests: two numbers of requests, for the growth of memory.
    """

    instances: tuple[int, ...] = (1, 8, 64, 512)
    requests: int = 1_000_000
    repeats: int = 3
    patience_s: float = 20.0
    reference_instances: tuple[int, ...] = (1, 8)
    reference_requests: int = 300
    overload_requests: int = 300_000
    request_counts: tuple[int, ...] = (100_000, 1_000_000, 10_000_000)
    fleets: tuple[int, ...] = (1, 4, 16, 64, 256, 1024, 2048)
    fleet_requests: int = 300_000
    memory_requests: tuple[int, int] = (1_000_000, 4_000_000)


QUICK = Sizes(
    instances=(1, 8, 64),
    requests=50_000,
    patience_s=1.0,
    reference_instances=(1,),
    reference_requests=200,
    overload_requests=20_000,
    request_counts=(10_000, 50_000, 250_000),
    fleets=(1, 16, 256),
    fleet_requests=50_000,
    memory_requests=(50_000, 200_000),
)


@dataclass(frozen=True)
class Served:
    """Measurements of one case.

    Attributes:
        requests: served.
        seconds: each measurement took.
        totals: of the last one, when all was served.
    """

    requests: int
    seconds: list[float]
    totals: Mapping[str, float] = field(default_factory=dict)

    @property
    def best_s(self) -> float:
        """The fastest measurement: what slows others down is the machine."""
        return min(self.seconds)

    @property
    def spread(self) -> float:
        """How much longer the slowest took, as a share."""
        return max(self.seconds) / self.best_s - 1.0

    def row(self) -> dict[str, Any]:
        """Its cells in a table; iterations only where they are counted."""
        cells = {"requests_per_s": self.requests / self.best_s, "spread": self.spread}
        if "iterations" in self.totals:
            cells["iterations_per_s"] = self.totals["iterations"] / self.best_s
        return cells | {"us_per_request": 1e6 * self.best_s / self.requests}


class Setup:
    """A stretch of a trace, replayed at whatever rate; an instance for each scheduler.

    Args:
        trace: replayed end to end; of a long one, its busiest hour.
        sizes: how much is measured.
        load: share of what the instances can serve within the SLO.
        tell: told what is measured now.
    """

    def __init__(
        self, trace: Trace, sizes: Sizes, load: float = 0.7, tell: Callable[[str], object] = lambda case: None
    ) -> None:
        self.trace = _busiest_hour(trace)
        self.sizes = sizes
        self.load = load
        self._tell = tell
        self._capacity_rps = cache(self._find_capacity_rps)

    def config(self, scheduler: str, instances: int) -> ClusterConfig:
        """The default instance with that scheduler, and a ``max_model_len`` that suits all three."""
        options = {"scheduler": scheduler, "max_model_len": MAX_MODEL_LEN, **SCHEDULERS[scheduler]}
        return ClusterConfig(
            replace(default_instance(), **options), max_instances=instances, too_long="clip_prompt"
        )

    def replay(self, requests: int, rate_rps: float) -> Trace:
        """The first ``requests`` of the trace repeated for ever, at that mean rate."""
        return replayed(self.trace, requests, rate_rps)

    def loaded(self, scheduler: str, instances: int, requests: int, load: float | None = None) -> Trace:
        """The trace at the rate that loads that fleet."""
        load = self.load if load is None else load
        return self.replay(requests, load * instances * self._capacity_rps(scheduler))

    def serve(self, config: ClusterConfig, trace: Trace, router: str) -> Served:
        """The engine: all instances ready from the start, up to the last completion."""
        instances = config.max_instances
        self._tell(f"{len(trace):,} requests, {instances:,} x {config.instance.scheduler}, {router}")
        predicted = predict_lengths("noisy", trace, seed=0)

        def measure() -> tuple[float, Mapping[str, float]]:
            cluster = Cluster(config, trace, router, predicted_tokens=predicted, initial_instances=instances)
            seconds = timed(cluster.settle)
            return seconds, cluster.totals()

        return self._repeat(len(trace), measure)

    def serve_by_reference(self, scheduler: str, instances: int, load: float | None = None) -> Served:
        """The slow reference, on the first requests only."""
        config = self.config(scheduler, instances)
        trace = self.loaded(scheduler, instances, self.sizes.reference_requests * instances, load)
        self._tell(f"{len(trace):,} requests, {instances:,} x {scheduler}, slow reference")
        predicted = predict_lengths("noisy", trace, seed=0)
        arrival_s, prompt, output = trace.arrival_s, trace.prompt_tokens, trace.output_tokens
        columns = (arrival_s.tolist(), prompt.tolist(), output.tolist(), predicted.tolist())
        router = REFERENCE_ROUTERS[REFERENCE_ROUTER.replace("-", "_")]

        def measure() -> tuple[float, Mapping[str, float]]:
            cluster = ReferenceCluster(config, *columns, router, instances)
            seconds = timed(lambda: cluster.run_until(math.inf))
            return seconds, {
                "iterations": sum(instance.iterations for instance in cluster.instances),
                "preemptions": sum(request.preemptions for request in cluster.requests),
            }

        return self._repeat(len(trace), measure)

    def _repeat(self, requests: int, measure: Callable[[], tuple[float, Mapping[str, float]]]) -> Served:
        seconds: list[float] = []
        while len(seconds) < self.sizes.repeats and sum(seconds) <= self.sizes.patience_s:
            took_s, totals = measure()
            seconds.append(took_s)
        return Served(requests, seconds, totals)

    def _find_capacity_rps(self, scheduler: str) -> float:
        config = self.config(scheduler, 1)
        return profile_instance(config, self.trace.prompt_tokens, self.trace.output_tokens).requests_per_s


def find_trace(name: str) -> tuple[Trace, str]:
    """The trace of that name, and what to say of it; another if it is a data set that is not here.

    Raises:
        InputError: on an unknown name or a bad file.
    """
    try:
        return load_trace(name), ""
    except InputError as error:
        if name not in DATASETS:
            raise
        return load_trace(FALLBACK_TRACE), f"{FALLBACK_TRACE} is served instead: {error}"


def replayed(trace: Trace, requests: int, rate_rps: float) -> Trace:
    """The first ``requests`` of ``trace`` repeated for ever, at that mean rate."""
    times = -(-requests // len(trace))
    arrival_s = (trace.arrival_s + trace.span_s * np.arange(times)[:, np.newaxis]).reshape(-1)[:requests]
    arrival_s *= len(trace) / trace.span_s / rate_rps
    return Trace(
        np.maximum.accumulate(arrival_s),  # rounding must not put a request before the last of the round
        np.tile(trace.prompt_tokens, times)[:requests],
        np.tile(trace.output_tokens, times)[:requests],
        name=trace.name,
    )


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _busiest_hour(trace: Trace) -> Trace:
    """The hour of ``trace`` with the most requests, or all of it if it is shorter."""
    if trace.span_s <= 3600.0:
        return trace
    starts = np.arange(0.0, trace.span_s - 3600.0, 600.0)
    counts = np.searchsorted(trace.arrival_s, starts + 3600.0) - np.searchsorted(trace.arrival_s, starts)
    start_s = float(starts[np.argmax(counts)])
    return trace.slice(start_s, start_s + 3600.0)


def machine() -> dict[str, Any]:
    """What it was measured on."""
    return {
        "preserve_gym": preserve_gym.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
