"""Runs of real vLLM servers beside the engine: what ``test_real_vllm`` checks and ``plot_real_vllm`` draws.

LLMServingSim recorded them (casys-kaist/LLMServingSim, vLLM 0.19.0): 300 ShareGPT requests that arrive in
29 s. Nothing here is fitted to their latencies. Arrivals and lengths are inputs: they are served again, and
tell which batches the run visits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from preserve_gym import Cluster, ClusterConfig, InstanceConfig, Trace
from preserve_gym.latency.batch import Batch
from preserve_gym.latency.fit import fit_law
from preserve_gym.latency.instance import profile_of
from preserve_gym.latency.law import LatencyLaw
from preserve_gym.latency.parts import Operators
from preserve_gym.latency.presets import find_preset
from tests import reference
from tests.reference_schedulers import Chunk, Scheduler

LATENCIES = ("TTFT", "TPOT", "E2E")
SERIES = ("running", "waiting", "kv_use")


@dataclass(frozen=True)
class Run:
    """A recorded run, and which preset serves it again."""

    folder: str  # in golden/real_vllm
    title: str
    model: str
    gpu: str
    tp: int = 1

    def instance(self, **changes: Any) -> InstanceConfig:
        """The instance of the preset, with some fields replaced."""
        return InstanceConfig.from_preset(self.model, gpu=self.gpu, tp=self.tp, **changes)


RUNS = (
    Run("rtx4090_llama-3.1-8b", "RTX 4090, Llama-3.1-8B", "llama-3.1-8b", "rtx-4090"),
    Run("rtxpro6000_llama-3.1-8b", "RTX PRO 6000, Llama-3.1-8B", "llama-3.1-8b", "rtx-pro-6000"),
    Run("rtxpro6000_qwen3-32b", "2 x RTX PRO 6000, Qwen3-32B", "qwen3-32b", "rtx-pro-6000", tp=2),
)


def real_run(data: Path, name: str) -> Path:
    """The folder of a recorded run."""
    return data / "golden" / "real_vllm" / name


def operators_of(run: Run) -> Operators:
    """The profile of a run's GPU."""
    profile = profile_of(find_preset(run.model, run.gpu, run.tp))
    assert isinstance(profile, Operators)
    return profile


class Recorded(NamedTuple):
    """What a server did."""

    trace: Trace
    latencies: pd.DataFrame
    """TTFT, TPOT and E2E in s; one row per request, in order of arrival."""
    series: pd.DataFrame
    """Running and waiting requests and KV use (0 to 1; NaN: not recorded), by the time of the trace in s."""


class Simulated(NamedTuple):
    """What the engine makes of it; fields as of ``Recorded``."""

    latencies: pd.DataFrame
    series: pd.DataFrame


def recorded(run: Run, data: Path) -> Recorded:
    """Read a run. Requests are timed from the moment when vLLM queued them, as LLMServingSim does."""
    folder = real_run(data, run.folder)
    lines = (folder / "requests.jsonl").read_text().splitlines()
    requests = pd.DataFrame([json.loads(line) for line in lines])
    requests = requests.sort_values("arrival_time", kind="stable").reset_index(drop=True)
    first_s, last_s = requests["first_token_ts"], requests["last_token_ts"]
    latencies = pd.DataFrame(
        {
            "TTFT": first_s - requests["queued_ts"],
            "TPOT": (last_s - first_s) / (requests["output_toks"] - 1),
            "E2E": last_s - requests["queued_ts"],
        }
    )
    arrival_s = requests["arrival_time"] - requests["arrival_time"].iloc[0]
    trace = Trace(arrival_s, requests["input_toks"], requests["output_toks"])
    samples = pd.read_csv(folder / "timeseries.csv")
    zero_s = _zero_of_samples(
        first_s - requests["queued_ts"].iloc[0], requests["input_toks"], samples["prompt_throughput"]
    )
    series = samples[["running", "waiting"]].astype(float)
    series["kv_use"] = samples["kv_cache_pct"] / 100
    if (samples["kv_cache_pct"] == 0).all():
        series["kv_use"] = np.nan
    return Recorded(trace, latencies, series.set_index(samples["t"] + zero_s))


def _zero_of_samples(first_token_s: pd.Series, prompt_tokens: pd.Series, counted: pd.Series) -> float:
    """When the clock of the samples started, in s after the first request was queued.

    A prompt counts in the second in which its first token comes: the counts of all seconds are right for
    a stretch of a few hundredths of a second only.
    """
    seconds = np.arange(len(counted) + 1)
    right = [
        zero_s
        for zero_s in np.arange(-1.0, 1.0, 0.01)
        if (np.histogram(first_token_s - zero_s, seconds, weights=prompt_tokens)[0] == counted).all()
    ]
    assert right, "the samples do not fit the requests"
    assert np.ptp(right) < 0.05
    return float(np.mean(right))


