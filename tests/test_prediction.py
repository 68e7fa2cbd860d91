from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preserve_gym.errors import InputError
from preserve_gym.prediction import predict_lengths
from preserve_gym.traces import Trace, synthetic_trace


def constant(output_tokens: int, count: int = 100_000, prompt_tokens: int = 10) -> Trace:
    return Trace(np.arange(count) * 1.0, np.full(count, prompt_tokens), np.full(count, output_tokens))


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


@given(st.integers(0, 2**32), st.integers(0, 2**32), st.integers(0, 1000))
def test_the_noise_depends_on_seed_and_place_alone(seed: int, other_seed: int, count: int) -> None:
    whole = predict_lengths("noisy", constant(500, 1000), seed=seed)
    np.testing.assert_array_equal(predict_lengths("noisy", constant(500, count), seed=seed), whole[:count])
    if seed != other_seed:
        assert not np.array_equal(whole, predict_lengths("noisy", constant(500, 1000), seed=other_seed))


@given(st.sampled_from(["oracle", "noisy"]), st.floats(0, 10), st.integers(0, 1000))
def test_predictions_are_counts_of_tokens(name: str, sigma: float, seed: int) -> None:
    trace = synthetic_trace("code", duration_s=900.0, seed=3)
    predicted = predict_lengths(name, trace, seed=seed, sigma=sigma)
    assert predicted.dtype == np.int32
    assert (predicted >= 1).all()


def test_the_longest_answers_do_not_overflow() -> None:
    predicted = predict_lengths("noisy", constant(2**31 - 1, 1000), sigma=10.0)
    assert predicted.max() == 2**31 - 1


def test_an_empty_trace() -> None:
    empty = Trace(np.empty(0), np.empty(0), np.empty(0))
    assert predict_lengths("noisy", empty).shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "psychic"}, "expected one of oracle, noisy, got 'psychic'"),
        ({"sigma": -0.1}, r"sigma: expected a number in \[0, 10\]"),
        ({"sigma": float("nan")}, "sigma: expected"),
        ({"seed": -1}, "seed: expected an integer"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        predict_lengths(
            **{"name": "noisy", "trace": constant(5, 3), **arguments}  # type: ignore[arg-type]
        )
