"""PPO of Ray's RLlib on ``preserve/Autoscale-v0``: python -m examples.rllib_ppo --iterations 5."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym
import tyro

try:
    import ray
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.tune.registry import register_env
except ImportError as error:
    raise SystemExit(f"{error.name} is missing: pip install 'preserve-gym[rllib]'") from None


@dataclass
class Args:
    """What can be set."""

    iterations: int = 5
    env_runners: int = 0
    """Processes that play; 0: this one."""


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


def main(arguments=None):
    """Run it with the options of the command line."""
    options = tyro.cli(Args, args=arguments)
    ray.init(num_cpus=2, include_dashboard=False)
    train(options.iterations, options.env_runners)
    ray.shutdown()


if __name__ == "__main__":
    main()
