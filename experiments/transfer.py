"""``python -m experiments.transfer``: a trained model and rivals, untouched, where things are otherwise."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from baselines import POLICIES
from baselines.policy_name import check_policy_name, label_of
from baselines.router_name import check_router_name
from experiments.backend import opened
from experiments.policies import build_policy
from experiments.replacing import replacing
from experiments.tables import plain_console, show
from experiments.totals import play_totals
from preserve_gym.command_line import parse, status_of
from preserve_gym.config import ClusterConfig
from preserve_gym.errors import InputError, did_you_mean
from preserve_gym.scenarios import Scenario, load_scenario
from preserve_gym.workload import Workload

PROGRAM = "python -m experiments.transfer"
CHANGES = ("none", "cold-start-x2", "load-x0.5", "load-x2", "naive-forecast")
"""What is otherwise, besides ``router-NAME``; the fleet may grow twice as large with twice the load."""
ROUTER = "router-"
_KEY = ["scenario", "change", "seed"]


@dataclass(frozen=True)
class Options:
    """Play policies on test windows of scenarios as they are, and with a change that nobody was tuned for.

    All play the same arrivals. The same command goes on with what --out has of policies of the same name.
    """

    policies: tuple[str, ...] = ("ppo", "preserve-tuned", "corr-tuned")
    """By name."""
    scenario: tuple[str, ...] = ("chat-week",)
    """Scenarios, by name or file."""
    changes: tuple[str, ...] = CHANGES
    """Some of none, cold-start-x2, load-x0.5, load-x2, naive-forecast, router-NAME; of the last those whose
    policies do not route themselves."""
    seeds: int = 4
    """Workload seeds of each, from 0 on."""
    jobs: int = 1
    """Processes."""
    out: Path = Path("runs/transfer.csv")
    """CSV file with a row for each scenario, change, seed and policy."""


@dataclass(frozen=True)
class Task:
    """One workload, which all policies play."""

    source: str
    change: str
    seed: int
    policies: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (cannot write), 2 (bad input) or 130 (interrupted)."""
    return status_of(lambda: _run(arguments), "interrupted; the same command goes on from there")


def _run(arguments: Sequence[str] | None) -> int:
    options: Options = parse(Options, arguments, PROGRAM)
    _check(options)
    rows = _read(options.out) if options.out.is_file() else []
    labels = {name: label_of(name) for name in options.policies}
    played = {(*(row[name] for name in _KEY), row["policy"]) for row in rows}
    tasks = []
    for source in options.scenario:
        name = load_scenario(source).name
        for change in options.changes:
            for seed in range(options.seeds):
                missing = [p for p in options.policies if (name, change, seed, labels[p]) not in played]
                if missing:
                    tasks.append(Task(source, change, seed, tuple(missing)))

    def keep(task: Task, found: list[dict[str, Any]]) -> None:
        rows.extend(found)
        with replacing(options.out) as partial:
            pd.DataFrame(rows).to_csv(partial, index=False, float_format="%.7g", lineterminator="\n")

    console = Console(stderr=True)
    with console.status("") as status, opened("local", None, options.jobs) as pool:

        def tell(done: int) -> None:
            status.update(f"{done} of {len(tasks)} workloads")

        pool.run_tasks(play, tasks, jobs=options.jobs, on_done=tell, on_result=keep)
    wanted = pd.DataFrame(rows)
    wanted = wanted[wanted["policy"].isin(list(labels.values()))]
    show("test windows, means over seeds, as they fall", means(wanted), plain_console())
    return 0


def _check(options: Options) -> None:
    if not options.policies or not options.scenario:
        raise InputError("--policies, --scenario: expected at least one of each")
    for name in options.policies:
        check_policy_name(name, POLICIES, "--policies")
    for change in options.changes:
        if change.startswith(ROUTER):
            check_router_name(change.removeprefix(ROUTER), f"--changes: {change}")
        elif change not in CHANGES:
            hint = did_you_mean(change, CHANGES)
            known = f"{', '.join(CHANGES)}, {ROUTER}NAME"
            raise InputError(f"--changes: expected some of {known}, got {change!r}{hint}")
    for name, most in (("seeds", 1000), ("jobs", 256)):
        if not 1 <= getattr(options, name) <= most:
            raise InputError(f"--{name}: expected an integer in [1, {most}], got {getattr(options, name)}")
    options.out.parent.mkdir(parents=True, exist_ok=True)


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        table = pd.read_csv(path, float_precision="round_trip")
        table[[*_KEY, "policy", "arrived", "violations", "gpu_hours"]]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: expected the table of {PROGRAM}: {error}") from None
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def play(task: Task) -> list[dict[str, Any]]:
    """What comes of the policies on the test windows, a row each.

    They are built for the scenario as it is, so nothing is fitted to the change.
    """
    scenario = load_scenario(task.source)
    cluster, workload = changed(scenario, task.change, task.seed)
    usual = scenario.make_workload("test", task.seed)
    router = task.change.removeprefix(ROUTER) if task.change.startswith(ROUTER) else None
    rows = []
    for name in task.policies:
        built = build_policy(name, scenario.cluster, usual, scenario.name, router)
        policy = replace(built, cluster=cluster)
        found = play_totals(workload, policy)
        own = {"scenario": scenario.name, "change": task.change, "seed": task.seed, "policy": label_of(name)}
        rows.append({**own, **found._asdict()})
    return rows


def changed(scenario: Scenario, change: str, seed: int) -> tuple[ClusterConfig, Workload]:
    """Cluster and test workload of a scenario with one of ``CHANGES``."""
    cluster, traffic = scenario.cluster, scenario.workload
    if change == "cold-start-x2":
        cluster = replace(cluster, cold_start_s=tuple(2.0 * value for value in cluster.cold_starts_s))
    elif change.startswith("load-x"):
        factor = float(change.removeprefix("load-x"))
        traffic = replace(traffic, rate_scale=factor * traffic.rate_scale)
        most = max(cluster.max_instances, round(factor * cluster.max_instances))
        cluster = replace(cluster, max_instances=most)
    workload = replace(scenario, workload=traffic, cluster=cluster).make_workload("test", seed)
    return cluster, workload.with_predictions("naive" if change == "naive-forecast" else None)


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each scenario, change and policy: ``attainment`` in %, ``gpu_hours``, means over seeds."""
    totals = rows.groupby(["scenario", "change", "policy"], sort=False)[["arrived", "violations"]].sum()
    hours = rows.groupby(["scenario", "change", "policy"], sort=False)["gpu_hours"].mean()
    table = pd.DataFrame({"attainment": 100.0 * (1.0 - totals["violations"] / totals["arrived"])})
    return table.assign(gpu_hours=hours).reset_index()


if __name__ == "__main__":
    sys.exit(main())
