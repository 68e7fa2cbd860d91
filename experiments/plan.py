"""From command-line options to checked work: every mistake shows here, before anything is played."""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import preserve_gym
from baselines import POLICIES
from experiments.evaluate import Cell, Setting
from experiments.policies import build_policy
from experiments.pool import CellReport
from preserve_gym.command_line import parse as parse_options
from preserve_gym.config import ClusterConfig, InstanceConfig, WorkloadConfig
from preserve_gym.errors import InputError, did_you_mean
from preserve_gym.traces import DATASETS, Trace, load_trace, trace_names
from preserve_gym.traces.files import content_sha256, stem
from preserve_gym.traces.generated import GENERATED
from preserve_gym.workload import Workload

PROGRAM = "python -m experiments.run"
_PACKAGES = ("gymnasium", "numba", "numpy", "pandas", "pyarrow")
# Above the busiest window's need, so that the largest fleet does not decide the comparison.
_FLEET_HEADROOM = 1.5
_LEAST_FLEET = 16


@dataclass(frozen=True)
class Options:
    """Compare policies that autoscale and route on a cluster of LLM-serving instances."""

    trace: str = "synthetic-chat"
    """Workload: a name that `python -m preserve_gym.traces list` shows, such as synthetic-code or
    azure-2023-conv, or a file: CSV or Parquet with the columns arrival_s,prompt_tokens,output_tokens, or as
    released by Azure, BurstGPT or Mooncake."""
    policies: tuple[str, ...] = ("static", "reactive", "hpa", "preserve", "preserve-up-only")
    """Policies to compare; static-N has N instances, static as many as the busiest window needs."""
    rate_scale: float = 1.0
    """Factor on the request rate."""
    service_scale: float = 1.0
    """Size of the service that a generated trace is of, relative to the recorded or default one."""
    seeds: int = 1
    """Repetitions, each with another generated trace, rate scaling and errors of prediction."""
    seed: int = 0
    """The first of the seeds."""
    forecaster: str = "noisy"
    """Workload forecast: noisy (the truth with a set error), naive (the last window) or oracle."""
    predictor: str = "noisy"
    """Output-length prediction: noisy (the truth with a set error), oracle, bucket, empirical, learned or
    ssjf."""
    model: str = "llama-3.1-8b"
    """Model that the instances serve."""
    gpu: str = "rtx-4090"
    """GPU that they run on."""
    tp: int = 1
    """GPUs of an instance (tensor parallelism)."""
    instance: Path | None = None
    """File that `python -m preserve_gym.latency fit` wrote; instead of --model, --gpu and --tp."""
    max_instances: int | None = None
    """Largest fleet. Default: half more than the busiest window needs, at least 16."""
    out: Path | None = None
    """Folder for the results: a new one, or one of an earlier run, which is replaced. Default:
    runs/<trace>-<n>."""
    jobs: int | None = None
    """Processes. Default: one per CPU core."""


@dataclass(frozen=True)
class Plan:
    """Work that has been checked.

    Attributes:
        setting: what all cells share.
        cells: what is to be played, the policies of one seed together.
        jobs: processes.
        name: of the trace, fit for a folder's name.
        config: what decides the result, for ``config.yaml``; ``complete_config`` adds what is only known
            afterwards.
    """

    setting: Setting
    cells: tuple[Cell, ...]
    jobs: int
    name: str
    config: dict[str, Any]


def parse(arguments: Sequence[str] | None = None) -> Options:
    """The options on a command line.

    Raises:
        InputError: if they cannot be read.
        SystemExit: after ``--help``.
    """
    return parse_options(Options, arguments, PROGRAM)


def make_plan(options: Options) -> Plan:
    """Check the options against each other, the data and the cluster.

    Raises:
        InputError: naming the option, or the file and row, and what was expected.
    """
    _check_names(options.policies)
    _check_count("--seeds", options.seeds, 1, 10_000)
    _check_count("--seed", options.seed, 0, 2**32)
    if options.jobs is not None:
        _check_count("--jobs", options.jobs, 1)
    for option, scale in (("--rate-scale", options.rate_scale), ("--service-scale", options.service_scale)):
        if not (math.isfinite(scale) and scale > 0.0):
            raise InputError(f"{option}: expected a finite number > 0, got {scale!r}")
    cluster = ClusterConfig(instance=_instance(options))
    if options.max_instances is not None:
        cluster = replace(cluster, max_instances=options.max_instances)
    workload = WorkloadConfig(
        trace=options.trace,
        service_scale=float(options.service_scale),
        rate_scale=float(options.rate_scale),
        seed=options.seed,
        start_s=WorkloadConfig.warmup_s,
        horizon_s=None,
        forecaster=options.forecaster,
        predictor=options.predictor,
    )
    trace = load_trace(options.trace, options.seed, options.service_scale)
    check_fits(cluster, trace, _first_row(options.trace))
    loaded = Setting(options.trace, cluster, workload).make_workload(options.seed)
    if options.max_instances is None:
        cluster = replace(cluster, max_instances=_largest_fleet(cluster, loaded))
    for name in options.policies:
        build_policy(name, cluster, loaded)
    seeds = range(options.seed, options.seed + options.seeds)
    cells = tuple(Cell(options.trace, policy, seed) for seed in seeds for policy in options.policies)
    jobs = min(options.jobs or _cores(), len(cells))
    setting = Setting(options.trace, cluster, workload)
    return Plan(setting, cells, jobs, _trace_name(options.trace), _config(options, setting))


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


