"""``python -m agents.train``: train a policy on the training split of a scenario."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from rich.console import Console

from agents.hyperparameters import check_violation_weights, load_hyperparameters
from agents.saved_model import CARD, MODELS, SavedModel, load_card
from agents.scaling_control import AUTOSCALE
from preserve_gym.command_line import parse, status_of
from preserve_gym.errors import InputError, did_you_mean, missing_extra
from preserve_gym.forecasting import FORECASTERS
from preserve_gym.scenarios import load_scenario

PROGRAM = "python -m agents.train"


@dataclass(frozen=True)
class Options:
    """Train a policy on the training split of a scenario, and choose the best model on the validation split.

    The folder has everything, also after Ctrl-C: --resume goes on from there.
    """

    scenario: tuple[str, ...] = ("chat-week",)
    """Scenarios, by name or file; they must have splits. Of several, one model learns all."""
    algo: Literal["ppo", "maskable-ppo", "recurrent-ppo", "dqn", "qr-dqn", "sac"] = "ppo"
    """Learning algorithm; its hyper-parameters are in agents/hyperparameters/."""
    env: str = AUTOSCALE
    """Id of the environment."""
    seed: int = 0
    """Of the learner and of its episodes."""
    steps: int | None = None
    """Of all environments together; none: as in the hyper-parameters."""
    control: str | None = None
    """What the model does: delta, joint, kv-margin, margin, queue-margin, smooth-margin, target;
    none: as in the hyper-parameters."""
    violation_weights: tuple[float, float] | None = None
    """Lowest and highest weight of violations that it trains with; none: as in the hyper-parameters."""
    router: str | None = None
    """That the fleet works with, built in or of agents/routers; none: as in the hyper-parameters."""
    target: float = 0.99
    """SLO attainment that the model shall reach with the fewest GPU-hours."""
    rate_scales: tuple[float, ...] = (1.0,)
    """Factors on the scenarios' arrival rates; it trains on each."""
    cold_start_scales: tuple[float, ...] = (1.0,)
    """Factors on the scenarios' cold starts; it trains on each."""
    forecasters: tuple[str, ...] = ()
    """To train with in turn, in place of the scenarios'."""
    validation_seeds: tuple[int, ...] = (0, 1, 2)
    """Of the validation workloads; the first is played during training, all at its end."""
    evaluations: int = 8
    """On the validation split during training."""
    out: Path | None = None
    """Folder; none: runs/train-<algorithm>-<scenario>-<n>."""
    resume: Path | None = None
    """Go on with the training in this folder, as it was set; other options do not count."""
    reproduce: str | None = None
    """Train a model of agents/models again, with the settings of its card; other options do not count."""
    save_as: str | None = None
    """Keep the model in agents/models under this name."""
    threads: int | None = None
    """That step the environments; none: as many as the process may run on."""
    tensorboard: bool = False
    """Write logs for TensorBoard, too."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (the machine refused), 2 (bad input) or 130 (Ctrl-C)."""
    return status_of(lambda: _run(arguments), "interrupted; --resume goes on from the folder")


def _run(arguments: Sequence[str] | None) -> int:
    options: Options = parse(Options, arguments, PROGRAM)
    _check(options)
    # Says which extra is missing.
    import agents.sb3_vec_env  # noqa: F401
    from agents.training import Training, TrainingConfig, read_config

    console = Console()
    if options.resume is not None:
        folder, config = options.resume, read_config(options.resume)
    elif options.reproduce is not None:
        card = load_card(MODELS / options.reproduce)
        config = TrainingConfig.from_mapping(card["training"], f"{options.reproduce}/{CARD}")
        folder = _new_folder(options.out, f"train-{options.reproduce}")
    else:
        parameters = load_hyperparameters(
            options.algo,
            options.env,
            steps=options.steps,
            control=options.control,
            violation_weights=options.violation_weights,
            router=options.router,
        )
        config = TrainingConfig(
            env_id=options.env,
            algorithm=options.algo,
            scenarios=options.scenario,
            seed=options.seed,
            target=options.target,
            validation_seeds=options.validation_seeds,
            evaluations=options.evaluations,
            parameters=parameters,
            rate_scales=options.rate_scales,
            cold_start_scales=options.cold_start_scales,
            forecasters=options.forecasters,
        )
        names = [load_scenario(source).name for source in options.scenario]
        folder = _new_folder(
            options.out, f"train-{options.algo}-{names[0] if len(names) == 1 else 'several'}"
        )
    training = Training(
        config, folder, console, options.resume is not None, options.tensorboard, options.threads
    )
    console.print(
        f"{config.algorithm} on {', '.join(config.scenarios)}, seed {config.seed}, in {folder}",
        highlight=False,
        soft_wrap=True,
    )
    model = training.run()
    _tell(model, console)
    if options.save_as is not None:
        shutil.copytree(folder / "model", MODELS / options.save_as, dirs_exist_ok=True)
    return 0


