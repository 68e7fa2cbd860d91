"""``python -m experiments.sweep``: one training with several seeds, and on several scenarios."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from rich.console import Console

from agents.hyperparameters import check_violation_weights, load_hyperparameters
from agents.saved_model import CARD, load_card
from agents.scaling_control import AUTOSCALE
from experiments.backend import BACKENDS, check_address, opened
from experiments.exchangeable_runs import bootstrap_interval, interquartile_mean
from experiments.replacing import replacing
from experiments.tables import plain_console, show
from preserve_gym.command_line import parse, status_of
from preserve_gym.errors import InputError
from preserve_gym.scenarios import load_scenario

PROGRAM = "python -m experiments.sweep"
TABLE = "sweep.csv"


@dataclass(frozen=True)
class Options:
    """Train a policy with several seeds, and on several scenarios, and say how much they differ.

    Each training has a folder in --out, as python -m agents.train has, with its model. The same command goes
    on from there.
    """

    scenario: tuple[str, ...] = ("recurring-surges",)
    """Scenarios, by name or file; they must have splits."""
    algo: Literal["ppo", "maskable-ppo", "recurrent-ppo", "dqn", "qr-dqn", "sac"] = "ppo"
    """Learning algorithm; its hyper-parameters are in agents/hyperparameters/."""
    env: str = AUTOSCALE
    """Id of the environment."""
    seeds: int = 5
    """Trainings of each scenario, with learner's seeds from --seed on."""
    seed: int = 0
    """The first seed."""
    steps: int | None = None
    """Of all environments of a training together; none: as in the hyper-parameters."""
    control: str | None = None
    """What the model does; none: as in the hyper-parameters."""
    violation_weights: tuple[float, float] | None = None
    """Lowest and highest weight of violations that it trains with; none: as in the hyper-parameters."""
    router: str | None = None
    """That the fleet works with, built in or of agents/routers; none: as in the hyper-parameters."""
    target: float = 0.99
    """SLO attainment that the models shall reach with the fewest GPU-hours."""
    validation_seeds: tuple[int, ...] = (0, 1, 2)
    """Of the validation workloads."""
    out: Path = Path("runs/sweep")
    """Folder for the trainings and sweep.csv."""
    jobs: int | None = None
    """Trainings at a time, one core each. Default: 1, with --backend ray all CPUs of the cluster."""
    backend: str = "local"
    """Who trains: local, processes of this machine, or ray, a cluster (extra `ray`)."""
    address: str | None = None
    """Of the Ray cluster, HOST:PORT, or auto for the one that this machine is part of. Default: a Ray of its
    own on this machine."""


@dataclass(frozen=True)
class Task:
    """One training: its settings, as ``TrainingConfig.to_mapping`` gives them, and its folder."""

    training: dict[str, Any]
    folder: Path


Files = dict[str, bytes]
"""Contents of a training's files, by path in its folder."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (the machine refused), 2 (bad input) or 130 (Ctrl-C)."""
    return status_of(lambda: _run(arguments), "interrupted; the same command goes on from there")


def _run(arguments: Sequence[str] | None) -> int:
    options: Options = parse(Options, arguments, PROGRAM)
    tasks = _tasks(options)
    waiting = [task for task in tasks if not _finished(task)]
    console = Console(stderr=True)

    def on_result(task: Task, files: Files) -> None:
        # From another machine; here they are the same.
        for name, content in files.items():
            with replacing(task.folder / name) as partial:
                partial.write_bytes(content)

    def on_done(count: int) -> None:
        console.print(f"{count} of {len(waiting)} trainings", highlight=False)

    if waiting:
        with opened(options.backend, options.address, options.jobs) as pool:
            pool.run_tasks(train, waiting, jobs=pool.jobs or 1, on_done=on_done, on_result=on_result)
    table = pd.DataFrame([_row(task) for task in tasks])
    with replacing(options.out / TABLE) as partial:
        table.to_csv(partial, index=False, lineterminator="\n")
    _show(table)
    return 0


