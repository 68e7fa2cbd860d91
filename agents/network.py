"""The network of a trained model, run without the library that trained it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError

F4 = NDArray[np.float32]

ACTIVATIONS = ("relu", "tanh")
HEADS = ("argmax", "shares", "quantiles", "number", "squashed")


class Network:
    """Features to the best action: an LSTM where there is one, hidden layers, a last layer.

    NumPy takes a tenth of the time that torch takes for one observation.

    Args:
        arrays: float32: ``weight_0`` (outputs, inputs) and ``bias_0`` of the first layer, and so on; of an
            LSTM ``lstm_weight_input``, ``lstm_weight_hidden``, ``lstm_bias_input``, ``lstm_bias_hidden``, its
            four gates in torch's order (input, forget, cell, output).
        activation: between layers, one of ``ACTIVATIONS``.
        head: what the last layer gives: ``argmax``, a value for each action; ``shares``, the logarithms
            of their shares, which it answers with; ``quantiles``, several values for each action, of which
            the mean counts; ``number``, the action; ``squashed``, the action before its tanh.
        actions: how many there are, or numbers in one.
        masked: whether it was trained with masks and must be given them.

    Raises:
        InputError: if the arrays do not fit each other.
    """

    def __init__(
        self, arrays: Mapping[str, F4], activation: str, head: str, actions: int, masked: bool = False
    ) -> None:
        if activation not in ACTIVATIONS:
            raise InputError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        if head not in HEADS:
            raise InputError(f"head: expected one of {', '.join(HEADS)}, got {head!r}")
        self.arrays = {name: np.asarray(values, np.float32) for name, values in arrays.items()}
        self.activation, self.head, self.actions, self.masked = activation, head, actions, masked
        self.recurrent = "lstm_weight_input" in arrays
        count = sum(name.startswith("weight_") for name in arrays)
        try:
            self._layers = [(self.arrays[f"weight_{k}"], self.arrays[f"bias_{k}"]) for k in range(count)]
            self._check()
        except (KeyError, IndexError):
            raise InputError(
                f"weights: expected those of a network, got {', '.join(arrays) or 'none'}"
            ) from None

    @property
    def inputs(self) -> int:
        """How many features it reads."""
        first = self.arrays["lstm_weight_input"] if self.recurrent else self._layers[0][0]
        return int(first.shape[1])

    def act(
        self, features: F4, state: Any = None, masks: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[Any], Any]:
        """The best actions.

        Args:
            features: float32[n, inputs].
            state: what the last call returned; None when episodes begin.
            masks: actions that may be chosen, bool[n, actions]; None: all.

        Returns:
            int64[n], for the head ``shares`` float32[n, actions], or float32[n, numbers] in [-1, 1]; and the
            state, None without an LSTM.
        """
        values = features
        if self.recurrent:
            values, state = self._remember(values, state)
        for weight, bias in self._layers[:-1]:
            values = values @ weight.T + bias
            values = np.tanh(values) if self.activation == "tanh" else np.maximum(values, 0.0)
        weight, bias = self._layers[-1]
        values = values @ weight.T + bias
        if self.head == "number":
            return np.clip(values, -1.0, 1.0), state
        if self.head == "squashed":
            return np.tanh(values), state
        if self.head == "quantiles":
            values = values.reshape(len(values), -1, self.actions).mean(axis=1)
        if masks is not None:
            values = np.where(masks, values, -np.inf)
        if self.head == "shares":
            shares = np.exp(values - values.max(axis=1, keepdims=True))
            return shares / shares.sum(axis=1, keepdims=True), state
        return values.argmax(axis=1), state

    def restart(self, state: Any, which: NDArray[Any]) -> Any:
        """The state with episodes begun anew."""
        if state is not None:
            for part in state:
                part[which] = 0.0
        return state

    def _remember(self, features: F4, state: Any) -> tuple[F4, Any]:
        arrays = self.arrays
        size = arrays["lstm_weight_hidden"].shape[1]
        hidden, cell = state or [np.zeros((len(features), size), np.float32) for _ in range(2)]
        gates = features @ arrays["lstm_weight_input"].T + arrays["lstm_bias_input"]
        gates = gates + hidden @ arrays["lstm_weight_hidden"].T + arrays["lstm_bias_hidden"]
        inward, forget, fresh, outward = np.split(gates, 4, axis=1)
        cell = _sigmoid(forget) * cell + _sigmoid(inward) * np.tanh(fresh)
        hidden = _sigmoid(outward) * np.tanh(cell)
        return hidden, [hidden, cell]

    def _check(self) -> None:
        size = self.inputs
        if self.recurrent:
            size = self.arrays["lstm_weight_hidden"].shape[1]
        for k, (weight, bias) in enumerate(self._layers):
            if weight.ndim != 2 or weight.shape[1] != size or bias.shape != (len(weight),):
                raise InputError(
                    f"weight_{k}: expected {size} inputs and a bias each, got {weight.shape}, {bias.shape}"
                )
            size = len(weight)
        if size % self.actions or (self.head != "quantiles" and size != self.actions):
            raise InputError(f"weights: expected {self.actions} actions, got {size} outputs")


def dense_arrays(layers: Sequence[tuple[Any, Any]]) -> dict[str, F4]:
    """``weight_k`` and ``bias_k`` of layers, first to last, for ``Network``."""
    arrays = {}
    for k, (weight, bias) in enumerate(layers):
        arrays[f"weight_{k}"] = np.array(weight, np.float32)
        arrays[f"bias_{k}"] = np.array(bias, np.float32)
    return arrays


def _sigmoid(values: F4) -> F4:
    return 0.5 * (1.0 + np.tanh(0.5 * values))
