"""The options of ``python -m experiments.run``: from the command line, a YAML file, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from agents.saved_model import CARD
from experiments.backend import BACKENDS, check_address
from preserve_gym.command_line import parse as parse_options
from preserve_gym.errors import InputError, did_you_mean

PROGRAM = "python -m experiments.run"


@dataclass(frozen=True)
class Options:
    """Compare policies that autoscale and route on a cluster of LLM-serving instances.

    Without --scenario, --trace or --suite: the suite quick, an embedded day of traffic, under a minute.
    """

    suite: str | None = None
    """Scenarios, policies and seeds that belong together: quick; benchmark, all scenarios and all
    autoscalers; week, four scenarios of a week; paper-routing and paper-scaling, PreServe's own experiments.
    --policies and --seeds override it."""
    scenario: tuple[str, ...] | None = None
    """Scenarios, by name or YAML file; played are the evaluation windows of --split."""
    trace: str | None = None
    """Instead of scenarios, a trace from beginning to end: a name that `python -m preserve_gym.traces list`
    shows, or a file: CSV or Parquet with the columns arrival_s,prompt_tokens,output_tokens, or as released by
    Azure, BurstGPT or Mooncake."""
    policies: tuple[str, ...] | None = None
    """Policies to compare; static-N has N instances, static as many as the busiest window needs; NAME-tuned
    has the parameters tuned for the scenario, NAME-tuned@99.5 those that attain 99.5 % on validation; ppo is
    the model trained for it, FOLDER another one; file.py:Class is one of your own. Default: static,
    reactive, hpa, preserve and preserve-up-only."""
    baseline: str | None = None
    """Policy that the others are compared with. Default: preserve, if it plays."""
    router: str | None = None
    """Router of all policies, in place of their own: built in, a learned one, or file.py:function."""
    seeds: int | None = None
    """Repetitions, each with another generated trace, rate scaling and errors of prediction. Default: 1."""
    seed: int | None = None
    """The first of the seeds. Default: 0."""
    split: str | None = None
    """Part of the scenarios' recordings: validation or test. Default: test."""
    windows: tuple[int, ...] | None = None
    """Numbers of the evaluation windows, from 0. Default: all."""
    forecaster: str | None = None
    """Workload forecast for policies that do not bring their own, such as noisy (the truth with a set error),
    naive (the last window) or oracle. Default: as the scenario says, profile-ar for a trace."""
    predictor: str | None = None
    """The same of output lengths, such as noisy, oracle, bucket, empirical, learned or ssjf."""
    rate_scale: float | None = None
    """Of a trace: factor on the request rate. Default: 1."""
    service_scale: float | None = None
    """Of a generated trace: size of the service, relative to the recorded or default one. Default: 1."""
    model: str | None = None
    """For a trace: model that the instances serve. Default: llama-3.1-8b."""
    gpu: str | None = None
    """For a trace: GPU that they run on. Default: rtx-4090."""
    tp: int | None = None
    """For a trace: GPUs of an instance (tensor parallelism). Default: 1."""
    instance: Path | None = None
    """For a trace, instead of --model, --gpu and --tp: file that `python -m preserve_gym.latency fit`
    wrote."""
    max_instances: int | None = None
    """For a trace: largest fleet. Default: half more than the busiest window needs, at least 16."""
    config: Path | None = None
    """YAML file with options by their names, such as the options.yaml of a run; the command line wins."""
    save: str | None = None
    """Tables of each cell: timelines, of at most 288 points, for the first seed (default); intervals, every
    control interval as well; or requests, every request as well."""
    jobs: int | None = None
    """Processes. Default: one per CPU core, for scenarios at most two, as each may need 4 GB; with --backend
    ray all CPUs of the cluster, where memory allows."""
    backend: str | None = None
    """Who plays: local, processes of this machine (default), or ray, a cluster (extra `ray`). Results are the
    same."""
    address: str | None = None
    """Of the Ray cluster, HOST:PORT, or auto for the one that this machine is part of. Default: a Ray of its
    own on this machine."""
    out: Path | None = None
    """New folder for the results. Default: runs/<name>-<n>."""
    resume: Path | None = None
    """Folder of a run that was interrupted: play what is missing. Only --jobs, --backend and --address may
    stand beside it."""
    replay: Path | None = None
    """Folder of a run: play the recorded decisions again and compare every figure. The same may stand
    beside it."""


PAPERS = ("paper-routing", "paper-scaling")
"""Suites that have a command of their own, which does the work."""
OF_A_TRACE = ("rate_scale", "service_scale", "model", "gpu", "tp", "instance", "max_instances")
"""Options that change or equip a trace; scenarios have their own."""
_CHOICES = {
    "suite": ("quick", "benchmark", "week", *PAPERS),
    "split": ("validation", "test"),
    "save": ("timelines", "intervals", "requests"),
    "backend": BACKENDS,
}
_ELSEWHERE = ("config", "resume", "replay")
_WHO_PLAYS = ("jobs", "backend", "address")
_NOT_KEPT = (*_ELSEWHERE, *_WHO_PLAYS, "out")


