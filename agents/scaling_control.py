"""What a model sees of the environments that scale, and what its actions mean there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from baselines.router_name import router_options
from preserve_gym.envs.scale_action import JOINT, MAX_DELTA
from preserve_gym.envs.scale_task import ScaleTask
from preserve_gym.envs.vector import TaskVectorEnv
from preserve_gym.errors import InputError, did_you_mean
from preserve_gym.sim.state import ROUTER_WEIGHTS

AUTOSCALE, CLUSTER = "preserve/Autoscale-v0", "preserve/Cluster-v0"
_SLOW_WALK = (-1.5, 0.0, 1.0, 0.0, -1.5)
"""Margin or target are mostly left alone at first, so exploration is a slow walk."""
_EIGHTHS = 4.0  # of a weight in [0, 1], in steps of a number in [-1, 1]

F4 = NDArray[np.float32]
F8 = NDArray[np.float64]


@dataclass
class Memory:
    """What a control remembers of n episodes.

    Attributes:
        log_margin: logarithm of the margin in force, float64[n].
        needs: corrected need of the last decisions over ``max_instances``, the present one last,
            float64[n, ``MarginControl.WINDOW``]; 0 before an episode began.
        targets: instances starting or ready, float64[n], for the control that needs to know.
    """

    log_margin: F8
    needs: F8
    targets: F8 = field(default_factory=lambda: np.zeros(0))

    def copy(self) -> Memory:
        """Apart from this one."""
        return Memory(self.log_margin.copy(), self.needs.copy(), self.targets.copy())


@dataclass(frozen=True)
class Site:
    """The environments that a model acts in.

    Attributes:
        feature_names: of the flat observation.
        low, high: bounds of the features, float32.
        min_instances, max_instances: bounds of the target: numbers, or int64[n] where n environments
            differ in them.
    """

    feature_names: tuple[str, ...]
    low: F4
    high: F4
    min_instances: Any
    max_instances: Any


class Control(ABC):
    """Turns observations into what a model sees, and its actions into those of the environment.

    Attributes:
        site: the environments.
        space: of the model's actions.
        feature_names: of what the model sees, float32 within ``low`` and ``high``.
    """

    env_id: ClassVar[str] = AUTOSCALE
    """Of the environment."""
    action_mode: ClassVar[str]
    """Of the environment."""
    start: ClassVar[tuple[float, ...]] = ()
    """Biases of PPO's last layer before it has learned; none: as they are drawn."""
    gradual: ClassVar[bool] = False
    """Whether a fraction between two discrete actions means something."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.feature_names = site.feature_names
        self.low, self.high = site.low, site.high
        self.space: spaces.Space[Any] = spaces.Box(-1.0, 1.0, (1,), np.float32)

    @classmethod
    def env_options(cls, router: str) -> dict[str, Any]:
        """The options of the environment that belong to it."""
        return {"action_mode": cls.action_mode, **router_options(router)}

    @property
    def observation_space(self) -> spaces.Box:
        """What the model sees."""
        return spaces.Box(self.low, self.high, dtype=np.float32)

    def begin(self, n: int) -> Memory:
        """What is remembered when n episodes begin."""
        return Memory(np.zeros(n), np.zeros((n, 0)))

    def restart(  # noqa: B027  (most remember nothing)
        self, memory: Memory, which: NDArray[Any], rng: np.random.Generator | None = None
    ) -> None:
        """Begin new episodes in place of some.

        Args:
            memory: changed in place.
            which: indices of those that begin.
            rng: for a random beginning, as training wants it; None: the usual one.
        """

    def observe(self, observations: F4, memory: Memory) -> F4:
        """What the model sees of observations, float32[n, features]; ``memory`` is changed in place."""
        return observations

    def masks(self, observations: F4, memory: Memory) -> NDArray[np.bool_]:
        """Which discrete actions do anything, bool[n, actions], of what the model sees."""
        return np.ones((len(observations), int(getattr(self.space, "n", 0))), np.bool_)

    @abstractmethod
    def act(self, actions: NDArray[Any], memory: Memory) -> NDArray[Any]:
        """The actions of the environment for those of the model; ``memory`` is changed in place.

        Of discrete actions a control that is ``gradual`` also takes shares, float32[n, actions].
        """


class TargetControl(Control):
    """The model sets the target itself: ``action_mode="target"``."""

    action_mode = "target"

    def act(self, actions: NDArray[Any], memory: Memory) -> NDArray[Any]:
        """As they are."""
        return actions


class DeltaControl(Control):
    """The model changes the target by -2 to +2: ``action_mode="delta"``."""

    action_mode = "delta"
    start = _SLOW_WALK

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.space = spaces.Discrete(2 * MAX_DELTA + 1)
        self._target = feature(site, "target")

    def masks(self, observations: F4, memory: Memory) -> NDArray[np.bool_]:
        """The changes that stay within the bounds; no change always."""
        low, high = (
            np.reshape(bound, (-1, 1)) for bound in (self.site.min_instances, self.site.max_instances)
        )
        targets = np.rint(observations[:, self._target, None] * high)
        after = targets + np.arange(-MAX_DELTA, MAX_DELTA + 1)
        masks: NDArray[np.bool_] = (after >= low) & (after <= high)
        masks[:, MAX_DELTA] = True
        return masks

    def act(self, actions: NDArray[Any], memory: Memory) -> NDArray[Any]:
        """As they are."""
        return actions


class MarginControl(Control):
    """The model changes a margin, and ``target = ceil(margin * need)``: CORR with a margin that moves.

    The need is the highest ``corrected_need`` of the last 60 s of decisions 10 s apart: with a constant
    margin this is the heuristic ``corr``, so that a model begins with what a good rule does. Discrete(7):
    the margin changes by one of ``STEPS``, or by their mean. What is seen besides the environment's features:
    the margin, by how much the target falls short, the need over the highest need, and the time within the
    hour.
    """

    action_mode = "target"
    start: ClassVar[tuple[float, ...]] = (-3.0, *_SLOW_WALK, -3.0)
    gradual = True
    STEP = 0.05
    """Change of the logarithm of the margin."""
    STEPS = np.array([-8.0, -2.0, -1.0, 0.0, 1.0, 2.0, 8.0])
    """How many of those an action is: a leap for what comes at once, single ones to settle."""
    LOWEST, HIGHEST, USUAL = 0.5, 3.0, 1.2
    """Bounds of the margin, and that at the beginning of an episode."""
    DRAWN = (0.8, 1.9)
    """Margins at the beginning of a training episode: lowest and highest."""
    WINDOW = 6
    """Decisions of which the need is the highest."""
    EXTRAS: ClassVar[dict[str, tuple[float, float]]] = {
        "log_margin": (-2.0, 2.0),
        "wanted_over_target": (-4.0, 4.0),
        "need_over_highest": (-4.0, 0.0),
        "hour_sin": (-1.0, 1.0),
        "hour_cos": (-1.0, 1.0),
    }

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.space = spaces.Discrete(len(self.STEPS))
        self._need, self._target = feature(site, "corrected_need"), feature(site, "target")
        self._day = feature(site, "day_sin"), feature(site, "day_cos")
        self.feature_names = (*site.feature_names, *self.EXTRAS)
        bounds = np.array(list(self.EXTRAS.values()), np.float32)
        self.low = np.concatenate([site.low, bounds[:, 0]])
        self.high = np.concatenate([site.high, bounds[:, 1]])

    def begin(self, n: int) -> Memory:
        """The usual margin, and no need yet."""
        return Memory(np.full(n, np.log(self.USUAL)), np.zeros((n, self.WINDOW)))

    def restart(self, memory: Memory, which: NDArray[Any], rng: np.random.Generator | None = None) -> None:
        """The usual margin, or one drawn evenly in the logarithm."""
        memory.needs[which] = 0.0
        memory.log_margin[which] = np.log(self.USUAL)
        if rng is not None:
            low, high = np.log(self.DRAWN).tolist()
            memory.log_margin[which] = rng.uniform(low, high, len(which))

    def observe(self, observations: F4, memory: Memory) -> F4:
        """The features of the environment, then ``EXTRAS``."""
        need = self._needed(observations)
        memory.needs[:, :-1] = memory.needs[:, 1:]
        memory.needs[:, -1] = need
        highest = memory.needs.max(axis=1)
        sine, cosine = (observations[:, k].astype(np.float64) for k in self._day)
        angle = 24.0 * np.arctan2(sine, cosine)
        extras = [
            2.0 * memory.log_margin,
            4.0 * (np.exp(memory.log_margin) * highest - observations[:, self._target]),
            np.log(np.maximum(need, 1e-3) / np.maximum(highest, 1e-3)),
            np.sin(angle),
            np.cos(angle),
        ]
        seen = np.concatenate([observations, np.stack(extras, axis=1)], axis=1)
        return np.clip(seen, self.low, self.high).astype(np.float32)

    def _needed(self, observations: F4) -> F8:
        """Instances that are needed now, over the most."""
        return observations[:, self._need].astype(np.float64)

    def masks(self, observations: F4, memory: Memory) -> NDArray[np.bool_]:
        """The changes that leave the margin within its bounds; no change always."""
        after = memory.log_margin[:, None] + self.STEP * self.STEPS
        lowest, highest = np.log(self.LOWEST), np.log(self.HIGHEST)
        masks: NDArray[np.bool_] = (after >= lowest - 1e-9) & (after <= highest + 1e-9)
        masks[:, self.STEPS == 0.0] = True
        return masks

    def act(self, actions: NDArray[Any], memory: Memory) -> F4:
        """Targets, as ``action_mode="target"`` has them."""
        low, high = self.site.min_instances, self.site.max_instances
        targets = self._move(self._steps(actions), memory)
        actions = 2.0 * (targets - low) / np.maximum(high - low, 1) - 1.0
        return actions.astype(np.float32)[:, None]

    def _move(self, steps: NDArray[Any], memory: Memory) -> F8:
        """Move the margin; the targets that it then gives."""
        low, high = self.site.min_instances, self.site.max_instances
        changed = memory.log_margin + self.STEP * steps
        memory.log_margin = np.clip(changed, np.log(self.LOWEST), np.log(self.HIGHEST))
        wanted = np.exp(memory.log_margin) * memory.needs.max(axis=1) * high
        targets: F8 = np.clip(np.ceil(wanted - 1e-9), low, high)
        return targets

    def _steps(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Of actions by number, or of the shares of all."""
        return actions @ self.STEPS if np.ndim(actions) > 1 else self.STEPS[np.asarray(actions)]


