from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preserve_gym.errors import InputError
from preserve_gym.traces import Trace, read_trace, scale_rate
from preserve_gym.traces.prefix_blocks import PrefixBlocks


def example(count: int = 500, seed: int = 0, span_s: float = 1000.0) -> Trace:
    rng = np.random.default_rng(seed)
    return Trace(
        arrival_s=np.sort(rng.random(count)) * span_s,
        prompt_tokens=rng.integers(1, 4000, count),
        output_tokens=rng.integers(1, 800, count),
        request_class=rng.integers(0, 3, count),
        name="example",
        clock_s=100.0,
        span_s=span_s,
    )


def requests(trace: Trace) -> list[tuple[int, int, int]]:
    assert trace.request_class is not None
    columns = (trace.prompt_tokens, trace.output_tokens, trace.request_class)
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def cv(trace: Trace) -> float:
    gap = np.diff(trace.arrival_s)
    return float(gap.std() / gap.mean())


@pytest.mark.parametrize("factor", [2, 3.0, 8])
def test_whole_factors_repeat_every_request(factor: float) -> None:
    trace = example()
    scaled = scale_rate(trace, factor, np.random.default_rng(1))
    assert len(scaled) == factor * len(trace)
    assert requests(scaled) == sorted(requests(trace) * int(factor))
    assert set(trace.arrival_s) <= set(scaled.arrival_s)  # the first copy is not shifted


@given(st.floats(0.05, 5.0), st.integers(0, 100))
def test_scaling_keeps_span_order_and_rate(factor: float, seed: int) -> None:
    trace = example()
    scaled = scale_rate(trace, factor, np.random.default_rng(seed))
    assert (scaled.span_s, scaled.clock_s, scaled.name) == (trace.span_s, trace.clock_s, trace.name)
    assert (np.diff(scaled.arrival_s) >= 0).all()
    assert scaled.arrival_s[-1] <= trace.span_s
    part = factor % 1.0
    assert abs(len(scaled) - factor * len(trace)) <= 5 * np.sqrt(len(trace) * part * (1 - part)) + 1e-6
    assert set(requests(scaled)) <= set(requests(trace))


def test_repairs_stay_and_prefix_blocks_stay_below_one() -> None:
    """A copy stands for other users, whose prompts have nothing in common with those of the first."""
    blocks = PrefixBlocks(np.arange(500, dtype=np.int32), np.arange(501), 512)
    trace = dataclasses.replace(example(), repairs=("mended",), prefix_blocks=blocks)
    thinned = scale_rate(trace, 0.5, np.random.default_rng(1))
    assert thinned.repairs == ("mended",)
    assert thinned.prefix_blocks is not None
    np.testing.assert_array_equal(
        trace.prompt_tokens[[ids[0] for ids in thinned.prefix_blocks]], thinned.prompt_tokens
    )
    copied = scale_rate(trace, 2, np.random.default_rng(1))
    assert (copied.repairs, copied.prefix_blocks) == (("mended",), None)


def test_thinning_keeps_requests_as_they_are() -> None:
    trace = example()
    thinned = scale_rate(trace, 0.3, np.random.default_rng(1))
    original = dict(zip(trace.arrival_s, trace.prompt_tokens, strict=True))
    assert all(original[t] == p for t, p in zip(thinned.arrival_s, thinned.prompt_tokens, strict=True))


def test_copies_are_shifted_around_the_span() -> None:
    trace = Trace([0.0, 1.0, 4.0], [1, 2, 3], [1, 1, 1], span_s=10.0)
    scaled = scale_rate(trace, 2, np.random.default_rng(3))
    moved = {int(p): sorted(scaled.arrival_s[scaled.prompt_tokens == p]) for p in (1, 2, 3)}
    shift_s = next(t for t in moved[1] if t > 0)
    for prompt, start_s in ((1, 0.0), (2, 1.0), (3, 4.0)):
        assert moved[prompt] == pytest.approx(sorted((start_s, (start_s + shift_s) % 10.0)))


def test_equal_times_keep_the_order_of_the_trace() -> None:
    trace = Trace(np.zeros(50), np.arange(1, 51), np.ones(50, int), span_s=0.0)
    scaled = scale_rate(trace, 2, np.random.default_rng(0))
    np.testing.assert_array_equal(scaled.prompt_tokens, np.r_[trace.prompt_tokens, trace.prompt_tokens])


def test_a_factor_of_one_is_the_trace_itself() -> None:
    trace = example()
    assert scale_rate(trace, 1, np.random.default_rng(0)) is trace


def test_the_generator_decides() -> None:
    trace = example()
    first, again, other = (scale_rate(trace, 2.5, np.random.default_rng(seed)) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.arrival_s, again.arrival_s)
    np.testing.assert_array_equal(first.prompt_tokens, again.prompt_tokens)
    assert not np.array_equal(first.arrival_s, other.arrival_s)


@pytest.mark.parametrize("factor", [0, -1, float("nan"), float("inf"), "2", None])
def test_a_factor_is_a_positive_number(factor: float) -> None:
    with pytest.raises(InputError, match="rate scale: expected a finite number > 0"):
        scale_rate(example(), factor, np.random.default_rng(0))


def test_a_silly_number_of_requests_is_refused_before_it_is_made() -> None:
    with pytest.raises(
        InputError, match=r"at most 100,000,000 requests, got 1000000\.0 x 500 of trace 'example'"
    ):
        scale_rate(example(), 1e6, np.random.default_rng(0))


def test_thinning_to_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="leaves none of the 500 requests"):
        scale_rate(example(), 1e-9, np.random.default_rng(0))


def test_bursts_smooth_out_as_documented(data_dir: Path) -> None:
    trace = read_trace(data_dir / "traces" / "azure_llm_2023_code.csv.gz")
    assert cv(trace) == pytest.approx(13.15, abs=0.01)
    for factor, expected in ((8, 4.2), (1 / 8, 4.8)):
        scaled = [cv(scale_rate(trace, factor, np.random.default_rng(seed))) for seed in range(20)]
        assert np.mean(scaled) == pytest.approx(expected, rel=0.1)
