from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from preserve_gym.errors import InputError
from preserve_gym.prediction import LengthPrediction, length_accuracy


def prediction(tokens: list[int], upper_tokens: list[int]) -> LengthPrediction:
    return LengthPrediction(np.array(tokens, np.int32), np.array(upper_tokens, np.int32))


def test_by_hand() -> None:
    accuracy = length_accuracy([10, 100, 200, 400], prediction([60, 49, 300, 299], [9, 100, 300, 500]))
    # Errors: 50, -51, 100, -101.
    assert accuracy.mae == 75.5
    assert accuracy.bias == -0.5
    assert accuracy.acc_50 == 0.25
    assert accuracy.acc_100 == 0.75
    # Of six pairs two are in the wrong order: (10, 100) and (200, 400).
    assert accuracy.kendall_tau == pytest.approx((4 - 2) / 6)
    assert accuracy.coverage == 0.75


def test_rank_correlation_with_ties_as_in_scipy() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(1, 50, 300)
    tokens = np.maximum(true + rng.integers(-20, 20, 300), 1).astype(np.int32)
    accuracy = length_accuracy(true, LengthPrediction(tokens, tokens))
    assert accuracy.kendall_tau == kendalltau(true, tokens).statistic


def test_errors_beyond_int32() -> None:
    accuracy = length_accuracy([1, 2**31 - 1], prediction([2**31 - 1, 1], [2**31 - 1, 1]))
    assert accuracy.mae == 2**31 - 2
    assert accuracy.kendall_tau == -1.0


def test_a_constant_has_no_order() -> None:
    assert length_accuracy([1, 2, 3], prediction([2, 2, 2], [2, 2, 2])).kendall_tau == 0.0
    assert length_accuracy([7], prediction([7], [7])).kendall_tau == 0.0


@pytest.mark.parametrize(
    ("true", "tokens", "upper"), [([], [], []), ([1, 2], [1], [1]), ([1], [1], [1, 2]), ([[1]], [1], [1])]
)
def test_shapes_that_do_not_fit(true: list[int], tokens: list[int], upper: list[int]) -> None:
    with pytest.raises(InputError, match="length accuracy: expected true lengths"):
        length_accuracy(true, prediction(tokens, upper))
