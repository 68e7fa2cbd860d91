"""``python -m agents.search``: search for hyper-parameters on the validation split, with Optuna."""

from __future__ import annotations

import contextlib
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from rich.console import Console

from agents.hyperparameters import Hyperparameters, load_hyperparameters
from agents.scaling_control import AUTOSCALE
from preserve_gym.command_line import parse, status_of
from preserve_gym.errors import InputError, missing_extra
from preserve_gym.scenarios import load_scenario

PROGRAM = "python -m agents.search"
STUDY, TABLE, BEST = "study.journal", "trials.csv", "best.yaml"
_WORST = 1e9  # GPU-hours, in place of infinitely many, which Optuna does not compare

Space = Mapping[str, tuple[Any, ...]]
SPACE: Space = {
    "learning_rate": ("float", 1e-4, 2e-3),
    "ent_coef": ("float", 1e-4, 1e-2),
    "gamma": ("choice", 0.95, 0.97, 0.98, 0.99),
    "gae_lambda": ("choice", 0.9, 0.95, 0.98),
    "n_steps": ("choice", 64, 128, 256),
    "batch_size": ("choice", 1024, 2048, 4096),
    "n_epochs": ("choice", 4, 6, 10),
    "clip_range": ("choice", 0.1, 0.2, 0.3),
    "hidden": ("choice", 32, 64, 128),
}
"""Of PPO: a number between two, evenly in the logarithm, or one of several; ``hidden`` is of two layers."""


@dataclass(frozen=True)
class Options:
    """Search for hyper-parameters of PPO: those whose model needs the fewest GPU-hours on validation.

    Trials are drawn by the tree-structured Parzen estimator; one that is worse than the median of the
    others at the same number of steps is ended early. The same command goes on with the study in --out.
    """

    scenario: str = "recurring-surges"
    """Scenario, by name or file; it must have splits."""
    env: str = AUTOSCALE
    """Id of the environment."""
    trials: int = 30
    """In all, those of earlier calls included."""
    steps: int = 500_000
    """Of each trial."""
    seed: int = 0
    """Of the draws, and of the trainings."""
    target: float = 0.99
    """SLO attainment that the models shall reach with the fewest GPU-hours."""
    out: Path = Path("runs/search")
    """Folder for the study, a table of all trials and the best hyper-parameters."""
    threads: int | None = None
    """That step the environments; none: as many as the process may run on."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (the machine refused), 2 (bad input) or 130 (Ctrl-C)."""
    return status_of(lambda: _run(arguments), "interrupted; the same command goes on from there")


def _run(arguments: Sequence[str] | None) -> int:
    options: Options = parse(Options, arguments, PROGRAM)
    for name in ("trials", "steps"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name}: expected an integer >= 1, got {getattr(options, name)}")
    if options.seed < 0:
        raise InputError(f"--seed: expected an integer >= 0, got {options.seed}")
    if not 0.0 < options.target < 1.0:
        raise InputError(f"--target: expected a share in (0, 1), got {options.target}")
    base = load_hyperparameters("ppo", options.env, steps=options.steps)
    load_scenario(options.scenario)
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ModuleNotFoundError as error:
        raise missing_extra(PROGRAM, str(error.name), "search") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    console = Console()
    options.out.mkdir(parents=True, exist_ok=True)
    told = {name: str(value) for name, value in vars(options).items() if name in _OF_STUDY}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(options.out / STUDY))),
            study_name="ppo",
            sampler=optuna.samplers.TPESampler(seed=options.seed, n_startup_trials=8),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=_EVALUATIONS // 3),
            load_if_exists=True,
        )
    if study.user_attrs and study.user_attrs != told:
        was = ", ".join(f"{k} {v}" for k, v in study.user_attrs.items() if told.get(k) != v)
        raise InputError(f"--out: {options.out} holds a study of another kind: {was}")
    for name, value in told.items():
        study.set_user_attr(name, value)
    done = sum(trial.state.name in _DONE for trial in study.trials)
    if not done:
        study.enqueue_trial(_of(base))
    # Draws of a study that goes on are not those that it began with.
    study.sampler.reseed_rng()
    while done < options.trials:
        study.optimize(lambda trial: _objective(trial, base, options, console), n_trials=1)
        done = sum(trial.state.name in _DONE for trial in study.trials)
        _keep(study, base, options.out)
    _keep(study, base, options.out)
    best = study.best_trial
    console.print(f"best of {done} trials: {best.value:.2f} GPU-hours; {options.out / BEST}", highlight=False)
    return 0


