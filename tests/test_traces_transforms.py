from __future__ import annotations

import dataclasses
import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from preserve_gym.errors import InputError
from preserve_gym.traces import (
    TRANSFORMS,
    Burst,
    LengthDrift,
    Mix,
    Ramp,
    Slice,
    SqueezeTime,
    Step,
    Trace,
    Transform,
    make_transform,
    mix_traces,
    synthetic_trace,
)
from preserve_gym.traces.prefix_blocks import PrefixBlocks
from tests.test_traces_rate_shapes import assert_expected, columns, counted, example


def apply(transform: Transform, trace: Trace, seed: int = 0, start_s: float = 0.0) -> Trace:
    return transform.apply(trace, np.random.default_rng(seed), start_s)


def blocks_for(trace: Trace) -> Trace:
    count = len(trace)
    blocks = PrefixBlocks(np.arange(count, dtype=np.int32), np.arange(count + 1), 512)
    return dataclasses.replace(trace, prefix_blocks=blocks)


# Squeezed time


@given(st.floats(1e-3, 1e3))
def test_squeezing_divides_time_and_nothing_else(factor: float) -> None:
    trace = blocks_for(example(300))
    squeezed = apply(SqueezeTime(factor), trace)
    assert squeezed.span_s == trace.span_s / factor
    np.testing.assert_array_equal(squeezed.arrival_s, trace.arrival_s / factor)
    assert columns(squeezed)[1:] == columns(trace)[1:]
    assert (squeezed.clock_s, squeezed.name) == (trace.clock_s, trace.name)
    assert squeezed.prefix_blocks is not None


def test_squeezing_keeps_the_cv_and_the_dispersion_of_squeezed_windows() -> None:
    trace = synthetic_trace("code", duration_s=7200.0, seed=1)
    squeezed = apply(SqueezeTime(24), trace)
    assert squeezed.span_s == 300.0
    gaps = [np.diff(t.arrival_s) for t in (trace, squeezed)]
    cvs = [gap.std() / gap.mean() for gap in gaps]
    assert cvs[0] == pytest.approx(cvs[1])
    windows = [
        np.bincount((t.arrival_s / window).astype(int)) for t, window in ((trace, 240.0), (squeezed, 10.0))
    ]
    assert np.abs(windows[0] - windows[1]).sum() <= 2  # rounding at the edges


# Slices


def test_slice() -> None:
    trace = example()
    part = apply(Slice(from_s=100.0, to_s=700.0), trace)
    assert columns(part) == columns(trace.slice(100.0, 700.0))
    assert (part.span_s, part.clock_s) == (600.0, 200.0)
    assert apply(Slice(0.0, trace.span_s), trace).span_s == trace.span_s


def test_a_slice_lies_inside_the_recording() -> None:
    with pytest.raises(
        InputError, match=r"^Slice.to_s: expected at most the 7200 s of trace 'example', got 7200.5$"
    ):
        apply(Slice(0.0, 7200.5), example())


# Mixing


def test_mix_takes_both_services_apart_again() -> None:
    trace, other = (dataclasses.replace(example(500, seed), request_class=None) for seed in (1, 2))
    other = dataclasses.replace(other, name="other", repairs=("mended",), clock_s=5.0, span_s=8000.0)
    mixed = mix_traces(trace, other)
    assert mixed.request_class is not None
    assert mixed.name == "example + other"
    assert (mixed.span_s, mixed.clock_s, mixed.repairs) == (7200.0, 100.0, ("other: mended",))
    for number, part in enumerate((trace, other)):
        of_class = mixed.take(mixed.request_class == number)
        np.testing.assert_array_equal(of_class.arrival_s, part.arrival_s)
        np.testing.assert_array_equal(of_class.prompt_tokens, part.prompt_tokens)
        np.testing.assert_array_equal(of_class.output_tokens, part.output_tokens)


def test_mix_keeps_the_classes_of_the_first_and_numbers_the_next() -> None:
    trace, other = example(100), example(70, seed=5)  # classes 0, 1, 2 both
    mixed = mix_traces(trace, other)
    assert trace.request_class is not None
    assert mixed.request_class is not None
    assert np.bincount(mixed.request_class).tolist() == [*np.bincount(trace.request_class), 70]
    assert mix_traces(mixed, other).request_class.max() == 4  # type: ignore[union-attr]
    nothing = Trace([], [], [], span_s=7200.0)
    assert mix_traces(nothing, other).request_class.tolist() == [1] * 70  # type: ignore[union-attr]


