"""``python -m experiments.tune``: the same budget of tuning for every autoscaler, on the validation split."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from baselines import POLICIES
from baselines.policy_name import LEARNED, is_learned
from baselines.tuned import FOLDER as TABLES
from experiments.backend import BACKENDS, Pool, check_address, opened
from experiments.suites import FEASIBLE, autoscalers
from experiments.tables import plain_console
from experiments.tune_choice import Front, make_front, text_of, write_table
from experiments.tune_grid import Parameters, coarse, fine
from experiments.tune_points import Point, Task, play_point, read_point, scenario_digest, write_point
from preserve_gym.command_line import complain, parse, status_of
from preserve_gym.errors import InputError, did_you_mean
from preserve_gym.forecasting import FORECASTERS
from preserve_gym.scenarios import Scenario, load_scenario, scenario_names

PROGRAM = "python -m experiments.tune"
_WIDTH = 110  # of tables, where there is no terminal
_SAY_EVERY_S = 30.0


@dataclass(frozen=True)
class Options:
    """Play the validation windows with configurations of autoscalers, 16 of each at most, and choose one.

    Eight lie wide apart, the others where the target is met. Chosen is the cheapest that meets the target SLO
    attainment; if none does, the one that comes closest, which is flagged. What is played is kept in --out,
    and the same command goes on from there; remove the folder when the simulator has changed.
    """

    scenario: tuple[str, ...] = ()
    """Scenarios, by name; each is tuned for by itself."""
    policies: tuple[str, ...] = ()
    """Autoscalers; all that have something to tune by default, PreServe's ablations left out."""
    jobs: int | None = None
    """Processes; each holds one workload in memory, up to 1.5 GB. Default: 1, with --backend ray all CPUs of
    the cluster."""
    backend: str = "local"
    """Who plays: local, processes of this machine, or ray, a cluster (extra `ray`)."""
    address: str | None = None
    """Of the Ray cluster, HOST:PORT, or auto for the one that this machine is part of. Default: a Ray of its
    own on this machine."""
    seeds: int = 1
    """Workload seeds; a configuration has to meet the target on all of them together."""
    forecaster: str | None = None
    """Workload forecast in place of the scenarios', to see what a better one is worth: tables are written, in
    a folder of its name, but no parameters for others to play with."""
    target: float = 0.99
    """SLO attainment that has to be met."""
    out: Path = Path("runs/tune")
    """Folder for what is played, one file for each configuration."""
    tables: Path = TABLES
    """Folder for a CSV file of each scenario with all configurations and what was chosen; those of other
    policies in it stay."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (a policy failed, the machine refused), 2 (bad input) or 130."""
    return status_of(lambda: _run(arguments), "interrupted; the same command goes on from there")


def tunable() -> tuple[str, ...]:
    """What is tuned by default: the autoscalers that have something to tune, and the feasible bound."""
    return tuple(name for name in (*autoscalers(), *FEASIBLE) if POLICIES[name].tuned_over)


def _run(arguments: Sequence[str] | None) -> int:
    options: Options = parse(Options, arguments, PROGRAM)
    scenarios = _check(options)
    policies = tuple(dict.fromkeys(options.policies)) or tunable()
    failed = False
    with opened(options.backend, options.address, options.jobs) as pool:
        for source, scenario in scenarios.items():
            points = _points(scenario, source, {policy: coarse(policy) for policy in policies}, options, pool)
            finer = {policy: _finer(policy, points[policy], options.target) for policy in policies}
            for policy, more in _points(scenario, source, finer, options, pool).items():
                points[policy] += more
            failed |= _conclude(scenario.name, points, options)
    return 1 if failed else 0


def _finer(policy: str, points: Sequence[Point], target: float) -> list[Parameters]:
    """What to play next of a policy, once the first half of its budget has been played."""
    good = [point for point in points if point.played]
    if not good:
        return []
    pooled = make_front(good, target).configurations
    tried, attainments, costs = zip(*((o.parameters, o.attainment, o.gpu_hours) for o in pooled), strict=True)
    return fine(policy, tried, attainments, costs, target)


def _points(
    scenario: Scenario,
    source: str,
    wanted: Mapping[str, Sequence[Parameters]],
    options: Options,
    pool: Pool,
) -> dict[str, list[Point]]:
    """What comes of configurations by policy, played now or earlier."""
    tasks = [
        task
        for policy, configurations in wanted.items()
        for task in _tasks(scenario, source, policy, configurations, options)
    ]
    tasks.sort(key=lambda task: task.seed)  # what needs the same workload lies together
    played = [read_point(task) for task in tasks]
    missing = [k for k, point in enumerate(played) if point is None]
    for k, point in zip(missing, _play(scenario.name, [tasks[k] for k in missing], pool), strict=True):
        played[k] = point
    found: dict[str, list[Point]] = {policy: [] for policy in wanted}
    for task, outcome in zip(tasks, played, strict=True):
        if outcome is not None:
            found[task.policy].append(outcome)
    return found


