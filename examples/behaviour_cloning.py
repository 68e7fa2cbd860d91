"""Behaviour cloning: a network learns to decide as in a policy's recorded episodes; then both play.

python -m experiments.dataset --scenario flash-crowd --policies corr --episodes 60
python -m examples.behaviour_cloning preserve-gym/flash-crowd/corr-v0
"""

import sys
from dataclasses import dataclass

import minari
import numpy as np
import torch
import tyro
from torch import nn

import preserve_gym  # noqa: F401  (registers the ids)
from experiments.policies import build_policy
from experiments.totals import play_totals
from preserve_gym.command_line import parse, status_of


@dataclass(frozen=True)
class Options:
    """Clone a policy from its dataset; compare the two on the validation windows."""

    dataset: tyro.conf.Positional[str]
    """Its id; recorded from the training part, with actions of mode target."""
    epochs: int = 30


@dataclass
class Clone:
    """A network that scores each number of instances; a policy as experiments play them."""

    network: nn.Module
    env: dict
    name: str = "clone"

    def __post_init__(self):
        self.forecaster = self.env["workload"]["forecaster"]
        self.predictor = self.env["workload"]["predictor"]

    def env_options(self):
        """Those of the environment that was recorded."""
        return {name: value for name, value in self.env.items() if name != "workload"}

    def predict(self, observation, state=None, episode_start=None, deterministic=True):
        """The action with the highest score."""
        with torch.no_grad():
            scores = self.network(torch.as_tensor(observation)[None])[0]
        return np.array([2.0 * int(scores.argmax()) / (len(scores) - 1) - 1.0], np.float32), state


def learn(dataset, epochs):
    """The clone of the policy that a dataset shows."""
    env = dataset.env_spec.kwargs
    choices = env["cluster"]["max_instances"] - env["cluster"]["min_instances"] + 1
    episodes = list(dataset.iterate_episodes())
    observations = torch.as_tensor(np.concatenate([episode.observations[:-1] for episode in episodes]))
    actions = np.concatenate([episode.actions[:, 0] for episode in episodes])
    chosen = torch.as_tensor(np.rint((actions + 1.0) / 2.0 * (choices - 1))).long()
    torch.manual_seed(0)
    features = observations.shape[1]
    network = nn.Sequential(
        nn.BatchNorm1d(features, affine=False),  # brings them to one scale
        *(nn.Linear(features, 128), nn.ReLU()),
        *(nn.Linear(128, 128), nn.ReLU()),
        nn.Linear(128, choices),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(chosen)).split(256):
            loss = nn.functional.cross_entropy(network(observations[batch]), chosen[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        agreed = (network(observations).argmax(1) == chosen).double().mean()
    print(
        f"{len(chosen):,} decisions in {len(episodes)} episodes; the clone agrees with {agreed:.1%} of them"
    )
    return Clone(network, env)


def main(arguments=None):
    """Run the command; its exit status."""

    def command():
        torch.set_num_threads(1)  # of so small a network, more would wait for each other
        options = parse(Options, arguments, "python -m examples.behaviour_cloning")
        dataset = minari.load_dataset(options.dataset)
        clone = learn(dataset, options.epochs)
        about = dataset.storage.metadata
        env = dataset.recover_environment(eval_env=True).unwrapped
        cloned = build_policy(
            about["algorithm_name"], env.cluster_config, env.workload, about["scenario"], env.router
        )
        for policy in (cloned, clone):
            totals = play_totals(env.workload, policy)
            print(f"{policy.name:12} {totals.gpu_hours:8.2f} GPU-hours, {totals.attainment:8.3%} in SLO")
        return 0

    return status_of(command)


if __name__ == "__main__":
    sys.exit(main())
