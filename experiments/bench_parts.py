"""The parts of ``python -m experiments.bench engine``: each measures one thing and gives a table."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments.bench_setup import (
    MAX_MODEL_LEN,
    REFERENCE_ROUTER,
    ROUTERS,
    SCHEDULERS,
    Served,
    Setup,
    replayed,
    timed,
)
from preserve_gym import Cluster, InputError
from preserve_gym.config import default_instance
from preserve_gym.data import data_dir, find_data
from preserve_gym.sim import ROUTERS as ENGINE_ROUTERS
from tests import golden

ROOT = Path(__file__).parents[1]
SCALING_INSTANCES = 8
OVERLOAD = 2.0
GOLDEN_CASE = "conv_x0.7"

Row = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A table.

    Attributes:
        title: what was measured.
        rows: values by column; ``bench.COLUMNS`` says what the columns are.
        figures: what follows from all rows together, by name.
    """

    title: str
    rows: list[Row]
    figures: dict[str, float] = field(default_factory=dict)


def speed(setup: Setup) -> Part:
    """Requests and iterations per second of each fleet, scheduler and router."""
    sizes = setup.sizes
    routers = [router for router in ROUTERS if router in ENGINE_ROUTERS]
    references: dict[str, Served] = {}
    rows: list[Row] = []
    for instances in sorted(sizes.instances):
        for scheduler in SCHEDULERS:
            case = {"instances": instances, "scheduler": scheduler}
            if instances in sizes.reference_instances:
                served = references[scheduler] = setup.serve_by_reference(scheduler, instances)
                rows.append({**case, "router": REFERENCE_ROUTER, "simulator": "reference", **served.row()})
            trace = setup.loaded(scheduler, instances, sizes.requests)
            for router in routers:
                served = setup.serve(setup.config(scheduler, instances), trace, router)
                row = {**case, "router": router, "simulator": "engine", **served.row()}
                rows.append(row | _against(references.get(scheduler), served))
    budgets = ", ".join(f"{name} {options['max_num_batched_tokens']}" for name, options in SCHEDULERS.items())
    return Part(
        f"Speed: {sizes.requests:,} requests, {setup.trace.name} replayed at load {setup.load:g}\n"
        f"{default_instance().name}, max_model_len {MAX_MODEL_LEN}, token budget {budgets}",
        _alike(rows),
    )


def overload(setup: Setup) -> Part:
    """One instance with more than it can serve, so that the KV cache is full and requests are evicted."""
    rows: list[Row] = []
    for scheduler in SCHEDULERS:
        reference = setup.serve_by_reference(scheduler, 1, OVERLOAD)
        trace = setup.loaded(scheduler, 1, setup.sizes.overload_requests, OVERLOAD)
        served = setup.serve(setup.config(scheduler, 1), trace, "round-robin")
        for simulator, measured in (("reference", reference), ("engine", served)):
            row = {"scheduler": scheduler, "simulator": simulator, **measured.row()}
            row["preemptions_per_request"] = measured.totals["preemptions"] / measured.requests
            rows.append(row if measured is reference else row | _against(reference, measured))
    return Part(f"Overload: one instance at load {OVERLOAD:g}", _alike(rows))


def time_by_requests(setup: Setup) -> Part:
    """Time against the number of requests."""
    rows = []
    for count in setup.sizes.request_counts:
        trace = setup.loaded("vllm", SCALING_INSTANCES, count)
        served = setup.serve(setup.config("vllm", SCALING_INSTANCES), trace, "least-requests")
        rows.append({"requests": count, "seconds": served.best_s, **served.row()})
    return Part(
        f"Time against requests: {SCALING_INSTANCES} instances, vllm, least-requests",
        rows,
        _scaling(rows, "requests"),
    )


def time_by_instances(setup: Setup) -> Part:
    """Time against the number of instances, each under the same load."""
    rows = []
    for count in setup.sizes.fleets:
        trace = setup.loaded("vllm", count, setup.sizes.fleet_requests)
        served = setup.serve(setup.config("vllm", count), trace, "least-requests")
        rows.append({"instances": count, "seconds": served.best_s, **served.row()})
    return Part(
        f"Time against instances: {setup.sizes.fleet_requests:,} requests, vllm, least-requests",
        rows,
        _scaling(rows, "instances"),
    )


def two_threads(setup: Setup) -> Part:
    """Two clusters in two threads against one: the engine releases the GIL."""
    config = setup.config("vllm", SCALING_INSTANCES)
    trace = setup.loaded("vllm", SCALING_INSTANCES, setup.sizes.requests)

    def measure(count: int) -> tuple[float, float]:
        """Seconds, and seconds of all cores together."""
        clusters = [Cluster(config, trace, initial_instances=config.max_instances) for _ in range(count)]
        workers = [threading.Thread(target=cluster.settle) for cluster in clusters]

        def work() -> None:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()

        started_s = time.process_time()
        return timed(work), time.process_time() - started_s

    # In turn, so that both meet the machine in the same states.
    pairs = [(measure(1), measure(2)) for _ in range(setup.sizes.repeats)]
    rows = []
    for count, measured in ((1, [one for one, _ in pairs]), (2, [two for _, two in pairs])):
        served = Served(count * len(trace), [seconds for seconds, _ in measured])
        best_s, cores_s = min(measured)
        rows.append({"threads": count, **served.row(), "cores_used": cores_s / best_s})
    return Part(
        f"Threads: a cluster of {SCALING_INSTANCES} instances in each, on {os.cpu_count()} cores",
        rows,
        {"throughput_of_two": rows[1]["requests_per_s"] / rows[0]["requests_per_s"]},
    )


