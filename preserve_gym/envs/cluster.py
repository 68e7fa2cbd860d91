"""``preserve/Cluster-v0``: how many instances and how to route, decided every control interval."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gymnasium.vector import AutoresetMode

from preserve_gym.config import AnticipatorConfig, ClusterConfig, RewardConfig, WorkloadConfig
from preserve_gym.envs.scale_action import JOINT
from preserve_gym.envs.scale_task import ScaleTask
from preserve_gym.envs.setting import Split, config_of, make_setting
from preserve_gym.envs.single import TaskEnv
from preserve_gym.envs.vector import TaskVectorEnv
from preserve_gym.scenarios import Scenario
from preserve_gym.sim.routers import USUAL_WEIGHTS
from preserve_gym.workload import Workload


class ClusterEnv(TaskEnv):
    """One policy sets how many instances there are and how requests are routed to them.

    **Step.** One control interval (10 s). The action takes effect at its start.

    **Action.** Box(-1, 1, (8,)). The first number changes the target (starting + ready instances) by twice
    itself, rounded: -2 to +2. The other seven are the weights of the router ``linear``, -1 for 0 and 1 for 1:
    of queued prefill tokens, KV use, expected tokens, requests in flight, requests waiting, anticipated
    tokens and unlike prompts (``preserve_gym.sim.routers.LINEAR_FEATURES``). If all are 0, each of the six
    loads counts as 1.

    **Observation.** As in ``AutoscaleEnv``, and the seven weights in force.

    **Reward, start, end, info.** As in ``AutoscaleEnv``; until the first action as if all weights were 0.

    **Versions.** v0: first version; may still change until release 1.0.

    Args:
        cluster: configuration of the cluster, or a mapping of its fields.
        workload: configuration, mapping, or a ``Workload`` to share between environments.
        interval_s: length of the control interval.
        obs_mode: ``flat`` or ``dict``.
        reward: weights of the reward, or a mapping.
        initial_instances: ready at the start of the warm-up; None: the forecast need.
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

    def __init__(
        self,
        cluster: ClusterConfig | Mapping[str, Any] | None = None,
        workload: WorkloadConfig | Mapping[str, Any] | Workload | None = None,
        interval_s: float = 10.0,
        obs_mode: str = "flat",
        reward: RewardConfig | Mapping[str, Any] | None = None,
        initial_instances: int | None = None,
        render_mode: str | None = None,
        scenario: str | Path | Scenario | None = None,
        split: Split | None = None,
        anticipator: AnticipatorConfig | Mapping[str, Any] | None = None,
        vector_reward: bool = False,
    ) -> None:
        task = cluster_task(
            cluster=cluster,
            workload=workload,
            interval_s=interval_s,
            obs_mode=obs_mode,
            reward=reward,
            initial_instances=initial_instances,
            scenario=scenario,
            split=split,
            anticipator=anticipator,
            vector_reward=vector_reward,
        )
        super().__init__(task, render_mode)
        self.reward_config = task.reward
        self.interval_s = float(interval_s)


class ClusterVectorEnv(TaskVectorEnv):
    """Many ``ClusterEnv``: what ``gymnasium.make_vec("preserve/Cluster-v0", num_envs=64)`` gives.

    Args:
        num_envs, autoreset_mode, num_threads, render_mode: see ``TaskVectorEnv``.
        options: those of ``ClusterEnv``.
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
        super().__init__(cluster_task(**options), num_envs, autoreset_mode, num_threads, render_mode)


def cluster_task(
    *,
    cluster: ClusterConfig | Mapping[str, Any] | None = None,
    workload: WorkloadConfig | Mapping[str, Any] | Workload | None = None,
    interval_s: float = 10.0,
    obs_mode: str = "flat",
    reward: RewardConfig | Mapping[str, Any] | None = None,
    initial_instances: int | None = None,
    scenario: str | Path | Scenario | None = None,
    split: Split | None = None,
    anticipator: AnticipatorConfig | Mapping[str, Any] | None = None,
    vector_reward: bool = False,
) -> ScaleTask:
    """The task of ``ClusterEnv``, whose arguments these are."""
    return ScaleTask(
        make_setting(cluster, workload, scenario, split, anticipator),
        router="linear",
        router_weights=USUAL_WEIGHTS,
        interval_s=interval_s,
        obs_mode=obs_mode,
        action_mode=JOINT,
        reward=config_of("reward", RewardConfig(), reward),
        initial_instances=initial_instances,
        vector_reward=vector_reward,
    )
