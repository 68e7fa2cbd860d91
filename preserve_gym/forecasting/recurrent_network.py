"""Recurrent networks that map a stretch of windows to the next ones: training and evaluation in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preserve_gym.forecasting.mlstm import mlstm_hidden, mlstm_layers

if TYPE_CHECKING:
    from torch import Tensor, nn

_BLOCK = 64
"""Rows of one evaluation. Short ones are filled up: the kernels for another number round otherwise."""
_CONVOLUTION = 4

FloatArray32 = NDArray[np.float32]


@dataclass(frozen=True)
class Training:
    """Size and training of a network; the defaults are those of PreServe's artifact.

    Attributes:
        hidden: units of the one recurrent layer, a multiple of 4.
        epochs: passes over the training windows.
        batch_size: windows per step of Adam.
        learning_rate: of Adam.
    """

    hidden: int = 64
    epochs: int = 50
    batch_size: int = 32
    learning_rate: float = 1e-3


ARTIFACT_TRAINING = Training()


def lstm_layers(features: int, hidden: int, outputs: int) -> nn.ModuleDict:
    """One LSTM layer, and a linear head on its last hidden state; untrained."""
    from torch import nn

    return nn.ModuleDict(
        {"cell": nn.LSTM(features, hidden, batch_first=True), "head": nn.Linear(hidden, outputs)}
    )


def lstm_outputs(layers: nn.ModuleDict, inputs: Tensor) -> Tensor:
    """From float[batch, windows, features] to float[batch, outputs]."""
    hidden, _ = layers["cell"](inputs)
    return layers["head"](hidden[:, -1])


def mlstm_block_layers(features: int, hidden: int, outputs: int) -> nn.ModuleDict:
    """A short xLSTM block: embedding, causal convolution, mLSTM cell, norm, skip connection, linear head."""
    from torch import nn

    return nn.ModuleDict(
        {
            "embedding": nn.Linear(features, hidden),
            "convolution": nn.Conv1d(hidden, hidden, _CONVOLUTION, groups=hidden),
            "cell": mlstm_layers(hidden, hidden),
            "norm": nn.LayerNorm(hidden),
            "head": nn.Linear(hidden, outputs),
        }
    )


def mlstm_block_outputs(layers: nn.ModuleDict, inputs: Tensor) -> Tensor:
    """From float[batch, windows, features] to float[batch, outputs]."""
    from torch.nn import functional

    embedded = layers["embedding"](inputs).transpose(1, 2)
    causal = layers["convolution"](functional.pad(embedded, (_CONVOLUTION - 1, 0)))
    steps = functional.silu(causal).transpose(1, 2)
    cell = layers["cell"]
    return layers["head"](layers["norm"](mlstm_hidden(cell, steps)) + steps[:, -1])  # type: ignore[arg-type]


class Architecture(NamedTuple):
    """A kind of network."""

    layers: Callable[[int, int, int], nn.ModuleDict]
    """Untrained layers for a number of features, hidden units and outputs."""
    outputs: Callable[[nn.ModuleDict, Tensor], Tensor]
    """What the layers make of float[batch, windows, features]: float[batch, outputs]."""


ARCHITECTURES = {
    "lstm": Architecture(lstm_layers, lstm_outputs),
    "mlstm": Architecture(mlstm_block_layers, mlstm_block_outputs),
}


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread, which is faster for networks of this size, and rounds alike everywhere."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train(
    cell: str, inputs: FloatArray32, targets: FloatArray32, training: Training, seed: int
) -> nn.ModuleDict:
    """Train a network to the least mean square error.

    Equal arguments give equal weights, and no global generator moves.

    Args:
        cell: a key of ``ARCHITECTURES``.
        inputs: float32[n, windows, features].
        targets: float32[n, outputs]; NaN: not known, does not count.
        training: size and training.
        seed: of the first weights and of the order of the windows.

    Raises:
        ArithmeticError: if the loss is no longer finite.
    """
    import torch

    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        layers = ARCHITECTURES[cell].layers(inputs.shape[2], training.hidden, targets.shape[1])
        order = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(layers.parameters(), training.learning_rate)
        x, y = torch.from_numpy(inputs), torch.from_numpy(np.nan_to_num(targets))
        known = torch.from_numpy(np.isfinite(targets).astype(np.float32))
        for epoch in range(training.epochs):
            for rows in torch.randperm(len(x), generator=order).split(training.batch_size):
                optimizer.zero_grad()
                error = (ARCHITECTURES[cell].outputs(layers, x[rows]) - y[rows]) * known[rows]
                loss = error.square().sum() / known[rows].sum()
                loss.backward()
                optimizer.step()
            if not torch.isfinite(loss):
                raise ArithmeticError(f"loss after epoch {epoch + 1}: {loss.item()}")
    return layers


def evaluate(cell: str, layers: nn.ModuleDict, inputs: FloatArray32) -> FloatArray32:
    """The network's outputs, float32[n, outputs]; those of a row are the same whatever the other rows."""
    import torch

    outputs = []
    with one_thread(), torch.no_grad():
        for start in range(0, len(inputs), _BLOCK):
            block = inputs[start : start + _BLOCK]
            padded = np.zeros((_BLOCK, *inputs.shape[1:]), np.float32)
            padded[: len(block)] = block
            made = ARCHITECTURES[cell].outputs(layers, torch.from_numpy(padded))
            outputs.append(made.numpy()[: len(block)])
    return np.concatenate(outputs)
