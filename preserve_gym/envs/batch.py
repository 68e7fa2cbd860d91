"""Any number of environments of one task, stepped by one compiled call on several threads."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preserve_gym.envs.env_state import (
    BEGIN,
    ENV,
    EPISODE,
    EVENT_LOOP,
    LOOK,
    ROUTER,
    STATE,
    VIEW,
    EnvState,
    Turns,
)
from preserve_gym.envs.task import Begin, Task
from preserve_gym.sim import TOTALS, Cluster
from preserve_gym.sim.addresses import address, table
from preserve_gym.sim.engine import compile_event_loop
from preserve_gym.sim.jit import entry_point
from preserve_gym.sim.routers import get_router
from preserve_gym.sim.state import ROUTER_WEIGHTS

Which = Sequence[int] | NDArray[np.intp]
"""Some of the environments, by number."""

_FEW = 4
"""Environments that are not worth waking another thread."""


class EnvBatch:
    """``n`` environments of one task.

    Args:
        task: what there is to decide.
        n: how many.
        threads: that step them, this one included.

    Attributes:
        physical, flat, info: what the last turn of each gave, float64[n, P], float32[n, F], float64[n, K].
        episodes: where each stands, records of ``EPISODE`` of shape (n,).
        ended: the field of that name, 1 where the episode is over, int64[n].
        weights: of the router in force in each, float64[n, 7], or more of a router that has more.
        clusters: that of each; None before its first episode.
        start, now: totals at the start of the scored part and now, float64[n, T].
    """

    def __init__(self, task: Task, n: int, threads: int = 1) -> None:
        self.task = task
        self.n = n
        self.threads = threads
        self.clusters: list[Cluster | None] = [None] * n
        self.episodes = np.zeros(n, EPISODE).view(np.recarray)
        self.episodes["ended"] = 1
        self.physical = np.zeros((n, task.physical_size))
        self.flat = np.zeros((n, len(task.low)), np.float32)
        self.info = np.zeros((n, len(task.info)))
        self.before, self.now, self.start = (np.zeros((n, len(TOTALS))) for _ in range(3))
        self._actions = np.zeros((n, 1), np.int64)
        self.weights = np.zeros((n, max(ROUTER_WEIGHTS, len(task.router_weights))))
        self._link()

    def _link(self) -> None:
        """Everything that holds addresses."""
        task = self.task
        # Fields of a recarray are slow to reach.
        self.ended = self.episodes.view(np.ndarray)["ended"]
        self._workers: list[ThreadPoolExecutor] = []
        self._workers_of = 0  # the process that they belong to
        self._envs = [
            EnvState(
                constants=task.constants,
                episode=self.episodes[j : j + 1],
                schedule_s=task.schedule.time_s,
                schedule_instances=task.schedule.instances,
                low=task.low,
                high=task.high,
                action=self._actions[j],
                weights=self.weights[j],
                before=self.before[j],
                now=self.now[j],
                start=self.start[j],
                physical=self.physical[j],
                flat=self.flat[j],
                info=self.info[j],
                **task.arrays,
            )
            for j in range(self.n)
        ]
        routers = [get_router(task.router), get_router(task.warmup_router)]
        none = np.zeros(self.n, np.int64)
        shared = {
            **{name: none.copy() for name in ("states", "views", "envs", "which")},
            "functions": np.zeros(1, np.int64),
            "routers": np.zeros(2, np.int64),
            "count": np.zeros(1, np.int64),
            "blocks": np.zeros(1, np.int64),
            "taken": np.zeros(self.threads, np.int64),
        }
        self._turns = [Turns(**shared, own=np.array([t])) for t in range(self.threads)]
        self._alive = (routers, compile_event_loop())
        self._enter("envs", self._envs, ENV)
        self._enter("functions", [compile_event_loop()], EVENT_LOOP)
        self._enter("routers", routers, ROUTER)
        self._play = entry_point(task.turns())
        self._states: list[Any] = [None] * self.n
        for j, cluster in enumerate(self.clusters):
            if cluster is not None:
                self._enter_cluster(j, cluster)

    def _enter(self, name: str, items: Sequence[Any], kind: Any) -> None:
        entries = table(items, kind)
        if isinstance(entries, list):  # the JIT is off
            for turns in self._turns:
                setattr(turns, name, entries)
        else:
            getattr(self._turns[0], name)[:] = entries

    def _enter_cluster(self, j: int, cluster: Cluster) -> None:
        state, view = cluster.compiled()
        self._states[j] = state, view
        shared = self._turns[0]
        if isinstance(shared.envs, list):  # the JIT is off
            for turns in self._turns:
                turns.states = [parts and parts[0] for parts in self._states]
                turns.views = [parts and parts[1] for parts in self._states]
            return
        shared.states[j] = address(state, STATE)
        shared.views[j] = address(view, VIEW)

    def __getstate__(self) -> dict[str, Any]:
        made = ("ended", "_workers", "_workers_of", "_envs", "_turns", "_alive", "_play", "_states")
        return {name: value for name, value in self.__dict__.items() if name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.episodes = self.episodes.view(np.recarray)
        self._link()

    def begin(self, which: Which, begins: Sequence[Begin]) -> None:
        """Begin an episode in each of the environments ``which``."""
        for j, begin in zip(which, begins, strict=True):
            cluster = self.clusters[j] = self.task.make_cluster(begin)
            self._enter_cluster(j, cluster)
            self._enter_episode(j, begin)
        self._take_turns(which)

    def _enter_episode(self, j: int, begin: Begin) -> None:
        episode = begin.episode
        record = self.episodes[j : j + 1]
        record[:] = 0
        record["next"] = BEGIN
        record["start_s"] = episode.start_s
        record["end_s"] = episode.start_s + episode.horizon_s
        record["warmup_s"] = episode.warmup_s
        record["first_row"] = episode.first_row
        record["violation_weight"] = begin.violation_weight
        record["closed_window"] = -1
        record["schedule_row"] = begin.schedule_row
        record["pause_s"] = begin.pause_s
        self.weights[j] = 0.0
        self.weights[j, : len(self.task.router_weights)] = self.task.router_weights

    def step(self, which: Which, actions: Any) -> None:
        """Step the environments ``which``; ``actions`` are those of all, with a leading axis.

        Raises:
            InputError: if one of all the actions is none; then nothing has happened.
        """
        self.carry_out(which, *self.task.decode(actions, self))

    def carry_out(
        self,
        which: Which,
        decided: Sequence[int] | NDArray[np.int64],
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        """Step the environments ``which`` with what actions of all have been decoded to."""
        if weights is not None:
            self.weights[which] = weights[which]
        self._actions[:, 0] = decided
        self._take_turns(which)

    def proceed(self, pause_s: float) -> None:
        """Go on with environment 0 after a pause, until ``pause_s`` at most."""
        self.episodes["pause_s"][0] = pause_s
        self._take_turns([0])

    def look(self, cluster: Cluster, begin: Begin | None = None) -> None:
        """Let environment 0 observe a cluster that others run.

        Args:
            cluster: the same one all through an episode.
            begin: of the episode; given for its first look only.
        """
        if begin is not None:
            self.clusters[0] = cluster
            self._enter_cluster(0, cluster)
            self._enter_episode(0, begin)
            self.episodes["next"] = LOOK
            self.episodes["last_target"] = cluster.target
            self.now[0] = list(cluster.totals().values())
        self._take_turns([0])

    def _take_turns(self, which: Which) -> None:
        count, shared = len(which), self._turns[0]
        shared.which[:count] = which
        shared.count[0] = count
        threads = max(min(self.threads, count // _FEW), 1)
        shared.blocks[0] = threads
        shared.taken[:] = 0
        if threads == 1:
            self._play(shared)
            return
        if self._workers_of != os.getpid():
            # A forked process has none of the threads of its parent.
            self._workers, self._workers_of = [], os.getpid()
        # A thread for each, so that an environment stays with its own.
        while len(self._workers) < threads - 1:
            self._workers.append(ThreadPoolExecutor(1, "preserve_gym"))
        pairs = zip(self._workers, self._turns[1:threads], strict=False)
        futures = [worker.submit(self._play, turns) for worker, turns in pairs]
        try:
            self._play(shared)
        finally:
            for future in futures:
                future.exception()
        for future in futures:
            future.result()

    def rewards(self) -> NDArray[np.float64]:
        """Of the last turn of each; see ``Task.rewards``."""
        return self.task.rewards(self)

    def state(self, j: int | slice = slice(None)) -> Mapping[str, NDArray[Any]]:
        """The vectors that observations are made of; of environment ``j`` or of all."""
        return {"physical": self.physical[j], "flat": self.flat[j]}

    def close(self) -> None:
        """Stop the threads."""
        for worker in self._workers:
            worker.shutdown()
        self._workers = []
