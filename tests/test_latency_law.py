"""The latency law on paper: its terms, its knee, and the values that it refuses."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from preserve_gym import InputError, LatencyLaw

FULL = LatencyLaw(1.0, 0.5, 0.25, 0.125, 10, 2.0, 0.75)


def test_the_law_is_the_sum_of_its_terms() -> None:
    law = LatencyLaw(1.0, 0.5, 0.25, 0.125)
    assert law.iteration_s(tokens=2, context=4, quad=8) == 4.0


@pytest.mark.parametrize(
    ("tokens", "context", "quad", "seconds"),
    [
        (9, 0, 0, 5.5),  # 1 + 0.5*9
        (10, 0, 0, 6.0),  # the knee itself still costs 0.5 a token,
        (11, 0, 0, 8.5),  # the next one 0.5 + 2
        (14, 0, 0, 16.0),  # 1 + 0.5*14 + 2*4
        (2, 8, 0, 4.0),  # decodes alone: 1 + 0.5*2 + 0.25*8
        (4, 8, 2, 11.25),  # two of them prefill: 1 + 0.5*4 + (0.25 + 0.75)*8 + 0.125*2
        (12, 8, 48, 25.0),  # 1 + 0.5*12 + 2*2 + (0.25 + 0.75)*8 + 0.125*48
    ],
)
def test_beyond_the_knee_and_beside_prefills(tokens: int, context: int, quad: int, seconds: float) -> None:
    assert FULL.iteration_s(tokens, context, quad) == seconds


def test_without_a_knee_all_tokens_are_beyond_it() -> None:
    law = LatencyLaw(1.0, 0.5, 0.0, 0.0, per_token_beyond_knee_s=0.25)
    assert law.iteration_s(4, 0, 0) == 4.0


def test_several_iterations_at_once() -> None:
    tokens, context, quad = np.array([[9, 0, 0], [11, 0, 0], [4, 8, 2], [12, 8, 48]]).T
    assert FULL.iteration_s(tokens, context, quad).tolist() == [5.5, 8.5, 11.25, 25.0]
    assert FULL.iteration_s(1.0 * tokens, 1.0 * context, 1.0 * quad).tolist() == [5.5, 8.5, 11.25, 25.0]
    assert type(FULL.iteration_s(11, 0, 0)) is float


seconds = st.floats(0.0, 1.0)


@given(
    st.floats(1e-9, 1.0), seconds, seconds, seconds, st.integers(0, 100), st.integers(0, 10**4),
    st.integers(0, 10**8), st.integers(0, 2 * 10**8).map(lambda halves: halves / 2),
)  # fmt: skip
def test_the_new_terms_change_no_bit_where_they_are_zero(
    base_s: float, per_token_s: float, per_context_token_s: float, per_quad_s: float, knee: int,
    tokens: int, context: int, quad: float,
) -> None:  # fmt: skip
    expected = base_s + per_token_s * tokens + per_context_token_s * context + per_quad_s * quad
    for more in ((), (knee,)):
        law = LatencyLaw(base_s, per_token_s, per_context_token_s, per_quad_s, *more)
        assert law.iteration_s(tokens, context, quad) == expected


def test_numbers_of_numpy_become_numbers_of_python() -> None:
    law = LatencyLaw(1, 0, 0, 0, knee_tokens=np.int64(256))  # type: ignore[arg-type]
    assert type(law.knee_tokens) is int
    assert type(law.base_s) is float
    assert law == LatencyLaw(1.0, 0.0, 0.0, 0.0, 256)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.0, 1, 1, 1), "base_s: expected a number > 0, got 0.0"),
        ((1.0, -1, 1, 1), "per_token_s: expected a finite number >= 0, got -1"),
        ((1.0, 1, float("nan"), 1), "per_context_token_s: expected a finite number >= 0, got nan"),
        ((1.0, 1, 1, "x"), "per_quad_s: expected a finite number >= 0, got 'x'"),
        ((1.0, 1, 1, 1, -1), "knee_tokens: expected an integer in [0, 2147483647], got -1"),
        ((1.0, 1, 1, 1, 2**31), "knee_tokens: expected an integer in [0, 2147483647], got 2147483648"),
        ((1.0, 1, 1, 1, 8.0), "knee_tokens: expected an integer in [0, 2147483647], got 8.0"),
        ((1.0, 1, 1, 1, True), "knee_tokens: expected an integer in [0, 2147483647], got True"),
        ((1.0, 1, 1, 1, 8, -0.1), "per_token_beyond_knee_s: expected a finite number >= 0, got -0.1"),
        ((1.0, 1, 1, 1, 8, float("inf")), "per_token_beyond_knee_s: expected a finite number >= 0, got inf"),
        ((1.0, 1, 1, 1, 8, 0.1, None), "per_mixed_context_token_s: expected a finite number >= 0, got None"),
    ],
)
def test_bad_values_are_named(values: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError) as error:
        LatencyLaw(*values)
    assert str(error.value) == f"LatencyLaw.{message}"
