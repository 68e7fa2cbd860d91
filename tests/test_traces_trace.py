from __future__ import annotations

import dataclasses
import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preserve_gym.errors import InputError
from preserve_gym.traces import Trace
from preserve_gym.traces.prefix_blocks import PrefixBlocks

GOOD = {"arrival_s": [0.0, 1.5, 1.5, 9.0], "prompt_tokens": [1, 2, 3, 4], "output_tokens": [5, 6, 7, 8]}


def make(**changes: object) -> Trace:
    return Trace(**{**GOOD, **changes})  # type: ignore[arg-type]


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    # Quarters of a second are exact in binary, so that moving a trace rounds nothing.
    ticks = draw(st.lists(st.integers(0, 4000), max_size=40).map(sorted))
    tokens = st.lists(st.integers(1, 2**31 - 1), min_size=len(ticks), max_size=len(ticks))
    last = ticks[-1] if ticks else 0
    return Trace(
        arrival_s=np.array(ticks, float) / 4,
        prompt_tokens=np.array(draw(tokens), int),
        output_tokens=np.array(draw(tokens), int),
        request_class=draw(st.none() | st.just(np.arange(len(ticks)))),
        clock_s=draw(st.integers(0, 345_599)) / 4,
        span_s=draw(st.integers(last, last + 400)) / 4,
    )


def test_columns_have_their_types_and_are_read_only() -> None:
    trace = make(request_class=[0, 1, 0, 2], name="a", clock_s=60)
    assert len(trace) == 4
    assert trace.span_s == 9.0
    assert trace.arrival_s.dtype == np.float64
    assert trace.request_class is not None
    for tokens in (trace.prompt_tokens, trace.output_tokens, trace.request_class):
        assert tokens.dtype == np.int32
    for column in (trace.arrival_s, trace.prompt_tokens, trace.output_tokens, trace.request_class):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1


def test_the_callers_arrays_are_copied() -> None:
    arrival_s, tokens = np.array([0.0, 1.0]), np.array([1, 2], np.int32)
    trace = Trace(arrival_s, tokens, tokens)
    arrival_s[0], tokens[0] = 0.5, 9
    assert trace.arrival_s[0] == 0.0
    assert trace.prompt_tokens[0] == 1


def test_an_array_that_nobody_can_write_to_is_not_copied() -> None:
    tokens = np.array([1, 2], np.int32)
    view = tokens[:]
    view.flags.writeable = False
    assert not np.shares_memory(Trace([0.0, 1.0], view, view).prompt_tokens, tokens)
    trace = make()
    again = trace.take(slice(1, 3))
    assert np.shares_memory(again.arrival_s, trace.arrival_s)
    assert np.shares_memory(again.output_tokens, trace.output_tokens)


def blocks() -> PrefixBlocks:
    return PrefixBlocks(np.array([7, 8, 7, 9, 7, 8, 1], np.int32), np.array([0, 2, 4, 4, 7]), 512)


def test_requests_are_taken_with_everything_that_belongs_to_them() -> None:
    trace = make(
        request_class=[0, 1, 0, 2], name="a", clock_s=60, repairs=("mended",), prefix_blocks=blocks()
    )
    for rows in (slice(1, 4, 2), np.array([1, 3]), np.array([False, True, False, True])):
        taken = trace.take(rows)
        assert taken.arrival_s.tolist() == [1.5, 9.0]
        assert (taken.prompt_tokens.tolist(), taken.output_tokens.tolist()) == ([2, 4], [6, 8])
        assert taken.request_class is not None
        assert taken.request_class.tolist() == [1, 2]
        assert (taken.name, taken.clock_s, taken.span_s, taken.repairs) == ("a", 60.0, 9.0, ("mended",))
        assert taken.prefix_blocks is not None
        assert [ids.tolist() for ids in taken.prefix_blocks] == [[7, 9], [7, 8, 1]]
        assert taken.prefix_blocks.block_tokens == 512
    assert len(trace.take(slice(0, 0))) == 0


