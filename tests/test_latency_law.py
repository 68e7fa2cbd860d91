"""The latency law: worked out by hand, as it was before it had a knee, and what it refuses."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from preserve_gym import InputError, LatencyLaw

LAW = LatencyLaw(
    base_s=1.0,
    per_token_s=0.5,
    per_context_token_s=0.25,
    per_quad_s=0.125,
    knee_tokens=4,
    per_token_beyond_knee_s=2.0,
    per_mixed_context_token_s=0.75,
)


@pytest.mark.parametrize(
    ("batch", "seconds"),
    [
        # (tokens, context, quad)
        ((2, 8, 0.0), 1.0 + 0.5 * 2 + 0.25 * 8),  # two decodes
        ((4, 8, 0.0), 1.0 + 0.5 * 4 + 0.25 * 8),  # at the knee
        ((5, 8, 0.0), 1.0 + 0.5 * 5 + 2.0 * 1 + 0.25 * 8),  # one token beyond
        ((4, 0, 8.0), 1.0 + 0.5 * 4 + 0.125 * 8),  # a prefill of 4 tokens
        ((7, 8, 8.0), 1.0 + 0.5 * 7 + 2.0 * 3 + (0.25 + 0.75) * 8 + 0.125 * 8),  # three decodes and it
        ((2, 8, 0.5), 1.0 + 0.5 * 2 + (0.25 + 0.75) * 8 + 0.125 * 0.5),  # the shortest chunk
    ],
)
def test_the_law_is_the_sum_of_its_terms(batch: tuple[int, int, float], seconds: float) -> None:
    assert LAW.iteration_s(*batch) == seconds


seconds = st.floats(0.0, 1.0)


@given(
    st.tuples(st.floats(1e-9, 1.0), seconds, seconds, seconds),
    st.integers(1, 10**5),
    st.integers(0, 10**7),
    st.floats(0.0, 1e10),
    st.integers(0, 2**31 - 1),
)
def test_with_four_coefficients_it_is_what_it_was(
    coefficients: tuple[float, float, float, float], tokens: int, context: int, quad: float, knee: int
) -> None:
    base_s, per_token_s, per_context_token_s, per_quad_s = coefficients
    expected = base_s + per_token_s * tokens + per_context_token_s * context + per_quad_s * quad
    assert LatencyLaw(*coefficients).iteration_s(tokens, context, quad) == expected
    assert LatencyLaw(*coefficients, knee_tokens=knee).iteration_s(tokens, context, quad) == expected


def test_an_integer_of_numpy_becomes_one_of_python() -> None:
    law = LatencyLaw(1.0, 0.0, 0.0, 0.0, np.int32(256))  # type: ignore[arg-type]
    assert type(law.knee_tokens) is int
    assert law == LatencyLaw(1.0, 0.0, 0.0, 0.0, 256)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"base_s": 0.0}, "base_s: expected a number > 0, got 0.0"),
        ({"per_token_s": -1}, "per_token_s: expected a finite number >= 0, got -1"),
        (
            {"per_context_token_s": float("nan")},
            "per_context_token_s: expected a finite number >= 0, got nan",
        ),
        ({"per_quad_s": "x"}, "per_quad_s: expected a finite number >= 0, got 'x'"),
        (
            {"per_token_beyond_knee_s": -1e-5},
            "per_token_beyond_knee_s: expected a finite number >= 0, got -1e-05",
        ),
        (
            {"per_mixed_context_token_s": float("inf")},
            "per_mixed_context_token_s: expected a finite number >= 0, got inf",
        ),
        ({"knee_tokens": -1}, "knee_tokens: expected an integer in [0, 2147483647], got -1"),
        ({"knee_tokens": 2**31}, "knee_tokens: expected an integer in [0, 2147483647], got 2147483648"),
        ({"knee_tokens": 256.0}, "knee_tokens: expected an integer in [0, 2147483647], got 256.0"),
        ({"knee_tokens": True}, "knee_tokens: expected an integer in [0, 2147483647], got True"),
    ],
)
def test_bad_values_are_named(fields: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {
        "base_s": 1.0,
        "per_token_s": 0.0,
        "per_context_token_s": 0.0,
        "per_quad_s": 0.0,
    }
    with pytest.raises(InputError) as error:
        LatencyLaw(**(values | fields))
    assert str(error.value) == f"LatencyLaw.{message}"