def parse(arguments: Sequence[str] | None = None) -> Options:
    """The options on a command line, and those of the file that it names.

    Raises:
        InputError: if they cannot be read or contradict each other.
        SystemExit: after ``--help``.
    """
    options: Options = parse_options(Options, arguments, PROGRAM)
    if options.config is not None and options.resume is None and options.replay is None:
        options = _merge(read_options(options.config), options)
    _check(options)
    return options


def read_options(path: Path) -> Options:
    """The options of a YAML file.

    Raises:
        InputError: naming file and option.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{path}: expected a YAML file of options: {reason}") from None
    if not isinstance(values, Mapping):
        raise InputError(f"{path}: expected options by name, got {values!r}")
    known = [field.name for field in fields(Options) if field.name not in _ELSEWHERE]
    arguments: list[str] = []
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise InputError(f"{path}: {key}: no such option{did_you_mean(name, known)}")
        given = value if isinstance(value, list) else [value]
        if any(isinstance(item, list | dict) or item is None for item in given):
            raise InputError(f"{path}: {key}: expected a value or a list of values, got {value!r}")
        arguments += [f"--{name.replace('_', '-')}", *map(str, given)]
    try:
        options: Options = parse_options(Options, arguments, PROGRAM)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return options


def given(options: Options) -> dict[str, Any]:
    """Those options that were given, by name."""
    values = {field.name: getattr(options, field.name) for field in fields(Options)}
    return {name: value for name, value in values.items() if value is not None}


def to_keep(options: Options) -> dict[str, Any]:
    """What decides the result, for ``options.yaml``: valid in any working directory, and for ``--config``."""
    kept = {name: value for name, value in given(options).items() if name not in _NOT_KEPT}
    for name in ("scenario", "policies"):
        if name in kept:
            kept[name] = [_absolute(value) for value in kept[name]]
    for name in ("trace", "instance", "router"):
        if name in kept:
            kept[name] = _absolute(str(kept[name]))
    if "windows" in kept:
        kept["windows"] = list(kept["windows"])
    return kept


def _absolute(value: str) -> str:
    file, mark, rest = value.rpartition(":") if ".py:" in value else value.partition("@")
    path = Path(file)
    is_file = bool(path.suffix) and path.is_file()
    return f"{path.resolve()}{mark}{rest}" if is_file or (path / CARD).is_file() else value


def _merge(base: Options, over: Options) -> Options:
    return replace(base, **given(over))


def _check(options: Options) -> None:
    names = given(options)
    for name, known in _CHOICES.items():
        if name in names and names[name] not in known:
            hint = did_you_mean(names[name], known)
            raise InputError(f"--{name}: expected one of {', '.join(known)}, got {names[name]!r}{hint}")
    _check_together(options, names)
    check_address(options.backend, options.address)
    for name, least, most in (("seeds", 1, 10_000), ("seed", 0, 2**32), ("jobs", 1, 2**31)):
        value = getattr(options, name)
        if value is not None and not least <= value <= most:
            raise InputError(f"--{name}: expected an integer in [{least}, {most}], got {value}")


def _check_together(options: Options, names: Mapping[str, Any]) -> None:
    """Refuse options that contradict each other."""
    for name in ("resume", "replay"):
        others = [f"--{other.replace('_', '-')}" for other in names if other not in (name, *_WHO_PLAYS)]
        if name in names and others:
            allowed = ", ".join(f"--{other}" for other in _WHO_PLAYS)
            raise InputError(f"--{name}: expected nothing but {allowed} beside it, got {', '.join(others)}")
    sources = [f"--{name}" for name in ("suite", "scenario", "trace") if name in names]
    if len(sources) > 1:
        raise InputError(f"expected one of --suite, --scenario and --trace, got {' and '.join(sources)}")
    if "suite" in names and options.suite in PAPERS:
        others = [f"--{n.replace('_', '-')}" for n in names if n not in ("suite", "seeds", "out", "config")]
        if others:
            raise InputError(
                f"--suite {options.suite}: expected only --seeds and --out beside it, got {', '.join(others)}"
            )
    if "scenario" in names or options.suite in ("benchmark", "week"):
        for name in OF_A_TRACE:
            if name in names:
                raise InputError(
                    f"--{name.replace('_', '-')}: expected --trace with it; a scenario has its own (for "
                    "another, copy its YAML file, change that and give its path)"
                )
    elif "split" in names or "windows" in names:
        name = "split" if "split" in names else "windows"
        raise InputError(f"--{name}: expected --scenario with it; a trace is played from beginning to end")
    if "instance" in names:
        for name in ("model", "gpu", "tp"):
            if name in names:
                raise InputError(f"--{name}: expected none beside --instance, which has its own")