def _check(options: Options) -> None:
    if options.steps is not None and options.steps < 1:
        raise InputError(f"--steps: expected an integer >= 1, got {options.steps}")
    check_violation_weights(options.violation_weights)
    if options.tensorboard and find_spec("tensorboard") is None:
        raise missing_extra("--tensorboard", "tensorboard", "tensorboard")
    if options.threads is not None and options.threads < 1:
        raise InputError(f"--threads: expected an integer >= 1, got {options.threads}")
    if options.seed < 0:
        raise InputError(f"--seed: expected an integer >= 0, got {options.seed}")
    if not 0.0 < options.target < 1.0:
        raise InputError(f"--target: expected a share in (0, 1), got {options.target}")
    if not options.scenario:
        raise InputError("--scenario: expected one at least")
    for option in ("rate_scales", "cold_start_scales"):
        scales = getattr(options, option)
        if not scales or not all(0.01 <= scale <= 100.0 for scale in scales):
            name = option.replace("_", "-")
            raise InputError(f"--{name}: expected numbers in [0.01, 100], at least one, got {scales}")
    for name in options.forecasters:
        if name not in FORECASTERS:
            hint = did_you_mean(name, FORECASTERS)
            known = ", ".join(FORECASTERS)
            raise InputError(f"--forecasters: expected some of {known}, got {name!r}{hint}")
    if options.evaluations < 1:
        raise InputError(f"--evaluations: expected an integer >= 1, got {options.evaluations}")
    if not options.validation_seeds or min(options.validation_seeds) < 0:
        raise InputError(f"--validation-seeds: expected integers >= 0, got {options.validation_seeds}")
    if options.save_as is not None and (MODELS / options.save_as / CARD).is_file():
        raise InputError(f"--save-as: expected a new name, agents/models has {options.save_as!r} already")
    if options.reproduce is not None and not (MODELS / options.reproduce / CARD).is_file():
        names = ", ".join(sorted(path.parent.name for path in MODELS.glob(f"*/{CARD}"))) or "none"
        raise InputError(
            f"--reproduce: expected a model of agents/models, {names}; got {options.reproduce!r}"
        )


def _new_folder(out: Path | None, name: str) -> Path:
    if out is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"--out: {out}: expected a folder that is empty or missing")
        return out
    n = 1
    while Path("runs", f"{name}-{n}").exists():
        n += 1
    return Path("runs", f"{name}-{n}")


def _tell(model: SavedModel, console: Console) -> None:
    """The front and what was chosen."""
    validation = model.card["validation"]
    for name, front in validation["fronts"].items():
        for point in front:
            weight = f"violation weight {point['violation_weight']:5g}"
            figures = f"{point['attainment']:.3%} within the SLO, {point['gpu_hours']:.2f} GPU-hours"
            console.print(f"{name}, {weight}: {figures}", highlight=False, soft_wrap=True)
    hours = validation["gpu_hours"]
    reached = f"{hours:.2f} GPU-hours" if hours is not None else "not reached"
    console.print(
        f"chosen for {validation['target']:.2%}: violation weight {model.card['violation_weight']:g}, "
        f"{reached}; {model.card['wall_s']:.0f} s",
        highlight=False,
    )


if __name__ == "__main__":
    # As batch systems end a job: everything is saved as on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
