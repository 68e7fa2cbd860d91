"""Playing environments in tests."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

import preserve_gym

preserve_gym.register()

IDS = sorted(env_id for env_id in gym.registry if env_id.startswith("preserve/"))
GENERAL_IDS = [f"preserve/{name}-v0" for name in ("Autoscale", "Cluster", "Route")]

Steps = list[tuple[Any, float, dict[str, Any]]]


def play(env: gym.Env[Any, Any], seed: int, actions: Any = None, steps: int | None = None) -> Steps:
    """An episode, or its first ``steps``, with random or given actions: everything that it returns."""
    env.action_space.seed(seed)
    observation, info = env.reset(seed=seed)
    seen: Steps = [(observation, 0.0, info)]
    ended = False
    while not ended and (steps is None or len(seen) <= steps):
        action = env.action_space.sample() if actions is None else actions
        observation, reward, terminated, ended, info = env.step(action)
        assert not terminated
        seen.append((observation, float(reward), info))
    return seen
