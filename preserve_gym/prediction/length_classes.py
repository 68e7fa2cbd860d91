"""Predictors that tell a class of lengths, not a length: SSJF's classifier, and buckets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

SSJF_SHARES = (0.25, 0.5, 0.75, 0.99)
"""Where SSJF's classes end, as shares of its training requests: 58, 147, 280 and 499 tokens there."""

SSJF_CONFUSION = (
    (0.72, 0.22, 0.04, 0.02, 0.01),
    (0.11, 0.56, 0.23, 0.09, 0.01),
    (0.03, 0.22, 0.47, 0.27, 0.02),
    (0.01, 0.07, 0.27, 0.58, 0.07),
    (0.02, 0.06, 0.17, 0.52, 0.24),
)
"""Share of the requests of each true class (row) that SSJF's BERT puts into each class (column).

Counted in the predictions published with arXiv 2404.08509, for answers of LMSYS-Chat-1M under 512 tokens:
59.0 % right, 92.4 % at most one class off. Rows sum to 1 but for rounding.
"""

POWERS_OF_TWO = tuple(2**k for k in range(31))


def ssjf_lengths(output_tokens: NDArray[np.int32], known: NDArray[np.int32], level: FloatArray) -> FloatArray:
    """What is expected of a request that SSJF's classifier has put into a class, float64[n].

    The classes end at ``SSJF_SHARES`` of the known lengths. The prediction is the median true length of
    the known requests that the classifier would put into that class, by its confusion matrix.

    Args:
        output_tokens: true lengths, int32[n].
        known: true lengths of the training requests, at least one.
        level: float64[n] in (0, 1), uniform; draws the class.
    """
    ends = np.quantile(known, SSJF_SHARES, method="lower")
    shares = np.array(SSJF_CONFUSION)
    shares /= shares.sum(axis=1, keepdims=True)
    lengths = np.sort(known)
    weights = shares[np.searchsorted(ends, lengths)]
    passed = np.cumsum(weights, axis=0)
    medians = np.array([lengths[np.searchsorted(p, p[-1] / 2)] for p in passed.T], np.float64)
    # The last class takes what rounding leaves of the sum.
    thresholds = np.cumsum(shares, axis=1)[:, :-1]
    true_class = np.searchsorted(ends, output_tokens)
    told = (level[:, None] > thresholds[true_class]).sum(axis=1)
    return medians[told]


def bucket_lengths(
    output_tokens: NDArray[np.int32], edges: Sequence[int], accuracy: float, level: FloatArray
) -> FloatArray:
    """The middle of the true length's bucket, or of one beside it, float64[n].

    Bucket k holds the lengths in (edges[k-1], edges[k]], the first those from 1 on. What is longer than
    the last edge is taken for one token more than it.

    Args:
        output_tokens: true lengths, int32[n].
        edges: rising integers >= 1.
        accuracy: share of requests in the right bucket; the others are in the next lower or higher one
            with equal chances, or in the only neighbour of the first and the last bucket.
        level: float64[n] in (0, 1), uniform; draws the bucket.
    """
    ends = np.append(checked_edges(edges), 0)
    ends[-1] = ends[-2] + 1
    starts = np.concatenate(([1], ends[:-1] + 1))
    middles = (starts + ends) / 2
    bucket = np.searchsorted(ends[:-1], output_tokens)
    wrong = level >= accuracy
    step = np.where(level >= (1.0 + accuracy) / 2, 1, -1)
    step[bucket == 0] = 1
    step[bucket == len(middles) - 1] = -1
    return middles[bucket + wrong * step]


def checked_edges(edges: Sequence[int]) -> IntArray:
    """The edges as int64[k].

    Raises:
        InputError: unless they are one to a thousand rising integers in [1, 2**31 - 1].
    """
    good = isinstance(edges, Sequence | np.ndarray) and 1 <= len(edges) <= 1000
    good = good and all(
        isinstance(edge, Integral) and not isinstance(edge, bool) and 1 <= edge < 2**31 for edge in edges
    )
    if not good or any(low >= high for low, high in pairwise(edges)):
        raise InputError(
            "length predictor: edges: expected 1 to 1,000 rising integers in [1, 2147483647], "
            f"got {str(edges)[:200]}"
        )
    return np.array(edges, np.int64)
