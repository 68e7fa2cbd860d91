"""The Gymnasium environments."""

import gymnasium as gym

_IDS = {"preserve/Autoscale-v0": "preserve_gym.envs.autoscale:AutoscaleEnv"}


def register() -> None:
    """Register every id with Gymnasium; calling it again changes nothing."""
    for env_id, entry_point in _IDS.items():
        if env_id not in gym.registry:
            gym.register(id=env_id, entry_point=entry_point)