def _tasks(options: Options) -> list[Task]:
    """Every training that is asked for, its options checked.

    Raises:
        InputError: naming the option, and what was expected.
    """
    from agents.training import TrainingConfig

    for name, most in (("seeds", 1000), ("jobs", 256), ("steps", 10**10)):
        value = getattr(options, name)
        if value is not None and not 1 <= value <= most:
            raise InputError(f"--{name}: expected an integer in [1, {most}], got {value}")
    check_violation_weights(options.violation_weights)
    if options.seed < 0:
        raise InputError(f"--seed: expected an integer >= 0, got {options.seed}")
    if not 0.0 < options.target < 1.0:
        raise InputError(f"--target: expected a share in (0, 1), got {options.target}")
    if not options.scenario or not options.validation_seeds:
        raise InputError("--scenario, --validation-seeds: expected one at least")
    if options.backend not in BACKENDS:
        raise InputError(f"--backend: expected one of {', '.join(BACKENDS)}, got {options.backend!r}")
    check_address(options.backend, options.address)
    parameters = load_hyperparameters(
        options.algo,
        options.env,
        steps=options.steps,
        control=options.control,
        violation_weights=options.violation_weights,
        router=options.router,
    )
    tasks = []
    for source in options.scenario:
        name = load_scenario(source).name
        for seed in range(options.seed, options.seed + options.seeds):
            config = TrainingConfig(
                env_id=options.env,
                algorithm=options.algo,
                scenarios=(source,),
                seed=seed,
                target=options.target,
                validation_seeds=options.validation_seeds,
                evaluations=8,
                parameters=parameters,
            )
            folder = options.out / f"{options.algo}-{name}-seed{seed}"
            tasks.append(Task(config.to_mapping(), folder))
    return tasks


def _finished(task: Task) -> bool:
    """Whether the folder holds the finished training.

    Raises:
        InputError: if it holds another one.
    """
    from agents.training import is_finished, read_config

    with contextlib.suppress(InputError):
        if load_card(task.folder / "model")["training"] == task.training and is_finished(task.folder):
            return True
    held = None
    if (task.folder / "checkpoint.pt").is_file():
        held = read_config(task.folder).to_mapping()
    elif (task.folder / "model" / CARD).is_file():  # trained on another machine
        held = load_card(task.folder / "model")["training"]
    if held not in (None, task.training):
        raise InputError(f"--out: {task.folder} holds a training with other settings")
    return False


def train(task: Task) -> Files:
    """Train, or go on training; the files of the model, and of its evaluations.

    Raises:
        InputError: as ``Training``.
    """
    from agents.training import CHECKPOINT, EVALUATIONS, Training, TrainingConfig

    config = TrainingConfig.from_mapping(task.training, str(task.folder))
    resume = (task.folder / CHECKPOINT).is_file()
    console = Console(file=open_log(task.folder), width=200)
    with contextlib.closing(console.file):
        Training(config, task.folder, console, resume, threads=1).run()
    paths = [*sorted((task.folder / "model").iterdir()), task.folder / EVALUATIONS]
    return {str(path.relative_to(task.folder)): path.read_bytes() for path in paths}


def open_log(folder: Path) -> Any:
    """``log.txt`` in a folder, to append to."""
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / "log.txt").open("a", encoding="utf-8")


def _row(task: Task) -> dict[str, Any]:
    card = load_card(task.folder / "model")
    return {
        "scenario": ", ".join(card["scenarios"]),
        "algorithm": card["algorithm"],
        "seed": card["training"]["seed"],
        "gpu_hours": card["validation"]["gpu_hours"],
        "steps": card["steps"],
        "wall_s": card["wall_s"],
    }


def _show(table: pd.DataFrame) -> None:
    """GPU-hours at the target on validation: trainings are exchangeable, so their interquartile mean."""
    console = plain_console()
    show("GPU-hours at the target on validation", table, console)
    for scenario, rows in table.groupby("scenario", sort=False):
        hours = rows[["gpu_hours"]].to_numpy(np.float64)
        missed = int(np.isnan(hours).sum())
        text = f"{scenario}: "
        if missed < len(hours):
            hours = hours[~np.isnan(hours)].reshape(-1, 1)
            low, high = bootstrap_interval(interquartile_mean, hours)
            text += f"interquartile mean {interquartile_mean(hours):.2f} ({low:.2f} to {high:.2f}) GPU-hours"
        if missed:
            text += f"; {missed} of {len(rows)} trainings miss the target"
        console.print(text, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
