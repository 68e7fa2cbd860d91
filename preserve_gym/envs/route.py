"""``preserve/Route-v0``: which instance serves a request, decided at each arrival."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gymnasium.vector import AutoresetMode

from preserve_gym.config import AnticipatorConfig, ClusterConfig, RouteRewardConfig, WorkloadConfig
from preserve_gym.envs.route_fleet import AutoscaledFleet
from preserve_gym.envs.route_task import Fleet, RouteTask
from preserve_gym.envs.setting import Split, config_of, make_setting
from preserve_gym.envs.single import TaskEnv
from preserve_gym.envs.task import Begin
from preserve_gym.envs.vector import TaskVectorEnv
from preserve_gym.scenarios import Scenario
from preserve_gym.workload import Workload


class RouteEnv(TaskEnv):
    """A router sends each arriving LLM request to an instance.

    **Step.** One request; requests that arrive at the same time are steps with no time between them. Requests
    that can never fit are rejected without asking.

    **Action.** Discrete(max_instances), the slot of an instance, with ``action_masks()``: those that are
    ready. In place of one that is not, the nearest ready one serves (the lower of two); info says which.

    **Observation.** ``obs_mode="flat"``: Box float32 of ``feature_names``, 7 of the request and the cluster,
    then 8 for each slot. ``obs_mode="dict"``: physical units, arrays per instance. Both are documented in
    ``preserve_gym.envs.route_observation``.

    **Reward.** Minus the time that requests spend in the cluster until the next decision, in latencies of an
    unloaded request, minus the weighted SLO violations; exact formula in ``preserve_gym.envs.route_reward``.

    **Start.** The fleet that is due serves an unscored warm-up under ``warmup_router``.

    **End.** Truncated after ``horizon_s``, to be bootstrapped; never terminated. No request waits in the last
    observation. ``results()`` then serves what is left in the queues.

    **Info.** ``time_s`` (trace's clock), ``target``, ``ready``, ``instance`` (where the last request went,
    -1 before the first); since the last decision: ``violations``, ``reward_latency``, ``reward_slo``.

    **Versions.** v0: first version; may still change until release 1.0.

    Args:
        cluster: configuration of the cluster, or a mapping of its fields.
        workload: configuration, mapping, or a ``Workload`` to share between environments.
        fleet: a number of instances; or pairs of a time on the trace's clock in s, ascending, and the number
            from then on; or an autoscaler, with ``predict`` as Stable-Baselines3 has it and ``interval_s``
            (such as ``baselines.make_policy`` gives), not in the vector environment; None: as many as the
            forecast needs, changed when a window begins (PreServe's Tier 1).
        warmup_router: serves the warm-up: name of a built-in router that needs no weights, or one made by
            ``@router``.
        obs_mode: ``flat`` or ``dict``.
        reward: weights of the reward, or a mapping.
        render_mode: None, ``ansi`` or ``rgb_array``.
        scenario: name or file of a scenario, or one made before: gives ``cluster`` and ``workload`` where
            they are None, and the fields that a mapping of them leaves out.
        split: ``train``, ``validation`` or ``test``: the part of the recording that episodes use; not for
            a ``Workload``, which has its own.
        anticipator: the look-ahead map that is observed and that the warm-up router reads; a mapping
            of its fields, or None: PreServe's as in its paper.

    Raises:
        InputError: on options that do not fit.
    """

    def __init__(
        self,
        cluster: ClusterConfig | Mapping[str, Any] | None = None,
        workload: WorkloadConfig | Mapping[str, Any] | Workload | None = None,
        fleet: Fleet | Any = None,
        warmup_router: Any = "least-requests",
        obs_mode: str = "flat",
        reward: RouteRewardConfig | Mapping[str, Any] | None = None,
        render_mode: str | None = None,
        scenario: str | Path | Scenario | None = None,
        split: Split | None = None,
        anticipator: AnticipatorConfig | Mapping[str, Any] | None = None,
    ) -> None:
        autoscaled = hasattr(fleet, "predict")
        task = route_task(
            cluster=cluster,
            workload=workload,
            fleet=None if autoscaled else fleet,
            autoscaled=autoscaled,
            warmup_router=warmup_router,
            obs_mode=obs_mode,
            reward=reward,
            scenario=scenario,
            split=split,
            anticipator=anticipator,
        )
        super().__init__(task, render_mode)
        self.reward_config = task.reward
        self._fleet = AutoscaledFleet(task.setting, fleet) if autoscaled else None

    def _begin(self, begin: Begin) -> None:
        super()._begin(begin)
        if self._fleet is not None:
            self._fleet.begin(begin)
            self._go_on()
            # What has passed counts for the first step, which without any request is the last one.
            self._batch.info[0, -3:] = 0.0
            self._batch.episodes["ended"][0] = 0

    def _step(self, action: Any) -> None:
        super()._step(action)
        if self._fleet is not None:
            self._go_on()

    def _go_on(self) -> None:
        """Serve on, until a request waits for a decision or the episode ends; scale on the way."""
        assert self._fleet is not None
        episode = self._batch.episodes
        while episode["request"][0] < 0 and not episode["ended"][0]:
            self._batch.proceed(self._fleet.scale(self.cluster))


class RouteVectorEnv(TaskVectorEnv):
    """Many ``RouteEnv``: what ``gymnasium.make_vec("preserve/Route-v0", num_envs=64)`` gives.

    Args:
        num_envs, autoreset_mode, num_threads, render_mode: see ``TaskVectorEnv``.
        options: those of ``RouteEnv``.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        num_threads: int | None = None,
        render_mode: None = None,
        **options: Any,
    ) -> None:
        super().__init__(route_task(**options), num_envs, autoreset_mode, num_threads, render_mode)


def route_task(
    *,
    cluster: ClusterConfig | Mapping[str, Any] | None = None,
    workload: WorkloadConfig | Mapping[str, Any] | Workload | None = None,
    fleet: Fleet = None,
    autoscaled: bool = False,
    warmup_router: Any = "least-requests",
    obs_mode: str = "flat",
    reward: RouteRewardConfig | Mapping[str, Any] | None = None,
    scenario: str | Path | Scenario | None = None,
    split: Split | None = None,
    anticipator: AnticipatorConfig | Mapping[str, Any] | None = None,
) -> RouteTask:
    """The task of ``RouteEnv``, whose arguments these are; ``autoscaled`` in place of an autoscaler."""
    return RouteTask(
        make_setting(cluster, workload, scenario, split, anticipator),
        fleet=fleet,
        autoscaled=autoscaled,
        warmup_router=warmup_router,
        obs_mode=obs_mode,
        reward=config_of("reward", RouteRewardConfig(), reward),
    )
