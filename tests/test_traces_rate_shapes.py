from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preserve_gym.errors import InputError
from preserve_gym.traces import Burst, Ramp, Step, Trace, modulate_rate, rate_shapes
from preserve_gym.traces.prefix_blocks import PrefixBlocks
from preserve_gym.traces.rate_shapes import RateShape

SPAN_S = 7200.0
COUNT = 20_000


def example(count: int = COUNT, seed: int = 0, span_s: float = SPAN_S) -> Trace:
    """Poisson arrivals; the prompt is the row from 1, the output follows from it."""
    rng = np.random.default_rng(seed)
    prompt_tokens = np.arange(1, count + 1)
    return Trace(
        arrival_s=np.sort(rng.random(count)) * span_s,
        prompt_tokens=prompt_tokens,
        output_tokens=2 * prompt_tokens,
        request_class=prompt_tokens % 3,
        name="example",
        clock_s=100.0,
        span_s=span_s,
    )


def columns(trace: Trace) -> list[list[float]]:
    assert trace.request_class is not None
    parts = (trace.arrival_s, trace.prompt_tokens, trace.output_tokens, trace.request_class)
    return [part.tolist() for part in parts]


def counted(trace: Trace, start_s: float, end_s: float) -> int:
    rows = trace.row_range(start_s, end_s)
    return rows.stop - rows.start


def assert_expected(count: int, expected: float) -> None:
    """Within five standard deviations of a Poisson count, which are wider than a binomial's."""
    assert abs(count - expected) <= 5 * np.sqrt(expected)


def apply(shape: RateShape, trace: Trace, seed: int = 0, start_s: float = 0.0) -> Trace:
    return shape.apply(trace, np.random.default_rng(seed), start_s)


SHAPES = st.one_of(
    st.builds(
        Burst,
        onset_s=st.floats(0, 9000),
        width_s=st.floats(1, 3000),
        height=st.floats(0, 5),
        period_s=st.none() | st.floats(4000, 8000),
        jitter_s=st.floats(0, 500),
        seed=st.integers(0, 9),
    ),
    st.builds(Step, at_s=st.floats(0, 9000), factor=st.floats(0, 5)),
    st.builds(Ramp, from_s=st.floats(0, 4000), to_s=st.floats(4001, 9000), factor=st.floats(0, 5)),
)


@given(SHAPES, st.integers(0, 100), st.floats(0, 5000))
def test_any_shape_keeps_span_order_pairs_and_what_it_does_not_touch(
    shape: RateShape, seed: int, start_s: float
) -> None:
    trace = example(2000)
    shaped = apply(shape, trace, seed, start_s)
    assert (shaped.span_s, shaped.clock_s, shaped.name) == (SPAN_S, 100.0, "example")
    assert (np.diff(shaped.arrival_s) >= 0).all()
    assert len(shaped) == 0 or shaped.arrival_s[-1] <= SPAN_S
    assert shaped.request_class is not None
    np.testing.assert_array_equal(shaped.output_tokens, 2 * shaped.prompt_tokens)
    np.testing.assert_array_equal(shaped.request_class, shaped.prompt_tokens % 3)
    before, after = (t.arrival_s[shape.factor_at(start_s + t.arrival_s) == 1.0] for t in (trace, shaped))
    np.testing.assert_array_equal(before, after)
    # Requests per window against the rate times the factor's mean there.
    for k in range(6):
        low_s, high_s = k * SPAN_S / 6, (k + 1) * SPAN_S / 6
        factor = shape.factor_at(start_s + np.linspace(low_s, high_s, 20_001)).mean()
        assert abs(counted(shaped, low_s, high_s) - 2000 / 6 * factor) <= 6 * np.sqrt(2000 / 6 * (factor + 1))


@given(SHAPES, st.integers(0, 100))
def test_equal_seeds_give_equal_traces(shape: RateShape, seed: int) -> None:
    trace = example(500)
    assert columns(apply(shape, trace, seed)) == columns(apply(shape, trace, seed))


def test_another_seed_gives_another_trace() -> None:
    for factor in (0.5, 2.0):
        first, other = (apply(Step(at_s=0.0, factor=factor), example(), seed) for seed in (4, 5))
        assert columns(first) != columns(other)


@given(SHAPES)
def test_peak_bounds_the_factor(shape: RateShape) -> None:
    factor = shape.factor_at(np.linspace(0.0, 20_000.0, 20_001))
    assert factor.min() >= 0.0
    assert factor.max() <= shape.peak


