"""A fleet that an autoscaler decides, while requests are routed one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from preserve_gym.config import RewardConfig
from preserve_gym.envs.batch import EnvBatch
from preserve_gym.envs.scale_task import ScaleTask
from preserve_gym.envs.setting import Setting
from preserve_gym.envs.task import Begin
from preserve_gym.errors import InputError
from preserve_gym.sim import Cluster


class AutoscaledFleet:
    """Asks an autoscaler at each of its control intervals, with what ``Autoscale`` would show it.

    But its first observation says that nothing happened in the interval before.

    Args:
        setting: workload and cluster.
        autoscaler: has ``predict(observation, state) -> (action, state)``, as Stable-Baselines3 has it; its
            ``interval_s``, ``obs_mode`` and ``action_mode`` say what ``Autoscale`` it is made for (10 s,
            ``dict`` and ``target`` unless given).

    Raises:
        InputError: if one of these does not fit.
    """

    def __init__(self, setting: Setting, autoscaler: Any) -> None:
        self._autoscaler = autoscaler
        self._interval_s = getattr(autoscaler, "interval_s", 10.0)
        mode = getattr(autoscaler, "action_mode", "target")
        if mode not in ("delta", "target"):
            raise InputError(f"fleet: action_mode: expected delta or target, got {mode!r}")
        task = ScaleTask(
            setting,
            router="least-requests",  # only its observations are used
            router_weights=(),
            interval_s=self._interval_s,
            obs_mode=getattr(autoscaler, "obs_mode", "dict"),
            action_mode=mode,
            reward=RewardConfig(),
            initial_instances=None,
        )
        self._task = task
        self._batch = EnvBatch(task, 1)
        self._state: Any = None
        self._start_s = 0.0
        self._decisions = 0
        self._begin: Begin | None = None

    def begin(self, begin: Begin) -> None:
        """An episode has begun, at its first decision."""
        # What Autoscale would show; that of Route's reward is in other units.
        self._begin = replace(begin, violation_weight=self._task.reward.violation_weights[0])
        self._state, self._start_s, self._decisions = None, begin.episode.start_s, 0

    def scale(self, cluster: Cluster) -> float:
        """Let the autoscaler decide now.

        Returns:
            When it wants to decide next, on the trace's clock.
        """
        self._batch.look(cluster, self._begin)
        self._begin = None
        observation = self._task.observation(self._batch.state(0))
        action, self._state = self._autoscaler.predict(observation, self._state, deterministic=True)
        (target,), _ = self._task.decode(np.asarray(action)[None], self._batch)
        record = self._batch.episodes
        record["last_target"] = cluster.target
        cluster.scale_to(int(target))
        self._decisions += 1
        return float(self._start_s + self._decisions * self._interval_s)
