"""An autoscaler: a law from an observation to the number of instances that it wants."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from baselines.router_name import router_options
from preserve_gym.config import AnticipatorConfig, ClusterConfig
from preserve_gym.envs.scale_action import target_to_action
from preserve_gym.envs.scale_observation import SCALARS
from preserve_gym.errors import InputError
from preserve_gym.sim.profile import InstanceProfile

Observation = Mapping[str, Any]
"""The environment's dict observation with its scalars as floats; see ``preserve/Autoscale-v0``."""

# Values to tune over, at most 16 each.
HEADROOMS = (0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.3, 1.4, 1.6, 2.0, 2.5)
"""Of a factor on the need."""
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4, 1.6, 2.0, 2.5)
"""Of a target as a share of what is profiled, or of the SLO."""
SCALES = (0.005, 0.01, 0.015, 0.02, 0.03, 0.045, 0.065, 0.1, 0.15, 0.2, 0.3, 0.45, 0.65, 0.8, 1.0, 1.1)
"""Of a factor on thresholds of KV use, which large caches never reach within the SLO."""
REQUESTS = (0.5, 1, 2, 4, 6, 8, 11, 16, 23, 32, 45, 64, 100, 160, 250, 400)
"""Of a number of requests in flight per instance, whose right size depends on the instance."""


@dataclass(frozen=True)
class Autoscaler(ABC):
    """Base of all autoscalers; subclasses give ``decide`` and, if they remember, ``initial_state``.

    An autoscaler is immutable: what it remembers of an episode is in the state that goes in and out of
    ``predict``, so one object can play many episodes at once. It belongs to an environment of
    ``preserve/Autoscale-v0`` made with its ``env_options``, on a workload with its predictions:
    ``workload.with_predictions(policy.forecaster, policy.predictor)``.

    ``TUNING`` of a class names its main parameters with values to try, at most 16 combinations in all,
    which every autoscaler gets when it is tuned on a validation split; empty: nothing to tune.

    Attributes:
        cluster: the cluster that it scales.
        profile: what one instance can serve.
        name: for tables and files.
        router: that it works with, by name as ``router_options`` takes it, or compiled.
        interval_s: time between two decisions, s.
        anticipator: the look-ahead map that it observes and that its router reads.
        forecaster: of the workload that it plays; None: the workload's own.
        predictor: of output lengths there; None: the workload's own.

    Raises:
        InputError: on a parameter outside its meaning.
    """

    TUNING: ClassVar[Mapping[str, tuple[float, ...]]] = {}

    cluster: ClusterConfig
    profile: InstanceProfile
    _: KW_ONLY
    name: str
    router: Any = "least-requests"
    interval_s: float = 10.0
    anticipator: AnticipatorConfig = field(default_factory=AnticipatorConfig)
    forecaster: str | None = None
    predictor: str | None = None

    def __post_init__(self) -> None:
        self._check("interval_s", "a number of seconds > 0", lambda value: value > 0)

    def _check(self, name: str, expected: str, holds: Callable[[float], bool]) -> None:
        value = getattr(self, name)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not (number and holds(value)):
            raise InputError(f"{type(self).__name__}.{name}: expected {expected}, got {value!r}")

    def env_options(self) -> dict[str, Any]:
        """The options of the environment that it belongs to, but for the workload."""
        return {
            "cluster": self.cluster,
            **router_options(self.router),
            "interval_s": self.interval_s,
            "anticipator": self.anticipator,
            "obs_mode": "dict",
            "action_mode": "target",
        }

    def initial_state(self) -> Any:
        """What it remembers before the first decision of an episode; None if it remembers nothing."""
        return None

    @abstractmethod
    def decide(self, obs: Observation, state: Any) -> int:
        """The wanted number of instances, starting and ready ones together.

        Args:
            obs: the observation, scalars as floats, arrays as float64 in physical units.
            state: what ``initial_state`` gave, or was made of it; changed in place.

        Returns:
            Any integer; ``predict`` clips it to the bounds of the cluster.
        """

    def predict(
        self,
        observation: Mapping[str, NDArray[Any]],
        state: Any = None,
        episode_start: NDArray[np.bool_] | bool | None = None,
        deterministic: bool = True,
    ) -> tuple[NDArray[np.float32], Any]:
        """The action for an observation, as Stable-Baselines3's policies give it.

        Args:
            observation: of one environment, or of n with a leading axis in every entry.
            state: what the last call returned, None at first (a list of n for n environments).
            episode_start: True where a new episode begins: the state is then replaced by a fresh one.
            deterministic: accepted for the signature; every autoscaler is.

        Returns:
            The action for ``action_mode="target"``, float32 of shape (1,) or (n, 1), and the state.

        Raises:
            InputError: if the observation is not that of ``obs_mode="dict"``.
        """
        if not isinstance(observation, Mapping):
            raise InputError(
                f"{self.name}: expected the observation of obs_mode='dict', got {type(observation)}"
            )
        starts = np.atleast_1d(False if episode_start is None else episode_start)
        if np.ndim(observation["time_s"]) < 2:
            return self._act(observation, None if starts[0] else state)
        n = len(observation["time_s"])
        starts = np.broadcast_to(starts, n)
        states = [None] * n if state is None else list(state)
        actions = []
        for i in range(n):
            one = {key: values[i] for key, values in observation.items()}
            action, states[i] = self._act(one, None if starts[i] else states[i])
            actions.append(action)
        return np.stack(actions), states

    def _act(self, observation: Mapping[str, Any], state: Any) -> tuple[NDArray[np.float32], Any]:
        # By name: with one slot or one forecast window the arrays have shape (1,) too.
        obs = {
            name: float(np.asarray(values).item()) if name in SCALARS else np.asarray(values)
            for name, values in observation.items()
        }
        if state is None:
            state = self.initial_state()
        wanted = self.decide(obs, state)
        return target_to_action(wanted, self.cluster.min_instances, self.cluster.max_instances), state


def ceil_instances(need: float) -> int:
    """``need`` rounded up, at least 1; a rounding error above an integer does not cost an instance."""
    return max(1, math.ceil(need - 1e-9))
