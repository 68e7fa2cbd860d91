"""``python -m experiments.bounds``: the bounds between which autoscalers lie, scenario by scenario."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from rich.console import Console
from rich.status import Status
from rich.table import Table

from baselines.bounds import Problem, Schedule, best_static, find_hindsight, lower_bound
from baselines.bounds.kept import FOLDER, KeptBounds, file_name, read_bounds, run_lengths
from experiments.tables import plain_console
from preserve_gym.command_line import parse, status_of
from preserve_gym.errors import InputError, did_you_mean
from preserve_gym.scenarios import Scenario, load_scenario, scenario_names, trace_digest
from preserve_gym.sim import ROUTERS

PROGRAM = "python -m experiments.bounds"
_WIDTH = 130  # of tables, where there is no terminal
COLUMNS = {
    "scenario": "scenario",
    "requests": "requests",
    "static_instances": "static: instances",
    "static_attainment": "attainment, %",
    "static_gpu_hours": "GPU-hours",
    "hindsight_attainment": "hindsight: attainment, %",
    "hindsight_gpu_hours": "GPU-hours",
    "hindsight_of_static": "of static, %",
    "lower_gpu_hours": "lower bound: GPU-hours",
    "lower_of_hindsight": "of hindsight, %",
}
"""Columns of the table shown, and their titles."""


@dataclass(frozen=True)
class Options:
    """Best constant fleet, hindsight schedule and lower bound on the evaluation windows of scenarios.

    Each scenario's bounds are kept in --out, with the schedule; a second run goes on where the first one
    stopped, and computes again what was computed with less --effort or another target or router.
    """

    scenario: tuple[str, ...] = ("chat", "code")
    """Scenarios, by name or file."""
    split: Literal["validation", "test"] = "test"
    """Part of the recording; the target holds for its windows together."""
    target: float = 0.99
    """SLO attainment that has to be met."""
    router: str = "least-requests"
    """Router of the constant fleet and the hindsight schedule; the lower bound holds for any."""
    effort: int = 300
    """Simulations that improve the hindsight schedule."""
    seed: int | None = None
    """Of the workload; none: that of the scenario."""
    out: Path = FOLDER
    """Folder for the bounds: a JSON file for each scenario, split and seed, and bounds.csv of this run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (the machine refused), 2 (bad input) or 130 (Ctrl-C)."""
    return status_of(lambda: _run(arguments), "interrupted; the same command goes on from there")


def _run(arguments: Sequence[str] | None) -> int:
    options: Options = parse(Options, arguments, PROGRAM)
    scenarios = _check(options)
    console = plain_console(_WIDTH)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    with console.status("") as status:
        for scenario in scenarios:
            rows.append(_bounds_of(scenario, options, status))
    table = pd.DataFrame(rows)
    table.to_csv(options.out / "bounds.csv", index=False)
    _show(table, console)
    for row in rows:
        if not row["meets"]:
            size = row["static_instances"]
            console.print(
                f"{row['scenario']}: its largest fleet, {size} instance{'s' * (size > 1)}, reaches "
                f"{100 * row['static_attainment']:.2f} %: it cannot be served at the target",
                highlight=False,
                soft_wrap=True,
            )
    return 0


def _check(options: Options) -> list[Scenario]:
    if not 0.0 < options.target <= 1.0:
        raise InputError(f"--target: expected a share in (0, 1], got {options.target}")
    if not 0 <= options.effort <= 1_000_000:
        raise InputError(f"--effort: expected an integer in [0, 1000000], got {options.effort}")
    if options.router not in ROUTERS:
        hint = did_you_mean(options.router, ROUTERS)
        raise InputError(f"--router: expected one of {', '.join(ROUTERS)}, got {options.router!r}{hint}")
    if not options.scenario:
        raise InputError(f"--scenario: expected some of {', '.join(scenario_names())}, got none")
    return [load_scenario(name) for name in options.scenario]


def _bounds_of(scenario: Scenario, options: Options, status: Status) -> dict[str, Any]:
    """The row of a scenario, from its file or computed and put there."""
    key = {
        "cluster": scenario.cluster.to_mapping(),
        # Nobody asks for a forecast here.
        "workload": {k: v for k, v in scenario.workload.to_mapping().items() if k != "forecaster"},
        **{name: getattr(options, name) for name in ("split", "target", "router")},
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    seed = scenario.workload.seed if options.seed is None else options.seed
    path = options.out / file_name(scenario.name, options.split, seed)
    if path.is_file():
        kept = read_bounds(path).row
        if kept["of"] == digest and kept["effort"] >= options.effort:
            return kept
    bounds = compute(scenario, options, status)
    bounds.row["of"] = digest
    bounds.write(path)
    return bounds.row


def compute(scenario: Scenario, options: Options, status: Status) -> KeptBounds:
    """The bounds of a scenario, and the hindsight schedule."""
    status.update(f"{scenario.name}: loading")
    started_s = time.perf_counter()
    workload = scenario.make_workload(options.split, options.seed)
    episodes = tuple(workload.episode_at(float(start_s)) for start_s in workload.evaluation_windows)
    seed = workload.config.seed
    problem = Problem(scenario.cluster, episodes, options.target, options.router)
    status.update(f"{scenario.name}: lower bound")
    lower = lower_bound(problem)
    status.update(f"{scenario.name}: constant fleets")
    static = best_static(problem, lower)
    row: dict[str, Any] = {
        "scenario": scenario.name,
        "split": options.split,
        "seed": seed,
        "router": options.router,
        "target": options.target,
        "effort": options.effort,
        "windows": len(episodes),
        "requests": problem.arrived,
        "meets": static.meets,
        "static_instances": static.instances,
        "static_attainment": static.outcome.attainment,
        "static_gpu_hours": static.outcome.gpu_hours,
        "hindsight_attainment": np.nan,
        "hindsight_gpu_hours": np.nan,
    }
    schedule: Schedule = ()
    if static.meets:
        plays = 0

        def on_play(outcome: object) -> None:
            nonlocal plays
            plays += 1
            status.update(f"{scenario.name}: hindsight schedule, {plays} simulations")

        profile = workload.profile(scenario.cluster)
        hindsight = find_hindsight(problem, profile, static, effort=options.effort, on_play=on_play)
        row["hindsight_attainment"] = hindsight.attainment
        row["hindsight_gpu_hours"] = hindsight.gpu_hours
        schedule = hindsight.schedule
    row["lower_gpu_hours"] = lower.gpu_hours
    row["hindsight_of_static"] = row["hindsight_gpu_hours"] / row["static_gpu_hours"]
    row["lower_of_hindsight"] = row["lower_gpu_hours"] / row["hindsight_gpu_hours"]
    row["seconds"] = time.perf_counter() - started_s
    return KeptBounds(
        row,
        trace_digest(workload.trace),
        starts_s=[episode.start_s for episode in episodes],
        interval_s=problem.interval_s,
        targets=[run_lengths(targets) for targets in schedule],
    )


def _show(frame: pd.DataFrame, console: Console) -> None:
    table = Table(title_justify="left", box=None, padding=(0, 2, 0, 0))
    for title in COLUMNS.values():
        table.add_column(title, justify="left" if title == "scenario" else "right")
    for row in frame.to_dict("records"):
        table.add_row(*(_text(name, row[str(name)]) for name in COLUMNS))
    console.print(table)


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    if np.isnan(value):
        return "-"
    if name.endswith("attainment"):
        return f"{100 * value:.2f}"
    return f"{100 * value:.0f}" if "_of_" in name else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