class QueueMarginControl(MarginControl):
    """The same with another need: no less than the instances that the requests in flight would fill.

    One is full with as many requests as it has in flight at the load at which it just meets the SLO. For
    crowds that come faster than rates tell.
    """

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._in_flight = [feature(site, name) for name in ("ready", "running", "waiting")]

    def _needed(self, observations: F4) -> F8:
        ready, running, waiting = (observations[:, k].astype(np.float64) for k in self._in_flight)
        return np.maximum(super()._needed(observations), ready * (running + waiting))


class KvMarginControl(MarginControl):
    """The same with another need: its geometric mean with that of the KV cache.

    That is the instances which hold the KV cache in use at ``KV_USE`` each. For traffic of which few long
    requests make up much, so that rates say too little of what has come of them. It is the highest of 300 s:
    what is held moves more at random than rates.
    """

    WINDOW = 30
    KV_USE = 0.7

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._held = [feature(site, name) for name in ("ready", "kv_use_mean")]

    def _needed(self, observations: F4) -> F8:
        ready, kv_use = (observations[:, k].astype(np.float64) for k in self._held)
        needed: F8 = np.sqrt(super()._needed(observations) * ready * kv_use / self.KV_USE)
        return needed


class SmoothMarginControl(MarginControl):
    """The same with one number in [-1, 1], from the first of ``STEPS`` to the last, and between them."""

    start: ClassVar[tuple[float, ...]] = ()

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def _steps(self, actions: NDArray[Any]) -> NDArray[Any]:
        places = np.linspace(-1.0, 1.0, len(self.STEPS))
        return np.interp(np.asarray(actions, np.float64)[:, 0], places, self.STEPS)