def _check_names(names: tuple[str, ...]) -> None:
    if not names:
        raise InputError(f"--policies: expected at least one of {', '.join(POLICIES)}")
    for i, name in enumerate(names):
        own = ":" in name  # make_policy looks whether there is such a file
        if name not in POLICIES and not own and not re.fullmatch(r"static-\d{1,9}", name):
            known = ", ".join((*POLICIES, "static-N", "file.py:Class"))
            hint = did_you_mean(name, POLICIES)
            raise InputError(f"--policies: expected some of {known}, got {name!r}{hint}")
        # Files are named after the class of one's own, too.
        if name.rpartition(":")[2] in [other.rpartition(":")[2] for other in names[:i]]:
            raise InputError(f"--policies: expected each policy once, got {name!r} twice")


def _check_count(option: str, value: int, least: int, most: int = 2**31) -> None:
    if not least <= value <= most:
        raise InputError(f"{option}: expected an integer in [{least}, {most}], got {value}")


def _instance(options: Options) -> InstanceConfig:
    if options.instance is None:
        return InstanceConfig.from_preset(options.model, options.gpu, options.tp)
    for name in ("model", "gpu", "tp"):
        if getattr(options, name) != getattr(Options, name):
            raise InputError(f"--{name}: expected none beside --instance, which has its own")
    return InstanceConfig.from_file(options.instance)


def _largest_fleet(cluster: ClusterConfig, workload: Workload) -> int:
    """The default of ``--max-instances``."""
    window_s = workload.config.window_s
    prompt, output = workload.fitted_window_tokens(window_s)
    peak = float(np.max(workload.profile(cluster).need(prompt / window_s, output / window_s)))
    return max(_LEAST_FLEET, math.ceil(_FLEET_HEADROOM * peak))


def _cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _first_row(trace: str) -> int:
    """Files count as an editor does, their header is row 1."""
    return 0 if trace in GENERATED else 2


def _trace_name(trace: str) -> str:
    name = trace if trace in trace_names() else stem(Path(trace))
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".") or "trace"


def _config(options: Options, setting: Setting) -> dict[str, Any]:
    """Everything that decides the result and nothing that does not, such as places, times and ``jobs``."""
    source: dict[str, Any]
    if options.trace in DATASETS:
        source = {"name": options.trace, "sha256": DATASETS[options.trace].sha256}
    elif options.trace in GENERATED:
        generated = GENERATED[options.trace]
        source = {
            "name": options.trace,
            "synthesis": f"{generated.about}; drawn anew for each seed",
            "needs": {name: DATASETS[name].sha256 for name in generated.needs},
        }
    else:
        path = Path(options.trace)
        source = {"name": path.name, "sha256": content_sha256(path)}
    chosen = asdict(options) | {"trace": source["name"], "policies": list(options.policies)}
    if options.instance is not None:
        chosen["instance"] = options.instance.name
    workload = setting.workload.to_mapping() | {"trace": source["name"]}
    del chosen["out"], chosen["jobs"], workload["seed"]
    return {
        "options": chosen,
        "trace": source,
        "seeds": list(range(options.seed, options.seed + options.seeds)),
        "cluster": setting.cluster.to_mapping(),
        "workload": workload,
        "versions": {
            "preserve_gym": preserve_gym.__version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _PACKAGES},
        },
    }


def complete_config(config: dict[str, Any], reports: Sequence[CellReport]) -> dict[str, Any]:
    """``config`` with each policy's parameters and each workload's instance profile.

    What differs between seeds, such as the size of the static fleet, is given by seed.
    """
    policies: dict[str, dict[int, dict[str, Any]]] = {report.cell.label: {} for report in reports}
    profile: dict[int, dict[str, Any]] = {}
    for report in reports:
        policies[report.cell.label][report.cell.seed] = report.parameters
        profile[report.cell.seed] = report.profile
    return config | {
        "policies": {name: _merge(by_seed) for name, by_seed in policies.items()},
        "profile": _merge(profile),
    }


def _merge(by_seed: dict[int, dict[str, Any]]) -> dict[str, Any]:
    first = next(iter(by_seed.values()))
    return {
        key: value
        if all(other[key] == value for other in by_seed.values())
        else {f"seed{seed}": other[key] for seed, other in by_seed.items()}
        for key, value in first.items()
    }