def test_mix_leaves_out_what_comes_after_the_end_and_the_prefix_blocks() -> None:
    trace = blocks_for(example(100).slice(0.0, 3000.0))
    mixed = mix_traces(trace, example(300, seed=3))
    assert (mixed.span_s, mixed.prefix_blocks) == (3000.0, None)
    assert len(mixed) == len(trace) + counted(example(300, seed=3), 0.0, 3000.0)


def test_mix_refuses_a_shorter_recording() -> None:
    short = dataclasses.replace(example(10, span_s=7199.5), name="short")
    message = (
        "^mix: expected a trace of at least the 7200 s of 'example', got the 7199.5 s of 'short'; "
        "slice the first, or mix it into the other$"
    )
    with pytest.raises(InputError, match=message):
        mix_traces(example(), short)


def test_mix_loads_thins_and_adds(tmp_path: Path) -> None:
    rows = "\n".join(f"{0.5 * k},7,9" for k in range(20_000))
    path = tmp_path / "mine.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n" + rows + "\n")
    trace = example(1000)
    mixed = apply(Mix(trace=str(path)), trace)
    assert len(mixed) == 1000 + 14_400
    assert mixed.name == "example + mine"
    thinned, again, other = (apply(Mix(trace=str(path), rate_scale=0.25), trace, seed) for seed in (1, 1, 2))
    assert columns(thinned) == columns(again)
    assert columns(thinned) != columns(other)
    assert abs(len(thinned) - 1000 - 3600) <= 5 * math.sqrt(14_400 * 0.25 * 0.75)
    first, second = (apply(Mix("synthetic-code", seed=seed), example(10)) for seed in (0, 1))
    assert columns(first) != columns(second)
    with pytest.raises(InputError, match=r"missing\.csv: no such file"):
        apply(Mix(trace="missing.csv"), trace)


@pytest.mark.parametrize("transform", [SqueezeTime(24), Slice(0.0, 10.0), Mix("synthetic-chat")])
def test_what_changes_the_span_wants_the_whole_recording(transform: Transform) -> None:
    assert transform.whole
    name = type(transform).__name__
    with pytest.raises(
        InputError, match=f"^{name}: expected the whole recording, got the slice from 60 s on$"
    ):
        apply(transform, example(), start_s=60.0)


def test_the_others_can_be_given_a_slice() -> None:
    assert {kind for kind, cls in TRANSFORMS.items() if cls.whole} == {"squeeze-time", "slice", "mix"}


# Drift of lengths


def is_long(trace: Trace, count: int) -> np.ndarray[Any, Any]:
    """Of ``example``, whose work grows with the row."""
    return trace.prompt_tokens > count // 2


@given(
    st.builds(
        LengthDrift,
        period_s=st.floats(1, 9000),
        amplitude=st.floats(1e-3, 1),
        phase_s=st.floats(0, 9000),
    ),
    st.integers(0, 100),
    st.floats(0, 5000),
)
def test_drift_keeps_arrivals_and_pairs(drift: LengthDrift, seed: int, start_s: float) -> None:
    trace = blocks_for(example(400))
    drifted = apply(drift, trace, seed, start_s)
    np.testing.assert_array_equal(drifted.arrival_s, trace.arrival_s)
    assert (drifted.span_s, drifted.clock_s, drifted.prefix_blocks) == (trace.span_s, trace.clock_s, None)
    assert drifted.request_class is not None
    np.testing.assert_array_equal(drifted.output_tokens, 2 * drifted.prompt_tokens)
    np.testing.assert_array_equal(drifted.request_class, drifted.prompt_tokens % 3)
    assert columns(drifted) == columns(apply(drift, trace, seed, start_s))


