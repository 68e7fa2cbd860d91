"""Splits by time: no request, and nothing fitted, gets from one into another."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preserve_gym import ClusterConfig, InputError, Trace, Workload, WorkloadConfig
from preserve_gym.config import SPLITS
from preserve_gym.sim.profile import profile_instance
from preserve_gym.splits import change_by_segment, evaluation_windows, split_bounds
from preserve_gym.traces import Transform
from preserve_gym.traces.prefix_blocks import PrefixBlocks

CONFIG = WorkloadConfig(warmup_s=60.0, horizon_s=300.0, window_s=100.0, split_gap_s=100.0)


def marked(arrival_s: Any, span_s: float) -> Trace:
    """A trace whose prompts tell the row: tokens - 1."""
    size = len(arrival_s)
    return Trace(arrival_s, np.arange(size) + 1, np.full(size, 20), name="marked", span_s=span_s)


def uniform(span_s: float = 10_000.0, size: int = 5000, seed: int = 0) -> Trace:
    return marked(np.sort(np.random.default_rng(seed).uniform(0.0, span_s, size)), span_s)


TRANSFORMS = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {
                "kind": st.just("burst"),
                "onset_s": st.floats(0.0, 2000.0),
                "width_s": st.floats(10.0, 3000.0),
                "height": st.floats(0.2, 4.0),
            }
        ),
        st.fixed_dictionaries(
            {"kind": st.just("step"), "at_s": st.floats(0.0, 3000.0), "factor": st.floats(0.2, 3.0)}
        ),
        st.fixed_dictionaries(
            {"kind": st.just("length-drift"), "period_s": st.floats(50.0, 3000.0), "amplitude": st.just(0.8)}
        ),
        st.fixed_dictionaries({"kind": st.just("squeeze-time"), "factor": st.floats(0.5, 2.0)}),
    ),
    max_size=2,
)


@settings(max_examples=150)
@given(
    span_s=st.floats(800.0, 4000.0),
    whole_seconds=st.booleans(),
    split=st.none() | st.tuples(st.floats(0.4, 0.6), st.floats(0.75, 0.85)),
    gap=st.just(0.0) | st.floats(0.0, 0.05),
    warmup=st.just(0.0) | st.floats(0.0, 0.03),
    horizon=st.none() | st.floats(0.005, 0.07),
    rate_scale=st.just(1.0) | st.floats(0.1, 8.0),
    transforms=TRANSFORMS,
    seed=st.integers(0, 2**40),
)
def test_no_request_gets_into_another_split(
    span_s: float,
    whole_seconds: bool,
    split: tuple[float, float] | None,
    gap: float,
    warmup: float,
    horizon: float | None,
    rate_scale: float,
    transforms: list[dict[str, Any]],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    arrival_s = np.sort(rng.uniform(0.0, span_s, 3000))
    if whole_seconds:  # many arrive at the very bounds
        arrival_s, span_s = np.floor(arrival_s), np.floor(span_s)
    trace = marked(arrival_s, span_s)
    squeeze = np.prod([t["factor"] for t in transforms if t["kind"] == "squeeze-time"])
    end_s = span_s / squeeze
    config = WorkloadConfig(
        rate_scale=rate_scale,
        transforms=transforms,  # type: ignore[arg-type]
        split_s=None if split is None else (split[0] * end_s, split[1] * end_s),
        split_gap_s=gap * end_s,
        seed=seed,
        warmup_s=warmup * end_s,
        horizon_s=None if horizon is None else horizon * end_s,
        window_s=30.0,
    )
    sources: dict[str, set[int]] = {}
    for name in SPLITS:
        workload = Workload(replace(config, split=name), trace)
        assert workload.bounds is not None
        first_s, last_s = workload.bounds[name]
        episodes = [workload.episode(rng) for _ in range(20)]
        episodes += [workload.episode_at(start_s) for start_s in workload.evaluation_windows]
        rows = np.concatenate([episode.trace.prompt_tokens for episode in episodes]) - 1
        source_s = arrival_s[rows] / squeeze
        assert (source_s >= first_s - 1e-6).all()
        assert (source_s <= last_s + 1e-6).all()
        if squeeze == 1.0:  # else the test divides as often as the transforms, but not alike
            assert (source_s >= first_s).all()
            assert (source_s < last_s).all() or name == "test"
        sources[name] = set(rows.tolist())
        assert sources[name]
        for episode in episodes:
            assert episode.start_s - episode.warmup_s >= first_s - 1e-6
            assert episode.start_s + episode.horizon_s <= last_s + 1e-6
        starts_s = workload.evaluation_windows
        assert (starts_s[1:] >= starts_s[:-1] + episodes[0].horizon_s).all()
    assert not sources["train"] & sources["validation"]
    assert not sources["train"] & sources["test"]
    assert not sources["validation"] & sources["test"]


def test_rounding_carries_no_request_over_the_edge_of_a_piece() -> None:
    trace = uniform()
    bounds = split_bounds(trace.span_s, (6000.1, 8000.3), 0.7)
    latest = change_by_segment(
        trace, bounds, lambda piece, *_: piece.take(slice(None), arrival_s=np.full(len(piece), piece.span_s))
    )
    for start_s, end_s in bounds.values():
        if end_s < trace.span_s:
            assert latest.row_range(start_s, end_s) == trace.row_range(start_s, end_s)
    assert latest.arrival_s[-1] == trace.span_s


def test_rounding_carries_no_episode_over_the_bounds_of_its_split() -> None:
    early = 0
    rng = np.random.default_rng(0)
    for edge_s, warmup_s in zip(rng.uniform(4000.0, 4096.0, 50), rng.uniform(100.0, 200.0, 50), strict=True):
        trace = marked([0.0, np.nextafter(edge_s, 0.0), edge_s, 8999.0], 10_000.0)
        config = replace(CONFIG, split="validation", split_s=(edge_s, 9000.0), split_gap_s=0.0)
        validation = Workload(replace(config, warmup_s=warmup_s), trace)
        first = validation.episode_at(validation.evaluation_windows[0])
        assert set(first.trace.prompt_tokens.tolist()) <= {3}
        early += first.start_s - warmup_s < edge_s
    assert early > 5
    # Both the difference and the sum are halfway between two numbers.
    edge_s, horizon_s = 3.0 + 2.0**-51, 0.5 + 1.5 * 2.0**-51
    assert (edge_s - horizon_s) + horizon_s > edge_s
    config = replace(CONFIG, split="train", split_s=(edge_s, 9000.0), split_gap_s=0.0, warmup_s=0.0)
    train = Workload(replace(config, horizon_s=horizon_s), marked([0.0, 2.9, edge_s, 9000.0], 10_000.0))
    assert train.episode_at(edge_s - horizon_s).trace.prompt_tokens.tolist() == [2]


@pytest.mark.parametrize("forecaster", ["naive", "drift", "profile-ar", "noisy", "oracle"])
@pytest.mark.parametrize("rate_scale", [0.5, 1.0, 2.5])
def test_nothing_of_train_depends_on_what_comes_after_it(forecaster: str, rate_scale: float) -> None:
    trace = uniform()
    changed = np.where(trace.arrival_s < 6000.0, trace.prompt_tokens, 1)
    later = np.where(trace.arrival_s < 6000.0, trace.arrival_s, 7000.0 + trace.arrival_s / 4.0)
    other = Trace(np.minimum(later, 1e4), changed, trace.output_tokens, name="marked", span_s=trace.span_s)
    config = replace(
        CONFIG,
        split="train",
        rate_scale=rate_scale,
        forecaster=forecaster,
        transforms=({"kind": "burst", "onset_s": 5000, "width_s": 3000, "height": 3},),
    )
    one, two = Workload(config, trace), Workload(config, other)
    assert one.mean_rate_rps == two.mean_rate_rps
    np.testing.assert_array_equal(one.forecast.prompt_tokens, two.forecast.prompt_tokens)
    np.testing.assert_array_equal(one.forecast.output_tokens, two.forecast.output_tokens)
    rngs = [np.random.default_rng(0) for _ in range(2)]
    for _ in range(20):
        a, b = (w.episode(rng) for w, rng in zip((one, two), rngs, strict=True))
        np.testing.assert_array_equal(a.trace.arrival_s, b.trace.arrival_s)
        np.testing.assert_array_equal(a.trace.prompt_tokens, b.trace.prompt_tokens)
        np.testing.assert_array_equal(a.predicted_tokens, b.predicted_tokens)


def test_what_is_fitted_is_fitted_on_train() -> None:
    # Ten times the rate and other lengths from the end of train on.
    arrival_s = np.concatenate((np.arange(0.0, 6000.0, 10.0), np.arange(6000.0, 10_000.0)))
    is_train = arrival_s < 6000.0
    trace = Trace(arrival_s, np.where(is_train, 100, 900), np.where(is_train, 10, 90), span_s=10_000.0)
    for split in SPLITS:
        workload = Workload(replace(CONFIG, split=split, forecaster="naive"), trace)
        assert workload.mean_rate_rps == pytest.approx(0.1)
        assert workload.forecast.prompt_tokens[0, 0] == pytest.approx(1000.0)
        assert workload.forecast.output_tokens[0, 0] == pytest.approx(100.0)
        # Later forecasts still know all that has passed.
        if split == "test":
            assert workload.forecast.prompt_tokens[-1, 0] == 90_000.0
    cluster = ClusterConfig()
    expected = profile_instance(cluster, trace.prompt_tokens[is_train], trace.output_tokens[is_train])
    assert workload.profile(cluster) == expected


def test_an_oracle_holds_what_it_knows_at_the_end_of_the_split() -> None:
    arrival_s = np.arange(10_000.0)
    trace = Trace(arrival_s, np.where(arrival_s < 6000.0, 1, 1000), np.ones(10_000), span_s=10_000.0)
    config = replace(CONFIG, split="train", forecaster="oracle")
    np.testing.assert_array_equal(Workload(config, trace).forecast.prompt_tokens, 100.0)


def test_bounds_by_default_are_shares_of_the_span_in_whole_seconds() -> None:
    assert split_bounds(3600.9, None, 60.0) == {
        "train": (0.0, 2160.0),
        "validation": (2220.0, 2880.0),
        "test": (2940.0, 3600.9),
    }


def test_evaluation_windows_follow_each_other() -> None:
    np.testing.assert_array_equal(evaluation_windows(100.0, 400.0, 100.0), [100.0, 200.0, 300.0, 400.0])
    np.testing.assert_array_equal(evaluation_windows(100.0, 399.0, 100.0), [100.0, 200.0, 300.0])
    np.testing.assert_array_equal(evaluation_windows(100.0, 100.0, 100.0), [100.0])
    # A multiple of 0.1 is not what a sum of tenths is.
    starts_s = evaluation_windows(0.1, 100.0, 0.1)
    np.testing.assert_array_equal(starts_s[1:], starts_s[:-1] + 0.1)


def test_validation_and_test_episodes_are_the_evaluation_windows() -> None:
    trace = uniform()
    for split, expected in (("validation", [6160, 6460, 6760, 7060, 7360, 7660]), ("test", [8160])):
        config = replace(CONFIG, split=split, horizon_s=300.0 if split == "validation" else 1800.0)
        workload = Workload(config, trace)
        np.testing.assert_array_equal(workload.evaluation_windows, expected)
        rng = np.random.default_rng(0)
        assert {workload.episode(rng).start_s for _ in range(200)} == set(expected)
        episode = workload.episode_at(expected[-1])
        rows = trace.row_range(expected[-1] - 60.0, expected[-1] + config.horizon_s)  # type: ignore[operator]
        np.testing.assert_array_equal(episode.trace.prompt_tokens, trace.prompt_tokens[rows])


def test_train_episodes_start_anywhere_in_train() -> None:
    workload = Workload(replace(CONFIG, split="train"), uniform())
    rng = np.random.default_rng(0)
    starts = np.array([workload.episode(rng).start_s for _ in range(2000)])
    assert starts.min() >= 60.0
    assert starts.max() <= 5700.0
    assert np.quantile(starts, [0.01, 0.5, 0.99]) == pytest.approx([116, 2880, 5644], abs=150)


def test_without_a_horizon_an_episode_goes_to_the_end_of_its_split() -> None:
    trace = marked(np.arange(10_001.0), 10_000.0)
    for split, first, last in (("train", 0, 5999), ("validation", 6100, 7999), ("test", 8100, 10_000)):
        workload = Workload(replace(CONFIG, split=split, horizon_s=None), trace)
        np.testing.assert_array_equal(workload.evaluation_windows, [first + 60.0])
        episode = workload.episode_at(first + 60.0)
        assert episode.trace.arrival_s[[0, -1]].tolist() == [first, last]


def test_a_start_that_is_set_is_the_only_one() -> None:
    workload = Workload(replace(CONFIG, split="test", start_s=9000.0), uniform())
    np.testing.assert_array_equal(workload.evaluation_windows, [9000.0])
    assert workload.episode(np.random.default_rng(0)).start_s == 9000.0


def test_windows_that_were_fixed_before_are_used() -> None:
    config = replace(CONFIG, split="test")
    workload = Workload(config, uniform(), windows_s=[8200.0, 9000.0])
    np.testing.assert_array_equal(workload.evaluation_windows, [8200.0, 9000.0])
    workload.evaluation_windows[:] = 0.0
    assert {workload.episode(np.random.default_rng(k)).start_s for k in range(20)} == {8200.0, 9000.0}
    for bad in ([], [8159.0], [9701.0], [9000.0, np.nan]):
        with pytest.raises(InputError, match=r"windows_s: expected starts in \[8160, 9700\] of split 'test'"):
            Workload(config, uniform(), windows_s=bad)


def test_equal_seeds_give_equal_traces() -> None:
    transforms = ({"kind": "step", "at_s": 3000, "factor": 1.5},)
    config = replace(CONFIG, split="train", rate_scale=1.7, transforms=transforms, seed=3)
    one, two = Workload(config, uniform()), Workload(replace(config, split="test"), uniform())
    np.testing.assert_array_equal(one.trace.arrival_s, two.trace.arrival_s)
    other = Workload(replace(config, seed=4), uniform())
    assert len(other.trace) != len(one.trace)


def test_each_segment_draws_for_itself() -> None:
    arrival_s = np.concatenate((np.arange(2000.0), np.arange(2000.0, 4000.0)))
    config = replace(CONFIG, split="train", split_s=(1000.0, 2000.0), split_gap_s=0.0, rate_scale=0.5)
    kept = Workload(config, marked(arrival_s, 3999.0)).trace.prompt_tokens - 1
    first, second = (set((kept[kept // 1000 == k] % 1000).tolist()) for k in (0, 1))
    assert first != second


def test_transforms_follow_each_other_in_their_order() -> None:
    trace = uniform()
    step = {"kind": "step", "at_s": 2500, "factor": 0}
    config = WorkloadConfig(transforms=[step, {"kind": "squeeze-time", "factor": 2}], horizon_s=100.0)  # type: ignore[arg-type]
    made = Workload(config, trace).trace
    # Time is squeezed before anything else, so the step comes at half the time.
    assert made.span_s == 5000.0
    np.testing.assert_array_equal(made.prompt_tokens, trace.prompt_tokens[trace.arrival_s < 5000.0])


@dataclass(frozen=True)
class Halved(Transform):
    """A transform of the user's own that forgets to say that it needs the whole recording."""

    def apply(self, trace: Trace, rng: np.random.Generator, start_s: float = 0.0) -> Trace:
        return trace.take(slice(None), arrival_s=trace.arrival_s / 2.0, span_s=trace.span_s / 2.0)