def _check(options: Options) -> dict[str, Scenario]:
    """The scenarios by name or file, as given."""
    if not 0.0 < options.target <= 1.0:
        raise InputError(f"--target: expected a share in (0, 1], got {options.target}")
    for option, most in (("jobs", 256), ("seeds", 1000)):
        value = getattr(options, option)
        if value is not None and not 1 <= value <= most:
            raise InputError(f"--{option}: expected an integer in [1, {most}], got {value}")
    if options.backend not in BACKENDS:
        raise InputError(f"--backend: expected one of {', '.join(BACKENDS)}, got {options.backend!r}")
    check_address(options.backend, options.address)
    if not options.scenario:
        raise InputError(f"--scenario: expected some of {', '.join(scenario_names())}, got none")
    known = [name for name, entry in POLICIES.items() if entry.tuned_over]
    for name in options.policies:
        if name not in known and not (is_learned(name) and Path(name).name == name):
            raise InputError(
                f"--policies: expected some of {', '.join((*known, *LEARNED))}, a model of agents/models, "
                f"which have something to tune, got {name!r}{did_you_mean(name, (*known, *LEARNED))}"
            )
    forecaster = options.forecaster
    if forecaster is not None and forecaster not in FORECASTERS:
        hint = did_you_mean(forecaster, FORECASTERS)
        raise InputError(f"--forecaster: expected one of {', '.join(FORECASTERS)}, got {forecaster!r}{hint}")
    return {source: load_scenario(source) for source in options.scenario}


def _tasks(
    scenario: Scenario, source: str, policy: str, configurations: Sequence[Parameters], options: Options
) -> Iterator[Task]:
    first, digest = scenario.workload.seed, scenario_digest(scenario, options.forecaster)
    for seed in range(first, first + options.seeds):
        folder = options.out / (options.forecaster or "") / scenario.name / f"seed{seed}" / policy
        for parameters in configurations:
            path = folder / f"{text_of(parameters).replace(' ', '_')}.json"
            yield Task(source, policy, parameters, seed, options.forecaster, path, digest)


def _play(scenario: str, tasks: Sequence[Task], pool: Pool) -> list[Point]:
    """Play the tasks, with a bar on a terminal and a line now and then elsewhere."""
    if not tasks:
        return []
    console = Console(stderr=True)
    started_s = said_s = time.monotonic()
    columns = (
        TextColumn(f"{scenario}: configurations"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(
        *columns, console=console, disable=not console.is_terminal, speed_estimate_period=600.0
    ) as bar:
        row = bar.add_task("", total=len(tasks))

        def on_done(count: int) -> None:
            nonlocal said_s
            bar.update(row, completed=count)
            now_s = time.monotonic()
            if not console.is_terminal and (now_s - said_s >= _SAY_EVERY_S or count == len(tasks)):
                said_s = now_s
                left_s = (now_s - started_s) / count * (len(tasks) - count)
                text = (
                    f"{scenario}: {count} of {len(tasks)} configurations, about {left_s / 60.0:.0f} min left"
                )
                console.print(text, highlight=False, soft_wrap=True)

        return pool.run_tasks(play_point, tasks, jobs=pool.jobs or 1, on_done=on_done, on_result=write_point)


def _conclude(scenario: str, points: Mapping[str, Sequence[Point]], options: Options) -> bool:
    """Choose, write and show; whether a policy failed."""
    fronts, failed = [], False
    for policy, own in points.items():
        good = [point for point in own if point.played]
        errors = [point.error for point in own if point.error is not None]
        if errors:
            complain(f"{scenario}, {policy}: {len(errors)} of {len(own)} failed, the first with {errors[0]}")
            failed = True
        elif not good:
            print(f"{scenario}, {policy}: not here: {own[0].refused}")
        if good:
            fronts.append(make_front(good, options.target))
    write_table(options.tables / (options.forecaster or "") / f"{scenario}.csv", scenario, fronts)
    seconds = sum(point.seconds for own in points.values() for point in own)
    _show(scenario, fronts, seconds, options.target)
    return failed


def _show(scenario: str, fronts: Sequence[Front], seconds: float, target: float) -> None:
    console = plain_console(_WIDTH)
    title = f"{scenario}: cheapest at {100 * target:g} % on validation; {seconds:.0f} s of one core"
    console.print(title, highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("policy", "parameters", "attainment, %", "GPU-hours", ""):
        table.add_column(name, justify="right" if name.endswith(("%", "hours")) else "left")
    for front in fronts:
        chosen = front.chosen
        figures = f"{100 * chosen.attainment:.2f}", f"{chosen.gpu_hours:.2f}"
        note = "" if front.meets else "misses the target"
        table.add_row(front.policy, text_of(chosen.parameters), *figures, note)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
