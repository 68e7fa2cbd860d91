"""Histograms of latencies, whose sums pool requests exactly: percentiles over any pool come from sums.

The bins are log-spaced, 64 per octave from 2**-14 s (61 us) to 2**18 s (3 days), so each is 1.09 % wide; the
first also counts what is shorter, the last what is longer. The latencies of a bin are taken to lie evenly in
it, so a percentile is off by less than a bin, and a percentile in a well filled one by far less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preserve_gym.errors import InputError

BINS_PER_OCTAVE = 64
_LOWEST_OCTAVE, _HIGHEST_OCTAVE = -14, 18
BINS = BINS_PER_OCTAVE * (_HIGHEST_OCTAVE - _LOWEST_OCTAVE)

FloatArray = NDArray[np.float64]


def edges_s() -> FloatArray:
    """Edges of the bins in s, float64 of shape (BINS + 1,)."""
    return np.exp2(_LOWEST_OCTAVE + np.arange(BINS + 1) / BINS_PER_OCTAVE)


@dataclass(frozen=True)
class Histogram:
    """How many latencies lie in each bin; ``a + b`` is the histogram of both pools together.

    Attributes:
        counts: int64 of shape (BINS,).
    """

    counts: NDArray[np.int64]

    @classmethod
    def of(cls, values_s: ArrayLike) -> Self:
        """Count latencies in s, of any shape; NaN (no latency) is left out.

        Raises:
            InputError: on a latency that is negative or infinite.
        """
        values = np.asarray(values_s, np.float64).reshape(-1)
        values = values[~np.isnan(values)]
        wrong = (values < 0.0) | np.isinf(values)
        if wrong.any():
            raise InputError(f"latency: expected finite numbers >= 0 s, got {values[wrong][0]!r}")
        octaves = np.log2(np.maximum(values, 2.0**_LOWEST_OCTAVE)) - _LOWEST_OCTAVE
        bins = np.minimum((octaves * BINS_PER_OCTAVE).astype(np.int64), BINS - 1)
        return cls(np.bincount(bins, minlength=BINS).astype(np.int64))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """The histogram that ``to_mapping`` wrote.

        Raises:
            InputError: if it is not one.
        """
        try:
            first, counts = int(mapping["first"]), np.asarray(mapping["counts"], np.int64)
        except (KeyError, TypeError, ValueError):
            raise InputError("histogram: expected integers 'first' and 'counts'") from None
        if counts.ndim != 1 or not 0 <= first <= BINS - len(counts) or (counts < 0).any():
            got = f"{len(counts)} from bin {first}"
            raise InputError(f"histogram: expected counts >= 0 in {BINS} bins, got {got}")
        dense = np.zeros(BINS, np.int64)
        dense[first : first + len(counts)] = counts
        return cls(dense)

    def to_mapping(self) -> dict[str, Any]:
        """For JSON: the first bin that counts anything, and the counts from there to the last."""
        used = np.flatnonzero(self.counts)
        if len(used) == 0:
            return {"first": 0, "counts": []}
        return {"first": int(used[0]), "counts": self.counts[used[0] : used[-1] + 1].tolist()}

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(self.counts + other.counts)

    @property
    def total(self) -> int:
        """How many latencies were counted."""
        return int(self.counts.sum())

    def percentile(self, q: float) -> float:
        """The ``q``-th percentile as NumPy interpolates it, s, within 1.09 %; NaN if nothing was counted."""
        return float(percentiles(self.counts, q))

    def cdf(self) -> tuple[FloatArray, FloatArray]:
        """Upper edges in s of the bins that count anything, and the share up to there, shape (k,) each."""
        used = np.flatnonzero(self.counts)
        return edges_s()[used + 1], np.cumsum(self.counts)[used] / max(self.total, 1)


def percentiles(counts: NDArray[Any], q: float) -> FloatArray:
    """The ``q``-th percentile of each of many histograms, s.

    Args:
        counts: of shape (..., BINS); integers, or floats that hold whole numbers.
        q: in [0, 100].

    Returns:
        Percentiles of shape (...), NaN where nothing was counted.

    Raises:
        InputError: unless ``q`` is in [0, 100].
    """
    if not 0.0 <= q <= 100.0:
        raise InputError(f"q: expected a number in [0, 100], got {q!r}")
    up_to = np.cumsum(counts, axis=-1)
    total = up_to[..., -1]
    rank = np.maximum(q / 100.0 * (total - 1), 0.0)
    low = np.floor(rank)
    below = _order_statistic(counts, up_to, low)
    above = _order_statistic(counts, up_to, np.minimum(low + 1, np.maximum(total - 1, 0)))
    return np.where(total > 0, below + (rank - low) * (above - below), np.nan)


def _order_statistic(counts: NDArray[Any], up_to: NDArray[Any], k: FloatArray) -> FloatArray:
    """The k-th smallest latency, from 0: those of a bin lie evenly in it, on the log scale."""
    # It lies in the first bin up to which more than k are counted.
    bins = np.minimum((up_to <= k[..., None]).sum(axis=-1), BINS - 1)
    inside = np.take_along_axis(counts, bins[..., None], axis=-1)[..., 0]
    before = np.take_along_axis(up_to, bins[..., None], axis=-1)[..., 0] - inside
    position = (k - before + 0.5) / np.maximum(inside, 1)
    return np.exp2(_LOWEST_OCTAVE + (bins + position) / BINS_PER_OCTAVE)