def peak_memory(setup: Setup) -> Part:
    """Peak of what is allocated beyond the trace, from its growth between two numbers of requests."""
    counts = setup.sizes.memory_requests
    peaks = []
    for count in counts:
        config = setup.config("vllm", SCALING_INSTANCES)
        trace = setup.loaded("vllm", SCALING_INSTANCES, count)
        _peaks(config, replayed(trace, 10, 1.0))  # whatever is made once
        peaks.append(_peaks(config, trace))
    rows = []
    for stage in peaks[0]:
        growth = (peaks[1][stage] - peaks[0][stage]) / (counts[1] - counts[0])
        rows.append({"stage": stage, "bytes_per_request": growth})
    return Part(
        f"Memory: peak beyond the trace (itself 16 bytes a request), {counts[0]:,} to {counts[1]:,} requests",
        rows,
    )


def _peaks(config: Any, trace: Any) -> dict[str, int]:
    """Peak bytes allocated while a cluster serves a trace, and with its results."""
    gc.collect()
    tracemalloc.start()
    try:
        cluster = Cluster(config, trace, initial_instances=config.max_instances)
        cluster.settle()
        served = tracemalloc.get_traced_memory()[1]
        cluster.results()
        return {"served": served, "with results": tracemalloc.get_traced_memory()[1]}
    finally:
        tracemalloc.stop()


_FIRST_RUN = """
import sys, time
started = time.perf_counter()
from preserve_gym import Cluster, ClusterConfig, InstanceConfig, Trace
imported = time.perf_counter()
instance = InstanceConfig.from_preset(
    "llama-3.1-8b", "rtx-4090", scheduler=sys.argv[1], async_scheduling=sys.argv[1] == "vllm",
    max_model_len=2048,
)
Cluster(ClusterConfig(instance), Trace([0.0], [100], [10])).settle()
print(imported - started, time.perf_counter() - imported)
"""


def first_run(setup: Setup) -> Part:
    """A program that serves one request: with nothing compiled, and with all of it in the cache on disk."""
    rows = []
    for scheduler in SCHEDULERS:
        with tempfile.TemporaryDirectory() as folder:
            for cache in ("empty", "full"):
                command = [sys.executable, "-c", _FIRST_RUN, scheduler]
                started = time.perf_counter()
                done = subprocess.run(
                    command,
                    cwd=ROOT,
                    env={**os.environ, "NUMBA_CACHE_DIR": folder},
                    capture_output=True,
                    text=True,
                    check=True,
                )
                total_s = time.perf_counter() - started
                import_s, run_s = map(float, done.stdout.split())
                rows.append(
                    {
                        "scheduler": scheduler,
                        "cache": cache,
                        "import_s": import_s,
                        "run_s": run_s,
                        "total_s": total_s,
                    }
                )
    return Part("Compilation: a program that serves one request", rows)


def recorded_instance(setup: Setup) -> Part:
    """A fleet of the instance whose runs in vLLM's own scheduler the engine equals to the bit.

    Raises:
        InputError: where the recorded run is not on this machine.
    """
    if find_data(f"golden/vllm_v1/{GOLDEN_CASE}.json") is None:
        raise InputError(f"golden/vllm_v1/{GOLDEN_CASE}.json: not in {data_dir()}")
    run = golden.load(data_dir(), GOLDEN_CASE)
    config = replace(run.config, max_instances=SCALING_INSTANCES)
    rate_rps = len(run.trace) / run.trace.span_s
    trace = replayed(run.trace, setup.sizes.requests, SCALING_INSTANCES * rate_rps)
    served = setup.serve(config, trace, "least-requests")
    return Part(
        f"Recorded instance {GOLDEN_CASE}: {SCALING_INSTANCES} of it at {SCALING_INSTANCES} times its rate",
        [{"instances": SCALING_INSTANCES, "scheduler": "vllm", "router": "least-requests", **served.row()}],
    )


PartName = Literal["speed", "overload", "requests", "instances", "threads", "memory", "compile", "golden"]

PARTS: dict[PartName, Callable[[Setup], Part]] = {
    "speed": speed,
    "overload": overload,
    "requests": time_by_requests,
    "instances": time_by_instances,
    "threads": two_threads,
    "memory": peak_memory,
    "compile": first_run,
    "golden": recorded_instance,
}


def _against(reference: Served | None, served: Served) -> Row:
    """How many times faster than the slow reference, request by request."""
    if reference is None:
        return {}
    per_request_s = reference.best_s / reference.requests
    return {"of_reference": per_request_s * served.requests / served.best_s}


def _alike(rows: list[Row]) -> list[Row]:
    """Without iterations where the engine does not count them."""
    if all("iterations_per_s" in row for row in rows):
        return rows
    return [{name: value for name, value in row.items() if name != "iterations_per_s"} for row in rows]


def _scaling(rows: list[Row], against: str) -> dict[str, float]:
    """Slope of log time over the log of a column: 1 is linear."""
    if len(rows) < 2:
        return {}
    x, y = (np.log([row[name] for row in rows]) for name in (against, "seconds"))
    return {"exponent": float(np.polyfit(x, y, 1)[0])}
