"""A training: a learner on the training split, watched on the validation split, kept in a folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from agents.algorithms import ALGORITHMS, make_learner, network_of, restore_learner, save_learner
from agents.front import FrontPoint, Fronts, gpu_hours_at, mean_hours, measure_front, weight_for
from agents.hyperparameters import Hyperparameters, as_yaml
from agents.network import Network
from agents.saved_model import SavedModel, load_card, load_model
from agents.scaling_control import CONTROLS, joined_site, make_control
from preserve_gym.config import ClusterConfig
from preserve_gym.envs.scale_action import JOINT
from preserve_gym.errors import InputError
from preserve_gym.scenarios import Scenario, load_scenario
from preserve_gym.workload import Workload

CONFIG, CHECKPOINT, EVALUATIONS, MODEL = "config.yaml", "checkpoint.pt", "evaluations.csv", "model"
WATCHED, FINAL = 4, 9
"""Violation weights that are tried during training, and at its end, from the lowest to the highest."""

_APART = 10**9
"""Between the seeds of the environments of two trainings; more than any has steps."""


@dataclass(frozen=True)
class TrainingConfig:
    """What a training is.

    Attributes:
        env_id: of the environment.
        algorithm: a name of ``agents.algorithms.ALGORITHMS``.
        scenarios: names or files, at least one.
        seed: of the learner and of its episodes.
        target: SLO attainment on validation that the model shall reach with the fewest GPU-hours.
        validation_seeds: of the validation workloads; the first is played during training, all at its end.
        evaluations: during training, evenly spread.
        parameters: hyper-parameters.
        rate_scales: factors on the scenarios' arrival rates, in training only.
        cold_start_scales: factors on their cold starts, in training only.
        forecasters: in place of the scenarios', in training only; none: the scenarios'.
    """

    env_id: str
    algorithm: str
    scenarios: tuple[str, ...]
    seed: int
    target: float
    validation_seeds: tuple[int, ...]
    evaluations: int
    parameters: Hyperparameters
    rate_scales: tuple[float, ...] = (1.0,)
    cold_start_scales: tuple[float, ...] = (1.0,)
    forecasters: tuple[str, ...] = ()

    def to_mapping(self) -> dict[str, Any]:
        """As YAML holds it."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return as_yaml(given) | {"parameters": self.parameters.to_mapping()}

    @classmethod
    def from_mapping(cls, values: Any, where: str) -> TrainingConfig:
        """Of what ``to_mapping`` gave.

        Raises:
            InputError: if it is something else.
        """
        try:
            parameters = Hyperparameters.from_mapping(values["parameters"], where)
            given: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
            }
            return cls(**(given | {"parameters": parameters}))
        except (TypeError, KeyError) as error:
            raise InputError(f"{where}: expected the settings of a training: {error}") from None