def test_slices_keep_repairs_and_prefix_blocks() -> None:
    trace = make(repairs=("mended",), prefix_blocks=blocks()).slice(1.0, 5.0)
    assert trace.repairs == ("mended",)
    assert trace.prefix_blocks is not None
    assert [ids.tolist() for ids in trace.prefix_blocks] == [[7, 9], []]


def test_prefix_blocks_are_those_of_the_requests() -> None:
    with pytest.raises(InputError, match="prefix_blocks: expected those of 3 requests, got 4"):
        Trace([0.0, 1.0, 2.0], [1, 1, 1], [1, 1, 1], prefix_blocks=blocks())


def test_a_trace_shows_itself_in_a_line() -> None:
    assert repr(make(name="a")) == "<Trace 'a': 4 requests in 9.0 s>"
    assert (
        repr(make(repairs=("dropped 3", "spread 4")))
        == "<Trace '': 4 requests in 9.0 s; dropped 3; spread 4>"
    )


def test_a_trace_is_pickled_and_replaced() -> None:
    trace = dataclasses.replace(make(request_class=[0, 1, 0, 2], name="a", span_s=12.0), name="b")
    again = pickle.loads(pickle.dumps(trace))
    assert (again.name, again.span_s) == ("b", 12.0)
    np.testing.assert_array_equal(again.request_class, [0, 1, 0, 2])


def test_an_empty_trace_is_a_trace() -> None:
    trace = Trace(np.empty(0), np.empty(0), np.empty(0))
    assert len(trace) == 0
    assert trace.span_s == 0.0
    np.testing.assert_array_equal(trace.window_tokens(10.0), [[0.0], [0.0]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"arrival_s": [0.0, np.nan, 2.0, 3.0]},
            "row 1: arrival_s: expected a finite number of seconds >= 0",
        ),
        (
            {"arrival_s": [0.0, 1.0, 2.0, np.inf]},
            "row 3: arrival_s: expected a finite number of seconds >= 0",
        ),
        ({"arrival_s": [-0.5, 1.0, 2.0, 3.0]}, "row 0: arrival_s: .* got -0.5"),
        ({"arrival_s": [0.0, 2.0, 1.0, 3.0]}, r"row 2: arrival_s: .* row before \(2\), got 1.0"),
        ({"arrival_s": [[0.0, 1.0], [2.0, 3.0]]}, "arrival_s: expected a one-dimensional array"),
        ({"arrival_s": ["a", "b", "c", "d"]}, "arrival_s: expected numbers"),
        (
            {"prompt_tokens": [1, 0, 3, 4]},
            r"row 1: prompt_tokens: expected an integer in \[1, 2147483647\], got 0",
        ),
        ({"prompt_tokens": [1, 2, -3, 4]}, "row 2: prompt_tokens: .* got -3"),
        ({"prompt_tokens": [1, 2, 3, 2**31]}, "row 3: prompt_tokens: .* got 2147483648"),
        ({"output_tokens": [1, 2.5, 3, 4]}, "row 1: output_tokens: .* got 2.5"),
        ({"output_tokens": [1, np.nan, 3, 4]}, "row 1: output_tokens: .* got nan"),
        ({"output_tokens": [1, 2, 3]}, r"output_tokens: expected one value per arrival, shape \(4,\)"),
        ({"output_tokens": ["a", "b", "c", "d"]}, "output_tokens: expected integers"),
        ({"output_tokens": [True, True, True, True]}, "output_tokens: expected integers, got bool"),
        ({"request_class": [0, -1, 0, 0]}, r"row 1: request_class: expected an integer in \[0, "),
        ({"span_s": 8.9}, "span_s: expected a finite number >= the last arrival"),
        ({"span_s": np.nan}, "span_s: expected"),
        ({"span_s": np.inf}, "span_s: expected"),
        ({"clock_s": -1.0}, "clock_s: expected seconds since midnight"),
        ({"clock_s": 86_400.0}, "clock_s: expected"),
        ({"clock_s": np.nan}, "clock_s: expected"),
    ],
)
def test_bad_columns_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make(name="mine", **changes)
    assert str(caught.value).startswith("trace 'mine': ")
    assert "\n" not in str(caught.value)


