"""``python -m experiments.plan``: how many GPUs a service needs, under which policy, at which SLO."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from baselines import POLICIES
from baselines.own import load_own
from baselines.policy_name import label_of
from experiments.folder import new_folder
from experiments.plan_answer import Answer, full_answer
from experiments.plan_case import (
    Case,
    Traffic,
    check_positive,
    instances_of,
    make_cluster,
    what_prevents,
    with_default_fleet,
)
from experiments.provenance import trace_sources, versions
from experiments.suites import autoscalers
from experiments.trace_setting import check_fits, first_row
from preserve_gym.command_line import complain, parse, status_of
from preserve_gym.config import ClusterConfig
from preserve_gym.errors import InputError, did_you_mean
from preserve_gym.scenarios import load_scenario

PROGRAM = "python -m experiments.plan"
_SAY_EVERY_S = 30.0


@dataclass(frozen=True)
class Options:
    """How many GPUs a service needs to meet an SLO: as a static fleet, and under policies that scale it.

    For each policy the cheapest setting of its main parameters that meets --attainment is chosen, as an
    operator would tune it: on the first half of a trace of two days or more, or the validation windows of a
    scenario, and measured on the rest. A shorter trace is both chosen and measured on, which is optimistic.
    """

    trace: str | None = None
    """Trace: a name that `python -m preserve_gym.traces list` shows, or a file: CSV or Parquet with the
    columns arrival_s,prompt_tokens,output_tokens, or as released by Azure, BurstGPT or Mooncake."""
    scenario: str | None = None
    """Instead, a scenario by name or YAML file; its cluster stays where nothing else is given."""
    model: str | None = None
    """Model that the instances serve. Default: llama-3.1-8b."""
    gpu: tuple[str, ...] = ()
    """GPU that they run on; several are compared. Default: rtx-4090."""
    tp: int | None = None
    """GPUs of an instance (tensor parallelism). Default: 1."""
    instance: Path | None = None
    """Instead of --model, --gpu and --tp: file that `python -m preserve_gym.latency fit` wrote."""
    slo_ttft: float | None = None
    """Seconds until the first token. Default: 2, or the scenario's."""
    slo_tpot: float | None = None
    """Seconds per further token, on average. Default: 0.1, or the scenario's."""
    attainment: float = 0.99
    """Share of the requests that have to meet both."""
    policies: tuple[str, ...] = ("preserve-up-only", "hpa", "forecast-headroom", "corr", "rate")
    """Policies that scale; file.py:Class is one of your own."""
    hindsight: int | None = None
    """Look for the cheapest schedule of one who knows all arrivals, and improve it by so many simulations."""
    max_instances: int | None = None
    """Largest fleet. Default: half more than the busiest window needs, at least 16; the scenario's."""
    cold_start_s: float | None = None
    """From the decision to start an instance until it serves. Default: as measured for model and GPU."""
    usd_per_gpu_hour: tuple[float, ...] = ()
    """Price, one for each --gpu. Default: that of the preset."""
    rate_scale: float = 1.0
    """Factor on the request rate of a trace."""
    service_scale: float = 1.0
    """Size of the service of a generated trace, relative to the recorded or default one."""
    jobs: int = 1
    """Processes; each holds the traffic in memory."""
    out: Path | None = None
    """New folder for table, figure and text. Default: runs/plan-<name>-<n>."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (a policy failed, the machine refused), 2 (bad input) or 130."""
    return status_of(lambda: _run(parse(Options, arguments, PROGRAM)))


def _run(options: Options) -> int:
    _check(options)
    traffic = _traffic(options)
    cases = _cases(options, traffic)
    folder = new_folder(options.out, f"plan-{traffic.name}")
    try:
        with _Progress() as progress:
            answers = [_answer(case, options, progress) for case in cases]
    except BaseException:
        folder.rmdir()
        raise
    failed = _write(answers, folder)
    print(f"Results: {folder}")
    return 1 if failed else 0


def _check(options: Options) -> None:
    """What can be seen without the traffic."""
    if (options.trace is None) == (options.scenario is None):
        raise InputError("expected one of --trace and --scenario")
    if not 0.0 < options.attainment <= 1.0:
        raise InputError(f"--attainment: expected a share in (0, 1], got {options.attainment:g}")
    for name in ("slo_ttft", "slo_tpot", "rate_scale", "service_scale"):
        check_positive(f"--{name.replace('_', '-')}", getattr(options, name))
    for name, least, most in (("jobs", 1, 256), ("hindsight", 0, 1_000_000), ("max_instances", 1, 10_000)):
        value = getattr(options, name)
        if value is not None and not least <= value <= most:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option}: expected an integer in [{least}, {most}], got {value}")
    if options.scenario is not None and (options.rate_scale, options.service_scale) != (1.0, 1.0):
        raise InputError("--rate-scale, --service-scale: expected --trace with them; a scenario has its own")
    if options.instance is not None and (options.model or options.gpu or options.tp):
        raise InputError(
            "--instance: expected none of --model, --gpu and --tp beside it, which it has itself"
        )
    if len(set(options.gpu)) != len(options.gpu):
        raise InputError(f"--gpu: expected each once, got {' '.join(options.gpu)}")
    prices, gpus = options.usd_per_gpu_hour, max(1, len(options.gpu))
    if len(prices) not in (0, gpus):
        raise InputError(f"--usd-per-gpu-hour: expected {gpus}, one for each GPU, got {len(prices)}")
    _check_policies(options.policies)


