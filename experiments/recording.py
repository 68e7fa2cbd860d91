"""What is recorded when a policy plays: episodes in the words of an environment that can be made again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines import Autoscaler
from experiments.playing import asked, layout
from preserve_gym.envs.autoscale import autoscale_task
from preserve_gym.envs.batch import EnvBatch
from preserve_gym.envs.scale_action import MAX_DELTA, target_to_action
from preserve_gym.envs.scale_task import ScaleTask
from preserve_gym.errors import InputError
from preserve_gym.workload import Workload


@dataclass(frozen=True)
class Recorded:
    """An episode of ``preserve/Autoscale-v0`` with flat observations, of T control intervals.

    Attributes:
        seed, start_s: what ``reset(seed=seed, options={"start_s": start_s})`` is to be told for it.
        observations: float32 of shape (T + 1, features), the last one included.
        actions: int64[T] of mode ``delta``, or float32 of shape (T, 1) of mode ``target``.
        rewards: float64[T].
        infos: of ``reset`` and of each step, by name, int64 or float64[T + 1].
    """

    seed: int
    start_s: float
    observations: NDArray[np.float32]
    actions: NDArray[Any]
    rewards: NDArray[np.float64]
    infos: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Recording:
    """A policy, what it shall play, and the environment that this is recorded in.

    The environment has the policy's cluster, router, interval, predictions, reward and initial fleet, and
    flat observations. In mode ``delta`` its fleet follows the policy by at most ``MAX_DELTA`` instances an
    interval.

    Attributes:
        policy: who plays, deterministically.
        workload: what it plays, with the predictions that it wants.
        action_mode: ``delta`` or ``target``.
        seeds_and_starts: seed and start of each episode, s on the trace's clock.

    Raises:
        InputError: if the environment cannot be written down: the router is a function, a transform has no
            name, or the initial fleet depends on the start.
    """

    policy: Autoscaler
    workload: Workload
    action_mode: str
    seeds_and_starts: Sequence[tuple[int, float]]

    def __post_init__(self) -> None:
        self.arguments  # noqa: B018  (so that it complains now)

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """The arguments of ``preserve/Autoscale-v0`` that make the environment, as JSON holds them."""
        policy = self.policy
        arguments = policy.env_options() | {"obs_mode": "flat", "action_mode": self.action_mode}
        if not isinstance(arguments["router"], str):
            raise InputError(
                f"policy {policy.name}: expected a built-in router, got another; --router replaces it"
            )
        if hasattr(policy, "initial_instances"):
            initial = {policy.initial_instances(start_s) for _, start_s in self.seeds_and_starts}
            if len(initial) > 1:
                raise InputError(
                    f"policy {policy.name}: expected one initial fleet in all episodes, "
                    f"got {' and '.join(map(str, sorted(initial)))} instances"
                )
            arguments["initial_instances"] = initial.pop()
        arguments["workload"] = self.workload.config.to_mapping()
        as_json: dict[str, Any] = json.loads(json.dumps(arguments, default=asdict))
        return as_json


def record(recording: Recording) -> Iterator[Recorded]:
    """Let the policy play one episode after another."""
    policy = recording.policy
    task = autoscale_task(**recording.arguments | {"workload": recording.workload})
    known_to_policy = autoscale_task(**policy.env_options(), workload=recording.workload)
    batch = EnvBatch(task, 1)
    for seed, start_s in recording.seeds_and_starts:
        batch.begin([0], [task.begin(np.random.default_rng(seed), {"start_s": start_s})])
        observations, infos = [batch.flat[0].copy()], [batch.info[0].copy()]
        actions, rewards = [], []
        targets = asked(batch, policy, known_to_policy)
        while not batch.ended[0]:
            actions.append(_action(next(targets)[0], batch))
            batch.step([0], [actions[-1]])
            observations.append(batch.flat[0].copy())
            rewards.append(float(batch.rewards()[0]))
            infos.append(batch.info[0].copy())
        figures = zip(task.info.items(), np.transpose(infos), strict=True)
        yield Recorded(
            seed,
            start_s,
            np.array(observations),
            np.array(actions),
            np.array(rewards),
            {
                name: values.astype(np.int64 if kind is int else np.float64)
                for (name, kind), values in figures
            },
        )


def _action(target: int, batch: EnvBatch) -> Any:
    """The action of the batch's task that comes nearest to a target."""
    task = batch.task
    assert isinstance(task, ScaleTask)
    scale = task.scale_action
    if scale.mode != "delta":
        return target_to_action(target, scale.min_instances, scale.max_instances)
    present = round(batch.physical[0, layout(batch).places["target"].start])
    return min(max(target - present, -MAX_DELTA), MAX_DELTA) + MAX_DELTA