def test_a_transform_that_changes_the_span_of_a_piece_is_refused() -> None:
    with pytest.raises(InputError, match="a transform made 3000 s of the 6000 s from 0 s on"):
        Workload(replace(CONFIG, split="train", transforms=(Halved(),)), uniform())
    with pytest.raises(InputError, match=r"expected one of burst, .* got Halved"):
        WorkloadConfig(transforms=(Halved(),)).to_mapping()


def test_pieces_put_together_are_the_trace() -> None:
    offsets = np.array([0, 2, 2, 5, 6, 7])
    blocks = PrefixBlocks(np.arange(7, dtype=np.int32), offsets, 512)
    trace = Trace(
        [0.0, 0.1, 10.0, 19.0, 20.0],
        range(1, 6),
        range(1, 6),
        [0, 1, 0, 1, 0],
        "t",
        5.0,
        20.0,
        ("r",),
        blocks,
    )
    bounds = split_bounds(20.0, (10.0, 16.0), 1.0)
    seen: list[tuple[float, float, float, int]] = []

    def change(piece: Trace, start_s: float, number: int) -> Trace:
        seen.append((start_s, piece.span_s, piece.clock_s, number))
        return piece

    same = change_by_segment(trace, bounds, change)
    assert seen == [(0, 10, 5, 0), (10, 1, 15, 1), (11, 5, 16, 2), (16, 1, 21, 3), (17, 3, 22, 4)]
    for name in ("arrival_s", "prompt_tokens", "output_tokens", "request_class"):
        np.testing.assert_array_equal(getattr(same, name), getattr(trace, name))
    assert (same.name, same.clock_s, same.span_s, same.repairs) == ("t", 5.0, 20.0, ("r",))
    assert same.prefix_blocks is not None
    np.testing.assert_array_equal(same.prefix_blocks.ids, blocks.ids)
    np.testing.assert_array_equal(same.prefix_blocks.offsets, offsets)
    lost = change_by_segment(
        trace, bounds, lambda piece, _, number: replace(piece, prefix_blocks=None) if number == 1 else piece
    )
    assert lost.prefix_blocks is None


