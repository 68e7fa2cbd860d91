"""The Gymnasium environments."""

import gymnasium as gym

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
