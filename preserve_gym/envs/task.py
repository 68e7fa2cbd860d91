"""What there is to decide: the part of an environment that one and many of it share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from preserve_gym.config import ClusterConfig
from preserve_gym.envs.env_state import CONSTANTS
from preserve_gym.envs.physical import Physical
from preserve_gym.envs.setting import Setting
from preserve_gym.errors import InputError
from preserve_gym.forecasting import needed_instances
from preserve_gym.sim import Cluster
from preserve_gym.sim.routers import check_weights, get_router
from preserve_gym.sim.state import F8, I8
from preserve_gym.workload import Episode

if TYPE_CHECKING:
    from preserve_gym.envs.batch import EnvBatch


@dataclass
class Begin:
    """How an episode begins.

    Attributes:
        episode: the stretch of the workload.
        initial_instances: ready at the start of its warm-up.
        violation_weight: in its reward.
        schedule_row: of the next change of a fleet that follows a schedule.
        pause_s: serve no further, as somebody wants to act then.
    """

    episode: Episode
    initial_instances: int
    violation_weight: float = 0.0
    schedule_row: int = 0
    pause_s: float = np.inf


@dataclass
class Schedule:
    """When a fleet changes, on the trace's clock, float64[k] ascending, and to how many, int64[k]."""

    time_s: F8 = field(default_factory=lambda: np.zeros(0))
    instances: I8 = field(default_factory=lambda: np.zeros(0, np.int64))


class Task(ABC):
    """What there is to decide, from validated options; it holds nothing of an episode.

    Attributes:
        setting: workload and cluster.
        router: that of the steps, compiled or by name; ``warmup_router`` that of the warm-up.
        router_weights: for both.
        observation_space, action_space: of one environment.
        feature_names: of the flat observation.
        physical_size: of the vector of physical quantities.
        low, high: bounds of the features.
        info: figures of info with their types.
        constants: a record of ``CONSTANTS``, shape (1,).
        schedule: changes of the fleet that nobody decides.
        reward_space: of a reward that is a vector; None: it is a number.
    """

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    feature_names: tuple[str, ...]
    physical_size: int
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    info: Mapping[str, type]
    constants: NDArray[np.void]
    warmup_router: Any
    reward_space: spaces.Box | None = None

    def __init__(self, setting: Setting, router: Any, router_weights: Any) -> None:
        # Refuse what does not fit here rather than at the first reset.
        check_weights(get_router(router), router_weights)
        self.setting = setting
        self.router = self.warmup_router = router
        self.router_weights = tuple(router_weights)
        self.schedule = Schedule()
        workload = setting.workload
        self.needs = needed_instances(workload.forecast, setting.profile)
        self.arrays = {
            **workload.columns(),
            "forecast_prompt": np.ascontiguousarray(workload.forecast.prompt_tokens).reshape(-1),
            "forecast_output": np.ascontiguousarray(workload.forecast.output_tokens).reshape(-1),
            "needs": np.ascontiguousarray(self.needs).reshape(-1),
        }

    def __deepcopy__(self, memo: Any) -> Task:
        """Itself, as it never changes."""
        return self

    @abstractmethod
    def turns(self) -> Any:
        """The compiled function ``(turns) -> None``."""

    @abstractmethod
    def decode(self, actions: Any, batch: Any) -> tuple[I8, NDArray[np.float64] | None]:
        """What actions of all environments, with a leading axis, ask for; see ``ScaleAction.decode``."""

    @abstractmethod
    def masks(self, batch: Any) -> NDArray[np.bool_]:
        """Which actions can be carried out, bool[n, number of actions]."""

    def rewards(self, batch: EnvBatch) -> NDArray[np.float64]:
        """Of the last turn of each environment, float64[n], or float64[n, 3] if they are vectors.

        By default the sum of the parts, which are the last two figures of info.
        """
        rewards: NDArray[np.float64] = batch.info[:, -2] + batch.info[:, -1]
        return rewards

    @abstractmethod
    def begin(self, rng: np.random.Generator, options: Mapping[str, Any]) -> Begin:
        """Draw how an episode begins."""

    @abstractmethod
    def observation(self, state: Mapping[str, NDArray[Any]]) -> NDArray[np.float32] | Physical:
        """The observation in arrays ``physical`` and ``flat``; a copy."""

    def make_cluster(self, begin: Begin) -> Cluster:
        """The cluster that serves an episode, at the start of its warm-up."""
        episode, anticipator = begin.episode, self.setting.anticipator
        return Cluster(
            self.setting.cluster,
            episode.trace,
            self.router,
            predicted_tokens=episode.predicted_tokens,
            initial_instances=begin.initial_instances,
            start_s=episode.start_s - episode.warmup_s,
            look_ahead=anticipator.look_ahead,
            overload_use=anticipator.overload_use,
            anticipator=anticipator.variant,
            router_weights=self.router_weights,
            seed=episode.seed,
        )

    def choose_episode(self, rng: np.random.Generator, options: Mapping[str, Any]) -> Episode:
        """The episode that ``options`` name, or one drawn.

        Raises:
            InputError: on a start that the workload does not allow.
        """
        workload = self.setting.workload
        if options.get("start_s") is None:
            return workload.episode(rng)
        return workload.episode_at(options["start_s"])

    def forecast_instances(self, time_s: float) -> int:
        """The forecast need at a time, rounded up, within the bounds of the cluster (PreServe's Tier 1)."""
        cluster = self.setting.cluster
        need = float(self.needs[self.setting.workload.window_at(time_s), 0])
        return int(min(max(np.ceil(need), cluster.min_instances), cluster.max_instances))


