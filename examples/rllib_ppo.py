"""PPO of Ray's RLlib on ``preserve/Autoscale-v0``: python examples/rllib_ppo.py --iterations 5."""

from __future__ import annotations

import argparse

import gymnasium as gym

try:
    import ray
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.tune.registry import register_env
except ImportError as error:
    raise SystemExit(f"{error.name} is missing: pip install 'preserve-gym[rllib]'") from None

WORKLOAD = {"trace": "synthetic-chat", "horizon_s": 600.0}


def make_env(options):
    """Called in each worker; the import registers the ids there."""
    return gym.make("preserve_gym:preserve/Autoscale-v0", **options)


def train(iterations, env_runners=0):
    """Returns of each iteration's episodes, averaged."""
    register_env("autoscale", make_env)
    config = (
        PPOConfig()
        .environment("autoscale", env_config={"workload": WORKLOAD})
        .env_runners(num_env_runners=env_runners, num_envs_per_env_runner=16)
        .training(train_batch_size_per_learner=960, minibatch_size=240, num_epochs=4, gamma=0.98)
        .debugging(seed=0)
    )
    ppo = config.build_algo()
    returns = []
    for k in range(iterations):
        returns.append(ppo.train()["env_runners"]["episode_return_mean"])
        print(f"iteration {k}: mean return of an episode {returns[-1]:.2f}", flush=True)
    ppo.stop()
    return returns


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--env-runners", type=int, default=0, help="processes that play; 0: this one")
    options = parser.parse_args()
    ray.init(num_cpus=2, include_dashboard=False)
    train(options.iterations, options.env_runners)
    ray.shutdown()
