"""Actions: how what a policy gives becomes what a cluster is told.

One rule for all: an action of the space that cannot be carried out is replaced by the nearest one that can
(numbers beyond the bounds of a box are clipped, too); what is no action at all, by its shape, its type or a
NaN, raises ``InputError``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from preserve_gym.errors import InputError
from preserve_gym.sim.routers import USUAL_WEIGHTS
from preserve_gym.sim.state import ROUTER_WEIGHTS

ACTION_MODES = ("delta", "target")
JOINT = "joint"
MAX_DELTA = 2

Ints = NDArray[np.int64]


class ScaleAction:
    """Maps actions to target counts within ``[min_instances, max_instances]``.

    * ``delta``: ``Discrete(2*MAX_DELTA + 1)``; action ``a`` changes the target by ``a - MAX_DELTA``.
      ``masks`` marks the changes that stay within the bounds.
    * ``target``: ``Box(-1, 1, (1,), float32)``; -1 is ``min_instances``, 1 is ``max_instances``,
      rounded to the nearest count in between.
    * ``joint``, of ``Cluster``: ``Box(-1, 1, (8,), float32)``; the first number changes the target by
      ``MAX_DELTA`` times itself, rounded; the others are the weights of the router ``linear``, from -1 for a
      weight of 0 to 1 for 1. All of them 0 counts as ``USUAL_WEIGHTS``.
    """

    def __init__(self, mode: str, min_instances: int, max_instances: int) -> None:
        if mode not in (*ACTION_MODES, JOINT):
            raise InputError(f"action_mode: expected one of {', '.join(ACTION_MODES)}, got {mode!r}")
        self.mode = mode
        self.min_instances = min_instances
        self.max_instances = max_instances
        size = 1 + ROUTER_WEIGHTS if mode == JOINT else 1
        self.space: spaces.Space[Any] = (
            spaces.Discrete(2 * MAX_DELTA + 1)
            if mode == "delta"
            else spaces.Box(-1.0, 1.0, (size,), np.float32)
        )

    def decode(self, actions: Any, current: Ints) -> tuple[Ints, NDArray[np.float64] | None]:
        """What ``actions`` ask for.

        Args:
            actions: of n environments, with a leading axis.
            current: instances starting or ready in each, int64[n].

        Returns:
            Targets, int64[n], and for ``joint`` the weights of the router, float64[n, 7].

        Raises:
            InputError: if one of them is no action.
        """
        if self.mode == "delta":
            targets = current + integers(actions, len(current), 2 * MAX_DELTA + 1) - MAX_DELTA
            return self._within(targets), None
        values = numbers(actions, (len(current), *(self.space.shape or ())))
        if self.mode == JOINT:
            targets = current + np.rint(MAX_DELTA * values[:, 0]).astype(np.int64)
            weights = (values[:, 1:] + 1.0) / 2.0
            weights[~weights.any(axis=1)] = USUAL_WEIGHTS
            return self._within(targets), weights
        share = (values[:, 0] + 1.0) / 2.0
        span = self.max_instances - self.min_instances
        return np.rint(self.min_instances + share * span).astype(np.int64), None

    def _within(self, targets: Ints) -> Ints:
        # np.clip takes three times as long.
        return np.minimum(np.maximum(targets, self.min_instances), self.max_instances)

    def masks(self, current: Ints) -> NDArray[np.bool_]:
        """Which changes of mode ``delta`` stay within the bounds; bool[n, 2*MAX_DELTA + 1].

        Raises:
            InputError: in another mode.
        """
        if self.mode != "delta":
            raise InputError("action_masks: exist for action_mode='delta' only")
        after = current[:, None] + np.arange(-MAX_DELTA, MAX_DELTA + 1)
        masks = (after >= self.min_instances) & (after <= self.max_instances)
        masks[:, MAX_DELTA] = True
        return masks


def integers(actions: Any, n: int, size: int) -> Ints:
    """``n`` integers in [0, size).

    Raises:
        InputError: if they are not.
    """
    values = _array(actions)
    if values.shape != (n,) or values.dtype.kind not in "iu":
        raise InputError(f"action: expected an integer in [0, {size - 1}]{_given(actions, n)}")
    wrong = (values < 0) | (values >= size)
    if np.count_nonzero(wrong):
        raise InputError(f"action: expected an integer in [0, {size - 1}], got {values[wrong][0]}")
    return values.astype(np.int64)


def numbers(actions: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Finite numbers of that shape, clipped to [-1, 1].

    Raises:
        InputError: if they are not.
    """
    values = _array(actions)
    if values.shape != shape or values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        expected = "one finite number" if shape[1:] == (1,) else f"{shape[1]} finite numbers"
        raise InputError(f"action: expected {expected} in [-1, 1]{_given(actions, shape[0])}")
    return np.minimum(np.maximum(values.astype(np.float64), -1.0), 1.0)


def _array(actions: Any) -> NDArray[Any]:
    try:
        return np.asarray(actions)
    except ValueError:  # rows of different lengths
        return np.array(None)


def _given(actions: Any, n: int) -> str:
    """The end of the message about what is no action."""
    if n == 1 and isinstance(actions, list) and len(actions) == 1:
        return f", got {' '.join(repr(actions[0]).split())}"
    values = _array(actions)
    if values.ndim == 0:
        given = " ".join(repr(actions).split())
    else:  # all of them would be long
        given = f"{values.dtype} of shape {values.shape}"
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            given += ", not all finite"
    return f" for each of {n}, got {given}"


def target_to_action(target: int, min_instances: int, max_instances: int) -> NDArray[np.float32]:
    """The action of mode ``target`` for a count of instances, clipped; float32 of shape (1,)."""
    if max_instances == min_instances:
        return np.zeros(1, np.float32)
    target = min(max(target, min_instances), max_instances)
    return np.array([2.0 * (target - min_instances) / (max_instances - min_instances) - 1.0], np.float32)
