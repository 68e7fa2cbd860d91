"""Histograms of times, counted as things happen.

The bins are log-linear: 64 of equal width in each octave from 2**-14 s (61 us) to 2**18 s (3 days), so that
a bin is between 0.8 % and 1.6 % wide; one more below and one above. The index of a bin is read off the bits
of the number, without a logarithm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError
from preserve_gym.sim.jit import kernel
from preserve_gym.sim.state import HISTOGRAM_BINS, N_HISTOGRAMS, State

TTFT, TPOT, E2E, NORMALIZED_LATENCY = 0, 1, 2, 3
METRICS = ("ttft_s", "tpot_s", "e2e_s", "normalized_latency_s")
"""Histograms of each class of requests; ``itl_s``, inter-token latency, is of all requests together."""

_LOWEST_OCTAVE, _HIGHEST_OCTAVE = -14, 18
_BINS_PER_OCTAVE_BITS = 6
_SHIFT = 52 - _BINS_PER_OCTAVE_BITS
_FIRST = (1023 + _LOWEST_OCTAVE) << _BINS_PER_OCTAVE_BITS
_LAST = HISTOGRAM_BINS - 1


@kernel
def bin_of(seconds: float) -> int:
    """The bin that counts ``seconds``."""
    # Exponent and leading bits of the fraction of a float64 count the bins.
    k = int(np.float64(seconds).view(np.int64) >> _SHIFT) - _FIRST + 1
    return min(max(k, 0), _LAST)


@kernel
def count(s: State, request_class: int, metric: int, seconds: float) -> None:
    """Count ``seconds`` in the histogram ``metric`` of a class."""
    s.histograms[(np.int64(request_class) * N_HISTOGRAMS + metric) * HISTOGRAM_BINS + bin_of(seconds)] += 1


@kernel
def inter_token_base(s: State) -> int:
    """Where the histogram of inter-token latencies begins."""
    return len(s.histograms) - HISTOGRAM_BINS


def bin_edges() -> NDArray[np.float64]:
    """Edges of the bins in s, float64 of shape (HISTOGRAM_BINS + 1,): from 0 to inf."""
    octaves = np.ldexp(1.0, np.arange(_LOWEST_OCTAVE, _HIGHEST_OCTAVE))
    steps = 1.0 + np.arange(1 << _BINS_PER_OCTAVE_BITS) / (1 << _BINS_PER_OCTAVE_BITS)
    inner = (octaves[:, None] * steps).reshape(-1)
    return np.concatenate([[0.0], inner, [2.0**_HIGHEST_OCTAVE, np.inf]])


@dataclass(frozen=True)
class Histogram:
    """How often each time occurred; a later histogram minus an earlier one is that of what lies between.

    Attributes:
        counts: int64 of shape (2050,), see ``edges_s``.
    """

    counts: NDArray[np.int64]

    @property
    def edges_s(self) -> NDArray[np.float64]:
        """Edges of the bins in s, float64 of shape (2051,), from 0 to inf; a bin is 1.6 % wide or less."""
        return bin_edges()

    @property
    def total(self) -> int:
        """How many times were counted."""
        return int(self.counts.sum())

    def __sub__(self, earlier: Histogram) -> Histogram:
        return Histogram(self.counts - earlier.counts)

    def quantile(self, q: float) -> float:
        """The time that a share ``q`` of those counted does not exceed, s; NaN if there are none.

        Interpolated within its bin, so it is off by less than 1.6 %.

        Raises:
            InputError: unless ``q`` is in [0, 1].
        """
        if not 0.0 <= q <= 1.0:
            raise InputError(f"q: expected a number in [0, 1], got {q!r}")
        if self.total == 0:
            return float("nan")
        up_to = np.cumsum(self.counts)
        rank = max(q * self.total, 1e-9)
        k = int(np.searchsorted(up_to, rank))
        low, high = self.edges_s[k], self.edges_s[k + 1]
        if not np.isfinite(high):
            return float(low)
        inside = (rank - (up_to[k] - self.counts[k])) / self.counts[k]
        return float(low + inside * (high - low))
