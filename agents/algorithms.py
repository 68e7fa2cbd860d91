"""The learning algorithms: what makes a learner, and the network that one has trained."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.hyperparameters import Hyperparameters
from agents.network import Network, dense_arrays
from preserve_gym.errors import InputError, missing_extra


@dataclass(frozen=True)
class Algorithm:
    """A learner of Stable-Baselines3 or of sb3-contrib.

    Attributes:
        module, learner: where its class is.
        policy: the policy that it trains, by name.
        head: of the network, see ``Network``; for PPO that of discrete actions.
        masked: it learns with masks of actions.
    """

    module: str
    learner: str
    policy: str = "MlpPolicy"
    head: str = "argmax"
    masked: bool = False

    @property
    def is_ppo(self) -> bool:
        """Whether it learns from episodes that it has just played."""
        return self.learner.endswith("PPO")


ALGORITHMS: dict[str, Algorithm] = {
    "ppo": Algorithm("stable_baselines3", "PPO"),
    "maskable-ppo": Algorithm("sb3_contrib", "MaskablePPO", masked=True),
    "recurrent-ppo": Algorithm("sb3_contrib", "RecurrentPPO", policy="MlpLstmPolicy"),
    "dqn": Algorithm("stable_baselines3", "DQN"),
    "qr-dqn": Algorithm("sb3_contrib", "QRDQN", head="quantiles"),
    "sac": Algorithm("stable_baselines3", "SAC", head="squashed"),
}

_DISCRETE = ("DQN", "QRDQN", "MaskablePPO")
_LEAST_RATE = 0.02  # of the learning rate, where it falls


def make_learner(
    algorithm: Algorithm, parameters: Hyperparameters, envs: Any, seed: int, start: Sequence[float] = ()
) -> Any:
    """A learner that has not learned yet.

    Args:
        start: biases of PPO's last layer; none: as they are drawn.

    Raises:
        InputError: if the algorithm does not take the actions of the control, or a setting, or is missing.
    """
    import torch

    discrete = hasattr(envs.action_space, "n")
    wants_numbers, wants_discrete = algorithm.learner == "SAC", algorithm.learner in _DISCRETE
    if (wants_numbers and discrete) or (wants_discrete and not discrete):
        kind = "numbers" if wants_numbers else "discrete ones"
        raise InputError(
            f"control {parameters.control!r}: {algorithm.learner} expects actions that are {kind}"
        )
    settings = dict(parameters.settings)
    if parameters.learning_rate_falls:
        settings["learning_rate"] = _falling(float(settings["learning_rate"]))
    policy: dict[str, Any] = {"net_arch": list(parameters.hidden), **settings.pop("policy_kwargs", {})}
    if parameters.lstm:
        policy["lstm_hidden_size"] = parameters.lstm
    try:
        learner = getattr(importlib.import_module(algorithm.module), algorithm.learner)
    except ModuleNotFoundError:
        raise missing_extra(algorithm.learner, algorithm.module, "rl") from None
    try:
        model = learner(algorithm.policy, envs, policy_kwargs=policy, seed=seed, device="cpu", **settings)
    except TypeError as error:
        raise InputError(f"settings of {algorithm.learner}: {error}") from None
    if algorithm.is_ppo and start:
        with torch.no_grad():
            model.policy.action_net.bias[:] = torch.tensor(start)
    return model


def network_of(algorithm: Algorithm, model: Any, gradual: bool) -> Network:
    """The network of a learner, to decide deterministically; a copy.

    The likeliest action of PPO is a poor summary of what it learned where actions are steps: "no step" is
    nearly always the likeliest, while the mean drifts up or down. Where steps may be fractions, the control
    is given the shares of all, and takes the mean.

    Args:
        gradual: whether they may.
    """
    from torch import nn

    policy = model.policy
    discrete = hasattr(model.action_space, "n")
    actions = int(model.action_space.n if discrete else model.action_space.shape[0])
    head = algorithm.head
    if algorithm.is_ppo:
        modules = [*policy.mlp_extractor.policy_net, policy.action_net]
        head = ("shares" if gradual else "argmax") if discrete else "number"
    elif algorithm.learner == "DQN":
        modules = [*policy.q_net.q_net]
    elif algorithm.learner == "QRDQN":
        modules = [*policy.quantile_net.quantile_net]
    else:
        modules = [*policy.actor.latent_pi, policy.actor.mu]
    layers = [module for module in modules if isinstance(module, nn.Linear)]
    arrays = dense_arrays([(_array(layer.weight), _array(layer.bias)) for layer in layers])
    if hasattr(policy, "lstm_actor"):
        lstm = policy.lstm_actor
        arrays |= {
            "lstm_weight_input": _array(lstm.weight_ih_l0),
            "lstm_weight_hidden": _array(lstm.weight_hh_l0),
            "lstm_bias_input": _array(lstm.bias_ih_l0),
            "lstm_bias_hidden": _array(lstm.bias_hh_l0),
        }
    activation = "tanh" if any(isinstance(module, nn.Tanh) for module in modules) else "relu"
    return Network(arrays, activation, head, actions, algorithm.masked)


def save_learner(model: Any, path: Path, **more: float) -> None:
    """Write what training goes on from, tensors and numbers only: weights, optimisers, generators, counts."""
    import numpy as np
    import torch

    random: Any = np.random.get_state()  # noqa: NPY002  (the generator that SB3 draws from)
    _, keys, position, has_gauss, gauss = random
    state = {
        "parameters": model.get_parameters(),
        "num_timesteps": int(model.num_timesteps),
        "n_updates": int(model._n_updates),
        "torch_random": torch.get_rng_state(),
        "numpy_random": [torch.tensor(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)],
        **more,
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.rename(path)


def restore_learner(model: Any, path: Path) -> dict[str, Any]:
    """Read what ``save_learner`` wrote into a learner; nothing in the file is run as code.

    Returns:
        What was written besides.

    Raises:
        InputError: if it is no such file, or one of another learner.
    """
    import pickle

    import numpy as np
    import torch

    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        model.set_parameters(state.pop("parameters"), exact_match=True, device="cpu")
        model.num_timesteps = state.pop("num_timesteps")
        model._n_updates = state.pop("n_updates")
        torch.set_rng_state(state.pop("torch_random"))
        keys, position, has_gauss, gauss = state.pop("numpy_random")
        words = keys.numpy().astype(np.uint32)
        np.random.set_state(("MT19937", words, position, has_gauss, gauss))  # noqa: NPY002
    except (OSError, RuntimeError, ValueError, KeyError, AttributeError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: cannot go on from it: {' '.join(str(error).split())[:200]}") from None
    return dict(state)


def _falling(rate: float) -> Callable[[float], float]:
    def schedule(remaining: float) -> float:
        return rate * max(remaining, _LEAST_RATE)

    return schedule


def _array(parameter: Any) -> Any:
    return parameter.detach().cpu().numpy().copy()