def simulated(run: Run, record: Recorded, law: LatencyLaw | None = None) -> Simulated:
    """Serve the requests of ``record`` with the preset of ``run``, or with another law."""
    instance = run.instance() if law is None else run.instance(latency=law)
    cluster = Cluster(ClusterConfig(max_instances=1, instance=instance), record.trace)
    samples = []
    for time_s in record.series.index:
        cluster.run_until(time_s)
        now = cluster.snapshot()
        samples.append((float(now.running[0]), float(now.waiting[0]), float(now.kv_use[0])))
    cluster.settle()
    latencies = _latencies(cluster.results())
    return Simulated(latencies, pd.DataFrame(samples, index=record.series.index, columns=list(SERIES)))


def _latencies(results: pd.DataFrame) -> pd.DataFrame:
    decode_s = results["completed_s"] - results["first_token_s"]
    return pd.DataFrame(
        {
            "TTFT": results["first_token_s"] - results["arrival_s"],
            "TPOT": decode_s / (results["output_tokens"] - 1),
            "E2E": results["completed_s"] - results["arrival_s"],
        }
    )


class Played(reference.Instance):
    """An instance of the slow reference that is given its iteration times and remembers its batches."""

    def __init__(
        self,
        config: InstanceConfig,
        iteration_s: Callable[[Batch], float],
        scheduler: type[Scheduler] | None = None,
    ) -> None:
        super().__init__(0, config)
        if scheduler is not None:
            self.scheduler = scheduler(config)
            self.waiting, self.running = self.scheduler.waiting, self.scheduler.running
        self.state = reference.READY
        self.iteration_s = iteration_s
        self.visited: list[Batch] = []
        self.seconds: list[float] = []

    def _end_s(self, start_s: float, chunks: list[Chunk]) -> float:
        contexts = tuple(chunk.computed_before + 1 for chunk in chunks if chunk.is_decode)
        prefills = tuple((c.tokens, c.computed_before) for c in chunks if not c.is_decode)
        self.visited.append(Batch(contexts, prefills))
        self.seconds.append(self.iteration_s(self.visited[-1]))
        return start_s + self.seconds[-1]


def play(instance: Played, trace: Trace) -> pd.DataFrame:
    """Serve ``trace`` with ``instance`` alone; latencies as of ``Recorded``."""
    cluster = reference.ReferenceCluster(
        ClusterConfig(max_instances=1, instance=instance.config),
        trace.arrival_s.tolist(),
        trace.prompt_tokens.tolist(),
        trace.output_tokens.tolist(),
        trace.output_tokens.tolist(),
        reference.least_requests,
        initial_instances=1,
    )
    cluster.instances = [instance]
    cluster.run_until(math.inf)
    table = pd.DataFrame([vars(request) for request in cluster.requests])
    return _latencies(table)


def law_of_visited_batches(run: Run, trace: Trace) -> LatencyLaw:
    """The law fitted to the profiled times of just those batches that serving ``trace`` visits.

    The presets are fitted to batches that any chat service may visit. These are those of one workload; which
    ones they are follows from its arrivals and lengths and from the profile.
    """
    instance = Played(run.instance(), operators_of(run).iteration_s)
    play(instance, trace)
    return fit_law(instance.visited, np.array(instance.seconds), np.ones(len(instance.visited)))


def decode_throughput(run: Run, data: Path) -> pd.DataFrame:
    """Measured and predicted tokens/s in the seconds of a run without any prompt token.

    The law is asked for n sequences on the KV tokens in use, both taken as the mean of the samples at the
    beginning and the end of the second. With requests waiting, the run also recomputes preempted ones, which
    its prompt throughput does not count: only seconds with an empty queue are clean.
    """
    instance = run.instance()
    samples = pd.read_csv(real_run(data, run.folder) / "timeseries.csv")
    mean = samples.rolling(2).mean()
    n, context = mean["running"], mean["kv_cache_pct"] / 100 * instance.kv_tokens
    predicted = [n_ / instance.latency.iteration_s(n_, c, 0.0) for n_, c in zip(n, context, strict=True)]
    table = samples.assign(error=np.array(predicted) / samples["gen_throughput"] - 1)
    return table[(table["prompt_throughput"] == 0) & (table["running"] >= 1) & n.notna()]
