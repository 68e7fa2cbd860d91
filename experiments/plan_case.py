"""What capacity is planned for: traffic, and the clusters that could serve it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from baselines.bounds import Problem
from experiments.metrics import tpot_s, ttft_s, violated
from experiments.trace_setting import largest_fleet, trace_name
from preserve_gym.config import ClusterConfig, InstanceConfig, SloConfig, WorkloadConfig
from preserve_gym.errors import InputError
from preserve_gym.scenarios import load_scenario
from preserve_gym.sim.cluster import Cluster
from preserve_gym.traces import Trace, load_trace
from preserve_gym.workload import Workload

LONG_S = 2 * 86_400.0
"""From this length on, settings are chosen on the first half of a trace: both halves have a whole day."""
_ALONE = 2_000  # requests


@dataclass(frozen=True)
class Traffic:
    """Requests in two parts: settings are chosen on the first, what comes of them is measured on the second.

    Attributes:
        name: of the trace or scenario.
        scenario: name or file of the scenario; None: a trace.
        chosen_on, measured_on: the parts; equal if it is all the same traffic.
    """

    name: str
    scenario: str | None
    chosen_on: WorkloadConfig
    measured_on: WorkloadConfig

    @property
    def is_split(self) -> bool:
        """Whether the two parts differ."""
        return self.chosen_on != self.measured_on

    @classmethod
    def of_scenario(cls, source: str) -> Traffic:
        """The validation and the test windows of a scenario.

        Raises:
            InputError: if there is none.
        """
        scenario = load_scenario(source)
        parts = (replace(scenario.workload, split="validation"), replace(scenario.workload, split="test"))
        return cls(scenario.name, source, *parts)

    @classmethod
    def of_trace(cls, trace: str, service_scale: float, rate_scale: float) -> Traffic:
        """A trace from beginning to end; the two halves of one of at least ``LONG_S``.

        Raises:
            InputError: if it cannot be read.
        """
        config = WorkloadConfig(
            trace=trace,
            service_scale=service_scale,
            rate_scale=rate_scale,
            start_s=WorkloadConfig.warmup_s,
            horizon_s=None,
        )
        span_s = load_trace(trace, config.seed, service_scale).span_s
        if span_s < LONG_S:
            return cls(trace_name(trace), None, config, config)
        half_s = math.floor(0.5 * span_s)
        # A second that no one uses: parts for training, validation and test must not be empty.
        split_s = (half_s, half_s + 1.0)
        return cls(
            trace_name(trace),
            None,
            replace(config, split="train", split_s=split_s, split_gap_s=0.0),
            replace(
                config, split="test", split_s=split_s, split_gap_s=0.0, start_s=split_s[1] + config.warmup_s
            ),
        )

    def workload(self, measured: bool) -> Workload:
        """One of the parts, made once.

        Args:
            measured: the part to measure on, not the one to choose on.

        Raises:
            InputError: if it cannot be made.
        """
        return _load(self, measured and self.is_split)


# Both parts of one traffic stay, as every cluster plays them.
@lru_cache(maxsize=2)
def _load(traffic: Traffic, measured: bool) -> Workload:
    config = traffic.measured_on if measured else traffic.chosen_on
    if traffic.scenario is None:
        return Workload(config)
    return load_scenario(traffic.scenario).make_workload("test" if measured else "validation")


@dataclass(frozen=True)
class Case:
    """A cluster with its SLO, and the traffic that it could serve."""

    label: str
    traffic: Traffic
    cluster: ClusterConfig
    target: float

    def problem(self, measured: bool) -> Problem:
        """Serve a part of the traffic at the target attainment."""
        workload = self.traffic.workload(measured)
        windows = tuple(workload.episode_at(float(start_s)) for start_s in workload.evaluation_windows)
        return Problem(self.cluster, windows, self.target)


def with_default_fleet(case: Case) -> Case:
    """The case with the default for the largest fleet, ``largest_fleet``."""
    most = largest_fleet(case.cluster, case.traffic.workload(measured=False))
    return replace(case, cluster=replace(case.cluster, max_instances=most))


def make_cluster(
    base: ClusterConfig,
    instance: InstanceConfig,
    *,
    ttft_s: float | None,
    tpot_s: float | None,
    cold_start_s: float | None,
    usd_per_gpu_hour: float | None,
    max_instances: int | None,
) -> ClusterConfig:
    """``base`` with another instance, and with whatever is not None changed.

    Raises:
        InputError: on a value outside its meaning, or an SLO without TTFT and TPOT that is asked to have one.
    """
    slo = base.slo
    if ttft_s is not None or tpot_s is not None:
        slo = replace(
            slo,
            ttft_s=slo.ttft_s if ttft_s is None else ttft_s,
            tpot_s=slo.tpot_s if tpot_s is None else tpot_s,
        )
    if usd_per_gpu_hour is not None:
        instance = replace(instance, usd_per_gpu_hour=usd_per_gpu_hour)
    return replace(
        base,
        instance=instance,
        slo=slo,
        cold_start_s=base.cold_start_s if cold_start_s is None else cold_start_s,
        max_instances=base.max_instances if max_instances is None else max_instances,
    )


def instances_of(
    base: InstanceConfig | None, model: str | None, gpus: Sequence[str], tp: int | None, file: Path | None
) -> list[tuple[str, InstanceConfig]]:
    """The instances to compare, with what to call them.

    Args:
        base: what stays if none of the others is given; None: Llama-3.1-8B on an RTX 4090.

    Raises:
        InputError: if there is no such preset or file.
    """
    if file is not None:
        instance = InstanceConfig.from_file(file)
        return [(instance.name, instance)]
    if base is not None and not (model or gpus or tp):
        return [(base.name, base)]
    names = gpus or ("rtx-4090",)
    made = [InstanceConfig.from_preset(model or "llama-3.1-8b", gpu, tp or 1) for gpu in names]
    return list(zip(names, made, strict=True))


def what_prevents(case: Case) -> str | None:
    """Why no fleet however large meets the target, in a sentence; None: nothing.

    Requests drawn evenly from the traffic have an instance to themselves; no fleet serves them faster.
    """
    trace = case.traffic.workload(True).trace
    rows = np.linspace(0, len(trace) - 1, min(_ALONE, len(trace))).astype(np.int64)
    apart = Trace(
        arrival_s=np.arange(len(rows)) * 1e6,
        prompt_tokens=trace.prompt_tokens[rows],
        output_tokens=trace.output_tokens[rows],
    )
    single = Cluster(replace(case.cluster, min_instances=1, max_instances=1), apart)
    single.settle()
    results = single.results()
    late = results[violated(results)]
    attainment = 1.0 - len(late) / len(results)
    if attainment >= case.target:
        return None
    said = (
        f"no number of instances meets it: of {len(rows):,} requests that each have an instance to "
        f"themselves, only {100 * attainment:.2f} % meet the SLO"
    )
    if len(late) and (reason := _reason(late, case.cluster.slo)):
        return f"{said}; {reason}"
    if late["rejected"].any():
        return f"{said}; {int(late['rejected'].sum()):,} are longer than an instance holds"
    return said


def _reason(late: pd.DataFrame, slo: SloConfig) -> str:
    """The figure of the median late request that misses the first deadline it can miss; empty: none does."""
    served = late[~late["rejected"]]
    if not len(served):
        return ""
    first = ttft_s(served)
    if slo.ttft_s is not None:
        deadline = slo.ttft_s + slo.ttft_per_prompt_token_s * served["prompt_tokens"].to_numpy()
        if 2 * np.count_nonzero(first > deadline) >= len(served):
            k = int(np.argsort(first)[len(first) // 2])
            prompt = int(served["prompt_tokens"].iloc[k])
            return (
                f"the median of the others has its first token after {first[k]:.3g} s, of a prompt of "
                f"{prompt:,} tokens (SLO {deadline[k]:.3g} s)"
            )
    each = tpot_s(served)
    if slo.tpot_s is None or np.isnan(each).all():
        return ""
    return f"the others take {1000 * np.nanmedian(each):.3g} ms per token (SLO {1000 * slo.tpot_s:.3g} ms)"


def check_positive(option: str, value: float | None) -> None:
    """Refuse what is no finite number above 0.

    Raises:
        InputError: naming the option.
    """
    if value is not None and not (math.isfinite(value) and value > 0.0):
        raise InputError(f"{option}: expected a finite number > 0, got {value!r}")