class JointControl(SmoothMarginControl):
    """The same and the weights of the router, in ``preserve/Cluster-v0``.

    Eight numbers in [-1, 1]: the first moves the margin, the others are the router's weights, rounded to
    eighths. The target follows the margin by at most 2 instances at a decision, as the environment has it.
    At first the router is about ``least-kv``.
    """

    env_id = CLUSTER
    action_mode = JOINT
    start: ClassVar[tuple[float, ...]] = (0.0, -0.9, 0.8, -0.9, -0.9, -0.9, -0.9, -0.9)

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.space = spaces.Box(-1.0, 1.0, (1 + ROUTER_WEIGHTS,), np.float32)

    @classmethod
    def env_options(cls, router: str) -> dict[str, Any]:
        """None: the router is part of the action."""
        return {}

    def observe(self, observations: F4, memory: Memory) -> F4:
        """As the margin's, with the router's weights among the features of the environment."""
        memory.targets = np.rint(observations[:, self._target] * self.site.max_instances).astype(np.float64)
        return super().observe(observations, memory)

    def act(self, actions: NDArray[Any], memory: Memory) -> F4:
        """Changes of the target, and weights, as ``preserve/Cluster-v0`` has them."""
        changes = self._move(self._steps(actions), memory) - memory.targets
        weights = np.clip(np.asarray(actions, np.float64)[:, 1:], -1.0, 1.0)
        weights = np.rint(_EIGHTHS * (weights + 1.0)) / _EIGHTHS - 1.0
        changes = np.clip(changes / MAX_DELTA, -1.0, 1.0)
        return np.column_stack([changes, weights]).astype(np.float32)