@pytest.mark.parametrize("start_s", [0.0, 500.0])
def test_the_long_share_follows_the_sine(start_s: float) -> None:
    count = 40_000
    trace = example(count)
    drift = LengthDrift(period_s=7200.0, amplitude=0.8, phase_s=500.0)
    long = is_long(apply(drift, trace, start_s=start_s), count)
    time_s = start_s + trace.arrival_s
    for k in range(12):
        rows = slice(k * count // 12, (k + 1) * count // 12)
        share = 0.5 * (1 + 0.8 * np.sin(2 * np.pi * (time_s[rows] - 500.0) / 7200.0)).mean()
        assert abs(long[rows].mean() - share) <= 5 * 0.5 / math.sqrt(count / 12)
    # Over the whole period the halves weigh the same, and inside them all requests do.
    assert abs(long.mean() - 0.5) <= 5 * 0.5 / math.sqrt(count)
    drawn = apply(drift, trace, start_s=start_s).prompt_tokens
    quantiles = np.quantile(drawn, [0.1, 0.25, 0.5, 0.75, 0.9]) / count
    assert quantiles == pytest.approx([0.1, 0.25, 0.5, 0.75, 0.9], abs=0.015)


def test_amplitude_one_reaches_only_long_and_only_short() -> None:
    trace = Trace(np.repeat([25.0, 75.0], 500), np.arange(1, 1001), np.ones(1000, int), span_s=100.0)
    drifted = apply(LengthDrift(period_s=100.0, amplitude=1.0), trace)
    assert drifted.prompt_tokens[:500].min() > 500 >= drifted.prompt_tokens[500:].max()


def test_halves_are_by_work_and_ties_by_row() -> None:
    trace = Trace([25.0] * 4, [1, 9, 5, 5], [9, 1, 5, 6], span_s=100.0)  # work 10, 10, 10, 11
    for phase_s, half in ((0.0, {(5, 5), (5, 6)}), (50.0, {(1, 9), (9, 1)})):
        drift = LengthDrift(period_s=100.0, amplitude=1.0, phase_s=phase_s)
        seen = {
            pair
            for seed in range(50)
            for drifted in [apply(drift, trace, seed)]
            for pair in zip(drifted.prompt_tokens.tolist(), drifted.output_tokens.tolist(), strict=True)
        }
        assert seen == half


def test_drift_of_a_slice_draws_from_the_slice() -> None:
    trace = example(4000)
    part = trace.slice(1000.0, 2000.0)
    drifted = apply(LengthDrift(period_s=600.0, amplitude=0.5), part, start_s=1000.0)
    assert set(drifted.prompt_tokens) <= set(part.prompt_tokens)
    assert set(drifted.prompt_tokens) != set(part.prompt_tokens)


def test_drift_of_next_to_nothing() -> None:
    for count in (0, 1):
        trace = example(count)
        assert columns(apply(LengthDrift(period_s=600.0, amplitude=0.5), trace)) == columns(trace)
    assert len(apply(LengthDrift(period_s=600.0, amplitude=0.5), example(2))) == 2


# By name

MAPPINGS = {
    "{kind: burst, onset_s: 3600, width_s: 600, height: 3}": Burst(3600.0, 600.0, 3.0),
    "{kind: burst, onset_s: 0, width_s: 60, height: 2.5, ramp_s: 10, period_s: 900, jitter_s: 30, seed: 7}": (
        Burst(0.0, 60.0, 2.5, 10.0, 900.0, 30.0, 7)
    ),
    "{kind: step, at_s: 1800, factor: 2}": Step(1800.0, 2.0),
    "{kind: ramp, from_s: 600, to_s: 1200, factor: 0.5}": Ramp(600.0, 1200.0, 0.5),
    "{kind: squeeze-time, factor: 24}": SqueezeTime(24.0),
    "{kind: slice, from_s: 0, to_s: 3600}": Slice(0.0, 3600.0),
    "{kind: mix, trace: synthetic-code, rate_scale: 0.5, seed: 3}": Mix("synthetic-code", 0.5, seed=3),
    "{kind: mix, trace: my/trace.csv}": Mix("my/trace.csv"),
    "{kind: length-drift, period_s: 7200, amplitude: 0.5, phase_s: 60}": LengthDrift(7200.0, 0.5, 60.0),
}


@pytest.mark.parametrize(("text", "expected"), MAPPINGS.items())
def test_make_transform_reads_yaml(text: str, expected: Transform) -> None:
    mapping = yaml.safe_load(text)
    before = dict(mapping)
    assert make_transform(mapping) == expected
    assert mapping == before
    assert make_transform(expected) is expected


def test_every_kind_is_tried_frozen_and_documented() -> None:
    assert {yaml.safe_load(text)["kind"] for text in MAPPINGS} == set(TRANSFORMS)
    for cls in TRANSFORMS.values():
        assert cls.__doc__ is not None
        assert "Keeps " in cls.__doc__
        assert "Alters " in cls.__doc__
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            assert f"\n    {field.name}: " in inspect.cleandoc(cls.__doc__)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Step(0.0, 2.0).factor = 3.0  # type: ignore[misc]


def test_transforms_compose() -> None:
    trace = example()
    changed = trace
    rng = np.random.default_rng(0)
    for mapping in (
        {"kind": "slice", "from_s": 0, "to_s": 7200},
        {"kind": "squeeze-time", "factor": 2},
        {"kind": "step", "at_s": 1800, "factor": 2},
        {"kind": "length-drift", "period_s": 1800, "amplitude": 0.5},
    ):
        changed = make_transform(mapping).apply(changed, rng)
    assert changed.span_s == 3600.0
    assert_expected(len(changed), 1.5 * len(trace))


KINDS = "burst, step, ramp, squeeze-time, slice, mix, length-drift"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("burst", "transform: expected a mapping of its kind and its fields, got 'burst'"),
        (None, "transform: expected a mapping .* got None"),
        (Burst, "transform: expected a mapping .* got <class"),
        ({"onset_s": 1}, f"transform: expected a kind, one of {KINDS}, got {{'onset_s': 1}}"),
        (
            {"kind": "brust"},
            rf"transform: kind: expected one of {KINDS}, got 'brust' \(did you mean burst\?\)$",
        ),
        ({"kind": "warp"}, f"transform: kind: expected one of {KINDS}, got 'warp'$"),
        ({"kind": ["burst"]}, r"transform: kind: expected one of .* got \['burst'\]"),
        (
            {"kind": "step", "at": 1, "factor": 2},
            r"Step.at: no such field; expected one of at_s, factor \(did you mean at_s\?\)$",
        ),
        ({"kind": "step", 1: 2}, "Step.1: no such field; expected one of at_s, factor$"),
        ({"kind": "step", "at_s": 1}, "Step.factor: expected a value, as it has no default"),
        ({"kind": "step", "at_s": "x", "factor": 2}, "Step.at_s: expected a number in .* got 'x'"),
        (
            {"kind": "squeeze-time", "factor": 0},
            r"SqueezeTime.factor: expected a number in \[1e-06, .* got 0",
        ),
        ({"kind": "slice", "from_s": -1, "to_s": 1}, "Slice.from_s: expected a number in .* got -1"),
        ({"kind": "slice", "from_s": 5, "to_s": 5}, r"Slice.to_s: expected a number in \(5, .* got 5"),
        ({"kind": "mix", "trace": 5}, "Mix.trace: expected the name or the path of a trace, got 5"),
        ({"kind": "mix", "trace": ""}, "Mix.trace: expected the name or the path of a trace, got ''"),
        (
            {"kind": "mix", "trace": "a", "rate_scale": 1.5},
            r"Mix.rate_scale: expected a number in \(0, 1\], got 1.5",
        ),
        ({"kind": "mix", "trace": "a", "rate_scale": 0}, "Mix.rate_scale: .* got 0"),
        ({"kind": "mix", "trace": "a", "seed": -1}, "Mix.seed: expected an integer .* got -1"),
        (
            {"kind": "length-drift", "period_s": 0, "amplitude": 1},
            r"LengthDrift.period_s: expected a number in \(0, 1000000000\], got 0",
        ),
        (
            {"kind": "length-drift", "period_s": 9, "amplitude": 0},
            r"LengthDrift.amplitude: expected a number in \(0, 1\], got 0",
        ),
        ({"kind": "length-drift", "period_s": 9, "amplitude": 1.1}, "LengthDrift.amplitude: .* got 1.1"),
        (
            {"kind": "length-drift", "period_s": 9, "amplitude": 1, "phase_s": -1},
            "LengthDrift.phase_s: .* got -1",
        ),
    ],
)
def test_refusals(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        make_transform(value)
