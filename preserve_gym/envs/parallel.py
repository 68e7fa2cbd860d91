"""``Cluster`` for two agents, as PettingZoo wants it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from preserve_gym.envs.cluster import ClusterEnv
from preserve_gym.envs.scale_action import MAX_DELTA, ScaleAction, integers, numbers
from preserve_gym.errors import InputError, did_you_mean
from preserve_gym.sim.state import ROUTER_WEIGHTS

try:
    from pettingzoo import ParallelEnv
except ModuleNotFoundError:  # parallel_env says which extra is missing
    ParallelEnv = object

SCALER, ROUTER = "scaler", "router"
_RESET_OPTIONS = ("start_s", "violation_weight")


class ParallelClusterEnv(ParallelEnv):
    """What ``preserve/Cluster-v0`` lets one policy decide, decided by two agents at once.

    **Agents.** ``scaler`` says how many instances there are, ``router`` how requests are routed to them.

    **Step.** One control interval. Both act at its start.

    **Actions.** ``scaler``: Discrete(5), change of the target by -2 to +2, as in mode ``delta`` of
    ``AutoscaleEnv``; its info has the ``action_mask`` of the changes that stay within the bounds, int8[5].
    ``router``: Box(-1, 1, (7,)), the weights of the router ``linear``, as in ``ClusterEnv``.

    **Observations.** Both see that of ``ClusterEnv``.

    **Rewards.** Both get the whole reward of ``ClusterEnv``. Its parts, ``reward_cost`` and ``reward_slo``,
    are in both infos; neither belongs to one agent, as both depend on what both do.

    **Start, end, info.** As in ``ClusterEnv``; both agents are truncated at once.

    Attributes:
        env: the ``ClusterEnv`` that is played.
        possible_agents: both.
        agents: both within an episode, none outside.
    """

    def __init__(self, **options: Any) -> None:
        self.env = ClusterEnv(**options)
        if self.env.reward_space is not None:
            raise InputError("vector_reward: expected False, as agents get numbers, got True")
        self.metadata = {**ClusterEnv.metadata, "name": "preserve_cluster_v0"}
        self.render_mode = self.env.render_mode
        self.possible_agents = [SCALER, ROUTER]
        self.agents: list[str] = []
        cluster = self.env.cluster_config
        self._changes = ScaleAction("delta", cluster.min_instances, cluster.max_instances)
        weights = spaces.Box(-1.0, 1.0, (ROUTER_WEIGHTS,), np.float32)
        self.action_spaces = {SCALER: self._changes.space, ROUTER: weights}
        self.observation_spaces = {
            agent: copy.deepcopy(self.env.observation_space) for agent in self.possible_agents
        }

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """That of an agent, always the same object."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """That of an agent, always the same object."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Draw an episode, serve its warm-up and observe.

        Args:
            seed: of the generator that draws the episodes.
            options: those of ``ClusterEnv``. Others are ignored, as PettingZoo's tests give some, unless
                their name looks like a slip.

        Raises:
            InputError: on a name that resembles an option, or a value that does not fit.
        """
        given = dict(options or {})
        for name in given.keys() - set(_RESET_OPTIONS):
            if meant := did_you_mean(name, _RESET_OPTIONS):
                raise InputError(f"options: expected {', '.join(_RESET_OPTIONS)}, got {name!r}{meant}")
            del given[name]
        observation, info = self.env.reset(seed=seed, options=given)
        self.agents = list(self.possible_agents)
        return self._each(observation), self._infos(info)

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Act, serve one control interval and observe.

        Args:
            actions: one of each agent.

        Returns:
            Observations, rewards, terminated, truncated and infos by agent.

        Raises:
            gymnasium.error.ResetNeeded: before the first ``reset``, and after the end of an episode.
            InputError: if an action is missing or is none; then nothing has happened.
        """
        joint = _joint_action(actions) if self.agents else np.zeros(1 + ROUTER_WEIGHTS)
        observation, reward, terminated, truncated, info = self.env.step(joint)
        if truncated:
            self.agents = []
        rewards, ends, cuts = (
            dict.fromkeys(self.possible_agents, one) for one in (reward, terminated, truncated)
        )
        return self._each(observation), rewards, ends, cuts, self._infos(info)

    def render(self) -> str | NDArray[np.uint8] | None:
        """As that of ``ClusterEnv``."""
        return self.env.render()

    def close(self) -> None:
        """As that of ``ClusterEnv``."""
        self.env.close()

    def _each(self, observation: Any) -> dict[str, Any]:
        return {SCALER: observation, ROUTER: copy.deepcopy(observation)}

    def _infos(self, info: dict[str, Any]) -> dict[str, dict[str, Any]]:
        (mask,) = self._changes.masks(np.array([info["target"]]))
        return {SCALER: {**info, "action_mask": mask.astype(np.int8)}, ROUTER: dict(info)}


def _joint_action(actions: Any) -> NDArray[np.float64]:
    """That of ``ClusterEnv`` for the actions of both agents, float64[7]."""
    if not isinstance(actions, Mapping) or set(actions) != {SCALER, ROUTER}:
        given = ", ".join(map(str, actions)) if isinstance(actions, Mapping) else repr(actions)
        raise InputError(f"actions: expected one of {SCALER} and one of {ROUTER}, got {given or 'none'}")
    change = _action_of(SCALER, lambda: integers([actions[SCALER]], 1, 2 * MAX_DELTA + 1)) - MAX_DELTA
    weights = _action_of(ROUTER, lambda: numbers([actions[ROUTER]], (1, ROUTER_WEIGHTS)))
    return np.append(change / MAX_DELTA, weights)


def _action_of(agent: str, read: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    try:
        return read()
    except InputError as error:
        raise InputError(f"{agent}: {error}") from None
