"""The mLSTM cell of xLSTM (Beck et al., arXiv 2405.04517, section 2.3 and appendix A.3), in PyTorch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

_FORGET_BIAS = (3.0, 6.0)
"""First and last head: gates start open, with memories of about 20 to 400 windows."""


def mlstm_layers(input_size: int, hidden_size: int, heads: int = 4) -> nn.ModuleDict:
    """The projections of an mLSTM cell, untrained.

    Args:
        input_size: of an input x.
        hidden_size: of the hidden state h, a multiple of ``heads``.
        heads: memories, each with its own input and forget gate.
    """
    import torch
    from torch import nn

    forget_gate = nn.Linear(input_size, heads)
    with torch.no_grad():
        forget_gate.bias.copy_(torch.linspace(*_FORGET_BIAS, heads))
    layers = nn.ModuleDict({"forget_gate": forget_gate, "input_gate": nn.Linear(input_size, heads)})
    for name in ("query", "key", "value", "output_gate"):
        layers[name] = nn.Linear(input_size, hidden_size)
    return layers


def mlstm_hidden(layers: nn.ModuleDict, inputs: Tensor) -> Tensor:
    """The hidden state of an mLSTM cell after the last step. Its memory is a matrix of values by keys.

    Of each head, with x the input at one step and d the size of a head:

        q = W_q x + b_q,  k = (W_k x + b_k) / sqrt(d),  v = W_v x + b_v
        i = exp(w_i x + b_i),  f = sigmoid(w_f x + b_f),  o = sigmoid(W_o x + b_o)
        C = f C + i v k^T,  n = f n + i k
        h = o * (C q) / max(|n.q|, 1)

    C and n start at zero. They are linear in what was written before, so their state after the last step
    is a sum over the steps, each decayed by the forget gates after it. It is kept divided by exp(m), m the
    largest logarithm of a term's gates, so that the exponential gate cannot overflow; the 1 of the last
    line becomes exp(-m), which leaves h as it is without m.

    Args:
        layers: from ``mlstm_layers``.
        inputs: float[batch, steps, input_size], steps >= 1.

    Returns:
        float[batch, hidden_size].
    """
    import torch

    heads = layers["input_gate"].out_features
    keys = layers["key"](inputs).unflatten(-1, (heads, -1))
    keys = keys / math.sqrt(keys.shape[-1])
    values = layers["value"](inputs).unflatten(-1, (heads, -1))
    # The memory does not depend on q and o, so those are needed for the last step alone.
    query = layers["query"](inputs[:, -1]).unflatten(-1, (heads, -1))
    log_gates = layers["input_gate"](inputs) + _log_decay(layers["forget_gate"](inputs))
    stabiliser = log_gates.amax(1)
    gates = torch.exp(log_gates - stabiliser.unsqueeze(1))
    written = gates.unsqueeze(-1) * keys
    memory = torch.einsum("bthv,bthk->bhvk", values, written)
    normaliser = written.sum(1)
    overlap = (normaliser * query).sum(-1).abs()
    read = torch.einsum("bhvk,bhk->bhv", memory, query)
    hidden = read / torch.maximum(overlap, torch.exp(-stabiliser)).unsqueeze(-1)
    return torch.sigmoid(layers["output_gate"](inputs[:, -1])) * hidden.flatten(-2)


def _log_decay(forget_gate: Tensor) -> Tensor:
    """Logarithm of the product of the forget gates after each step, float[batch, steps, heads]."""
    from torch.nn import functional

    through = functional.logsigmoid(forget_gate).cumsum(1)
    return through[:, -1:] - through
