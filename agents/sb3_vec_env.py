"""The vector environments as Stable-Baselines3 wants them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from preserve_gym.envs.vector import TaskVectorEnv
from preserve_gym.errors import InputError, missing_extra

try:
    from stable_baselines3.common.vec_env import VecEnv
except ModuleNotFoundError:
    raise missing_extra("SB3VecEnv", "stable_baselines3", "rl") from None

_MASKS = "action_masks"


class SB3VecEnv(VecEnv):
    """A vector environment as a ``VecEnv`` of Stable-Baselines3; what it gives is never written again.

    Observations, rewards and ends are, to the bit, those of a ``DummyVecEnv`` of as many single environments.
    The info of a step is less, so that it costs nothing: ``TimeLimit.truncated``, and when an episode has
    ended also the figures of its last step, ``terminal_observation`` and ``episode_totals`` (the change of
    each of ``preserve_gym.sim.TOTALS`` over its scored part). ``step_infos`` has the figures of every step.

    ``sb3_contrib.MaskablePPO`` finds ``action_masks`` where actions are discrete.

    Args:
        vector_env: made by ``gymnasium.make_vec(..., autoreset_mode="SAME_STEP")``; closed with this one.

    Attributes:
        vector_env: the same.
        step_infos: the infos that ``vector_env`` gave with the last step, arrays over the environments.

    Raises:
        InputError: on another vector environment.
    """

    def __init__(self, vector_env: TaskVectorEnv) -> None:
        if not isinstance(vector_env, TaskVectorEnv):
            raise InputError(
                "vector_env: expected what gymnasium.make_vec makes of an id of preserve_gym, got a "
                f"{type(vector_env).__name__}"
            )
        mode = vector_env.metadata["autoreset_mode"]
        if mode != AutoresetMode.SAME_STEP:
            raise InputError(f"autoreset_mode: expected SAME_STEP, got {mode.name}")
        if vector_env.reward_space is not None:
            raise InputError("vector_reward: expected False, as SB3 learns from numbers, got True")
        self.vector_env = vector_env
        self.step_infos: dict[str, Any] = {}
        self._actions: Any = None
        self._has_masks = isinstance(vector_env.single_action_space, spaces.Discrete)
        super().__init__(
            vector_env.num_envs, vector_env.single_observation_space, vector_env.single_action_space
        )

    def reset(self) -> Any:
        """Begin an episode in every environment, with the seeds and options that were set for it.

        Returns:
            Observations, with a leading axis; those of a ``Dict`` space by name.
        """
        options = self._options if any(self._options) else None
        observations, infos = self.vector_env.reset(seed=self._seeds, options=options)
        self.reset_infos = [_figures(infos, i) for i in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take the actions of the next step, one for each environment."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Step; environments whose episode ends begin the next one.

        Returns:
            Observations, those of the next episode where one has ended; rewards, float32[num_envs]; ends,
            bool[num_envs]; the info of each.

        Raises:
            InputError: if one of the actions is none; then nothing has happened.
        """
        observations, rewards, terminated, truncated, infos = self.vector_env.step(self._actions)
        self.step_infos = infos
        dones = terminated | truncated
        given: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        for i in dones.nonzero()[0].tolist():
            given[i] = {
                **_figures(infos["final_info"], i),
                "TimeLimit.truncated": bool(truncated[i] and not terminated[i]),
                "terminal_observation": infos["final_obs"][i],
                "episode_totals": self.vector_env.ended_totals(i),
            }
            self.reset_infos[i] = _figures(infos, i)
        return observations, rewards.astype(np.float32), dones, given

    def close(self) -> None:
        """Close the vector environment."""
        self.vector_env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the environments, once for each; they share all but ``action_masks``.

        Raises:
            AttributeError: if they have none of that name.
        """
        which = self._get_indices(indices)
        if attr_name == _MASKS and self._has_masks:
            return [functools.partial(self._mask, i) for i in which]
        for owner in (self.vector_env.task, self.vector_env):
            if attr_name != _MASKS and hasattr(owner, attr_name):
                return [getattr(owner, attr_name) for _ in which]
        raise AttributeError(f"the environments have no attribute {attr_name!r}")

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Nothing of an environment can be changed once it is made.

        Raises:
            InputError: always.
        """
        raise InputError(f"{attr_name}: expected to be set when the environments are made, got set_attr")

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> Any:
        """What ``action_masks()``, the one method there is, gives for each environment.

        Raises:
            AttributeError: on another method, or where actions are not discrete.
        """
        if method_name != _MASKS or not self._has_masks:
            raise AttributeError(f"the environments have no method {method_name!r}")
        masks = self.vector_env.action_masks()
        return [masks[i] for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """False for each: there are no wrappers around single environments."""
        return [False for _ in self._get_indices(indices)]

    def _mask(self, i: int) -> NDArray[np.bool_]:
        mask: NDArray[np.bool_] = self.vector_env.action_masks()[i]
        return mask


def _figures(infos: dict[str, Any], i: int) -> dict[str, Any]:
    """Those of environment ``i``, as a single environment gives them."""
    named = {name: values for name, values in infos.items() if f"_{name}" in infos}
    return {name: values[i].item() for name, values in named.items() if not name.startswith("final_")}