def check_initial(cluster: ClusterConfig, initial_instances: Any) -> None:
    """Refuse all but None and an integer within the bounds of the cluster."""
    low, high = cluster.min_instances, cluster.max_instances
    if initial_instances is None:
        return
    whole = isinstance(initial_instances, int | np.integer) and not isinstance(initial_instances, bool)
    if not whole or not low <= initial_instances <= high:
        raise InputError(
            f"initial_instances: expected an integer in [{low}, {high}], got {initial_instances!r}"
        )


def is_number(value: Any) -> bool:
    """Whether it is a real number, Python's or NumPy's, and no bool."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_options(options: Mapping[str, Any], known: tuple[str, ...]) -> Mapping[str, Any]:
    """The options of ``reset``, refused if there are others than ``known``."""
    if not isinstance(options, Mapping):
        raise InputError(f"options: expected a mapping, got {options!r}")
    for name in options:
        if name not in known:
            raise InputError(f"options: expected {', '.join(known)} or none, got {name!r}")
    return options


def make_constants(setting: Setting, interval_s: float, router: Any, warmup_router: Any) -> NDArray[np.void]:
    """What does not change after construction, but for the reward; shape (1,)."""
    cluster, workload, profile = setting.cluster, setting.workload, setting.profile
    constants = np.zeros(1, CONSTANTS).view(np.recarray)
    slo = cluster.slo
    fitted = {
        "interval_s": interval_s,
        "reads": get_router(router).reads,
        "warmup_reads": get_router(warmup_router).reads,
        "clock_s": workload.trace.clock_s,
        "window_s": workload.config.window_s,
        "horizon": workload.forecast.horizon,
        "mean_prompt_tokens": profile.prompt_tokens_per_s / profile.requests_per_s,
        "mean_predicted_tokens": profile.output_tokens_per_s / profile.requests_per_s,
        "overload_use": setting.anticipator.overload_use,
        "mean_cold_start_s": cluster.mean_cold_start_s,
        "ttft_scale_s": slo.ttft_s or slo.normalized_latency_s or 1.0,
        "tpot_scale_s": slo.tpot_s or slo.normalized_latency_s or 1.0,
        "requests_per_s": profile.requests_per_s,
        "prompt_tokens_per_s": profile.prompt_tokens_per_s,
        "output_tokens_per_s": profile.output_tokens_per_s,
        "total_tokens_per_s": profile.total_tokens_per_s,
        "profiled_in_flight": profile.in_flight,
        "unloaded_e2e_s": profile.unloaded_e2e_s,
        "requests_per_interval": workload.mean_rate_rps * interval_s,
    }
    for name, value in fitted.items():
        constants[name] = value
    return constants
