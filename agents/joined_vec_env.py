"""Vector environments of several workloads, played by one learner as if they were one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from agents.sb3_vec_env import SB3VecEnv


class JoinedVecEnv(VecEnv):
    """The environments of several ``SB3VecEnv``, one after the other; their spaces are the same.

    Args:
        parts: at least one; closed with this one.
    """

    def __init__(self, parts: Sequence[SB3VecEnv]) -> None:
        self.parts = list(parts)
        self._first = np.cumsum([0, *(part.num_envs for part in parts)])
        super().__init__(int(self._first[-1]), parts[0].observation_space, parts[0].action_space)

    def seed(self, seed: int | None = None) -> list[int | None]:
        """Seed every environment, each with the next number."""
        seeds: list[int | None] = []
        for part, first in zip(self.parts, self._first[:-1].tolist(), strict=True):
            seeds += part.seed(None if seed is None else seed + first)
        return seeds

    def reset(self) -> NDArray[np.float32]:
        """Begin an episode in every environment."""
        observations = np.concatenate([part.reset() for part in self.parts])
        self.reset_infos = [info for part in self.parts for info in part.reset_infos]
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take the actions of the next step, one for each environment."""
        for part, own in zip(self.parts, np.split(actions, self._first[1:-1]), strict=True):
            part.step_async(own)

    def step_wait(self) -> tuple[Any, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Step; see ``SB3VecEnv``."""
        stepped = [part.step_wait() for part in self.parts]
        observations, rewards, dones = (np.concatenate([one[k] for one in stepped]) for k in range(3))
        self.reset_infos = [info for part in self.parts for info in part.reset_infos]
        return observations, rewards, dones, [info for one in stepped for info in one[3]]

    def close(self) -> None:
        """Close them all."""
        for part in self.parts:
            part.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the environments, once for each."""
        values = [value for part in self.parts for value in part.get_attr(attr_name)]
        return [values[i] for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Nothing of an environment can be changed once it is made; see ``SB3VecEnv``."""
        self.parts[0].set_attr(attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """What ``action_masks()`` gives for each environment."""
        values = [value for part in self.parts for value in part.env_method(method_name, *args, **kwargs)]
        return [values[i] for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """False for each: there are no wrappers around single environments."""
        return [False for _ in self._get_indices(indices)]
