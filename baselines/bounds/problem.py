"""What is bounded: an SLO attainment on fixed windows of a workload, by one cluster with one router."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preserve_gym.config import ClusterConfig
from preserve_gym.errors import InputError
from preserve_gym.sim.cluster import Cluster
from preserve_gym.workload import Episode

_LEAST_INTERVAL_S = 1e-6  # a shorter one is rounding, not an interval; as in the environment

Schedule = tuple[NDArray[np.int64], ...]
"""The target of each control interval, int64[intervals], for each window; the first is ready at the start."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Serve these windows with at least ``target`` of their requests within the SLO.

    Attributes:
        cluster: the cluster.
        episodes: the windows; the target holds for their requests together.
        target: share of the requests that arrive in the scored parts, in [0, 1].
        router: name of the router.
        interval_s: length of a control interval.

    Raises:
        InputError: on a target or interval out of range, or windows without a request.
    """

    cluster: ClusterConfig
    episodes: tuple[Episode, ...]
    target: float = 0.99
    router: Any = "least-requests"
    interval_s: float = 10.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.target <= 1.0:
            raise InputError(f"target: expected a share in [0, 1], got {self.target!r}")
        if not 0.0 < self.interval_s < math.inf:
            raise InputError(f"interval_s: expected a finite number > 0, got {self.interval_s!r}")
        if self.arrived == 0:
            raise InputError("episodes: expected at least one request in their scored parts, got none")

    @cached_property
    def arrived(self) -> int:
        """Requests that arrive in the scored parts."""
        return sum(len(scored_arrivals(episode)) for episode in self.episodes)

    @property
    def allowed(self) -> int:
        """How many of them may violate the SLO."""
        return math.floor((1.0 - self.target) * self.arrived + 1e-9)

    def intervals(self, episode: Episode) -> int:
        """Control intervals of a window; the last one may be shorter."""
        return max(1, math.ceil((episode.horizon_s - _LEAST_INTERVAL_S) / self.interval_s))

    @property
    def lead(self) -> int:
        """Control intervals that a cold start takes, rounded up; the longest if they differ."""
        return math.ceil(max(self.cluster.cold_starts_s) / self.interval_s - 1e-9)

    def asked_s(self, schedule: Schedule) -> float:
        """Instance-seconds that a schedule asks for; the bill adds what drains."""
        asked_s = 0.0
        for episode, targets in zip(self.episodes, schedule, strict=True):
            last_s = episode.horizon_s - self.interval_s * (len(targets) - 1)
            asked_s += self.interval_s * float(targets[:-1].sum()) + last_s * float(targets[-1])
        return asked_s

    def constant(self, instances: int) -> Schedule:
        """The schedule of a constant fleet."""
        return tuple(np.full(self.intervals(episode), instances, np.int64) for episode in self.episodes)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a schedule costs and achieves, by simulation.

    Attributes:
        schedule: the schedule.
        violated: which requests of the scored part violated the SLO, bool[requests], for each window.
        instance_s: instance-seconds billed in the scored parts.
        gpus: of one instance.
    """

    schedule: Schedule
    violated: tuple[NDArray[np.bool_], ...]
    instance_s: float
    gpus: int

    @property
    def violations(self) -> int:
        """Requests that violated the SLO."""
        return sum(int(of_one.sum()) for of_one in self.violated)

    @property
    def attainment(self) -> float:
        """Share of the requests that did not."""
        return 1.0 - self.violations / sum(len(of_one) for of_one in self.violated)

    @property
    def gpu_hours(self) -> float:
        """GPU-hours billed."""
        return self.instance_s * self.gpus / 3600.0


def scored_arrivals(episode: Episode) -> NDArray[np.float64]:
    """Arrivals in the scored part of a window, float64[requests], s."""
    arrival_s = episode.trace.arrival_s
    return arrival_s[np.searchsorted(arrival_s, episode.start_s, side="left") :]


def play(problem: Problem, schedule: Schedule) -> Outcome:
    """Simulate a schedule as the environment would: the same requests, decisions, bill and verdicts.

    The first target is ready at the start of the warm-up. At the end of a window the fleet is frozen and
    serves what is left in the queues, so that every request is decided.
    """
    violated, instance_s = [], 0.0
    for episode, targets in zip(problem.episodes, schedule, strict=True):
        of_one, billed_s = _play_window(problem, episode, targets)
        violated.append(of_one)
        instance_s += billed_s
    return Outcome(schedule, tuple(violated), instance_s, problem.cluster.instance.gpus)


def _play_window(
    problem: Problem, episode: Episode, targets: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], float]:
    start_s, end_s = episode.start_s, episode.start_s + episode.horizon_s
    cluster = Cluster(
        problem.cluster,
        episode.trace,
        problem.router,
        predicted_tokens=episode.predicted_tokens,
        initial_instances=int(targets[0]),
        start_s=start_s - episode.warmup_s,
        seed=episode.seed,
    )
    cluster.run_until(start_s)
    before_s = cluster.totals()["instance_s"]
    for k, target in enumerate(targets.tolist()):
        cluster.scale_to(target)
        last = k == len(targets) - 1
        cluster.run_until(end_s if last else start_s + (k + 1) * problem.interval_s)
    billed_s = cluster.totals()["instance_s"] - before_s
    cluster.settle()
    results = cluster.results()
    scored = results["arrival_s"].to_numpy() >= start_s
    missed = results["violated_s"].notna().to_numpy() | results["rejected"].to_numpy()
    return missed[scored], billed_s
