"""A trained model as a policy of experiments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from agents.front import FrontPoint, Fronts, mean_hours, weight_for
from agents.saved_model import CARD, MODELS, SavedModel, load_card, load_model
from agents.scaling_control import CONTROLS, Control, Memory, Site, make_control
from baselines.base import Autoscaler, Observation
from baselines.policy_name import LEARNED
from baselines.tuned import split_target
from preserve_gym.config import WorkloadConfig
from preserve_gym.envs.scale_action import JOINT
from preserve_gym.envs.scale_observation import ScaleObservation
from preserve_gym.errors import InputError
from preserve_gym.scenarios import load_scenario

_COMPARED_AT = 0.99
"""SLO attainment at which models are compared."""


@dataclass
class LearnedState:
    """What a learned policy remembers of n episodes: the memory of its control, and that of its network."""

    memory: Memory
    network: Any = None


@dataclass(frozen=True, kw_only=True)
class Learned(Autoscaler):
    """A trained model that plays deterministically, at one violation weight.

    Unlike other autoscalers it observes with ``obs_mode="flat"``.

    Attributes:
        model: a name in ``agents/models``, or the folder of a model.
        router: None: the one that it was trained with.
        forecast_windows: of the workload.
        violation_weight: that it observes, the dial between cost and attainment; None: the one that attains
            ``target`` on the front of its card.
        target: SLO attainment; None: the one that it was trained for.

    Raises:
        InputError: if there is no such model, or it reads another layout than the environment's.
    """

    TUNING: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "violation_weight": (
            *(0.3, 0.4, 0.55, 0.75, 1.0, 1.4, 1.9, 2.6),
            *(3.5, 4.8, 6.5, 9.0, 12.0, 16.0, 22.0, 30.0),
        )
    }

    model: str
    router: Any = None
    forecast_windows: int = 3
    violation_weight: float | None = None
    target: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.router is None:
            object.__setattr__(self, "router", self.saved.card["router"])
        elif self.control.action_mode == JOINT:
            raise InputError(
                f"{self.name}.router: expected None, as the model routes itself, got {self.router!r}"
            )
        if self.violation_weight is None:
            object.__setattr__(self, "violation_weight", self._weight())
        self._check("violation_weight", "a number in [0, 1e9]", lambda value: 0.0 <= value <= 1e9)
        self.saved.check_layout(self.control.env_id, self.control.feature_names)

    def _weight(self) -> float:
        card = self.saved.card
        if self.target is None:
            return float(card["violation_weight"])
        fronts = _fronts_of(card)
        if not fronts or mean_hours(fronts, self.target) == math.inf:
            raise InputError(
                f"{self.name}: no violation weight of model {self.model!r} attains {100 * self.target:g} %"
            )
        return weight_for(fronts, self.target)

    @cached_property
    def saved(self) -> SavedModel:
        """The model, read once."""
        return load_model(model_folder(self.model) or Path(self.model))

    @cached_property
    def control(self) -> Control:
        """What the model sees of the environment, and what its actions mean."""
        workload = WorkloadConfig(forecast_windows=self.forecast_windows)
        name = self.saved.layout["control"]
        joint = name in CONTROLS and CONTROLS[name].action_mode == JOINT
        layout = ScaleObservation("flat", self.cluster, workload, joint)
        low, high = self.cluster.min_instances, self.cluster.max_instances
        site = Site(layout.feature_names, layout.low, layout.high, low, high)
        return make_control(name, site)

    @property
    def env_id(self) -> str:
        """Of the environment that it plays in."""
        return self.control.env_id

    def env_options(self) -> dict[str, Any]:
        """The options of the environment that it belongs to, but for the workload."""
        of_control = ("router", "router_weights", "action_mode")
        general = {key: value for key, value in super().env_options().items() if key not in of_control}
        return {
            **general,
            **self.control.env_options(self.router),
            "obs_mode": "flat",
            "reward": {"violation_weight": self.violation_weight},
        }

    def decide(self, obs: Observation, state: Any) -> int:
        """Not what it is asked: its network reads another observation.

        Raises:
            InputError: always.
        """
        raise InputError(f"{self.name}: expected the observation of obs_mode='flat', got that of 'dict'")

    def predict(
        self,
        observation: Any,
        state: LearnedState | None = None,
        episode_start: NDArray[np.bool_] | bool | None = None,
        deterministic: bool = True,
    ) -> tuple[Any, LearnedState]:
        """The action of the environment for an observation.

        Args:
            observation: of one environment, float32[features], or of n, with a leading axis.
            state: what the last call returned, None at first.
            episode_start: True where a new episode begins: what is remembered is then forgotten.
            deterministic: accepted for the signature; it is always.

        Raises:
            InputError: if the observation is not that of ``obs_mode="flat"``.
        """
        features = len(self.control.site.feature_names)
        if not isinstance(observation, np.ndarray) or observation.shape[-1:] != (features,):
            given = observation.shape if isinstance(observation, np.ndarray) else type(observation).__name__
            raise InputError(f"{self.name}: expected {features} features of obs_mode='flat', got {given}")
        single = observation.ndim == 1
        observations = observation[None] if single else observation
        control, network = self.control, self.saved.network
        if state is None:
            state = LearnedState(control.begin(len(observations)))
        starts = np.broadcast_to(False if episode_start is None else episode_start, len(observations))
        if starts.any():
            which = starts.nonzero()[0]
            control.restart(state.memory, which)
            state.network = network.restart(state.network, which)
        seen = control.observe(observations, state.memory)
        masks = control.masks(seen, state.memory) if network.masked else None
        actions, state.network = network.act(seen, state.network, masks)
        actions = control.act(actions, state.memory)
        return (actions[0] if single else actions), state


def model_folder(name: str) -> Path | None:
    """The folder of a model by its name in ``agents/models``, or by its path; None if there is none."""
    try:
        return next((folder for folder in (MODELS / name, Path(name)) if (folder / CARD).is_file()), None)
    except (OSError, ValueError):  # no name of a file
        return None


def model_for(algorithm: str, workload: WorkloadConfig) -> str:
    """The name of the model in ``agents/models`` that was trained on the traffic of a workload, and no other.

    Of several, the one with the fewest GPU-hours at 99 % attainment on validation. Seed, split, predictions
    and cluster may be others.

    Raises:
        InputError: if there is none; the message names the command that trains one.
    """
    found = []
    for path in sorted(MODELS.glob(f"*/{CARD}")):
        card = load_card(path.parent)
        if card["algorithm"] == algorithm and _is_of(card, workload):
            fronts = _fronts_of(card)
            found.append((mean_hours(fronts, _COMPARED_AT) if fronts else math.inf, path.parent.name))
    if found:
        return min(found)[1]
    raise InputError(
        f"policy {algorithm!r}: no model in agents/models was trained on {workload.trace} as here: "
        f"python -m agents.train --algo {algorithm} --scenario NAME --save-as {algorithm}-NAME trains one"
    )


def _is_of(card: Mapping[str, Any], workload: WorkloadConfig) -> bool:
    """Whether a model was trained on the traffic of a workload, and no other."""
    try:
        (trained_on,) = (load_scenario(source).workload for source in card["training"]["scenarios"])
    except (ValueError, KeyError):  # several, or a file that is elsewhere now
        return False
    return same_traffic(trained_on, workload)


def _fronts_of(card: Mapping[str, Any]) -> Fronts:
    fronts = (card.get("validation") or {}).get("fronts") or {}
    return {name: [FrontPoint(**point) for point in front] for name, front in fronts.items()}


def model_of(name: str, workload: WorkloadConfig) -> Path:
    """The folder of the model that a learned policy is, on a workload.

    Raises:
        InputError: if there is none.
    """
    base, _ = split_target(name)
    folder = model_folder(model_for(base, workload) if base in LEARNED else base)
    assert folder is not None
    return folder


def same_traffic(one: WorkloadConfig, other: WorkloadConfig) -> bool:
    """Whether two configurations mean the same requests, but for the seed."""
    names = ("trace", "service_scale", "rate_scale", "transforms", "window_s", "forecast_windows")
    return all(getattr(one, name) == getattr(other, name) for name in names)