class Training:
    """A training in its folder.

    The folder holds ``config.yaml``; ``checkpoint.pt``, from which it goes on; ``evaluations.csv``, the
    fronts; ``logs/``, the learner's own figures as CSV and for TensorBoard; ``model/``, the best so far.

    Args:
        config: what to train.
        folder: made if missing.
        console: for what is told.
        resume: go on from the checkpoint.
        tensorboard: write logs for it, too.
        threads: that step the environments; None: as many as the process may run on.
        on_evaluation: called with steps and GPU-hours at the target after each evaluation; what it raises
            ends the training.

    Raises:
        InputError: if something does not fit, or there is no checkpoint to go on from.
    """

    def __init__(
        self,
        config: TrainingConfig,
        folder: Path,
        console: Console,
        resume: bool,
        tensorboard: bool = False,
        threads: int | None = None,
        on_evaluation: Callable[[int, float], None] | None = None,
    ) -> None:
        import torch

        torch.set_num_threads(1)  # small networks gain nothing from more
        self.config, self.folder, self.console = config, folder, console
        self._on_evaluation = on_evaluation
        self._algorithm = ALGORITHMS[config.algorithm]
        self._scenarios: list[Scenario] = [load_scenario(source) for source in config.scenarios]
        self._validation: dict[str, list[Workload]] = {}
        parameters = config.parameters
        self._spent_s, self._best_hours = 0.0, float("inf")
        self._best: tuple[Network, int] | None = None
        self._rows: list[dict[str, Any]] = []
        done = 0
        if resume:
            # Where it stands decides the seeds of the episodes that follow.
            done = _steps_of(folder)
        seed = _APART * config.seed + done
        self._envs = self._make_envs(seed, threads)
        self._model = make_learner(self._algorithm, parameters, self._envs, config.seed, self.control.start)
        # The learner has seeded them with its own. Apart from other trainings, and from what was before:
        self._envs.seed(seed)
        if resume:
            self._restore()
        folder.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(config.to_mapping(), sort_keys=False, width=110)
        (folder / CONFIG).write_text(text, encoding="utf-8")
        self._model.set_logger(_logger(folder / "logs" / str(done), tensorboard))
        self._next = _due(done, config)

    def run(self) -> SavedModel:
        """Learn to the end, and save the best model with its front.

        Ctrl-C saves, too, and is passed on.
        """
        from stable_baselines3.common.callbacks import BaseCallback

        training, config = self, self.config

        class Watch(BaseCallback):
            """Evaluates and saves between one rollout and the next."""

            def _on_rollout_start(self) -> None:
                if self.num_timesteps >= training._next:
                    training._next = _due(self.num_timesteps, config)
                    training._evaluate()
                    training._save()

            def _on_step(self) -> bool:
                bars.update(task, completed=self.num_timesteps)
                return True

        self._started_s = time.perf_counter()
        steps = config.parameters.steps
        bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        try:
            with bars:
                names = ", ".join(scenario.name for scenario in self._scenarios)
                task = bars.add_task(f"{config.algorithm} on {names}", total=float(steps))
                left = steps - self._model.num_timesteps
                if left > 0:
                    self._model.learn(left, callback=Watch(), reset_num_timesteps=False, log_interval=10)
                self._evaluate()
                self._save()
            return self._finish()
        except KeyboardInterrupt:
            self._save()
            raise
        finally:
            self._model.logger.close()
            self._envs.close()

    def _make_envs(self, seed: int, threads: int | None) -> Any:
        from stable_baselines3.common.vec_env import VecMonitor

        from agents.controlled_vec_env import ControlledVecEnv
        from agents.joined_vec_env import JoinedVecEnv
        from agents.sb3_vec_env import SB3VecEnv

        parameters = self.config.parameters
        if parameters.control not in CONTROLS:
            raise InputError(f"control: expected one of {', '.join(CONTROLS)}, got {parameters.control!r}")
        control = CONTROLS[parameters.control]
        if control.env_id != self.config.env_id:
            raise InputError(
                f"control {parameters.control!r}: it acts in {control.env_id}, not in {self.config.env_id}"
            )
        variants = self._variants()
        vectors: list[Any] = [
            gym.make_vec(
                self.config.env_id,
                num_envs=max(parameters.environments // len(variants), 1),
                autoreset_mode="SAME_STEP",
                num_threads=threads,
                cluster=cluster,
                workload=workload,
                reward={"violation_weight": parameters.violation_weights},
                **control.env_options(parameters.router),
            )
            for cluster, workload in variants
        ]
        envs = JoinedVecEnv([SB3VecEnv(vector) for vector in vectors])
        self.control = make_control(parameters.control, joined_site(vectors))
        controlled = ControlledVecEnv(envs, self.control, seed=seed)
        return VecMonitor(controlled)

    def _variants(self) -> list[tuple[ClusterConfig, Workload]]:
        """What is trained on: every scenario with every workload seed, rate and cold start.

        Forecasters take turns, so that each meets every cold start.
        """
        config, parameters = self.config, self.config.parameters
        found: list[tuple[ClusterConfig, Workload]] = []
        for scenario in self._scenarios:
            for workload_seed, rate_scale in product(parameters.workload_seeds, config.rate_scales):
                traffic = replace(
                    scenario.workload,
                    horizon_s=float(parameters.episode_s),
                    rate_scale=rate_scale * scenario.workload.rate_scale,
                )
                changed = replace(scenario, workload=traffic)
                workload = changed.make_workload("train", workload_seed)
                turn = len(found) // len(config.cold_start_scales)
                for k, cold_start_scale in enumerate(config.cold_start_scales):
                    turns = config.forecasters
                    forecaster = turns[(turn + k) % len(turns)] if turns else None
                    cluster = _with_cold_start(scenario.cluster, cold_start_scale)
                    found.append((cluster, workload.with_predictions(forecaster)))
        return found

    def _evaluate(self) -> None:
        network = network_of(self._algorithm, self._model, self.control.gradual)
        fronts = self._fronts(network, WATCHED, 1)
        steps = int(self._model.num_timesteps)
        hours = mean_hours(fronts, self.config.target)
        # Of those that miss the target, the latest.
        if hours < self._best_hours or self._best_hours == float("inf"):
            self._best_hours, self._best = hours, (network, steps)
            self._card_model(network, fronts, steps).save(self.folder / MODEL)
        for name, front in fronts.items():
            self._rows += [{"scenario": name, "steps": steps, **asdict(point)} for point in front]
            points = ", ".join(f"{p.attainment:.2%} with {p.gpu_hours:.1f}" for p in front)
            own = gpu_hours_at(front, self.config.target)
            reached = f"{own:.1f} GPU-hours" if own < float("inf") else "not reached"
            self.console.print(
                f"{steps:,} steps, {name}: {self.config.target:.2%} {reached} ({points})",
                highlight=False,
                soft_wrap=True,
            )
        table = pd.DataFrame(self._rows)
        table.to_csv(self.folder / EVALUATIONS, index=False, lineterminator="\n")
        if self._on_evaluation is not None:
            self._on_evaluation(steps, hours)

    def _finish(self) -> SavedModel:
        """The best model, its fronts on all validation workloads."""
        assert self._best is not None
        network, steps = self._best
        fronts = self._fronts(network, FINAL, len(self.config.validation_seeds))
        model = self._card_model(network, fronts, steps)
        model.save(self.folder / MODEL)
        return model

    def _fronts(self, network: Network, points: int, seeds: int) -> Fronts:
        """The front in each scenario, on the first ``seeds`` of its validation workloads."""
        parameters = self.config.parameters
        weights = np.geomspace(*parameters.violation_weights, points)
        return {
            scenario.name: measure_front(
                network,
                parameters.control,
                {"cluster": scenario.cluster, **self.control.env_options(parameters.router)},
                self._workloads(scenario, seeds),
                weights.tolist(),
            )
            for scenario in self._scenarios
        }

    def _workloads(self, scenario: Scenario, seeds: int) -> list[Workload]:
        """Of validation; made when first wanted."""
        made = self._validation.setdefault(scenario.name, [])
        for seed in self.config.validation_seeds[len(made) : seeds]:
            made.append(scenario.make_workload("validation", seed))
        return made[:seeds]

    def _card_model(self, network: Network, fronts: Fronts, steps: int) -> SavedModel:
        config = self.config
        hours = mean_hours(fronts, config.target)
        card = {
            "algorithm": config.algorithm,
            "scenarios": [scenario.name for scenario in self._scenarios],
            "layout": {
                "env_id": config.env_id,
                "control": config.parameters.control,
                "features": list(self.control.feature_names),
            },
            "network": {
                "activation": network.activation,
                "head": network.head,
                "actions": network.actions,
                "masked": network.masked,
            },
            "router": None if self.control.action_mode == JOINT else config.parameters.router,
            "violation_weight": round(weight_for(fronts, config.target), 3),
            "validation": {
                "target": config.target,
                "gpu_hours": round(hours, 3) if hours < float("inf") else None,
                "fronts": {name: [_rounded(point) for point in front] for name, front in fronts.items()},
            },
            "steps": steps,
            "wall_s": round(self._wall_s(), 1),
            "training": config.to_mapping(),
        }
        return SavedModel(self.folder.name, card, network)

    def _wall_s(self) -> float:
        return self._spent_s + time.perf_counter() - self._started_s

    def _save(self) -> None:
        """Write the checkpoint, and a model if there is none yet."""
        best_steps = self._best[1] if self._best else 0
        more = {"wall_s": self._wall_s(), "best_hours": self._best_hours, "best_steps": best_steps}
        save_learner(self._model, self.folder / CHECKPOINT, **more)
        if self._best is None:
            network = network_of(self._algorithm, self._model, self.control.gradual)
            nothing = [FrontPoint(self.config.parameters.violation_weights[1], 0.0, 0.0)]
            fronts = {scenario.name: nothing for scenario in self._scenarios}
            model = self._card_model(network, fronts, int(self._model.num_timesteps))
            model.card["validation"]["fronts"] = {}
            model.save(self.folder / MODEL)

    def _restore(self) -> None:
        more = restore_learner(self._model, self.folder / CHECKPOINT)
        self._spent_s, self._best_hours = more["wall_s"], more["best_hours"]
        if more["best_steps"]:
            self._best = load_model(self.folder / MODEL).network, int(more["best_steps"])
        if (self.folder / EVALUATIONS).is_file():
            table = pd.read_csv(self.folder / EVALUATIONS)
            self._rows = [
                {str(name): value for name, value in row.items()} for row in table.to_dict("records")
            ]
        if hasattr(self._model, "learning_starts"):  # its replay buffer is empty again
            self._model.learning_starts += self._model.num_timesteps


def read_config(folder: Path) -> TrainingConfig:
    """What is trained in a folder.

    Raises:
        InputError: if nothing is.
    """
    path = folder / CONFIG
    if not path.is_file() or not (folder / CHECKPOINT).is_file():
        raise InputError(
            f"--resume: expected the folder of a training, with {CONFIG} and {CHECKPOINT}: {folder}"
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: expected YAML: {' '.join(str(error).split())}") from None
    return TrainingConfig.from_mapping(values, str(path))


def is_finished(folder: Path) -> bool:
    """Whether the training in a folder has come to its end.

    Raises:
        InputError: if there is none.
    """
    fronts = load_card(folder / MODEL)["validation"]["fronts"]
    return bool(fronts) and all(len(front) == FINAL for front in fronts.values())


def _steps_of(folder: Path) -> int:
    import torch

    state = torch.load(folder / CHECKPOINT, weights_only=True, map_location="cpu")
    return int(state["num_timesteps"])


def _due(done: int, config: TrainingConfig) -> float:
    """The steps at which the next evaluation is due."""
    every = config.parameters.steps / config.evaluations
    return every * (int(done / every + 1e-9) + 1)


def _with_cold_start(cluster: ClusterConfig, scale: float) -> ClusterConfig:
    own = cluster.cold_starts_s
    return replace(cluster, cold_start_s=tuple(scale * value for value in own))


def _rounded(point: FrontPoint) -> dict[str, float]:
    return {
        "violation_weight": round(point.violation_weight, 4),
        "attainment": round(point.attainment, 5),
        "gpu_hours": round(point.gpu_hours, 3),
    }


def _logger(folder: Path, tensorboard: bool) -> Any:
    from stable_baselines3.common.logger import configure

    return configure(str(folder), ["csv", "tensorboard"] if tensorboard else ["csv"])