def test_a_piece_may_become_empty() -> None:
    # Nobody would notice that the gap lost its one request.
    trace = marked(np.concatenate((np.arange(0.0, 6000.0, 3.0), [6050.0], np.arange(6100.0, 1e4, 3.0))), 1e4)
    for seed in range(5):
        Workload(replace(CONFIG, split="train", rate_scale=0.1, seed=seed), trace)


def test_workloads_and_configurations_can_be_pickled() -> None:
    transforms = ({"kind": "burst", "onset_s": 10, "width_s": 20, "height": 2},)
    config = replace(CONFIG, split="validation", transforms=transforms, split_s=[6000, 8000])
    assert pickle.loads(pickle.dumps(config)) == config
    assert hash(WorkloadConfig.from_mapping(config.to_mapping())) == hash(config)
    workload = Workload(config, uniform())
    copy = pickle.loads(pickle.dumps(workload))
    one, two = (w.episode(np.random.default_rng(1)) for w in (workload, copy))
    assert one.start_s == two.start_s
    np.testing.assert_array_equal(one.trace.arrival_s, two.trace.arrival_s)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"horizon_s": 2000.0}, "split 'test' of trace 'marked': has 1900 s (from 8100 to 10000 s) and "),
        ({"horizon_s": 2000.0}, " requests, expected at least warmup_s 60 plus horizon_s 2000"),
        ({"warmup_s": 1900.0, "horizon_s": None}, "expected more than warmup_s 1900"),
        (
            {"start_s": 8000.0},
            "start_s: expected a number in [8160, 9700], as split 'test' of trace 'marked'",
        ),
        ({"start_s": 9800.0}, "reaches from 8100 to 10000 s, got 9800.0"),
        (
            {"split_s": (6000.0, 9950.0)},
            "split 'test': would start at 10050 s and end at 10000 s (split_s 6000",
        ),
        ({"split_s": (6000.0, 6100.0)}, "split 'validation': would start at 6100 s and end at 6100 s"),
        (
            {"split_gap_s": 5000.0},
            "split_gap_s 5000, recording of 10000 s): expected each to end after its st",
        ),
    ],
)
def test_splits_that_do_not_fit_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        Workload(replace(CONFIG, split="test", **fields), uniform())
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("start_s", [8159.9, 9700.1, np.nan, "9000", True])
def test_an_episode_outside_its_split_is_refused(start_s: Any) -> None:
    workload = Workload(replace(CONFIG, split="test"), uniform())
    with pytest.raises(InputError, match=r"start_s: expected a number in \[8160, 9700\], as split 'test'"):
        workload.episode_at(start_s)


