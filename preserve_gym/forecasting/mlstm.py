"""The mLSTM cell of xLSTM (Beck et al., arXiv 2405.04517, section 2.3 and appendix A.3), in PyTorch.

Importing this file imports torch: import it where it is used.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_FORGET_BIAS = (3.0, 6.0)
"""First and last head: gates start open, with memories of about 20 to 400 windows."""


class MlstmCell(nn.Module):
    """An LSTM whose memory is a matrix of values by keys, with several heads.

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
        input_size: of x.
        hidden_size: of h, a multiple of ``heads``.
        heads: memories, each with its own input and forget gate.
    """

    def __init__(self, input_size: int, hidden_size: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(input_size, hidden_size)
        self.key = nn.Linear(input_size, hidden_size)
        self.value = nn.Linear(input_size, hidden_size)
        self.input_gate = nn.Linear(input_size, heads)
        self.forget_gate = nn.Linear(input_size, heads)
        self.output_gate = nn.Linear(input_size, hidden_size)
        with torch.no_grad():
            self.forget_gate.bias.copy_(torch.linspace(*_FORGET_BIAS, heads))

    def forward(self, inputs: Tensor) -> Tensor:
        """The hidden state after the last step.

        Args:
            inputs: float[batch, steps, input_size], steps >= 1.

        Returns:
            float[batch, hidden_size].
        """
        keys = self._by_head(self.key(inputs))
        keys = keys / math.sqrt(keys.shape[-1])
        values = self._by_head(self.value(inputs))
        # The memory does not depend on q and o, so those are needed for the last step alone.
        query = self._by_head(self.query(inputs[:, -1]))
        log_gates = self.input_gate(inputs) + self._log_decay(inputs)
        stabiliser = log_gates.amax(1)
        gates = torch.exp(log_gates - stabiliser.unsqueeze(1))
        written = gates.unsqueeze(-1) * keys
        memory = torch.einsum("bthv,bthk->bhvk", values, written)
        normaliser = written.sum(1)
        overlap = (normaliser * query).sum(-1).abs()
        read = torch.einsum("bhvk,bhk->bhv", memory, query)
        hidden = read / torch.maximum(overlap, torch.exp(-stabiliser)).unsqueeze(-1)
        return torch.sigmoid(self.output_gate(inputs[:, -1])) * hidden.flatten(-2)

    def _log_decay(self, inputs: Tensor) -> Tensor:
        """Logarithm of the product of the forget gates after each step, float[batch, steps, heads]."""
        log_forget = functional.logsigmoid(self.forget_gate(inputs))
        through = log_forget.cumsum(1)
        return through[:, -1:] - through

    def _by_head(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (self.heads, -1))
