from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preserve_gym.errors import InputError
from preserve_gym.prediction import predict_lengths
from preserve_gym.traces import Trace, synthetic_trace

LONG = 2**28  # a model so long that nothing is clipped


def constant(output_tokens: int, count: int = 100_000, prompt_tokens: int = 10) -> Trace:
    return Trace(np.arange(count) * 1.0, np.full(count, prompt_tokens), np.full(count, output_tokens))


def test_the_oracle_knows() -> None:
    trace = synthetic_trace("chat", duration_s=3600.0)
    predicted = predict_lengths("oracle", trace, max_model_len=LONG)
    assert predicted.dtype == np.int32
    np.testing.assert_array_equal(predicted, trace.output_tokens)


def test_noise_has_the_stated_bias_and_spread() -> None:
    ratio = predict_lengths("noisy", constant(100_000), max_model_len=LONG, seed=1) / 100_000
    assert np.median(ratio) == pytest.approx(1.0, abs=0.005)
    assert ratio.mean() == pytest.approx(1.056, abs=0.005)
    assert np.log(ratio).std() == pytest.approx(0.33, abs=0.005)


def test_no_noise_is_the_oracle() -> None:
    trace = constant(77, 1000)
    np.testing.assert_array_equal(predict_lengths("noisy", trace, max_model_len=LONG, sigma=0), 77)


@given(st.integers(0, 2**32), st.integers(0, 2**32), st.data())
def test_slicing_does_not_shift_the_noise(seed: int, other_seed: int, data: st.DataObject) -> None:
    trace = synthetic_trace("code", duration_s=1800.0, seed=3)
    whole = predict_lengths("noisy", trace, max_model_len=8192, seed=seed)
    start_s, end_s = sorted((data.draw(st.floats(0, 1800)), data.draw(st.floats(0, 1800))))
    rows = trace.row_range(start_s, end_s)
    part = trace.slice(start_s, end_s)
    index = np.arange(rows.start, rows.stop)
    predicted = predict_lengths("noisy", part, max_model_len=8192, seed=seed, index=index)
    np.testing.assert_array_equal(predicted, whole[rows])
    if seed != other_seed:
        other = predict_lengths("noisy", trace, max_model_len=8192, seed=other_seed)
        assert not np.array_equal(whole, other)


@given(st.sampled_from(["oracle", "noisy"]), st.integers(2, 5000), st.floats(0, 10), st.integers(0, 1000))
def test_predictions_fit_the_model(name: str, max_model_len: int, sigma: float, seed: int) -> None:
    trace = synthetic_trace("code", duration_s=900.0, seed=3)
    predicted = predict_lengths(name, trace, max_model_len=max_model_len, seed=seed, sigma=sigma)
    assert predicted.dtype == np.int32
    assert (predicted >= 1).all()
    room = np.maximum(max_model_len - trace.prompt_tokens, 1)
    assert (predicted <= room).all()


def test_the_longest_model_does_not_overflow() -> None:
    predicted = predict_lengths("noisy", constant(2**31 - 1, 1000), max_model_len=2**40, sigma=10.0)
    assert predicted.max() == 2**31 - 1


def test_an_empty_trace() -> None:
    empty = Trace(np.empty(0), np.empty(0), np.empty(0))
    assert predict_lengths("noisy", empty, max_model_len=4096).shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "psychic"}, "expected one of oracle, noisy, got 'psychic'"),
        ({"max_model_len": 1}, "max_model_len: expected an integer >= 2"),
        ({"max_model_len": 4096.5}, "max_model_len: expected"),
        ({"sigma": -0.1}, r"sigma: expected a number in \[0, 10\]"),
        ({"sigma": float("nan")}, "sigma: expected"),
        ({"seed": -1}, "seed: expected an integer"),
        ({"index": [0, 1]}, "index: expected 3 integers >= 0"),
        ({"index": [0, -1, 2]}, "index: expected"),
        ({"index": [0.0, 1.0, 2.0]}, "index: expected"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        predict_lengths(
            **{"name": "noisy", "trace": constant(5, 3), "max_model_len": 4096, **arguments}  # type: ignore[arg-type]
        )
