"""A part of ``python -m experiments.bench envs``: PPO, also on environments that cost nothing."""

from __future__ import annotations

from typing import Any

from experiments.bench_env_parts import NAMES, EnvSetup
from experiments.bench_parts import Part, Row
from experiments.bench_setup import Served, timed

BATCH = 2048
SETTINGS = {"n_epochs": 6, "learning_rate": 5e-4, "ent_coef": 0.003, "gamma": 0.98, "gae_lambda": 0.95}


def ppo(setup: EnvSetup) -> Part:
    """Steps per second of PPO, its updates included, on each environment and at zero cost.

    Raises:
        InputError: without Stable-Baselines3.
    """
    import agents.sb3_vec_env  # noqa: F401  (says which extra is missing)

    import torch  # isort: skip

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
    from stable_baselines3 import PPO

    from agents.sb3_vec_env import SB3VecEnv
    from agents.zero_cost_vec_env import ZeroCostVecEnv

    setup.tell(f"PPO on {name}")
    sizes = setup.sizes
    n, threads = sizes.learner_environments, max(sizes.threads)
    each = n * sizes.learner_steps
    envs = SB3VecEnv(setup.make_vec(name, n, threads))
    settings: dict[str, Any] = {**SETTINGS, "n_steps": sizes.learner_steps, "batch_size": min(BATCH, each)}
    models = [PPO("MlpPolicy", one, seed=0, device="cpu", **settings) for one in (envs, ZeroCostVecEnv(envs))]

    def update(model: Any) -> float:
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
