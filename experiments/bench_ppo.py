"""PPO on the environments, and on ones that cost nothing; needs the extra ``rl``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv

from agents.sb3_vec_env import SB3VecEnv
from experiments.bench_env_parts import NAMES, EnvSetup
from experiments.bench_parts import Part, Row
from experiments.bench_setup import Served, timed

BATCH = 2048
SETTINGS = {"n_epochs": 6, "learning_rate": 5e-4, "ent_coef": 0.003, "gamma": 0.98, "gae_lambda": 0.95}


class ZeroCostVecEnv(VecEnv):
    """The spaces of another ``VecEnv``; every step returns the same arrays, and no episode ends."""

    def __init__(self, like: VecEnv) -> None:
        super().__init__(like.num_envs, like.observation_space, like.action_space)
        self._observations: Any = np.stack([like.observation_space.sample() for _ in range(like.num_envs)])
        self._rewards = np.zeros(like.num_envs, np.float32)
        self._dones = np.zeros(like.num_envs, np.bool_)
        self._infos: list[dict[str, Any]] = [{} for _ in range(like.num_envs)]

    def reset(self) -> Any:
        """The observations."""
        return self._observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Nothing."""

    def step_wait(self) -> tuple[Any, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """The arrays."""
        return self._observations, self._rewards, self._dones, self._infos

    def close(self) -> None:
        """Nothing."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """None; there is only ``render_mode``."""
        if attr_name != "render_mode":
            raise AttributeError(attr_name)
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """There are none to set."""
        raise AttributeError(attr_name)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> Any:
        """There are none to call."""
        raise AttributeError(method_name)

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """False for each."""
        return [False] * self.num_envs


def measure_ppo(setup: EnvSetup) -> Part:
    """Steps per second of PPO, its updates included, on each environment and at zero cost."""
    sizes = setup.sizes
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)  # small networks gain nothing from more
    try:
        rows = [_row(setup, name) for name in NAMES]
    finally:
        torch.set_num_threads(threads_before)
    return Part(
        f"PPO of Stable-Baselines3, updates included: {sizes.learner_steps} steps of each environment, "
        f"{SETTINGS['n_epochs']} epochs in batches of {BATCH:,}, 64 x 64; torch on one thread",
        rows,
    )


def _row(setup: EnvSetup, name: str) -> Row:
    setup.tell(f"PPO on {name}")
    sizes = setup.sizes
    n, threads = sizes.learner_environments, max(sizes.threads)
    each = n * sizes.learner_steps
    envs = SB3VecEnv(setup.make_vec(name, n, threads))
    settings: dict[str, Any] = {**SETTINGS, "n_steps": sizes.learner_steps, "batch_size": min(BATCH, each)}
    models = [PPO("MlpPolicy", one, seed=0, device="cpu", **settings) for one in (envs, ZeroCostVecEnv(envs))]

    def update(model: PPO) -> float:
        return timed(lambda: model.learn(each, reset_num_timesteps=False))

    for model in models:
        update(model)
    # In turn, so that both meet the machine in the same states.
    pairs = [[update(model) for model in models] for _ in range(sizes.updates)]
    real, free = (Served(each, list(seconds)) for seconds in zip(*pairs, strict=True))
    envs.close()
    return {
        "environment": name,
        "environments": n,
        "threads": threads,
        "steps_per_s": each / real.best_s,
        "zero_cost_steps_per_s": each / free.best_s,
        "of_zero_cost": free.best_s / real.best_s,
        "spread": real.spread,
    }
