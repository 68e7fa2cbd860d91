"""``preserve/Autoscale-v0``: how many instances, decided every control interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from preserve_gym.config import AnticipatorConfig, ClusterConfig, RewardConfig, WorkloadConfig
from preserve_gym.envs.scale_action import ACTION_MODES, target_to_action
from preserve_gym.envs.scale_task import ScaleTask
from preserve_gym.envs.setting import Split, config_of, make_setting
from preserve_gym.envs.single import TaskEnv
from preserve_gym.envs.vector import TaskVectorEnv
from preserve_gym.errors import InputError
from preserve_gym.scenarios import Scenario
from preserve_gym.workload import Workload


class AutoscaleEnv(TaskEnv):
    """An autoscaler sets how many instances serve a stream of LLM requests.

    Requests arrive as in the workload, a router sends each to a ready instance, every instance runs
    vLLM's continuous batching over its KV cache. New instances are ready after a cold start; surplus
    ones finish what they have and go off.

    **Step.** One control interval (10 s). The action takes effect at its start.

    **Action.** ``action_mode="delta"``: Discrete(5), change of the target (starting + ready instances)
    by -2 to +2, with ``action_masks()``. ``action_mode="target"``: Box(-1, 1, (1,)), from
    ``min_instances`` to ``max_instances``.

    **Observation.** ``obs_mode="flat"``: Box float32 of ``feature_names``. ``obs_mode="dict"``: physical
    units, arrays per instance. Both are documented in ``preserve_gym.envs.scale_observation``.

    **Reward.** Minus the cost of the fleet minus the weighted SLO violations of the interval, less a
    baseline that no action changes; exact formula in ``preserve_gym.envs.scale_reward``.

    **Start.** ``initial_instances`` ready (default: the forecast need at the start, PreServe's Tier 1)
    serve an unscored warm-up.

    **End.** Truncated after ``horizon_s``, to be bootstrapped; never terminated. ``results()`` then
    serves what is left in the queues, with the fleet frozen, so that every request is decided.

    **Info.** ``time_s`` (trace's clock), ``target``, ``ready``; of the interval: ``arrived``,
    ``completed``, ``violations``, ``instance_s``, ``reward_cost``, ``reward_slo``.

    **Versions.** v0: first version; may still change until release 1.0.

    Args:
        cluster: configuration of the cluster, or a mapping of its fields.
        workload: configuration, mapping, or a ``Workload`` to share between environments.
        router: name of a built-in router, or one made by ``@router``.
        interval_s: length of the control interval.
        obs_mode: ``flat`` or ``dict``.
        action_mode: ``delta`` or ``target``.
        reward: weights of the reward, or a mapping.
        initial_instances: ready at the start of the warm-up; None: the forecast need.
        router_weights: of the router ``linear``, or one of your own that reads ``view.weights``.
        render_mode: None, ``ansi`` or ``rgb_array``.
        scenario: name or file of a scenario, or one made before: gives ``cluster`` and ``workload`` where
            they are None, and the fields that a mapping of them leaves out.
        split: ``train``, ``validation`` or ``test``: the part of the recording that episodes use; not for
            a ``Workload``, which has its own.
        anticipator: the look-ahead map that is observed and that routers read; a mapping
            of its fields, or None: PreServe's as in its paper.
        vector_reward: the reward is a vector of cost, SLO and scaling actions, as in
            ``preserve_gym.envs.vector_reward``, and ``reward_space`` says between which bounds.

    Raises:
        InputError: on options that do not fit.
    """

    task: ScaleTask

    def __init__(
        self,
        cluster: ClusterConfig | Mapping[str, Any] | None = None,
        workload: WorkloadConfig | Mapping[str, Any] | Workload | None = None,
        router: Any = "least-requests",
        interval_s: float = 10.0,
        obs_mode: str = "flat",
        action_mode: str = "delta",
        reward: RewardConfig | Mapping[str, Any] | None = None,
        initial_instances: int | None = None,
        router_weights: Sequence[float] = (),
        render_mode: str | None = None,
        scenario: str | Path | Scenario | None = None,
        split: Split | None = None,
        anticipator: AnticipatorConfig | Mapping[str, Any] | None = None,
        vector_reward: bool = False,
    ) -> None:
        task = autoscale_task(
            cluster=cluster,
            workload=workload,
            router=router,
            interval_s=interval_s,
            obs_mode=obs_mode,
            action_mode=action_mode,
            reward=reward,
            initial_instances=initial_instances,
            router_weights=router_weights,
            scenario=scenario,
            split=split,
            anticipator=anticipator,
            vector_reward=vector_reward,
        )
        super().__init__(task, render_mode)
        self.reward_config = task.reward
        self.router = task.router
        self.router_weights = task.router_weights
        self.interval_s = float(interval_s)

    def target_to_action(self, target: int) -> NDArray[np.float32]:
        """The action that asks for ``target`` instances, clipped to the bounds of the cluster; float32 (1,).

        Raises:
            InputError: if actions are changes, or ``target`` is no integer.
        """
        if self.action_space.shape != (1,):
            raise InputError("target_to_action: exists for action_mode='target' only")
        if isinstance(target, bool) or not isinstance(target, int | np.integer):
            raise InputError(f"target_to_action: expected an integer, got {target!r}")
        return target_to_action(target, self.cluster_config.min_instances, self.cluster_config.max_instances)


class AutoscaleVectorEnv(TaskVectorEnv):
    """Many ``AutoscaleEnv``: what ``gymnasium.make_vec("preserve/Autoscale-v0", num_envs=64)`` gives.

    Args:
        num_envs, autoreset_mode, num_threads, render_mode: see ``TaskVectorEnv``.
        options: those of ``AutoscaleEnv``.
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
        super().__init__(autoscale_task(**options), num_envs, autoreset_mode, num_threads, render_mode)


def autoscale_task(
    *,
    cluster: ClusterConfig | Mapping[str, Any] | None = None,
    workload: WorkloadConfig | Mapping[str, Any] | Workload | None = None,
    router: Any = "least-requests",
    interval_s: float = 10.0,
    obs_mode: str = "flat",
    action_mode: str = "delta",
    reward: RewardConfig | Mapping[str, Any] | None = None,
    initial_instances: int | None = None,
    router_weights: Sequence[float] = (),
    scenario: str | Path | Scenario | None = None,
    split: Split | None = None,
    anticipator: AnticipatorConfig | Mapping[str, Any] | None = None,
    vector_reward: bool = False,
) -> ScaleTask:
    """The task of ``AutoscaleEnv``, whose arguments these are."""
    if action_mode not in ACTION_MODES:
        raise InputError(f"action_mode: expected one of {', '.join(ACTION_MODES)}, got {action_mode!r}")
    return ScaleTask(
        make_setting(cluster, workload, scenario, split, anticipator),
        router=router,
        router_weights=router_weights,
        interval_s=interval_s,
        obs_mode=obs_mode,
        action_mode=action_mode,
        reward=config_of("reward", RewardConfig(), reward),
        initial_instances=initial_instances,
        vector_reward=vector_reward,
    )