def test_burst() -> None:
    burst = Burst(onset_s=1000.0, width_s=600.0, height=3.0)
    times = np.array([0.0, 999.9, 1000.0, 1300.0, 1599.9, 1600.0, 9e8])
    assert burst.factor_at(times).tolist() == [1, 1, 3, 3, 3, 1, 1]
    trace, shaped = example(), apply(burst, example())
    rate = COUNT / SPAN_S
    assert_expected(counted(shaped, 1000.0, 1600.0), 600.0 * rate * 3.0)
    assert counted(shaped, 0.0, 1000.0) == counted(trace, 0.0, 1000.0)
    # The requests of the trace are all there, each at its time.
    there = set(zip(shaped.arrival_s, shaped.prompt_tokens, strict=True))
    assert there >= set(zip(trace.arrival_s, trace.prompt_tokens, strict=True))


def test_a_lull_thins() -> None:
    trace = example()
    shaped = apply(Burst(onset_s=1000.0, width_s=2000.0, height=0.25), trace)
    inside = counted(trace, 1000.0, 3000.0)
    kept = counted(shaped, 1000.0, 3000.0)
    assert abs(kept - 0.25 * inside) <= 5 * np.sqrt(inside * 0.25 * 0.75)
    assert set(shaped.arrival_s) <= set(trace.arrival_s)


def test_rise_and_decay_lie_inside_the_width() -> None:
    burst = Burst(onset_s=100.0, width_s=50.0, height=5.0, ramp_s=20.0)
    times = np.array([99.0, 100.0, 105.0, 110.0, 120.0, 125.0, 130.0, 140.0, 149.999, 150.0])
    assert burst.factor_at(times) == pytest.approx([1, 1, 2, 3, 5, 5, 5, 3, 1.0002, 1])


def test_surges_recur_from_the_onset_on() -> None:
    burst = Burst(onset_s=500.0, width_s=100.0, height=2.0, period_s=300.0)
    times = np.array([200.0, 250.0, 500.0, 599.0, 600.0, 799.0, 800.0, 899.0, 900.0, 500.0 + 300.0 * 2000])
    assert burst.factor_at(times).tolist() == [1, 1, 2, 2, 1, 1, 2, 2, 1, 2]


def onsets(burst: Burst, start_s: float, end_s: float) -> np.ndarray[Any, Any]:
    times = np.arange(start_s, end_s, 0.5)
    inside = burst.factor_at(times) > 1.0
    return times[1:][inside[1:] & ~inside[:-1]]


def test_jitter_moves_each_onset_by_its_own_bounded_time() -> None:
    burst = Burst(onset_s=2000.0, width_s=100.0, height=2.0, period_s=1000.0, jitter_s=450.0, seed=3)
    moved = onsets(burst, 0.0, 202_000.0) - (2000.0 + 1000.0 * np.arange(200))
    assert np.abs(moved).max() <= 450.5
    # Uniform: mean 0, standard deviation 450 / sqrt(3).
    assert abs(moved.mean()) < 5 * 260 / np.sqrt(200)
    assert moved.std() == pytest.approx(450 / np.sqrt(3), rel=0.15)
    found = onsets(burst, 0.0, 110_000.0)
    np.testing.assert_array_equal(onsets(burst, 100_000.0, 110_000.0), found[found > 100_000.0])
    other = dataclasses.replace(burst, seed=4)
    assert not np.array_equal(onsets(other, 0.0, 50_000.0), onsets(burst, 0.0, 50_000.0))


@pytest.mark.parametrize("start_s", [0.0, 1800.0, 4321.5])
def test_the_shape_lies_on_the_clock_of_the_whole_recording(start_s: float) -> None:
    """At height 0 nothing is random, so a part of the shaped trace is the shaped part of the trace."""
    lull = Burst(onset_s=700.0, width_s=200.0, height=0.0, period_s=900.0, jitter_s=300.0, seed=1)
    end_s = start_s + 2500.0
    of_whole = apply(lull, example()).slice(start_s, end_s)
    of_slice = apply(lull, example().slice(start_s, end_s), start_s=start_s)
    assert columns(of_whole) == columns(of_slice)
    assert len(of_slice) < counted(example(), start_s, end_s)
    step = Step(at_s=start_s + 1000.0, factor=2.0)
    shaped = apply(step, example().slice(start_s, end_s), start_s=start_s)
    assert_expected(counted(shaped, 1000.0, 2500.0), 1500.0 * COUNT / SPAN_S * 2)
    assert counted(shaped, 0.0, 1000.0) == counted(example(), start_s, start_s + 1000.0)


@given(SHAPES, st.integers(0, 100))
def test_a_slice_is_made_of_its_own_requests(shape: RateShape, seed: int) -> None:
    poison = 1_000_000
    trace = example(2000)
    inside = (trace.arrival_s >= 2000.0) & (trace.arrival_s < 5000.0)
    trace = dataclasses.replace(trace, prompt_tokens=np.where(inside, trace.prompt_tokens, poison))
    shaped = apply(shape, trace.slice(2000.0, 5000.0), seed, start_s=2000.0)
    assert poison not in shaped.prompt_tokens
    other = dataclasses.replace(trace, prompt_tokens=np.where(inside, trace.prompt_tokens, poison + 1))
    assert columns(shaped) == columns(apply(shape, other.slice(2000.0, 5000.0), seed, start_s=2000.0))


