"""Many environments of a task, stepped by compiled code on several threads, as Gymnasium wants them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from preserve_gym.envs.batch import EnvBatch
from preserve_gym.envs.fixed import FixedOptions
from preserve_gym.envs.task import Task
from preserve_gym.errors import InputError
from preserve_gym.sim import TOTALS
from preserve_gym.sim.totals import named_totals
from preserve_gym.workload import Workload


class TaskVectorEnv(FixedOptions, VectorEnv[Any, Any, Any]):
    """``num_envs`` environments of one task; to the bit what as many single ones give, one after the other.

    They share the workload, and each has its own random generator. With an integer seed, environment i has
    the seed ``seed + i``, as in Gymnasium's ``SyncVectorEnv``.

    Args:
        task: what there is to decide.
        num_envs: how many environments.
        autoreset_mode: ``NEXT_STEP`` (Gymnasium's default: the step after the end of an episode resets, its
            action is ignored) or ``SAME_STEP`` (the step that ends an episode also begins the next one; the
            last observation is ``infos["final_obs"]``). Names of ``AutoresetMode`` are accepted, too.
        num_threads: that step the environments; None: as many as this process may run on.
        render_mode: None; to see an environment, play it alone.

    Raises:
        InputError: on options that do not fit.
    """

    metadata: dict[str, Any]

    def __init__(
        self,
        task: Task,
        num_envs: int,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        num_threads: int | None = None,
        render_mode: None = None,
    ) -> None:
        if render_mode is not None:
            raise InputError(f"render_mode: expected None for many environments, got {render_mode!r}")
        if num_threads is None:
            num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        for name, value in (("num_envs", num_envs), ("num_threads", num_threads)):
            if not _is_integer(value) or value < 1:
                raise InputError(f"{name}: expected an integer >= 1, got {value!r}")
        self.num_envs = int(num_envs)
        mode = _autoreset_mode(autoreset_mode)
        self.metadata = {"render_modes": [], "autoreset_mode": mode}
        self.render_mode = None
        self._same_step = mode == AutoresetMode.SAME_STEP
        self.task = task
        self.workload: Workload = task.setting.workload
        self.single_observation_space = task.observation_space
        self.single_action_space = task.action_space
        self.observation_space = batch_space(task.observation_space, self.num_envs)
        self.action_space = batch_space(task.action_space, self.num_envs)
        self.feature_names = task.feature_names
        self.reward_space = task.reward_space
        self._batch = EnvBatch(task, self.num_envs, int(num_threads))
        self._generators: list[np.random.Generator | None] = [None] * self.num_envs
        self._everyone = np.arange(self.num_envs)
        self._ended_totals = np.zeros((self.num_envs, len(TOTALS)))
        self._waiting = np.zeros(self.num_envs, np.bool_)  # for a reset at the next step
        self._started = False

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every environment.

        Args:
            seed: of the first environment's generator, the others following on; or one for each.
            options: as those of one environment, for all of them; or a list with those of each.

        Raises:
            InputError: on another option, or other than ``num_envs`` seeds or options.
        """
        each: list[Any] = [options or {}] * self.num_envs
        if isinstance(options, list) and len(options) == self.num_envs:
            each = options
        for i, one in enumerate(self._seeds(seed)):
            if one is not None or self._generators[i] is None:
                self._generators[i] = seeding.np_random(one)[0]
        self._begin(self._everyone, each)
        self._waiting[:] = False
        self._started = True
        return self._observations(), self._infos()

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Act in every environment, serve until its next decision and observe.

        Args:
            actions: one for each, with a leading axis.

        Returns:
            Observations; rewards, float64[num_envs], or [num_envs, 3] if they are vectors; terminated and
            truncated, bool[num_envs]; infos, each an array with a mask of the same name behind an underscore
            that says where it is given.

        Raises:
            gymnasium.error.ResetNeeded: before the first ``reset``.
            InputError: if one of the actions is none; then nothing has happened.
        """
        if not self._started:
            raise gym.error.ResetNeeded("there is no episode yet: call reset() first")
        waiting = self._waiting.nonzero()[0]
        stepping = (~self._waiting).nonzero()[0] if len(waiting) else self._everyone
        self._batch.step(stepping, actions)
        rewards = self._batch.rewards()
        truncated = self._batch.ended == 1
        if len(waiting):
            rewards[waiting] = 0.0
            truncated[waiting] = False
        terminated = np.zeros(self.num_envs, np.bool_)
        ended = truncated.nonzero()[0]
        infos: dict[str, Any] = {}
        if len(ended):
            self._ended_totals[ended] = self._batch.now[ended] - self._batch.start[ended]
        if self._same_step and len(ended):
            infos["final_obs"] = self._final_observations(ended)
            infos["_final_obs"] = truncated.copy()
            infos["final_info"] = self._infos(truncated)
            infos["_final_info"] = truncated.copy()
            self._begin(ended)
        elif not self._same_step:
            if len(waiting):
                self._begin(waiting)
            self._waiting = truncated.copy()
        infos |= self._infos()
        return self._observations(), rewards, terminated, truncated, infos

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions can be carried out now, bool[num_envs, number of actions].

        Raises:
            gymnasium.error.ResetNeeded: before the first ``reset``.
            InputError: if actions are not discrete.
        """
        masks = self.task.masks(self._batch)
        if not self._started:
            raise gym.error.ResetNeeded("there is no episode yet: call reset() first")
        return masks

    def ended_totals(self, i: int) -> dict[str, float]:
        """``episode_totals`` of the episode of environment ``i`` that ended last; all 0 before."""
        return named_totals(self._ended_totals[i])

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the threads."""
        self._batch.close()

    def _seeds(self, seed: Any) -> list[int | None]:
        seeds = seed
        if seed is None or _is_integer(seed):
            seeds = [None if seed is None else seed + i for i in range(self.num_envs)]
        listed = isinstance(seeds, Sequence | np.ndarray) and len(seeds) == self.num_envs
        if not listed or not all(one is None or (_is_integer(one) and one >= 0) for one in seeds):
            raise InputError(f"seed: expected an integer >= 0, or {self.num_envs} of them, got {seed!r}")
        return [None if one is None else int(one) for one in seeds]

    def _begin(self, which: NDArray[np.intp], options: Sequence[Mapping[str, Any]] | None = None) -> None:
        begins = []
        for i in which:
            generator = self._generators[i]
            assert generator is not None
            begins.append(self.task.begin(generator, options[i] if options else {}))
        self._batch.begin(which, begins)

    def _observations(self) -> Any:
        return self.task.observation(self._batch.state())

    def _final_observations(self, ended: NDArray[np.intp]) -> NDArray[np.object_]:
        observations = np.full(self.num_envs, None, dtype=object)
        for i in ended:
            observations[i] = self.task.observation(self._batch.state(int(i)))
        return observations

    def _infos(self, given: NDArray[np.bool_] | None = None) -> dict[str, Any]:
        """Those of the environments that are ``given``, all by default; 0 for the others."""
        columns = self._batch.info.T.copy()  # a row for each figure
        if given is None:
            given = np.ones(self.num_envs, np.bool_)
        else:
            given = given.copy()
            columns[:, ~given] = 0.0
        infos: dict[str, Any] = {}
        for (name, kind), values in zip(self.task.info.items(), columns, strict=True):
            infos[name] = values.astype(np.int64) if kind is int else values
            infos[f"_{name}"] = given
        return infos


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    known = {AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP}
    for one in known:
        if mode in (one, one.value, one.name):
            return one
    raise InputError(f"autoreset_mode: expected NEXT_STEP or SAME_STEP, got {mode!r}")
