"""A vector environment of Stable-Baselines3 seen and acted in through a control."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnvWrapper

from agents.joined_vec_env import JoinedVecEnv
from agents.sb3_vec_env import SB3VecEnv
from agents.scaling_control import Control, Memory

_MASKS = "action_masks"


class ControlledVecEnv(VecEnvWrapper):
    """What a learner sees of environments through a control; episodes begin at random margins.

    Args:
        envs: the environments, with the ``action_mode`` of the control.
        control: what is seen, and what actions mean.
        seed: of the beginnings.
    """

    def __init__(self, envs: SB3VecEnv | JoinedVecEnv, control: Control, seed: int) -> None:
        super().__init__(envs, control.observation_space, control.space)
        self.control = control
        self._rng = np.random.default_rng(seed)
        self._memory: Memory = control.begin(self.num_envs)
        self._seen: NDArray[np.float32] = np.zeros((self.num_envs, len(control.low)), np.float32)

    def reset(self) -> NDArray[np.float32]:
        """Begin an episode in every environment."""
        observations: Any = self.venv.reset()
        self._memory = self.control.begin(self.num_envs)
        self.control.restart(self._memory, np.arange(self.num_envs), self._rng)
        self._seen = self.control.observe(observations, self._memory)
        return self._seen

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take the actions of the next step, one for each environment."""
        self.venv.step_async(self.control.act(actions, self._memory))

    def step_wait(
        self,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Step; see ``SB3VecEnv``."""
        observations: Any
        observations, rewards, dones, infos = self.venv.step_wait()
        ended = dones.nonzero()[0]
        if len(ended):
            last = observations.copy()
            for i in ended:
                last[i] = infos[i]["terminal_observation"]
            seen = self.control.observe(last, self._memory.copy())
            for i in ended:
                infos[i]["terminal_observation"] = seen[i]
            self.control.restart(self._memory, ended, self._rng)
        self._seen = self.control.observe(observations, self._memory)
        return self._seen, rewards, dones, infos

    def has_attr(self, attr_name: str) -> bool:
        """Whether ``get_attr`` finds it."""
        return (attr_name == _MASKS and hasattr(self.control.space, "n")) or self.venv.has_attr(attr_name)

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """As ``SB3VecEnv``, but for the masks, which are those of the control."""
        if attr_name == _MASKS and hasattr(self.control.space, "n"):
            return [functools.partial(self._mask, i) for i in self._get_indices(indices)]
        return self.venv.get_attr(attr_name, indices)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """``action_masks`` of each environment."""
        if method_name == _MASKS and hasattr(self.control.space, "n"):
            masks = self.control.masks(self._seen, self._memory)
            return [masks[i] for i in self._get_indices(indices)]
        return self.venv.env_method(method_name, *args, indices=indices, **kwargs)

    def _mask(self, i: int) -> NDArray[np.bool_]:
        mask: NDArray[np.bool_] = self.control.masks(self._seen, self._memory)[i]
        return mask
