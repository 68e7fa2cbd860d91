"""How a policy plays an episode: what ``preserve/Autoscale-v0`` does, without its detours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from agents.scaling_control import AUTOSCALE, CLUSTER
from baselines import Autoscaler
from preserve_gym.envs.autoscale import autoscale_task
from preserve_gym.envs.batch import EnvBatch
from preserve_gym.envs.cluster import cluster_task
from preserve_gym.envs.physical import Layout
from preserve_gym.envs.scale_observation import SCALARS
from preserve_gym.envs.scale_task import ScaleTask
from preserve_gym.envs.task import Task
from preserve_gym.sim import Cluster
from preserve_gym.workload import Workload

Asked = tuple[int, NDArray[np.float64] | None]
"""A number of instances, and weights of the router of shape (1, 7) where the policy sets them."""


class Policy(Protocol):
    """What can play: the baselines, and learned policies with the signature of Stable-Baselines3.

    Its environment is ``preserve/Autoscale-v0``, or ``preserve/Cluster-v0`` if it has an ``env_id`` that says
    so. It may also have ``initial_instances(start_s)``: how many instances are ready at the start of the
    window that starts then; without it, as many as the forecast says.
    """

    @property
    def name(self) -> str:
        """For tables and files."""

    @property
    def forecaster(self) -> str | None:
        """Of the workload that it plays; None: the workload's own."""

    @property
    def predictor(self) -> str | None:
        """Of output lengths there; None: the workload's own."""

    def env_options(self) -> dict[str, Any]:
        """Options of its environment, but for the workload."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """The action for an observation, and the state for the next call."""


def begin(workload: Workload, policy: Policy, start_s: float, seed: int) -> EnvBatch:
    """The one environment of a policy, where the warm-up of the episode from ``start_s`` has been served.

    Args:
        workload: with the predictions that the policy wants.
        policy: whose options the environment has.
        start_s: of the scored part, on the trace's clock.
        seed: of the environment.
    """
    options = policy.env_options()
    if hasattr(policy, "initial_instances"):
        options["initial_instances"] = policy.initial_instances(start_s)
    make_task = cluster_task if getattr(policy, "env_id", AUTOSCALE) == CLUSTER else autoscale_task
    task = make_task(workload=workload, **options)
    batch = EnvBatch(task, 1)
    batch.begin([0], [task.begin(np.random.default_rng(seed), {"start_s": start_s})])
    return batch


def turns(batch: EnvBatch, policy: Policy) -> Iterator[int]:
    """Let the policy act, deterministically, to the end of the episode.

    Returns:
        After each control interval the number of instances that was asked for at its start.
    """
    ask = asked(batch, policy, batch.task)
    while not batch.ended[0]:
        target, weights = next(ask)
        batch.carry_out([0], [target], weights)
        yield target


def asked(batch: EnvBatch, policy: Policy, task: Task) -> Iterator[Asked]:
    """What the policy asks for, deterministically, each time that it is asked.

    Args:
        batch: the one environment, an episode of which has begun.
        policy: that observes it.
        task: whose observations and actions the policy knows, of the same cluster and workload.
    """
    return _law(batch, policy) if _is_law(policy) else _model(batch, policy, task)


def layout(batch: EnvBatch) -> Layout:
    """Where each quantity lies in ``batch.physical``."""
    task = batch.task
    assert isinstance(task, ScaleTask)
    return task.scale_observation.layout


def settled(batch: EnvBatch) -> Cluster:
    """The cluster once the queues have been served to the end, so that every request is decided."""
    (cluster,) = batch.clusters
    assert cluster is not None
    cluster.settle(arrivals=False)
    return cluster


def _is_law(policy: Policy) -> bool:
    return isinstance(policy, Autoscaler) and type(policy).predict is Autoscaler.predict


def _law(batch: EnvBatch, policy: Any) -> Iterator[Asked]:
    """What ``Autoscaler.predict`` would ask for, in a quarter of its time."""
    places = layout(batch).places
    scalars = {name: place.start for name, place in places.items() if name in SCALARS}
    arrays = {name: place for name, place in places.items() if name not in SCALARS}
    low, high = policy.cluster.min_instances, policy.cluster.max_instances
    state = policy.initial_state()
    while True:
        now = batch.physical[0].copy()
        observation: dict[str, Any] = {name: now[place] for name, place in arrays.items()}
        for name, at in scalars.items():
            observation[name] = float(now[at])
        yield round(min(max(policy.decide(observation, state), low), high)), None


def _model(batch: EnvBatch, policy: Policy, task: Task) -> Iterator[Asked]:
    state, starts = None, np.array([True])
    while True:
        observation = task.observation(batch.state(0))
        action, state = policy.predict(observation, state, episode_start=starts, deterministic=True)
        targets, weights = task.decode([action], batch)
        starts = np.array([False])
        yield int(targets[0]), weights