def test_a_split_without_requests_is_refused() -> None:
    late, early = np.arange(6100.0, 1e4), np.arange(0.0, 6000.0)
    with pytest.raises(InputError, match="expected requests in its training part, 0 to 6000 s, got none"):
        Workload(replace(CONFIG, split="test"), marked(late, 1e4))
    with pytest.raises(InputError, match=r"split 'test' of .* and 0 requests"):
        Workload(replace(CONFIG, split="test"), marked(early, 1e4))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"split": "dev"}, "WorkloadConfig.split: expected one of train, validation, test, got 'dev'"),
        ({"split_s": 5.0}, "WorkloadConfig.split_s: expected the end of training and the later one of"),
        ({"split_s": (5.0,)}, "got (5.0,)"),
        ({"split_s": (5.0, 5.0)}, "got (5.0, 5.0)"),
        ({"split_s": (0.0, 5.0)}, "got (0.0, 5.0)"),
        ({"split_s": (1.0, 2.0, 3.0)}, "WorkloadConfig.split_s: expected 1 to 2 numbers, got 3"),
        ({"split_s": (1.0, "2")}, "WorkloadConfig.split_s[1]: expected a finite number >= 0, got '2'"),
        ({"split_gap_s": -1.0}, "WorkloadConfig.split_gap_s: expected a number in [0, 1000000000], got -1"),
        ({"transforms": "burst"}, "WorkloadConfig.transforms: expected a list of transforms or of mappings"),
        ({"transforms": {"kind": "burst"}}, "WorkloadConfig.transforms: expected"),
        ({"transforms": [{"kind": "no"}]}, "WorkloadConfig.transforms[0]: transform: kind: expected one of"),
        (
            {"transforms": [{"kind": "step", "at_s": 1}]},
            "WorkloadConfig.transforms[0]: Step.factor: expected",
        ),
    ],
)
def test_bad_fields_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        WorkloadConfig.from_mapping(fields)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "transforms",
    [
        [{"kind": "mix", "trace": "synthetic-code", "seed": 0}],
        [
            {"kind": "slice", "from_s": 3600, "to_s": 43_200},
            {"kind": "mix", "trace": "synthetic-chat"},
            {"kind": "mix", "trace": "synthetic-chat"},
        ],
    ],
)
def test_no_recording_is_mixed_in_twice(transforms: list[dict[str, Any]]) -> None:
    """After a slice it would lie at another time, and bring requests of the test into training."""
    config = WorkloadConfig(trace="synthetic-code", transforms=transforms, split="train")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="mix: expected each recording once, got 'synthetic-c"):
        Workload(config)


