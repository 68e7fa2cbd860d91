"""The task of ``Autoscale`` and ``Cluster``: how many instances, at each control interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preserve_gym.config import RewardConfig
from preserve_gym.envs.physical import Physical
from preserve_gym.envs.scale_action import JOINT, ScaleAction
from preserve_gym.envs.scale_observation import ScaleObservation
from preserve_gym.envs.scale_turn import SCALE_INFO, compile_scale_turns
from preserve_gym.envs.setting import Setting
from preserve_gym.envs.task import Begin, Task, check_initial, check_options, is_number, make_constants
from preserve_gym.envs.vector_reward import vector_reward_space, vector_rewards
from preserve_gym.errors import InputError
from preserve_gym.sim.state import I8

if TYPE_CHECKING:
    from preserve_gym.envs.batch import EnvBatch


class ScaleTask(Task):
    """Scale at each control interval; with ``action_mode="joint"`` also weigh what the router reads.

    Arguments as those of ``AutoscaleEnv``.
    """

    info = SCALE_INFO

    def __init__(
        self,
        setting: Setting,
        *,
        router: Any,
        router_weights: Any,
        interval_s: float,
        obs_mode: str,
        action_mode: str,
        reward: RewardConfig,
        initial_instances: int | None,
        vector_reward: bool = False,
    ) -> None:
        if not is_number(interval_s) or not (math.isfinite(interval_s) and interval_s > 0):
            raise InputError(f"interval_s: expected a finite number > 0, got {interval_s!r}")
        cluster = setting.cluster
        check_initial(cluster, initial_instances)
        super().__init__(setting, router, router_weights)
        self.reward = reward
        self.initial_instances = initial_instances
        joint = action_mode == JOINT
        self.scale_action = ScaleAction(action_mode, cluster.min_instances, cluster.max_instances)
        self.scale_observation = ScaleObservation(obs_mode, cluster, setting.workload.config, joint)
        self.action_space = self.scale_action.space
        self.observation_space = self.scale_observation.space
        self.feature_names = self.scale_observation.feature_names
        self.physical_size = self.scale_observation.layout.size
        self.low, self.high = self.scale_observation.low, self.scale_observation.high
        self._target_at = self.scale_observation.layout.places["target"].start
        self.constants = make_constants(setting, float(interval_s), router, router)
        self.constants["sets_weights"] = joint
        self.constants["scale"] = reward.scale
        self.constants["baseline_headroom"] = reward.baseline_headroom
        if not isinstance(vector_reward, bool):
            raise InputError(f"vector_reward: expected True or False, got {vector_reward!r}")
        if vector_reward:
            self.reward_space = vector_reward_space(self.constants, self.needs[:, 0], cluster)

    def turns(self) -> Any:
        """The compiled function ``(turns) -> None``."""
        return compile_scale_turns()

    def decode(self, actions: Any, batch: Any) -> tuple[I8, NDArray[np.float64] | None]:
        """Targets, and weights of the router."""
        return self.scale_action.decode(actions, self._targets(batch))

    def masks(self, batch: Any) -> NDArray[np.bool_]:
        """Which changes stay within the bounds."""
        return self.scale_action.masks(self._targets(batch))

    def rewards(self, batch: EnvBatch) -> NDArray[np.float64]:
        """Numbers, or vectors if there is a ``reward_space``."""
        return super().rewards(batch) if self.reward_space is None else vector_rewards(batch)

    def begin(self, rng: np.random.Generator, options: Mapping[str, Any]) -> Begin:
        """Draw the episode and, where there are several, the violation weight."""
        options = check_options(options, ("start_s", "violation_weight"))
        episode = self.choose_episode(rng, options)
        low, high = self.reward.violation_weights
        weight = low if low == high else float(np.exp(rng.uniform(np.log(low), np.log(high))))
        if options.get("violation_weight") is not None:
            weight = options["violation_weight"]
            if not is_number(weight) or not 0.0 <= weight <= 1e9:
                raise InputError(f"violation_weight: expected a number in [0, 1e9], got {weight!r}")
        initial = self.initial_instances
        if initial is None:
            initial = self.forecast_instances(episode.start_s)
        return Begin(episode, initial, float(weight))

    def observation(self, state: Mapping[str, NDArray[Any]]) -> NDArray[np.float32] | Physical:
        """The observation in arrays ``physical`` and ``flat``; a copy."""
        return self.scale_observation.of(state)

    def _targets(self, batch: Any) -> I8:
        targets: I8 = batch.physical[:, self._target_at].astype(np.int64)
        return targets
