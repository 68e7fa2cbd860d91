"""Actions of the autoscaler: how a number from a policy becomes a number of instances."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from preserve_gym.errors import InputError

ACTION_MODES = ("delta", "target")
MAX_DELTA = 2


class ScaleAction:
    """Maps actions to target counts within ``[min_instances, max_instances]``.

    * ``delta``: ``Discrete(2*MAX_DELTA + 1)``; action ``a`` changes the target by ``a - MAX_DELTA``.
      ``mask`` marks the changes that stay within the bounds; others are clipped.
    * ``target``: ``Box(-1, 1, (1,), float32)``; -1 is ``min_instances``, 1 is ``max_instances``,
      rounded to the nearest count in between.
    """

    def __init__(self, mode: str, min_instances: int, max_instances: int) -> None:
        if mode not in ACTION_MODES:
            raise InputError(f"action_mode: expected one of {', '.join(ACTION_MODES)}, got {mode!r}")
        self.mode = mode
        self.min_instances = min_instances
        self.max_instances = max_instances
        self.space: spaces.Space[Any] = (
            spaces.Discrete(2 * MAX_DELTA + 1) if mode == "delta" else spaces.Box(-1.0, 1.0, (1,), np.float32)
        )

    def to_target(self, action: Any, current: int) -> int:
        """The target that ``action`` asks for while ``current`` instances are starting or ready.

        Raises:
            InputError: if the action is not in the space (values outside [-1, 1] are clipped).
        """
        if self.mode == "delta":
            if not self.space.contains(action):
                raise InputError(f"action: expected an integer in [0, {2 * MAX_DELTA}], got {action!r}")
            target = current + int(action) - MAX_DELTA
        else:
            value = np.asarray(action, np.float64).reshape(-1)
            if value.size != 1 or not np.isfinite(value[0]):
                raise InputError(f"action: expected one finite number in [-1, 1], got {action!r}")
            share = (min(max(float(value[0]), -1.0), 1.0) + 1.0) / 2.0
            target = round(self.min_instances + share * (self.max_instances - self.min_instances))
        return min(max(target, self.min_instances), self.max_instances)

    def from_target(self, target: int) -> NDArray[np.float32]:
        """The action of mode ``target`` that asks for ``target`` instances, clipped to the bounds."""
        return target_to_action(target, self.min_instances, self.max_instances)

    def mask(self, current: int) -> NDArray[np.bool_]:
        """Which changes of mode ``delta`` stay within the bounds; bool of shape (2*MAX_DELTA + 1,)."""
        after = current + np.arange(-MAX_DELTA, MAX_DELTA + 1)
        mask = (after >= self.min_instances) & (after <= self.max_instances)
        mask[MAX_DELTA] = True
        return mask


def target_to_action(target: int, min_instances: int, max_instances: int) -> NDArray[np.float32]:
    """The action of mode ``target`` for a count of instances, clipped; float32 of shape (1,)."""
    if max_instances == min_instances:
        return np.zeros(1, np.float32)
    target = min(max(target, min_instances), max_instances)
    return np.array([2.0 * (target - min_instances) / (max_instances - min_instances) - 1.0], np.float32)