def test_another_service_of_the_same_kind_has_other_users() -> None:
    mixed = [
        Workload(
            WorkloadConfig(
                trace="synthetic-code",
                seed=seed,
                transforms=({"kind": "mix", "trace": "synthetic-code"},),  # type: ignore[arg-type]
            )
        ).trace
        for seed in (0, 1)
    ]
    for trace in mixed:
        assert trace.request_class is not None
        first, second = (trace.arrival_s[trace.request_class == k] for k in (0, 1))
        assert len(np.intersect1d(first, second)) < 10
    assert mixed[0].arrival_s[0] != mixed[1].arrival_s[0]


def test_the_seed_of_a_workload_moves_its_surges() -> None:
    burst = {"kind": "burst", "onset_s": 5000, "width_s": 600, "height": 4}
    burst |= {"period_s": 20_000, "jitter_s": 4000}
    peaks = []
    for seed in (0, 1):
        config = WorkloadConfig(trace="synthetic-chat", seed=seed, transforms=(burst,))  # type: ignore[arg-type]
        count = np.bincount((Workload(config).trace.arrival_s // 300).astype(int))
        peaks.append(set(np.argsort(count)[-6:].tolist()))
    assert peaks[0] != peaks[1]


def test_a_static_fleet_is_sized_on_the_training_part() -> None:
    arrival_s = np.r_[np.arange(0.0, 600.0, 10.0), np.arange(600.0, 1200.0, 0.1)]
    trace = Trace(arrival_s, np.full(len(arrival_s), 500), np.full(len(arrival_s), 50), span_s=1200.0)
    config = WorkloadConfig(
        window_s=60.0, warmup_s=30.0, horizon_s=60.0, split="test", split_s=(500.0, 900.0), split_gap_s=10.0
    )
    busiest = [
        workload.fitted_window_tokens(60.0)[0].max()
        for workload in (Workload(config, trace), Workload(replace(config, split=None), trace))
    ]
    assert busiest == [6 * 500, 600 * 500]
