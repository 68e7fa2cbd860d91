"""Recurrent networks that map a stretch of windows to the next ones: training and evaluation in PyTorch.

Importing this file imports torch: import it where it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from preserve_gym.errors import InputError
from preserve_gym.forecasting.mlstm import MlstmCell

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


class LstmNetwork(nn.Module):
    """One LSTM layer and a linear head on its last hidden state."""

    def __init__(self, features: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.cell = nn.LSTM(features, hidden, batch_first=True)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """From float[batch, windows, features] to float[batch, outputs]."""
        return self.head(self.cell(inputs)[0][:, -1])


class MlstmNetwork(nn.Module):
    """A short xLSTM block: embedding, causal convolution, mLSTM cell, norm, skip connection, linear head."""

    def __init__(self, features: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(features, hidden)
        self.convolution = nn.Conv1d(hidden, hidden, _CONVOLUTION, groups=hidden)
        self.cell = MlstmCell(hidden, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """From float[batch, windows, features] to float[batch, outputs]."""
        embedded = self.embedding(inputs).transpose(1, 2)
        causal = self.convolution(functional.pad(embedded, (_CONVOLUTION - 1, 0)))
        steps = functional.silu(causal).transpose(1, 2)
        return self.head(self.norm(self.cell(steps)) + steps[:, -1])


NETWORKS = {"lstm": LstmNetwork, "mlstm": MlstmNetwork}


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread, which is faster for networks of this size, and rounds alike everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def build(cell: str, features: int, hidden: int, outputs: int) -> nn.Module:
    """An untrained network; its weights are drawn from the global generator of torch."""
    return NETWORKS[cell](features, hidden, outputs)


def train(
    cell: str, inputs: FloatArray32, targets: FloatArray32, training: Training, *, absolute: bool, seed: int
) -> nn.Module:
    """Train a network; equal arguments give equal weights, and no global generator moves.

    Args:
        cell: a key of ``NETWORKS``.
        inputs: float32[n, windows, features].
        targets: float32[n, outputs]; NaN: not known, does not count.
        training: size and training.
        absolute: minimise the mean absolute error, which aims at the median; else the mean square.
        seed: of the first weights and of the order of the windows.

    Raises:
        InputError: if the loss is no longer finite.
    """
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = build(cell, inputs.shape[2], training.hidden, targets.shape[1])
        order = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(network.parameters(), training.learning_rate)
        x, y = torch.from_numpy(inputs), torch.from_numpy(np.nan_to_num(targets))
        known = torch.from_numpy(np.isfinite(targets).astype(np.float32))
        for epoch in range(training.epochs):
            for rows in torch.randperm(len(x), generator=order).split(training.batch_size):
                optimizer.zero_grad()
                error = (network(x[rows]) - y[rows]) * known[rows]
                loss = (error.abs() if absolute else error.square()).sum() / known[rows].sum()
                loss.backward()
                optimizer.step()
            if not torch.isfinite(loss):
                raise InputError(
                    f"forecast: loss after epoch {epoch + 1}: expected a finite number, got {loss.item()}"
                )
    return network.eval()


def evaluate(network: nn.Module, inputs: FloatArray32) -> FloatArray32:
    """The network's outputs, float32[n, outputs]; those of a row are the same whatever the other rows."""
    outputs = []
    with one_thread(), torch.no_grad():
        for start in range(0, len(inputs), _BLOCK):
            block = inputs[start : start + _BLOCK]
            padded = np.zeros((_BLOCK, *inputs.shape[1:]), np.float32)
            padded[: len(block)] = block
            outputs.append(network(torch.from_numpy(padded)).numpy()[: len(block)])
    return np.concatenate(outputs)
