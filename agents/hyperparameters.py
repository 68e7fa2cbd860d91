"""Hyper-parameters: a YAML file for each algorithm, keyed by the id of the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from agents.shared_router import router_names
from preserve_gym.errors import InputError, did_you_mean
from preserve_gym.sim.routers import ROUTERS

FOLDER = Path(__file__).parent / "hyperparameters"


@dataclass(frozen=True)
class Hyperparameters:
    """How a model is trained.

    Attributes:
        control: what it sees and does, a name of ``agents.scaling_control.CONTROLS``.
        steps: of all environments together.
        environments: that are played at once, in equal parts on the workloads of ``workload_seeds`` and what
            else is varied; at least one on each.
        workload_seeds: of the training workloads.
        episode_s: length of a training episode, which begins anywhere in the training split.
        violation_weights: lowest and highest weight in the reward; each episode draws one, evenly in the
            logarithm, and the model sees it.
        hidden: units of each hidden layer.
        lstm: units of the LSTM before them; 0: none.
        router: that the fleet works with, by name, learned ones included.
        learning_rate_falls: linearly, to a fiftieth.
        settings: of the algorithm's class; ``policy_kwargs`` adds to those of its policy.
    """

    control: str
    steps: int
    environments: int
    workload_seeds: tuple[int, ...]
    episode_s: float
    violation_weights: tuple[float, float]
    hidden: tuple[int, ...]
    learning_rate_falls: bool
    lstm: int = 0
    router: str = "least-requests"
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_mapping(cls, values: Any, where: str) -> Hyperparameters:
        """Of a mapping, as read from YAML.

        Raises:
            InputError: on a field that is unknown, missing or no number where one is wanted.
        """
        known = {f.name for f in fields(cls)}
        if not isinstance(values, Mapping):
            raise InputError(f"{where}: expected {', '.join(sorted(known))}, got {values!r}")
        for name in values:
            if name not in known:
                raise InputError(f"{where}: {name}: no such field{did_you_mean(name, known)}")
        for name in known - {"lstm", "router", "settings"}:
            if name not in values:
                raise InputError(f"{where}: {name}: missing")
        lists = {}
        for name in ("violation_weights", "hidden", "workload_seeds"):
            value = values[name]
            if not isinstance(value, list | tuple) or not all(
                isinstance(part, int | float) for part in value
            ):
                raise InputError(f"{where}: {name}: expected a list of numbers, got {value!r}")
            lists[name] = tuple(value)
        check_violation_weights(lists["violation_weights"], f"{where}: violation_weights")
        settings = values.get("settings") or {}
        if not isinstance(settings, Mapping):
            raise InputError(f"{where}: settings: expected a mapping, got {settings!r}")
        made = cls(**{**values, **lists, "settings": dict(settings)})
        for name in ("steps", "environments"):
            value = getattr(made, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{where}: {name}: expected an integer >= 1, got {value!r}")
        if not isinstance(made.episode_s, int | float) or not made.episode_s > 0.0:
            raise InputError(f"{where}: episode_s: expected a number of seconds > 0, got {made.episode_s!r}")
        if not isinstance(made.learning_rate_falls, bool):
            raise InputError(
                f"{where}: learning_rate_falls: expected true or false, got {made.learning_rate_falls!r}"
            )
        parts = len(made.workload_seeds)
        if not parts or made.environments % parts:
            expected = f"a multiple of the {parts} workload_seeds"
            raise InputError(f"{where}: environments: expected {expected}, got {made.environments}")
        return made

    def to_mapping(self) -> dict[str, Any]:
        """As YAML holds it."""
        return as_yaml(asdict(self))


def as_yaml(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as YAML holds them: lists in place of tuples."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def check_violation_weights(weights: tuple[float, ...] | None, where: str = "--violation-weights") -> None:
    """Whether they are a range that a training can draw from; None is one.

    Raises:
        InputError: if they are not.
    """
    if weights is not None and not (len(weights) == 2 and 0.01 <= weights[0] < weights[1] <= 10_000.0):
        raise InputError(f"{where}: expected two numbers in [0.01, 10,000], the lower first, got {weights}")


def load_hyperparameters(algorithm: str, env_id: str, **changes: Any) -> Hyperparameters:
    """Those of an algorithm for an environment.

    Args:
        algorithm: name of its file.
        env_id: id of the environment.
        changes: fields in place of the file's; None: the file's.

    Raises:
        InputError: if there are none.
    """
    path = FOLDER / f"{algorithm}.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if env_id not in values:
        hint = did_you_mean(env_id, values)
        raise InputError(f"--env: expected one of {', '.join(values)} for {algorithm}, got {env_id!r}{hint}")
    found = Hyperparameters.from_mapping(values[env_id], f"{path.name}: {env_id}")
    changed = replace(found, **{name: value for name, value in changes.items() if value is not None})
    if changes.get("router") is not None:
        _check_router(changed)
    return changed


def _check_router(parameters: Hyperparameters) -> None:
    """A model names its router, so that it plays anywhere; one that weighs for itself has none."""
    known = (*ROUTERS, *router_names())
    if parameters.control == "joint":
        raise InputError("--router: expected none with joint control, which weighs for itself")
    if parameters.router not in known:
        hint = did_you_mean(parameters.router, known)
        raise InputError(f"--router: expected one of {', '.join(known)}, got {parameters.router!r}{hint}")
