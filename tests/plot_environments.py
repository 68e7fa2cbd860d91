"""Pictures of ``Route`` and ``Cluster`` for their pages in ``docs/environments/``.

Run as ``python -m tests.plot_environments``: plays the policies of the pages into a flash crowd and draws
``docs/images/route.png`` and ``docs/images/cluster.png``. That of ``Autoscale`` is ``experiments.video``'s.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image

import preserve_gym  # noqa: F401  (registers the ids)

FOLDER = Path(__file__).parent.parent / "docs" / "images"
START_S = 477_900.0  # 12:45 of the last day; the crowd comes from 13:07 on


def least_peak(env: Any, observation: Any) -> int:
    slots = observation[7:].reshape(env.action_space.n, -1)
    score = slots[:, 3] + slots[:, 7]
    return int(np.where(env.action_masks(), score, np.inf).argmin())


def by_hand(env: Any, observation: Any) -> Any:
    feature = dict(zip(env.feature_names, observation, strict=True))
    largest = env.cluster_config.max_instances
    wanted = np.ceil(0.8 * largest * max(feature["corrected_need"], feature["forecast_load_window_0"]))
    target = round(largest * feature["target"])
    if feature["queued_prefill"] > 0.25:
        wanted = max(wanted, target + 1)
    weights = (1.0, 0.0, 0.5, 0.0, 0.0, 0.0)
    change = np.clip((wanted - target) / 2.0, -1.0, 1.0)
    return np.array([change, *(2.0 * weight - 1.0 for weight in weights)], np.float32)


def picture(name: str, policy: Callable[[Any, Any], Any], title: str, moment_s: float) -> Any:
    """The dashboard at the first step that ends at ``moment_s`` of the episode or later."""
    env: Any = gym.make(
        f"preserve/{name}-flash-crowd-v0",
        split="test",
        workload={"evaluation_horizon_s": 2700.0},
        render_mode="rgb_array",
    ).unwrapped
    env.dashboard.title = f"{title}, scenario flash-crowd, {env.cluster_config.instance.name}"
    observation, info = env.reset(seed=0, options={"start_s": START_S})
    while info["time_s"] < START_S + moment_s:
        observation, *_, info = env.step(policy(env, observation))
    return env.render()


def main() -> None:
    for name, policy, title, moment_s in (
        ("Route", least_peak, "routing to the least peak", 1440.0),
        ("Cluster", by_hand, "fleet and router weights by hand", 1440.0),
    ):
        frame = picture(name, policy, title, moment_s)
        Image.fromarray(frame).save(FOLDER / f"{name.lower()}.png", optimize=True)


if __name__ == "__main__":
    main()