def test_a_slice_starts_at_zero_and_keeps_the_time_of_day() -> None:
    trace = make(request_class=[0, 1, 2, 3], clock_s=86_399.0, span_s=20.0)
    part = trace.slice(1.5, 9.0)
    np.testing.assert_array_equal(part.arrival_s, [0.0, 0.0])
    np.testing.assert_array_equal(part.prompt_tokens, [2, 3])
    np.testing.assert_array_equal(part.request_class, [1, 2])
    assert (part.span_s, part.clock_s) == (7.5, 0.5)
    assert trace.row_range(1.5, 9.0) == slice(1, 3)
    assert len(trace.slice(2.0, 2.0)) == 0


@pytest.mark.parametrize(
    ("start_s", "end_s"), [(-1.0, 2.0), (3.0, 2.0), (0.0, np.inf), (np.nan, 1.0), (0.0, np.nan)]
)
def test_a_slice_needs_an_interval(start_s: float, end_s: float) -> None:
    with pytest.raises(InputError, match="expected 0 <= start_s <= end_s"):
        make().slice(start_s, end_s)


def test_rows_need_an_interval() -> None:
    with pytest.raises(InputError, match=r"expected start_s <= end_s, got 2\.0 and 1\.0"):
        make().row_range(2.0, 1.0)
    assert make().row_range(-np.inf, np.inf) == slice(0, 4)


@given(traces(), st.lists(st.integers(0, 4500), min_size=1, max_size=5).map(sorted))
def test_slices_partition_a_trace(trace: Trace, cuts: list[int]) -> None:
    bounds = [0.0, *(cut / 4 for cut in cuts), 2000.0]
    parts = [trace.slice(a, b) for a, b in pairwise(bounds)]
    joined = np.concatenate([part.arrival_s + a for part, a in zip(parts, bounds[:-1], strict=True)])
    np.testing.assert_array_equal(joined, trace.arrival_s)
    np.testing.assert_array_equal(np.concatenate([part.output_tokens for part in parts]), trace.output_tokens)
    for part, start_s in zip(parts, bounds[:-1], strict=True):
        assert part.clock_s == (trace.clock_s + start_s) % 86_400


@given(traces(), st.integers(1, 2000))
def test_windows_hold_every_token_once(trace: Trace, quarters: int) -> None:
    window_s = quarters / 4
    prompt, output = trace.window_tokens(window_s)
    assert len(prompt) == len(output) == trace.window_count(window_s)
    assert prompt.dtype == output.dtype == np.float64
    assert prompt.sum() == trace.prompt_tokens.astype(np.int64).sum()
    for k in range(len(prompt)):
        part = trace.slice(k * window_s, (k + 1) * window_s)
        assert output[k] == part.output_tokens.astype(np.int64).sum()


def test_windows_reach_the_end_of_the_recording() -> None:
    assert make().window_count(9.0) == 2  # the arrival at 9.0 belongs to the second window
    assert make(span_s=27.0).window_count(9.0) == 3
    assert make(span_s=27.5).window_count(9.0) == 4
    np.testing.assert_array_equal(make(span_s=27.5).window_tokens(9.0)[0], [6.0, 4.0, 0.0, 0.0])


@pytest.mark.parametrize("window_s", [0.0, -1.0, np.nan, np.inf, 1e-9])
def test_a_window_needs_a_length(window_s: float) -> None:
    with pytest.raises(InputError, match="window_s: expected"):
        make().window_tokens(window_s)