_DONE = ("COMPLETE", "PRUNED")
"""States of trials that count; one that was interrupted does not."""
_EVALUATIONS = 6
_OF_STUDY = ("scenario", "env", "steps", "target")


def _objective(trial: Any, base: Hyperparameters, options: Options, console: Console) -> float:
    """GPU-hours at the target of the best model of a training."""
    import optuna

    from agents.training import Training, TrainingConfig

    drawn = {name: _suggest(trial, name, how) for name, how in SPACE.items()}
    config = TrainingConfig(
        env_id=options.env,
        algorithm="ppo",
        scenarios=(options.scenario,),
        seed=options.seed,
        target=options.target,
        validation_seeds=(0,),
        evaluations=_EVALUATIONS,
        parameters=with_drawn(base, drawn),
    )
    folder = options.out / f"trial-{trial.number}"

    def on_evaluation(steps: int, hours: float) -> None:
        # Rollouts of different lengths end at different steps, but evaluations are as many.
        trial.report(min(hours, _WORST), round(_EVALUATIONS * steps / options.steps))
        if trial.should_prune():
            raise optuna.TrialPruned

    with (folder.with_suffix(".log")).open("w", encoding="utf-8") as log:
        training = Training(
            config,
            folder,
            Console(file=log, width=200),
            resume=False,
            threads=options.threads,
            on_evaluation=on_evaluation,
        )
        with contextlib.suppress(optuna.TrialPruned):
            card = training.run().card
            hours = card["validation"]["gpu_hours"]
            console.print(
                f"trial {trial.number}: {hours} GPU-hours, {drawn}", highlight=False, soft_wrap=True
            )
            return _WORST if hours is None else float(hours)
    console.print(f"trial {trial.number}: ended early, {drawn}", highlight=False, soft_wrap=True)
    raise optuna.TrialPruned


def _suggest(trial: Any, name: str, how: tuple[Any, ...]) -> Any:
    kind, *values = how
    if kind == "float":
        return trial.suggest_float(name, *values, log=True)
    return trial.suggest_categorical(name, values)


def with_drawn(base: Hyperparameters, drawn: Mapping[str, Any]) -> Hyperparameters:
    """Hyper-parameters with what was drawn of ``SPACE``."""
    settings = {name: value for name, value in drawn.items() if name != "hidden"}
    return replace(base, hidden=(drawn["hidden"],) * 2, settings=base.settings | settings)


def _of(base: Hyperparameters) -> dict[str, Any]:
    """The present hyper-parameters as a draw of ``SPACE``; the first trial."""
    given = {**base.settings, "hidden": base.hidden[0], "clip_range": base.settings.get("clip_range", 0.2)}
    found = {}
    for name, (kind, *values) in SPACE.items():
        value = given[name]
        found[name] = min(max(value, values[0]), values[1]) if kind == "float" else value
    return found


def _keep(study: Any, base: Hyperparameters, out: Path) -> None:
    """Write the table of trials, and the best hyper-parameters once there are some."""
    rows = [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "gpu_hours": math.nan if trial.value is None or trial.value >= _WORST else trial.value,
            **trial.params,
        }
        for trial in study.trials
    ]
    pd.DataFrame(rows).to_csv(out / TABLE, index=False, lineterminator="\n")
    if any(row["state"] == "complete" for row in rows):
        best = with_drawn(base, study.best_trial.params).to_mapping()
        text = yaml.safe_dump({study.user_attrs["env"]: best}, sort_keys=False, width=110)
        (out / BEST).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