def _check_policies(names: Sequence[str]) -> None:
    known = [name for name in autoscalers() if name != "static"]
    for name in names:
        if ":" in name:
            load_own(name)
        elif name.startswith("static") or name not in POLICIES or POLICIES[name].oracle:
            tried = " (static fleets are tried in any case)" * name.startswith("static")
            raise InputError(
                f"--policies: expected some of {', '.join(known)}, file.py:Class, got {name!r}"
                f"{tried or did_you_mean(name, known)}"
            )
    labels = [label_of(name) for name in names]
    if len(set(labels)) != len(labels):
        raise InputError(f"--policies: expected each once, got {' '.join(labels)}")


def _traffic(options: Options) -> Traffic:
    if options.scenario is not None:
        return Traffic.of_scenario(options.scenario)
    return Traffic.of_trace(options.trace or "", options.service_scale, options.rate_scale)


def _cases(options: Options, traffic: Traffic) -> list[Case]:
    base = ClusterConfig() if options.scenario is None else load_scenario(options.scenario).cluster
    kept = None if options.scenario is None else base.instance
    instances = instances_of(kept, options.model, options.gpu, options.tp, options.instance)
    cases = []
    for k, (label, instance) in enumerate(instances):
        cluster = make_cluster(
            base,
            instance,
            ttft_s=options.slo_ttft,
            tpot_s=options.slo_tpot,
            cold_start_s=options.cold_start_s,
            usd_per_gpu_hour=options.usd_per_gpu_hour[k] if options.usd_per_gpu_hour else None,
            max_instances=options.max_instances,
        )
        if options.trace is not None:
            check_fits(cluster, traffic.workload(measured=False).trace, first_row(options.trace))
        cases.append(Case(label, traffic, cluster, options.attainment))
    return cases


def _answer(case: Case, options: Options, progress: _Progress) -> Answer:
    """How many instances it takes."""
    progress(f"{case.label}: requests alone on an instance", 0, 0)
    if (reason := what_prevents(case)) is not None:
        return Answer(case, reason)
    progress(f"{case.label}: what an instance serves", 0, 0)
    changed = options.scenario is None or bool(options.model or options.gpu or options.tp or options.instance)
    if options.max_instances is None and changed:
        case = with_default_fleet(case)
    return full_answer(
        case, options.policies, hindsight=options.hindsight, jobs=options.jobs, on_done=progress
    )


def _write(answers: Sequence[Answer], folder: Path) -> bool:
    """Write and show what was found; whether a policy failed."""
    # Here, so that workers, which import this module too, do without matplotlib.
    from experiments.plan_figure import draw
    from experiments.plan_report import as_text, plan_table, settings_table

    text = as_text(answers)
    for file, table in (("plan.csv", plan_table(answers)), ("settings.csv", settings_table(answers))):
        table.to_csv(folder / file, index=False, lineterminator="\n", float_format="%.6g")
    (folder / "plan.txt").write_text(text, encoding="utf-8")
    traffic = answers[0].case.traffic
    sources = trace_sources(traffic.measured_on)
    name: dict[str, Any] = {"trace": sources[0]["name"]}
    record = {
        "attainment": answers[0].case.target,
        "traces": sources,
        "chosen_on": traffic.chosen_on.to_mapping() | name,
        "measured_on": traffic.measured_on.to_mapping() | name,
        "clusters": {answer.case.label: answer.case.cluster.to_mapping() for answer in answers},
        "versions": versions(),
    }
    (folder / "config.yaml").write_text(yaml.dump(record, Dumper=_Dumper, sort_keys=False), encoding="utf-8")
    draw(answers, folder)
    print(text)
    for answer in answers:
        for policy, message in answer.failed.items():
            complain(f"{answer.case.label}, {policy}: {message}")
    return any(answer.failed for answer in answers)


class _Dumper(yaml.SafeDumper):
    """Without anchors, and with tuples as lists."""

    def ignore_aliases(self, data: object) -> bool:
        return True


_Dumper.add_representer(tuple, yaml.SafeDumper.represent_list)


class _Progress:
    """What is being done: a line that changes on a terminal, now and then a line elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._status = self._console.status("")
        self._said_s = self._began_s = time.monotonic()
        self._what = ""

    def __enter__(self) -> _Progress:
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        now_s = time.monotonic()
        if what != self._what:
            self._what, self._began_s = what, now_s
        left = ""
        if done:
            left = f", about {(now_s - self._began_s) / done * (total - done) / 60.0:.1f} min left"
        text = f"{what} {done}/{total}{left}" if total else what
        if self._console.is_terminal:
            self._status.update(text)
        elif now_s - self._said_s >= _SAY_EVERY_S:
            self._said_s = now_s
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