def test_step() -> None:
    for factor in (0.3, 2.5):
        shaped = apply(Step(at_s=3000.0, factor=factor), example())
        assert_expected(counted(shaped, 3000.0, SPAN_S), 4200.0 * COUNT / SPAN_S * factor)
        assert counted(shaped, 0.0, 3000.0) == counted(example(), 0.0, 3000.0)
    assert Step(at_s=3.0, factor=2.0).factor_at(np.array([2.9, 3.0, 1e9])).tolist() == [1, 2, 2]
    assert len(apply(Step(at_s=0.0, factor=0.0), example())) == 0


def test_ramp() -> None:
    ramp = Ramp(from_s=1000.0, to_s=2000.0, factor=3.0)
    times = np.array([0.0, 1000.0, 1250.0, 1500.0, 2000.0, 9e8])
    assert ramp.factor_at(times).tolist() == [1, 1, 1.5, 2, 3, 3]
    shaped = apply(ramp, example())
    assert_expected(counted(shaped, 1000.0, 2000.0), 1000.0 * COUNT / SPAN_S * 2.0)
    assert_expected(counted(shaped, 2000.0, SPAN_S), 5200.0 * COUNT / SPAN_S * 3.0)


@pytest.mark.parametrize(("span_s", "low_s", "high_s"), [(7200.0, 60.0, 600.0), (100.0, 5.0, 50.0)])
def test_copies_lag_within_bounds_both_ways(span_s: float, low_s: float, high_s: float) -> None:
    """Each copy has a lag of its own; what passes an end comes in at the other."""
    trace = Trace([0.25 * span_s], [1], [1], span_s=span_s)
    lags = []
    for seed in range(200):
        shaped = apply(Step(at_s=0.0, factor=3.0), trace, seed)
        assert len(shaped) == 3
        lag_s = sorted(shaped.arrival_s - 0.25 * span_s, key=abs)
        assert lag_s[0] == 0.0
        assert abs(lag_s[1]) != abs(lag_s[2])
        lags += [(lag + span_s / 2) % span_s - span_s / 2 for lag in lag_s[1:]]
    size = np.abs(lags)
    assert low_s - 1e-9 <= size.min() < low_s + 0.05 * high_s
    assert 0.95 * high_s < size.max() <= high_s + 1e-9
    assert 0.35 < np.mean(np.array(lags) > 0) < 0.65


def test_copies_wrap_at_the_ends() -> None:
    ends = Trace([0.0, 0.0, SPAN_S, SPAN_S], [1, 2, 3, 4], [1, 1, 1, 1], span_s=SPAN_S)
    for seed in range(20):
        shaped = apply(Step(at_s=0.0, factor=2.0), ends, seed)
        assert sorted(shaped.prompt_tokens.tolist()) == [1, 1, 2, 2, 3, 3, 4, 4]
        added = shaped.arrival_s[(shaped.arrival_s > 0.0) & (shaped.arrival_s < SPAN_S)]
        assert len(added) == 4
        assert added.max() - added.min() < 1e-6  # both ends lie at one point of the ring


def test_bursts_of_the_trace_do_not_coincide_with_their_copies() -> None:
    trace = Trace(np.linspace(1000.0, 1010.0, 100), np.ones(100, int), np.ones(100, int), span_s=SPAN_S)
    for seed in range(20):
        shaped = apply(Step(at_s=0.0, factor=2.0), trace, seed)
        assert counted(shaped, 950.0, 1060.0) == 100


def test_the_factor_of_a_copy_is_that_of_its_new_time() -> None:
    trace = Trace(np.linspace(0.0, 400.0, 1000), np.ones(1000, int), np.ones(1000, int), span_s=SPAN_S)
    shaped = apply(Step(at_s=500.0, factor=2.0), trace)
    # Nothing is copied to where the factor is 1, whatever the factor where it comes from.
    assert counted(shaped, 0.0, 500.0) == 1000


def test_empty_and_instant_traces() -> None:
    empty = Trace([], [], [], span_s=10.0)
    assert len(apply(Step(at_s=0.0, factor=3.0), empty)) == 0
    instant = Trace(np.zeros(50), np.arange(1, 51), np.ones(50, int))
    shaped = apply(Step(at_s=0.0, factor=3.0), instant)
    assert shaped.span_s == 0.0
    # Of one instant, requests keep the order of the copies and of the trace.
    np.testing.assert_array_equal(shaped.prompt_tokens, np.tile(instant.prompt_tokens, 3))


