"""One environment of a task, as Gymnasium wants it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preserve_gym.envs.batch import EnvBatch
from preserve_gym.envs.dashboard import RENDER_MODES, Dashboard
from preserve_gym.envs.fixed import FixedOptions
from preserve_gym.envs.task import Begin, Task
from preserve_gym.errors import InputError
from preserve_gym.sim import Cluster
from preserve_gym.sim.totals import named_totals
from preserve_gym.workload import Workload


class TaskEnv(FixedOptions, gym.Env[Any, Any]):
    """What ``Autoscale``, ``Route`` and ``Cluster`` have in common.

    Attributes:
        workload: the traffic.
        cluster_config: the cluster.
        profile: what one instance of it serves.
        feature_names: of the flat observation.
        reward_space: of the vector reward; None: it is a number.
        cluster: the simulated one, from the first ``reset`` on; a look at it changes nothing.
        dashboard: what ``render`` shows; None without a render mode.
    """

    metadata = {"render_modes": list(RENDER_MODES), "render_fps": 10}  # noqa: RUF012  (as Gymnasium has it)

    def __init__(self, task: Task, render_mode: str | None) -> None:
        if render_mode is not None and render_mode not in RENDER_MODES:
            raise InputError(
                f"render_mode: expected None or one of {', '.join(RENDER_MODES)}, got {render_mode!r}"
            )
        self.render_mode = render_mode
        self.task = task
        self.workload: Workload = task.setting.workload
        self.cluster_config = task.setting.cluster
        self.profile = task.setting.profile
        self.action_space = task.action_space
        self.observation_space = task.observation_space
        self.feature_names = task.feature_names
        self.reward_space = task.reward_space
        self._batch = EnvBatch(task, 1)
        self._whole = [k for k, kind in enumerate(task.info.values()) if kind is int]  # figures of info
        self.dashboard: Dashboard | None = None
        if render_mode is not None:
            self.dashboard = Dashboard(self.cluster_config, self.workload, self.profile)
            self._recorded: dict[str, float] = {}

    @property
    def cluster(self) -> Cluster:
        """The simulated cluster."""
        self._check_begun()
        cluster = self._batch.clusters[0]
        assert cluster is not None
        return cluster

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Draw an episode, serve its warm-up and observe.

        Args:
            seed: of the environment's generator, which draws the episodes.
            options: ``{"start_s": ...}`` picks the episode whose scored part starts there on the trace's
                clock, such as one of ``workload.evaluation_windows``; more in the environment's own words.

        Raises:
            InputError: on another option, or a start that the workload does not allow.
        """
        super().reset(seed=seed)
        self._begin(self.task.begin(self.np_random, options or {}))
        if self.dashboard is not None:
            self.dashboard.start(snapshot := self.cluster.snapshot())
            self._recorded = dict(snapshot.totals)
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Act, serve until the next decision and observe.

        Raises:
            gymnasium.error.ResetNeeded: before the first ``reset``, and after the end of an episode.
            InputError: if ``action`` is none; then nothing has happened.
        """
        self._check_begun()
        if self._batch.ended[0]:
            raise gym.error.ResetNeeded("the episode has ended: call reset() first")
        self._step(action)
        reward, info = self._batch.rewards()[0], self._info()
        if self.reward_space is None:
            reward = float(reward)
        if self.dashboard is not None:
            snapshot, before = self.cluster.snapshot(), self._recorded
            interval = {name: value - before[name] for name, value in snapshot.totals.items()}
            self.dashboard.record(snapshot, interval, info.get("instance"))
            self._recorded = dict(snapshot.totals)
        return self._observation(), reward, False, bool(self._batch.ended[0]), info

    def _begin(self, begin: Begin) -> None:
        self._batch.begin([0], [begin])

    def _step(self, action: Any) -> None:
        self._batch.step([0], [action])

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions can be carried out now, bool[number of actions].

        Raises:
            gymnasium.error.ResetNeeded: before the first ``reset``.
            InputError: if actions are not discrete.
        """
        mask: NDArray[np.bool_] = self.task.masks(self._batch)[0]
        self._check_begun()
        return mask

    def episode_totals(self) -> dict[str, float]:
        """Change of each of ``TOTALS`` since the start of the scored part."""
        self._check_begun()
        return named_totals(self._batch.now[0] - self._batch.start[0])

    def results(self) -> pd.DataFrame:
        """Per-request results of the scored part, after arrivals stop and the queues are served to the end.

        Columns as in ``Cluster.results``. The episode is over afterwards.
        """
        self._batch.ended[0] = 1
        self.cluster.settle(arrivals=False)
        results = self.cluster.results()
        scored = results["arrival_s"] >= self._batch.episodes["start_s"][0]
        return results[scored].reset_index(drop=True)

    def render(self) -> str | NDArray[np.uint8] | None:
        """The dashboard: text in mode ``ansi``, uint8 (540, 960, 3) in ``rgb_array``, None without a mode.

        Raises:
            gymnasium.error.ResetNeeded: before the first ``reset``.
        """
        if self.dashboard is None:
            return None
        if not self.dashboard.started:
            raise gym.error.ResetNeeded("nothing to render yet: call reset() first")
        return self.dashboard.ansi() if self.render_mode == "ansi" else self.dashboard.rgb_array()

    def _check_begun(self) -> None:
        if self._batch.clusters[0] is None:
            raise gym.error.ResetNeeded("there is no episode yet: call reset() first")

    def _observation(self) -> Any:
        return self.task.observation(self._batch.state(0))

    def _info(self) -> dict[str, Any]:
        figures = self._batch.info[0].tolist()
        for k in self._whole:
            figures[k] = int(figures[k])
        return dict(zip(self.task.info, figures, strict=True))
