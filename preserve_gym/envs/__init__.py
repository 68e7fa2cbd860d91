"""The Gymnasium environments, and the one for several agents."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from preserve_gym.errors import InputError

if TYPE_CHECKING:
    from preserve_gym.envs.parallel import ParallelClusterEnv

_CLASSES = {
    name: (f"preserve_gym.envs.{name.lower()}:{name}Env", f"preserve_gym.envs.{name.lower()}:{name}VectorEnv")
    for name in ("Autoscale", "Route", "Cluster")
}
_SCENARIOS = (
    "api-burst",
    "chat",
    "chat-week",
    "code",
    "code-week",
    "drift",
    "flash-crowd",
    "kv-bound",
    "length-drift",
    "long-prompt",
    "recurring-surges",
    "sharegpt-poisson",
    "step",
)
"""Those that have ids of their own; a table of literals, as nothing is read when this is imported."""


def register() -> None:
    """Register every id with Gymnasium; calling it again changes nothing.

    ``preserve/<name>-v0`` takes what it plays from its options; ``preserve/<name>-<scenario>-v0`` plays that
    scenario.
    """
    for name, (entry_point, vector_entry_point) in _CLASSES.items():
        for scenario in (None, *_SCENARIOS):
            env_id = f"preserve/{name}-v0" if scenario is None else f"preserve/{name}-{scenario}-v0"
            if env_id not in gym.registry:
                gym.register(
                    id=env_id,
                    entry_point=entry_point,
                    vector_entry_point=vector_entry_point,
                    kwargs={} if scenario is None else {"scenario": scenario},
                )


def parallel_env(**options: Any) -> ParallelClusterEnv:
    """``preserve/Cluster-v0`` for two agents, ``scaler`` and ``router``: a PettingZoo ``ParallelEnv``.

    Args:
        options: those of ``ClusterEnv``, but for ``vector_reward``.

    Raises:
        InputError: on options that do not fit, or without the extra ``multiagent``.
    """
    if importlib.util.find_spec("pettingzoo") is None:
        raise InputError("parallel_env: PettingZoo is missing: pip install 'preserve-gym[multiagent]'")
    from preserve_gym.envs.parallel import ParallelClusterEnv

    return ParallelClusterEnv(**options)
