"""``python -m experiments.bench``: speed of the simulator, as ratios measured in one run."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from preserve_gym import Cluster, ClusterConfig, InputError, Trace
from preserve_gym.sim import ROUTERS
from preserve_gym.sim.profile import profile_instance
from preserve_gym.traces import load_trace, scale_rate
from tests.reference import ROUTERS as REFERENCE_ROUTERS
from tests.reference import ReferenceCluster


@dataclass(frozen=True)
class Engine:
    """Requests per second of the engine, for several fleets and routers, beside the slow reference.

    Each fleet serves the trace at ``load`` times what its instances can serve within the SLO.
    """

    trace: str = "synthetic-chat"
    """Workload: a name, or a file; its busiest hour is served."""
    instances: tuple[int, ...] = (1, 8, 64)
    """Sizes of the fleet."""
    requests: int = 200_000
    """At least so many requests are served per measurement."""
    load: float = 0.7
    """Share of the profiled capacity."""
    repeats: int = 3
    """Measurements of each; the fastest counts."""

    def run(self, console: Console) -> None:
        """Measure and print."""
        hour = _busiest_hour(load_trace(self.trace))
        config = ClusterConfig()
        compile_s = _timed(lambda: Cluster(config, hour).run_until(1.0))
        console.print(f"compiled, or loaded from the cache, in {compile_s:.1f} s")
        profile = profile_instance(config, hour.prompt_tokens, hour.output_tokens)
        reference_s = self._reference_s_per_request(hour, profile.requests_per_s)
        console.print(f"slow reference, 1 instance: {1 / reference_s:,.0f} requests/s\n")
        table = Table(
            "instances",
            "router",
            "requests/s",
            "of the reference",
            "us/request",
            title=f"{hour.name}, {config.instance.name}, load {self.load:g}, one of {os.cpu_count()} cores",
        )
        for count in self.instances:
            fleet = ClusterConfig(max_instances=count)
            trace = self._scaled(hour, count * profile.requests_per_s * self.load)
            for router in ROUTERS:
                best_s = min(_served(fleet, trace, router) for _ in range(self.repeats)) / len(trace)
                table.add_row(
                    str(count),
                    router,
                    f"{1 / best_s:,.0f}",
                    f"{reference_s / best_s:,.0f}x",
                    f"{best_s * 1e6:.2f}",
                )
        console.print(table)

    def _scaled(self, hour: Trace, rate_rps: float) -> Trace:
        """The hour at ``rate_rps``, repeated until there are enough requests."""
        scaled = scale_rate(hour, rate_rps * hour.span_s / len(hour), np.random.default_rng(0))
        times = -(-self.requests // len(scaled))
        arrival_s = np.concatenate([scaled.arrival_s + k * scaled.span_s for k in range(times)])
        return Trace(arrival_s, np.tile(scaled.prompt_tokens, times), np.tile(scaled.output_tokens, times))

    def _reference_s_per_request(self, hour: Trace, capacity_rps: float) -> float:
        trace = _take(self._scaled(hour, capacity_rps * self.load), 500)
        config = ClusterConfig(max_instances=1)
        reference = ReferenceCluster(
            config,
            trace.arrival_s.tolist(),
            trace.prompt_tokens.tolist(),
            trace.output_tokens.tolist(),
            [1] * len(trace),
            REFERENCE_ROUTERS["round_robin"],
            1,
        )
        return _timed(lambda: reference.run_until(1e15)) / len(trace)


def _busiest_hour(trace: Trace) -> Trace:
    """The hour of ``trace`` with the most requests, or all of it if it is shorter."""
    if trace.span_s <= 3600.0:
        return trace
    starts = np.arange(0.0, trace.span_s - 3600.0, 600.0)
    counts = np.searchsorted(trace.arrival_s, starts + 3600.0) - np.searchsorted(trace.arrival_s, starts)
    start_s = float(starts[np.argmax(counts)])
    return trace.slice(start_s, start_s + 3600.0)


def _take(trace: Trace, n: int) -> Trace:
    return Trace(trace.arrival_s[:n], trace.prompt_tokens[:n], trace.output_tokens[:n])


def _served(config: ClusterConfig, trace: Trace, router: str) -> float:
    """Seconds to serve ``trace`` to the end on the whole fleet."""
    cluster = Cluster(config, trace, router, initial_instances=config.max_instances)
    return _timed(cluster.settle)


def _timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark that the arguments name; exit status 2 on bad input."""
    bench = tyro.extras.subcommand_cli_from_dict({"engine": Engine}, args=arguments)
    try:
        bench.run(Console())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
