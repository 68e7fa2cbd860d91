"""How good length predictions are, in the measures of the papers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import kendalltau

from preserve_gym.errors import InputError
from preserve_gym.prediction.lengths import LengthPrediction


@dataclass(frozen=True)
class LengthAccuracy:
    """Measures of length predictions over some requests.

    Attributes:
        mae: mean absolute error, tokens.
        bias: mean of predicted minus true, tokens.
        acc_50: share of the requests with an error of at most 50 tokens.
        acc_100: the same of 100 tokens.
        kendall_tau: Kendall's tau-b between true and predicted, in [-1, 1]; 0 where either is constant.
        coverage: share of the requests that are no longer than their upper quantile.
    """

    mae: float
    bias: float
    acc_50: float
    acc_100: float
    kendall_tau: float
    coverage: float


def length_accuracy(output_tokens: ArrayLike, prediction: LengthPrediction) -> LengthAccuracy:
    """Compare predictions with the true lengths.

    Args:
        output_tokens: true lengths, integers of shape (n,), n >= 1.
        prediction: of the same requests.

    Raises:
        InputError: unless all have one shape and at least one request.
    """
    true = np.asarray(output_tokens, np.int64)
    tokens, upper = (np.asarray(p, np.int64) for p in (prediction.tokens, prediction.upper_tokens))
    if true.ndim != 1 or not len(true) or not true.shape == tokens.shape == upper.shape:
        raise InputError(
            "length accuracy: expected true lengths, predictions and upper quantiles of one shape (n,), "
            f"n >= 1, got {true.shape}, {tokens.shape} and {upper.shape}"
        )
    error = tokens - true
    constant = np.ptp(true) == 0 or np.ptp(tokens) == 0
    return LengthAccuracy(
        mae=float(np.abs(error).mean()),
        bias=float(error.mean()),
        acc_50=float((np.abs(error) <= 50).mean()),
        acc_100=float((np.abs(error) <= 100).mean()),
        kendall_tau=0.0 if constant else float(kendalltau(true, tokens).statistic),
        coverage=float((true <= upper).mean()),
    )
