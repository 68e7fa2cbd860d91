"""What each blurred predictor does to the truth, where the answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from preserve_gym.prediction import FOR_ANY_TRACE, length_accuracy, predict_length_bounds, predict_lengths
from preserve_gym.prediction.length_classes import SSJF_CONFUSION, SSJF_SHARES
from preserve_gym.prediction.length_errors import BIN_ENDS, ERROR_LEVELS, LOG_ERRORS, log_error
from preserve_gym.prediction.lengths import LengthPrediction
from preserve_gym.traces import Trace, read_lengths
from tests.fit_length_errors import fit


def mixed(count: int = 100_000) -> Trace:
    rng = np.random.default_rng(0)
    output_tokens = np.maximum(np.rint(np.exp(rng.normal(np.log(150), 1.0, count))), 1)
    return Trace(np.arange(count) * 1.0, np.full(count, 10), output_tokens)


def test_ssjf_has_the_published_confusion() -> None:
    trace = mixed()
    train = slice(0, 20_000)
    predicted = predict_lengths("ssjf", trace, train=train, seed=5)
    ends = np.quantile(trace.output_tokens[train], SSJF_SHARES, method="lower")
    values = np.unique(predicted)
    assert len(values) == 5
    true_class = np.searchsorted(ends, trace.output_tokens)
    for k, row in enumerate(SSJF_CONFUSION):
        told = predicted[true_class == k]
        shares = [(told == value).mean() for value in values]
        np.testing.assert_allclose(shares, np.array(row) / sum(row), atol=0.05 if k == 4 else 0.01)


def test_ssjf_predicts_the_median_of_what_it_puts_into_a_class() -> None:
    trace = mixed()
    predicted = predict_lengths("ssjf", trace, train=slice(0, 50_000))
    rest = slice(50_000, None)
    for value in np.unique(predicted)[:4]:
        true = trace.output_tokens[rest][predicted[rest] == value]
        assert np.median(true) == pytest.approx(value, rel=0.05)


def test_ssjf_learns_from_the_training_requests_alone() -> None:
    trace = mixed(1000)
    train = slice(200, 600)
    other = trace.output_tokens.copy()
    other[:200] = other[600:] = 5
    predicted = predict_lengths("ssjf", trace, train=train)
    changed = predict_lengths("ssjf", Trace(trace.arrival_s, trace.prompt_tokens, other), train=train)
    np.testing.assert_array_equal(predicted[train], changed[train])
    assert set(changed) <= set(np.unique(predicted))


def test_buckets() -> None:
    output_tokens = [1, 10, 11, 20, 21, 1000]
    trace = Trace(np.arange(6), np.ones(6), output_tokens)
    right = predict_lengths("bucket", trace, edges=(10, 20), accuracy=1.0)
    # The middles of 1 to 10 and 11 to 20, to the even integer; beyond, one more than the last edge.
    np.testing.assert_array_equal(right, [6, 6, 16, 16, 21, 21])
    wrong = predict_lengths("bucket", trace, edges=(10, 20), accuracy=0.0)
    np.testing.assert_array_equal(wrong[[0, 1, 4, 5]], [16, 16, 16, 16])
    assert set(wrong[2:4]) <= {6, 21}


def test_the_share_in_the_right_bucket_and_beside_it() -> None:
    trace = Trace(np.arange(100_000), np.ones(100_000), np.full(100_000, 100))
    predicted = predict_lengths("bucket", trace, accuracy=0.6)
    for middle, share in ((48, 0.2), (96, 0.6), (192, 0.2)):  # 33 to 64, 65 to 128, 129 to 256
        assert (predicted == middle).mean() == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("tokens", [5, 200, 5000])
def test_empirical_errors_have_the_quantiles_of_their_bin(tokens: int) -> None:
    trace = Trace(np.arange(100_000), np.ones(100_000), np.full(100_000, tokens))
    predicted = predict_lengths("empirical", trace)
    quantiles = LOG_ERRORS[int(np.searchsorted(BIN_ENDS, tokens))]
    for level in (0.1, 0.35, 0.5, 0.9):
        expected = max(round(tokens * np.exp(quantiles[ERROR_LEVELS.index(level)])), 1)
        assert np.quantile(predicted, level) == pytest.approx(expected, rel=0.01, abs=1)


def test_the_table_of_errors_is_one_of_quantiles() -> None:
    assert len(LOG_ERRORS) == len(BIN_ENDS) + 1
    assert (np.diff(BIN_ENDS) > 0).all()
    assert (np.diff(ERROR_LEVELS) > 0).all()
    assert (np.diff(LOG_ERRORS, axis=1) >= 0).all()
    np.testing.assert_allclose(log_error(np.array([10, 11], np.int32), np.array([1.0, 0.0])), [5.65, -2.71])


def test_the_table_of_errors_is_what_its_script_fits(data_dir: Path) -> None:
    lengths = read_lengths(data_dir / "traces" / "sharegpt_lengths_predicted_40k.csv.gz")
    assert fit(lengths) == (BIN_ENDS, LOG_ERRORS)
    assert lengths.predicted_tokens is not None
    trace = Trace(np.arange(len(lengths)), lengths.prompt_tokens, lengths.output_tokens)
    drawn, real = (
        length_accuracy(lengths.output_tokens, LengthPrediction(tokens, tokens))
        for tokens in (predict_lengths("empirical", trace), lengths.predicted_tokens)
    )
    assert drawn.mae == pytest.approx(real.mae, rel=0.1)
    assert drawn.acc_100 == pytest.approx(real.acc_100, abs=0.01)
    assert drawn.kendall_tau == pytest.approx(real.kendall_tau, abs=0.03)


@pytest.mark.parametrize("name", [name for name in FOR_ANY_TRACE if name not in ("learned", "oracle")])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_upper_quantiles_hold_for_requests_not_seen(name: str, level: float) -> None:
    trace = mixed()
    train = slice(0, 40_000)
    predicted = predict_length_bounds(name, trace, train=train, level=level)
    rest = slice(40_000, None)
    covered = trace.output_tokens[rest] <= predicted.upper_tokens[rest]
    assert covered.mean() > level - 0.01
    # The real predictor's errors are mostly upward: its predictions themselves often cover more.
    if name != "empirical":
        assert covered.mean() < level + 0.03


def test_the_upper_quantile_of_noise_is_that_of_the_noise() -> None:
    trace = mixed()
    predicted = predict_length_bounds("noisy", trace, train=slice(0, 50_000), sigma=0.5)
    factor = np.median(predicted.upper_tokens / predicted.tokens)
    assert factor == pytest.approx(np.exp(1.2816 * 0.5), rel=0.1)


def test_the_oracle_needs_no_upper_quantile() -> None:
    trace = mixed(1000)
    predicted = predict_length_bounds("oracle", trace)
    np.testing.assert_array_equal(predicted.upper_tokens, trace.output_tokens)