def test_equal_times_keep_the_order_of_the_trace() -> None:
    trace = Trace(np.repeat(np.arange(20.0), 50), np.arange(1, 1001), np.ones(1000, int))
    shaped = apply(Step(at_s=0.0, factor=3.0), trace)
    same_instant = np.diff(shaped.arrival_s) == 0.0
    assert same_instant.sum() >= 60 * 49
    assert (np.diff(shaped.prompt_tokens)[same_instant] > 0).all()


def test_repairs_stay_and_prefix_blocks_stay_without_copies() -> None:
    blocks = PrefixBlocks(np.arange(500, dtype=np.int32), np.arange(501), 512)
    trace = dataclasses.replace(example(500), repairs=("mended",), prefix_blocks=blocks)
    shapes = (Step(0.0, 0.5), Burst(0.0, 3000.0, 0.5), Ramp(0.0, 3000.0, 0.5))
    for shape in shapes:
        thinned = apply(shape, trace)
        assert len(thinned) < 500
        assert thinned.repairs == ("mended",)
        assert thinned.prefix_blocks is not None
        np.testing.assert_array_equal([ids[0] + 1 for ids in thinned.prefix_blocks], thinned.prompt_tokens)
    copied = apply(Step(at_s=0.0, factor=2.0), trace)
    assert (copied.repairs, copied.prefix_blocks) == (("mended",), None)


def test_a_factor_is_a_number_from_zero_on() -> None:
    for bad in (-0.5, float("nan")):
        with pytest.raises(InputError, match=f"rate factor: expected numbers >= 0, got {bad}"):
            modulate_rate(
                example(10), lambda times, bad=bad: np.full_like(times, bad), 1.0, np.random.default_rng(0)
            )


def test_a_silly_number_of_requests_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_shapes, "MAX_REQUESTS", 2500)
    assert len(apply(Step(at_s=0.0, factor=2.0), example(1000))) == 2000
    with pytest.raises(InputError, match="at most 2,500 requests, got more of trace 'example'"):
        apply(Step(at_s=0.0, factor=1000.0), example(1000))


BURST = {"onset_s": 10.0, "width_s": 100.0, "height": 2.0}


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (Burst, {**BURST, "onset_s": -1}, r"Burst.onset_s: expected a number in \[0, 1000000000\], got -1"),
        (Burst, {**BURST, "width_s": 0}, r"Burst.width_s: expected a number in \(0, 1000000000\], got 0"),
        (Burst, {**BURST, "height": "3"}, r"Burst.height: expected a number in \[0, 1000\], got '3'"),
        (Burst, {**BURST, "height": float("nan")}, r"Burst.height: expected .* got nan"),
        (Burst, {**BURST, "height": True}, r"Burst.height: expected .* got True"),
        (Burst, {**BURST, "height": 1001}, r"Burst.height: expected .* got 1001"),
        (Burst, {**BURST, "ramp_s": 51}, r"Burst.ramp_s: expected a number in \[0, 50\], got 51"),
        (Burst, {**BURST, "jitter_s": -1}, r"Burst.jitter_s: expected .* got -1"),
        (
            Burst,
            {**BURST, "period_s": 99},
            r"Burst.period_s: expected a number in \[100, 1000000000\], got 99",
        ),
        (Burst, {**BURST, "period_s": 119, "jitter_s": 10}, r"Burst.period_s: expected a number in \[120,"),
        (Burst, {**BURST, "seed": 1.5}, r"Burst.seed: expected an integer in \[0, 2\*\*63\), got 1.5"),
        (Burst, {**BURST, "seed": -1}, r"Burst.seed: expected .* got -1"),
        (Burst, {**BURST, "seed": True}, r"Burst.seed: expected .* got True"),
        (Step, {"at_s": None, "factor": 2}, r"Step.at_s: expected a number in .* got None"),
        (Step, {"at_s": 0, "factor": -0.1}, r"Step.factor: expected a number in \[0, 1000\], got -0.1"),
        (Ramp, {"from_s": -1, "to_s": 5, "factor": 2}, r"Ramp.from_s: expected .* got -1"),
        (Ramp, {"from_s": 5, "to_s": 5, "factor": 2}, r"Ramp.to_s: expected a number in \(5, .* got 5"),
        (Ramp, {"from_s": 5, "to_s": 6, "factor": float("inf")}, r"Ramp.factor: expected .* got inf"),
    ],
)
def test_refusals(cls: type, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        cls(**fields)


def test_fields_become_python_numbers() -> None:
    burst = Burst(onset_s=np.float32(1), width_s=2, height=np.int64(3), seed=np.int64(4))  # type: ignore[arg-type]
    assert [type(value) for value in dataclasses.astuple(burst)] == [*[float] * 4, type(None), float, int]
