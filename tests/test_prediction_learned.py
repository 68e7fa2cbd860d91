from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest

from preserve_gym.errors import InputError
from preserve_gym.prediction import learned_lengths as module
from preserve_gym.prediction import length_accuracy, predict_length_bounds, predict_lengths
from preserve_gym.prediction.lengths import LengthPrediction
from preserve_gym.prediction.output_history import OutputHistory
from preserve_gym.traces import Trace
from preserve_gym.traces.prefix_blocks import PrefixBlocks

KNOWN_AFTER_S = 120.0
COUNT = 6000
TRAIN = slice(0, 3000)


def service(seed: int = 0, count: int = COUNT, blocks: bool = True) -> Trace:
    """One request a second; the median answer is set by class and prompt, the spread is log-normal 0.5."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, count)
    prompt_tokens = rng.integers(10, 1000, count)
    median = np.array([20.0, 100.0, 500.0])[kind] * np.where(prompt_tokens > 500, 2.0, 1.0)
    output_tokens = np.maximum(np.rint(median * np.exp(rng.normal(0.0, 0.5, count))), 1)
    ids = rng.integers(0, 50, count).astype(np.int32)
    prefix = PrefixBlocks(ids, np.arange(count + 1), 16) if blocks else None
    arrival_s = np.arange(count) * 1.0
    return Trace(arrival_s, prompt_tokens, output_tokens, kind, clock_s=3600.0, prefix_blocks=prefix)


def with_outputs(trace: Trace, output_tokens: np.ndarray) -> Trace:
    return Trace(
        trace.arrival_s,
        trace.prompt_tokens,
        output_tokens,
        trace.request_class,
        clock_s=trace.clock_s,
        prefix_blocks=trace.prefix_blocks,
    )


def test_it_learns_what_can_be_known() -> None:
    trace = service()
    predicted = predict_length_bounds("learned", trace, train=TRAIN)
    rest = slice(TRAIN.stop, None)
    expected = np.array([20.0, 100.0, 500.0])[trace.request_class[rest]]  # type: ignore[index]
    expected *= np.where(trace.prompt_tokens[rest] > 500, 2.0, 1.0)
    ratio = predicted.tokens[rest] / expected
    assert np.median(ratio) == pytest.approx(1.0, abs=0.05)
    assert np.quantile(np.abs(np.log(ratio)), 0.9) < 0.25
    covered = trace.output_tokens[rest] <= predicted.upper_tokens[rest]
    assert covered.mean() == pytest.approx(0.9, abs=0.02)
    # The true 90 % quantile is exp(1.2816 * 0.5) = 1.90 times the median.
    assert np.median(predicted.upper_tokens[rest] / expected) == pytest.approx(1.9, abs=0.15)


def test_the_upper_quantile_is_corrected_on_the_latest_training_requests() -> None:
    rng = np.random.default_rng(3)
    spread = np.where(np.arange(COUNT) < 2400, 0.1, 1.0)
    output_tokens = np.rint(200 * np.exp(spread * rng.normal(size=COUNT)))
    trace = Trace(np.arange(COUNT), np.full(COUNT, 10), np.maximum(output_tokens, 1))
    # Only the last fifth of the training requests has the spread of those to come.
    predicted = predict_length_bounds("learned", trace, train=TRAIN, known_after_s=1e9)
    covered = trace.output_tokens[TRAIN.stop :] <= predicted.upper_tokens[TRAIN.stop :]
    assert covered.mean() == pytest.approx(0.9, abs=0.03)


def test_it_learns_from_prefixes() -> None:
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 20, COUNT).astype(np.int32)
    output_tokens = np.rint(np.where(ids % 2, 400, 40) * np.exp(rng.normal(0.0, 0.2, COUNT)))
    arrays: tuple[Any, ...] = (np.arange(COUNT), np.full(COUNT, 100), output_tokens)
    rest = slice(TRAIN.stop, None)
    mae = {}
    for blocks in (PrefixBlocks(ids, np.arange(COUNT + 1), 16), None):
        tokens = predict_lengths("learned", Trace(*arrays, prefix_blocks=blocks), train=TRAIN)
        prediction = LengthPrediction(tokens[rest], tokens[rest])
        mae[blocks is not None] = length_accuracy(output_tokens[rest], prediction).mae
    assert mae[True] < mae[False] / 3


@pytest.mark.parametrize("changed_row", [3000, 4567])
def test_later_outputs_change_no_earlier_prediction(changed_row: int) -> None:
    trace = service()
    other = trace.output_tokens.copy()
    other[changed_row:] = 9999
    before, after = (
        predict_length_bounds("learned", t, train=TRAIN) for t in (trace, with_outputs(trace, other))
    )
    # The first request that arrives more than KNOWN_AFTER_S after the changed one.
    first = changed_row + int(KNOWN_AFTER_S) + 1
    for name in ("tokens", "upper_tokens"):
        old, new = getattr(before, name), getattr(after, name)
        np.testing.assert_array_equal(old[:first], new[:first])
        assert not np.array_equal(old[first:], new[first:])


def test_a_prediction_does_not_need_the_requests_after_it() -> None:
    trace = service()
    whole = predict_lengths("learned", trace, train=TRAIN)
    part = predict_lengths("learned", trace.take(slice(0, 4000)), train=TRAIN)
    np.testing.assert_array_equal(part, whole[:4000])


def test_it_is_determinate_and_knows_no_seed() -> None:
    trace = service(count=1000)
    first = predict_lengths("learned", trace, seed=1)
    np.testing.assert_array_equal(first, predict_lengths("learned", trace, seed=2))
    np.testing.assert_array_equal(first, predict_lengths("learned", trace, train=slice(0, 200)))


def test_chunks_and_samples_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = service()
    whole = predict_lengths("learned", trace, train=slice(100, 3000))
    monkeypatch.setattr(module, "_CHUNK_ROWS", 700)
    np.testing.assert_array_equal(predict_lengths("learned", trace, train=slice(100, 3000)), whole)
    monkeypatch.setattr(module, "MAX_FITTED_ROWS", 1000)
    fewer = predict_lengths("learned", trace, train=slice(100, 3000))
    assert not np.array_equal(fewer, whole)
    assert np.median(fewer / whole) == pytest.approx(1.0, abs=0.1)


def test_the_hour_is_learned_only_from_whole_days() -> None:
    count = 20_000
    rng = np.random.default_rng(2)
    arrival_s = np.sort(rng.uniform(0.0, 4 * 86_400.0, count))
    by_day = (arrival_s % 86_400.0) < 43_200.0
    output_tokens = np.rint(np.where(by_day, 500, 50) * np.exp(rng.normal(0.0, 0.1, count)))
    trace = Trace(arrival_s, np.full(count, 100), output_tokens)
    # Nothing is ever known of earlier answers.
    tokens = predict_lengths("learned", trace, train=slice(0, 10_000), known_after_s=1e9)
    np.testing.assert_allclose(np.median(tokens[10_000:][by_day[10_000:]]), 500, rtol=0.1)
    np.testing.assert_allclose(np.median(tokens[10_000:][~by_day[10_000:]]), 50, rtol=0.1)
    tokens = predict_lengths("learned", trace, train=slice(0, 2_000), known_after_s=1e9)
    assert len(np.unique(tokens)) == 1


@pytest.mark.parametrize("rows", [100, 150])
def test_few_or_constant_training_requests(rows: int) -> None:
    trace = Trace(np.arange(1000), np.full(1000, 10), np.full(1000, 33))
    predicted = predict_length_bounds("learned", trace, train=slice(0, rows))
    np.testing.assert_array_equal(predicted.tokens, 33)
    np.testing.assert_array_equal(predicted.upper_tokens, 33)
    with pytest.raises(InputError, match="at least 100 training requests, got 99"):
        predict_lengths("learned", trace, train=slice(1, 100))


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InputError, match=r"install 'preserve-gym\[forecast\]"):
        predict_lengths("learned", service(count=600))


def test_history_by_hand() -> None:
    arrival_s = np.array([0.0, 1.0, 2.0, 2.0, 10.0, 11.0, 12.0])
    group = np.array([7, 7, 3, 7, 7, 3, -1])
    output_tokens = np.array([10, 100, 1000, 50, 20, 5, 5], np.int32)
    history = OutputHistory(arrival_s, output_tokens, group, 8.0)
    features = history.features(slice(0, 7))
    # At 10 s what arrived before 2 s is known, at 11 s what arrived before 3 s.
    np.testing.assert_array_equal(features[:, -1], [0, 0, 0, 0, 2, 1, 0])
    np.testing.assert_array_equal(features[[0, 1, 2, 3, 6], :-1], -1.0)
    np.testing.assert_allclose(features[4, :-1], np.log(np.sqrt(1000)), rtol=1e-6)
    np.testing.assert_allclose(features[5, :-1], np.log(1000), rtol=1e-6)
    np.testing.assert_array_equal(history.features(slice(4, 6)), features[4:6])


def test_history_remembers_the_latest_answers() -> None:
    count = 2000
    output_tokens = np.where(np.arange(count) < 1990, 10, 1000).astype(np.int32)
    history = OutputHistory(np.arange(count) * 1.0, output_tokens, np.zeros(count, np.int64), 0.0)
    last = history.features(slice(count - 1, count))[0]
    # Of the ten before the last request nine are long; of the thousand also nine.
    np.testing.assert_allclose(last[0], np.log(10) + 0.9 * np.log(100), rtol=1e-5)
    np.testing.assert_allclose(last[1], np.log(10) + 0.009 * np.log(100), rtol=1e-5)
    assert last[2] == 1000
