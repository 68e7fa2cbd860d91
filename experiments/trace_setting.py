"""A trace that is played from beginning to end, and the cluster that a command line describes for it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.evaluate import Setting
from experiments.options import Options
from preserve_gym.config import ClusterConfig, InstanceConfig, WorkloadConfig
from preserve_gym.errors import InputError
from preserve_gym.traces import Trace, load_trace, trace_names
from preserve_gym.traces.files import stem
from preserve_gym.traces.generated import GENERATED
from preserve_gym.workload import Workload

_MODEL, _GPU = "llama-3.1-8b", "rtx-4090"
# Above the busiest window's need, so that the largest fleet does not decide the comparison.
_FLEET_HEADROOM = 1.5
_LEAST_FLEET = 16


def trace_setting(options: Options, trace: str, seed: int) -> tuple[Setting, Workload]:
    """The setting of a trace, and its workload of the first seed.

    Raises:
        InputError: naming the option, or the file and row, and what was expected.
    """
    scales = {name: getattr(options, name) for name in ("rate_scale", "service_scale")}
    for name, scale in scales.items():
        if scale is not None and not (math.isfinite(scale) and scale > 0.0):
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option}: expected a finite number > 0, got {scale!r}")
    cluster = ClusterConfig(instance=_instance(options))
    if options.max_instances is not None:
        cluster = replace(cluster, max_instances=options.max_instances)
    workload = WorkloadConfig(
        trace=trace,
        service_scale=float(options.service_scale or 1.0),
        rate_scale=float(options.rate_scale or 1.0),
        start_s=WorkloadConfig.warmup_s,
        horizon_s=None,
        forecaster=options.forecaster or WorkloadConfig.forecaster,
        predictor=options.predictor or WorkloadConfig.predictor,
    )
    check_fits(cluster, load_trace(trace, seed, workload.service_scale), first_row(trace))
    setting = Setting(trace_name(trace), cluster, workload)
    loaded = setting.make_workload(seed)
    if options.max_instances is None:
        setting = replace(setting, cluster=replace(cluster, max_instances=largest_fleet(cluster, loaded)))
    return setting, loaded


def check_fits(cluster: ClusterConfig, trace: Trace, first_row: int = 0) -> None:
    """Refuse a trace of which most requests are longer than an instance can hold.

    A few may be: they are rejected and counted as violations.

    Args:
        first_row: number of the trace's first row, for the message.

    Raises:
        InputError: if more than half of the requests can never be served.
    """
    instance = cluster.instance
    longest = instance.max_request_tokens
    tokens = trace.output_tokens.astype(np.int64)
    if cluster.too_long == "reject":
        tokens += trace.prompt_tokens
    too_long = np.flatnonzero(tokens > longest)
    if 2 * len(too_long) <= len(trace):
        return
    raise InputError(
        f"trace {trace.name!r}: row {first_row + too_long[0]}: prompt_tokens + output_tokens: expected at "
        f"most {longest} (max_model_len {instance.max_model_len}, KV cache of {instance.kv_tokens} tokens of "
        f"{instance.name}), got {tokens[too_long[0]]}; {len(too_long):,} of {len(trace):,} requests can "
        "never be served"
    )


def trace_name(trace: str) -> str:
    """The name of a trace, fit for a folder's name."""
    name = trace if trace in trace_names() else stem(Path(trace))
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".") or "trace"


def _instance(options: Options) -> InstanceConfig:
    if options.instance is not None:
        return InstanceConfig.from_file(options.instance)
    return InstanceConfig.from_preset(
        options.model or _MODEL, options.gpu or _GPU, 1 if options.tp is None else options.tp
    )


def largest_fleet(cluster: ClusterConfig, workload: Workload) -> int:
    """The default of ``--max-instances``: half more than the busiest window of the trace needs."""
    window_s = workload.config.window_s
    prompt, output = workload.trace.window_tokens(window_s)
    peak = float(np.max(workload.profile(cluster).need(prompt / window_s, output / window_s)))
    return max(_LEAST_FLEET, math.ceil(_FLEET_HEADROOM * peak))


def first_row(trace: str) -> int:
    """Number of a trace's first row: files count as an editor does, their header is row 1."""
    return 0 if trace in GENERATED else 2
