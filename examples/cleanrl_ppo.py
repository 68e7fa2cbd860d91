"""PPO in one file, in the manner of CleanRL: python -m examples.cleanrl_ppo --iterations 30."""

import time
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import tyro

import preserve_gym  # noqa: F401  (registers the ids)

try:
    import torch
    from torch import nn
    from torch.distributions import Categorical
except ModuleNotFoundError:
    raise SystemExit("torch is missing: pip install 'preserve-gym[rl]'") from None


@dataclass(frozen=True)
class Args:
    """What may be set on the command line."""

    env_id: str = "preserve/Autoscale-v0"
    trace: str = "synthetic-chat"
    episode_s: float = 600.0
    seed: int = 0
    iterations: int = 30
    num_envs: int = 16
    num_steps: int = 60  # of each environment in an iteration
    epochs: int = 4
    minibatches: int = 4
    learning_rate: float = 1e-3
    gamma: float = 0.98
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy: float = 0.005


def mlp(inputs: int, outputs: int, gain: float) -> nn.Sequential:
    """Two hidden layers; ``gain`` scales the first outputs."""
    sizes = [(inputs, 64, np.sqrt(2)), (64, 64, np.sqrt(2)), (64, outputs, gain)]
    layers = []
    for size_in, size_out, layer_gain in sizes:
        layer = nn.Linear(size_in, size_out)
        nn.init.orthogonal_(layer.weight, layer_gain)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def train(args: Args) -> list[float]:
    """The mean return of the episodes that ended in each iteration."""
    torch.set_num_threads(1)  # small networks gain nothing from more
    torch.manual_seed(args.seed)
    envs = gym.make_vec(
        args.env_id,
        num_envs=args.num_envs,
        autoreset_mode="SAME_STEP",
        workload={"trace": args.trace, "horizon_s": args.episode_s},
    )
    n_features = envs.single_observation_space.shape[0]
    actor, critic = mlp(n_features, int(envs.single_action_space.n), 0.01), mlp(n_features, 1, 1.0)
    weights = [*actor.parameters(), *critic.parameters()]
    optimizer = torch.optim.Adam(weights, lr=args.learning_rate, eps=1e-5)
    observation = torch.as_tensor(envs.reset(seed=args.seed)[0])
    episode_return, history = np.zeros(args.num_envs), []
    for iteration in range(args.iterations):
        began = time.perf_counter()
        observation, batch, returns = play(args, envs, actor, critic, observation, episode_return)
        update(args, actor, critic, optimizer, batch)
        history.append(float(np.mean(returns)) if returns else float("nan"))
        speed = args.num_steps * args.num_envs / (time.perf_counter() - began)
        print(f"iteration {iteration}: mean return {history[-1]:.2f}, {speed:.0f} steps/s", flush=True)
    envs.close()
    return history


@torch.no_grad()
def play(args, envs, actor, critic, observation, episode_return):
    """An iteration: the last observation, what to learn from it, and returns of the episodes that ended."""
    shape, returns = (args.num_steps, args.num_envs), []
    observations = torch.zeros((*shape, observation.shape[1]))
    actions, log_probs, values, rewards, ended = (torch.zeros(shape) for _ in range(5))
    for t in range(args.num_steps):
        policy = Categorical(logits=actor(observation))
        action = policy.sample()
        observations[t], actions[t], log_probs[t] = observation, action, policy.log_prob(action)
        values[t] = critic(observation).squeeze(-1)
        following, reward, _, truncated, infos = envs.step(action.numpy())
        episode_return += reward
        rewards[t], ended[t] = torch.as_tensor(reward), torch.as_tensor(truncated)
        if truncated.any():
            returns += episode_return[truncated].tolist()
            episode_return[truncated] = 0.0
            # An episode is cut, not over: what would have followed counts as the critic values it.
            last = torch.as_tensor(np.stack(infos["final_obs"][truncated]))
            rewards[t, torch.as_tensor(truncated)] += args.gamma * critic(last).squeeze(-1)
        observation = torch.as_tensor(following)
    advantages = estimate_advantages(args, rewards, values, ended, critic(observation).squeeze(-1))
    batch = (observations, actions, log_probs, advantages, advantages + values)
    return observation, [part.flatten(0, 1) for part in batch], returns


def estimate_advantages(args, rewards, values, ended, next_value):
    """By GAE; the step that ends an episode has the value of its end in its reward."""
    advantages, advantage = torch.zeros_like(rewards), torch.zeros_like(next_value)
    for t in reversed(range(len(rewards))):
        goes_on = 1.0 - ended[t]
        delta = rewards[t] + args.gamma * next_value * goes_on - values[t]
        advantage = delta + args.gamma * args.gae_lambda * goes_on * advantage
        advantages[t], next_value = advantage, values[t]
    return advantages


def update(args, actor, critic, optimizer, batch):
    """PPO's clipped objective, over minibatches of what was played."""
    for _ in range(args.epochs):
        for rows in torch.randperm(len(batch[0])).chunk(args.minibatches):
            observations, actions, log_probs, advantages, targets = (part[rows] for part in batch)
            policy = Categorical(logits=actor(observations))
            ratio = (policy.log_prob(actions) - log_probs).exp()
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
            clipped = ratio.clamp(1.0 - args.clip, 1.0 + args.clip)
            policy_loss = -torch.min(ratio * advantages, clipped * advantages).mean()
            value_loss = (critic(observations).squeeze(-1) - targets).pow(2).mean()
            loss = policy_loss + 0.5 * value_loss - args.entropy * policy.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_([*actor.parameters(), *critic.parameters()], 0.5)
            optimizer.step()


def main(arguments=None):
    """Run it with the options of the command line."""
    train(tyro.cli(Args, args=arguments))


if __name__ == "__main__":
    main()
