from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preserve_gym.errors import InputError
from preserve_gym.prediction import PREDICTORS, predict_length_bounds, predict_lengths
from preserve_gym.traces import Trace, synthetic_trace


def constant(output_tokens: int, count: int = 100_000, prompt_tokens: int = 10) -> Trace:
    return Trace(np.arange(count) * 1.0, np.full(count, prompt_tokens), np.full(count, output_tokens))


def mixed(count: int, seed: int = 0) -> Trace:
    """Log-normal lengths, of median 150."""
    rng = np.random.default_rng(seed)
    output_tokens = np.maximum(np.rint(np.exp(rng.normal(np.log(150), 1.0, count))), 1)
    return Trace(np.arange(count) * 1.0, np.full(count, 10), output_tokens)


def test_the_oracle_knows() -> None:
    trace = synthetic_trace("chat", duration_s=3600.0)
    predicted = predict_lengths("oracle", trace)
    assert predicted.dtype == np.int32
    np.testing.assert_array_equal(predicted, trace.output_tokens)


def test_noise_has_the_stated_bias_and_spread() -> None:
    ratio = predict_lengths("noisy", constant(100_000), seed=1) / 100_000
    assert np.median(ratio) == pytest.approx(1.0, abs=0.005)
    assert ratio.mean() == pytest.approx(1.056, abs=0.005)
    assert np.log(ratio).std() == pytest.approx(0.33, abs=0.005)


def test_no_noise_is_the_oracle() -> None:
    trace = constant(77, 1000)
    np.testing.assert_array_equal(predict_lengths("noisy", trace, sigma=0), 77)


def test_the_mean_of_the_training_requests_is_no_prediction() -> None:
    trace = Trace(np.arange(6.0), np.full(6, 10), np.array([10, 20, 33, 900, 800, 7]))
    np.testing.assert_array_equal(predict_lengths("mean", trace, train=slice(0, 3), seed=5), np.full(6, 21))
    np.testing.assert_array_equal(predict_lengths("mean", trace), np.full(6, 15))


BLURRED = ["bucket", "empirical", "noisy", "ssjf"]


@given(st.sampled_from(BLURRED), st.integers(0, 2**32), st.integers(0, 2**32), st.integers(10, 1000))
def test_the_blur_depends_on_seed_and_place_alone(name: str, seed: int, other_seed: int, count: int) -> None:
    trace = mixed(1000)
    whole = predict_lengths(name, trace, train=slice(0, 10), seed=seed)
    part = predict_lengths(name, trace.take(slice(0, count)), train=slice(0, 10), seed=seed)
    np.testing.assert_array_equal(part, whole[:count])
    np.testing.assert_array_equal(predict_lengths(name, trace, train=slice(0, 10), seed=seed), whole)
    if seed != other_seed:
        other = predict_lengths(name, trace, train=slice(0, 10), seed=other_seed)
        assert not np.array_equal(whole, other)


@given(st.sampled_from(["oracle", *BLURRED]), st.floats(0, 10), st.integers(0, 1000))
def test_predictions_are_counts_of_tokens(name: str, sigma: float, seed: int) -> None:
    trace = synthetic_trace("code", duration_s=900.0, seed=3)
    predicted = predict_length_bounds(name, trace, seed=seed, sigma=sigma)
    np.testing.assert_array_equal(
        predict_lengths(name, trace, seed=seed, sigma=sigma), predicted.tokens, strict=True
    )
    assert predicted.tokens.dtype == predicted.upper_tokens.dtype == np.int32
    assert (predicted.tokens >= 1).all()
    assert (predicted.upper_tokens >= predicted.tokens).all()


@pytest.mark.parametrize("name", BLURRED)
@pytest.mark.parametrize("tokens", [1, 2**31 - 1])
def test_the_shortest_and_longest_answers(name: str, tokens: int) -> None:
    predicted = predict_length_bounds(name, constant(tokens, 1000), sigma=10.0)
    assert predicted.tokens.min() >= 1
    assert (predicted.upper_tokens >= predicted.tokens).all()
    if name == "noisy" and tokens > 1:
        assert predicted.tokens.max() == 2**31 - 1


@pytest.mark.parametrize("name", PREDICTORS)
def test_an_empty_trace(name: str) -> None:
    empty = Trace(np.empty(0), np.empty(0), np.empty(0))
    assert predict_lengths(name, empty).shape == (0,)
    assert predict_length_bounds(name, empty).upper_tokens.shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "psychic"},
            "expected one of bucket, column, empirical, learned, mean, noisy, oracle, ssjf, got 'psychic'",
        ),
        ({"name": "nosy"}, r"got 'nosy' \(did you mean noisy\?\)"),
        ({"name": None}, "got None"),
        ({"sigma": -0.1}, r"sigma: expected a number in \[0, 10\]"),
        ({"sigma": float("nan")}, "sigma: expected"),
        ({"sigma": True}, "sigma: expected"),
        ({"accuracy": 1.1}, r"accuracy: expected a number in \[0, 1\], got 1.1"),
        ({"accuracy": "good"}, "accuracy: expected"),
        ({"known_after_s": -1.0}, "known_after_s: expected"),
        ({"edges": ()}, "edges: expected 1 to 1,000 rising integers"),
        ({"edges": (5, 5)}, r"edges: .*got \(5, 5\)"),
        ({"edges": (0, 5)}, "edges: expected"),
        ({"edges": (1.5,)}, "edges: expected"),
        ({"edges": "12"}, "edges: expected"),
        ({"edges": 64}, "edges: expected"),
        ({"name": "ssjf", "train": slice(3, 3)}, "train: expected at least one of 3 rows"),
        ({"name": "ssjf", "train": slice(None, None, 2)}, "train: expected a slice of rows without a step"),
        ({"name": "ssjf", "train": 2}, "train: expected a slice"),
        ({"name": "learned"}, "'learned': expected at least 100 training requests, got 1"),
        ({"seed": -1}, "seed: expected an integer"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        predict_lengths(
            **{"name": "noisy", "trace": constant(5, 3), **arguments}  # type: ignore[arg-type]
        )
