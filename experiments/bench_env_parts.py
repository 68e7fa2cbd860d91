"""The parts of ``python -m experiments.bench envs`` that need no learner."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from numpy.typing import NDArray

from experiments.bench_parts import Part, Row
from experiments.bench_setup import Served, timed
from preserve_gym import Cluster, Workload, WorkloadConfig
from preserve_gym.envs.batch import EnvBatch
from preserve_gym.envs.single import TaskEnv
from preserve_gym.envs.vector import TaskVectorEnv

NAMES = ("Autoscale", "Route", "Cluster")
KEEP = 2
"""The action of ``Autoscale`` that keeps the target."""


@dataclass(frozen=True)
class EnvSizes:
    """How much is measured.

    Attributes:
        environments: numbers of environments in a vector.
        threads: that step them.
        horizon_s: of an episode.
        steps: of all environments together in one measurement, by environment.
        longest: steps of one environment in it, at most; fewer than an episode has.
        repeats: measurements of each figure; the fastest counts.
        share_environments: in the comparison with the engine.
        learner_environments, learner_steps: those that PPO steps, and how often before each update.
        updates: of PPO in one measurement.
    """

    environments: tuple[int, ...] = (1, 8, 64, 256)
    threads: tuple[int, ...] = (1, 2)
    horizon_s: float = 3600.0
    steps: tuple[int, int, int] = (24_000, 320_000, 24_000)
    longest: int = 5000
    repeats: int = 3
    share_environments: tuple[int, ...] = (1, 64)
    learner_environments: int = 64
    learner_steps: int = 128
    updates: int = 4


QUICK_ENVS = EnvSizes(
    environments=(1, 16),
    horizon_s=300.0,
    steps=(400, 4000, 400),
    longest=500,
    repeats=2,
    share_environments=(1, 16),
    learner_environments=16,
    learner_steps=16,
    updates=2,
)


@dataclass(frozen=True)
class Plan:
    """Actions recorded once, so that every measurement of a case plays the same episodes.

    Attributes:
        actions: one for each step of all environments, with leading axes (steps, n).
        requests: that arrive in these steps.
        simulated_s: summed over the environments.
    """

    actions: NDArray[Any]
    requests: int
    simulated_s: float


@dataclass(frozen=True)
class EnvSetup:
    """The default workload of the environments, shared by all of them.

    Attributes:
        sizes: how much is measured.
        tell: told what is measured now.
    """

    sizes: EnvSizes
    tell: Callable[[str], object] = field(default=lambda case: None)

    @cached_property
    def workload(self) -> Workload:
        """Made once."""
        return Workload(WorkloadConfig(horizon_s=self.sizes.horizon_s))

    def make_vec(self, name: str, n: int, threads: int = 1, mode: str = "SAME_STEP") -> TaskVectorEnv:
        """``n`` environments."""
        envs = gym.make_vec(
            f"preserve/{name}-v0",
            num_envs=n,
            num_threads=threads,
            autoreset_mode=mode,
            workload=self.workload,
        )
        assert isinstance(envs, TaskVectorEnv)
        return envs

    def make(self, name: str) -> TaskEnv:
        """One environment, without Gymnasium's wrappers."""
        env = gym.make(f"preserve/{name}-v0", disable_env_checker=True, workload=self.workload).unwrapped
        assert isinstance(env, TaskEnv)
        return env

    def plan(self, name: str, n: int) -> Plan:
        """Requests go where the fewest are; the fleet and the weights of its router stay as they are."""
        self.tell(f"{name}, {n:,} environments: the plan")
        envs = self.make_vec(name, n)
        observations, infos = envs.reset(seed=0)
        longest = self.sizes.longest
        if name != "Route":  # no episode ends
            longest = min(longest, int(self.sizes.horizon_s / 10.0) - 1)
        actions, requests, simulated_s = [], 0, 0.0
        for _ in range(max(min(self.sizes.steps[NAMES.index(name)] // n, longest), 1)):
            actions.append(_calm_action(envs, observations))
            before_s = infos["time_s"]
            observations, _, _, _, infos = envs.step(actions[-1])
            requests += n if name == "Route" else int(infos["arrived"].sum())
            simulated_s += float((infos["time_s"] - before_s).clip(min=0.0).sum())
        return Plan(np.array(actions), requests, simulated_s)


def _calm_action(envs: TaskVectorEnv, observations: NDArray[np.float32]) -> NDArray[Any]:
    if envs.single_action_space.shape:
        return np.zeros(envs.action_space.shape or (), np.float32)
    if "target" in envs.feature_names:
        return np.full(envs.num_envs, KEEP)
    in_flight = sum(
        observations[:, [k for k, feature in enumerate(envs.feature_names) if feature.startswith(queue)]]
        for queue in ("running_", "waiting_")
    )
    return np.where(envs.action_masks(), in_flight, np.inf).argmin(axis=1)


def steps(setup: EnvSetup) -> Part:
    """Steps, requests and simulated seconds per second: one environment, and vectors of them."""
    sizes = setup.sizes
    rows: list[Row] = []
    for name in NAMES:
        for n in (None, *sizes.environments):
            plan = setup.plan(name, n or 1)
            threads = [1] if n in (None, 1) else list(sizes.threads)
            vectors = [setup.make(name) if n is None else setup.make_vec(name, n, t) for t in threads]
            setup.tell(f"{name}, {n or 1:,} environments")
            measured: list[list[tuple[float, float]]] = [[] for _ in threads]
            # In turn, so that all meet the machine in the same states.
            for _ in range(sizes.repeats):
                for envs, seconds in zip(vectors, measured, strict=True):
                    seconds.append(_play(envs, plan))
            for t, envs, seconds in zip(threads, vectors, measured, strict=True):
                row = {"environment": f"{name}, single" if n is None else name, "environments": n or 1}
                row |= {"threads": t, **_step_cells(plan, n or 1, seconds)}
                rows.append(row)
                if t > 1:
                    row["of_one_thread"] = row["steps_per_s"] / rows[-1 - threads.index(t)]["steps_per_s"]
                envs.close()
    return Part("Steps of running episodes; the default workload of each environment", rows)


def _play(envs: TaskEnv | TaskVectorEnv, plan: Plan) -> tuple[float, float]:
    """Seconds of the reset, and of all the steps."""
    actions = plan.actions[:, 0] if isinstance(envs, TaskEnv) else plan.actions

    def run() -> None:
        for action in actions:
            envs.step(action)

    return timed(lambda: envs.reset(seed=0)), timed(run)


def _step_cells(plan: Plan, n: int, seconds: list[tuple[float, float]]) -> Row:
    taken = Served(plan.requests, [steps_s for _, steps_s in seconds])
    return {
        "steps_per_s": len(plan.actions) * n / taken.best_s,
        "requests_per_s": plan.requests / taken.best_s,
        "simulated_s_per_s": plan.simulated_s / taken.best_s,
        "reset_ms": 1e3 * min(reset_s for reset_s, _ in seconds) / n,
        "spread": taken.spread,
    }


def overhead(setup: EnvSetup) -> Part:
    """The median step: how long it is in compiled code, and how long outside."""
    rows: list[Row] = []
    for name in NAMES:
        for n in (None, *setup.sizes.environments):
            plan = setup.plan(name, n or 1)
            envs = setup.make(name) if n is None else setup.make_vec(name, n)
            setup.tell(f"{name}, {n or 1:,} environments")
            envs.reset(seed=0)
            compiled_s = _watch(envs._batch)
            taken_s = []
            for action in plan.actions[:, 0] if n is None else plan.actions:
                compiled_s.append(0.0)
                start_s = time.perf_counter()
                envs.step(action)
                taken_s.append(time.perf_counter() - start_s)
            outside_s = np.array(taken_s) - np.array(compiled_s)
            rows.append(
                {
                    "environment": f"{name}, single" if n is None else name,
                    "environments": n or 1,
                    "outside_us": 1e6 * float(np.median(outside_s)),
                    "compiled_us": 1e6 * float(np.median(compiled_s)),
                }
            )
    return Part("Where a step takes its time, on one thread", rows)


def _watch(batch: EnvBatch) -> list[float]:
    """A list to whose last entry the seconds in compiled code are added from now on."""
    compiled_s: list[float] = []
    play = batch._play

    def watched(turns: Any) -> None:
        start_s = time.perf_counter()
        play(turns)
        compiled_s[-1] += time.perf_counter() - start_s

    batch._play = watched
    return compiled_s


def share(setup: EnvSetup) -> Part:
    """Whole episodes with their warm-up, the fleet as it is: the environments, and the engine alone."""
    cases = [
        (name, n, threads)
        for name in ("Autoscale", "Cluster")
        for n in setup.sizes.share_environments
        for threads in ([1] if n == 1 else setup.sizes.threads)
    ]
    return Part(
        "Whole episodes, reset included, against the engine on the same episodes",
        [_share_row(setup, *case) for case in cases],
    )


def _share_row(setup: EnvSetup, name: str, n: int, threads: int) -> Row:
    setup.tell(f"{name}, {n:,} environments, {threads} threads")
    envs = setup.make_vec(name, n, threads, mode="NEXT_STEP")
    pairs = []
    for _ in range(setup.sizes.repeats):
        clusters = episodes_of(envs)
        pairs.append((timed(lambda: play_episodes(envs)), serve(clusters, threads)))
    envs.close()
    requests = sum(int(cluster.totals()["arrived"]) for cluster, _ in clusters)
    environment, engine = (Served(requests, list(seconds)) for seconds in zip(*pairs, strict=True))
    return {
        "environment": name,
        "environments": n,
        "threads": threads,
        "requests_per_s": requests / environment.best_s,
        "engine_requests_per_s": requests / engine.best_s,
        "of_engine": engine.best_s / environment.best_s,
        "spread": environment.spread,
    }


def episodes_of(envs: TaskVectorEnv) -> list[tuple[Cluster, float]]:
    """The clusters of the episodes that ``reset(seed=0)`` begins, at their start, and the end of each."""
    clusters = []
    for i in range(envs.num_envs):
        begin = envs.task.begin(seeding.np_random(i)[0], {})
        cluster = envs.task.make_cluster(begin)
        clusters.append((cluster, begin.episode.start_s + begin.episode.horizon_s))
    return clusters


def play_episodes(envs: TaskVectorEnv) -> None:
    """Play them to their end, without a change."""
    observations, _ = envs.reset(seed=0)
    action = _calm_action(envs, observations)
    truncated = np.zeros(envs.num_envs, np.bool_)
    while not truncated.all():
        _, _, _, truncated, _ = envs.step(action)


def serve(clusters: list[tuple[Cluster, float]], threads: int) -> float:
    """Seconds in which the engine serves each of them to its end."""
    with ThreadPoolExecutor(threads) as pool:
        return timed(lambda: list(pool.map(lambda item: item[0].run_until(item[1]), clusters)))