CONTROLS: dict[str, type[Control]] = {
    "delta": DeltaControl,
    "joint": JointControl,
    "kv-margin": KvMarginControl,
    "margin": MarginControl,
    "queue-margin": QueueMarginControl,
    "smooth-margin": SmoothMarginControl,
    "target": TargetControl,
}


def make_control(name: str, site: Site) -> Control:
    """The control of that name.

    Raises:
        InputError: if there is none.
    """
    if name not in CONTROLS:
        hint = did_you_mean(name, CONTROLS)
        raise InputError(f"control: expected one of {', '.join(CONTROLS)}, got {name!r}{hint}")
    return CONTROLS[name](site)


def feature(site: Site, name: str) -> int:
    """The place of a feature.

    Raises:
        InputError: if the environment has none of that name.
    """
    if name not in site.feature_names:
        known = ", ".join(site.feature_names)
        raise InputError(f"feature {name!r}: expected among those of the environment, got {known}")
    return site.feature_names.index(name)


def site_of(envs: TaskVectorEnv) -> Site:
    """The environments as a control knows them."""
    task = envs.task
    assert isinstance(task, ScaleTask)
    cluster = task.setting.cluster
    return Site(task.feature_names, task.low, task.high, cluster.min_instances, cluster.max_instances)


def joined_site(parts: Sequence[TaskVectorEnv]) -> Site:
    """The environments of several vectors, one after the other.

    Raises:
        InputError: if they have other features.
    """
    sites = [site_of(part) for part in parts]
    for site in sites[1:]:
        if site.feature_names != sites[0].feature_names:
            raise InputError(
                "scenarios: expected the same features in each, as the same number of forecast windows "
                f"gives, got {len(sites[0].feature_names)} and {len(site.feature_names)}"
            )
    counts = [part.num_envs for part in parts]
    low = np.repeat([site.min_instances for site in sites], counts)
    high = np.repeat([site.max_instances for site in sites], counts)
    return replace(sites[0], min_instances=low, max_instances=high)
