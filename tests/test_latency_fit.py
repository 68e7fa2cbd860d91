"""The fit: recovers laws it can express, weights what serving visits, judges on what it has not seen."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from preserve_gym.latency import fit as fitting
from preserve_gym.latency.batch import REGIONS, Batch, served_batches
from preserve_gym.latency.fit import Limits, compared, errors, fit, fit_law
from preserve_gym.latency.iterations import Iterations
from preserve_gym.latency.law import LatencyLaw
from preserve_gym.latency.parts import Operators, Parts
from preserve_gym.latency.presets import FitError, load_preset, preset_names
from preserve_gym.latency.profiles import read_profile
from tests.latency_files import LAW, drawn_once, target, write

LIMITS = Limits(kv_tokens=200_000, max_num_seqs=256, max_num_batched_tokens=2048, max_model_len=8192)


@pytest.fixture(autouse=True)
def _batches_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preserve_gym.latency.fit.served_batches", drawn_once)


def operators(law: LatencyLaw) -> Operators:
    """Parts that add up to just what ``law`` says."""

    def decodes_s(decodes: float, cached: float) -> float:
        return law.per_context_token_s * decodes * (cached + 1)

    def prefill_s(tokens: float, before: float) -> float:
        return law.per_quad_s * tokens * (tokens / 2 + before)

    def mixed_s(tokens: float, before: float, decodes: float, cached: float) -> float:
        dearer_s = law.per_mixed_context_token_s * decodes * (cached + 1)
        return decodes_s(decodes, cached) + prefill_s(tokens, before) + dearer_s

    parts = Parts(
        layers_s=lambda tokens: law.iteration_s(tokens, 0, 0),
        head_s=lambda sequences: 0.0,
        decode_attention_s=decodes_s,
        prefill_attention_s=prefill_s,
        mixed_attention_s=mixed_s,
    )
    return Operators(parts, target())


def iterations(law: LatencyLaw, batches: list[Batch]) -> Iterations:
    seconds = [law.iteration_s(batch.tokens, batch.context, batch.quad) for batch in batches]
    return Iterations(batches, np.array(seconds), ["somewhere"] * len(batches), of_one_gpu=True)


def close(law: LatencyLaw, other: LatencyLaw) -> bool:
    return dataclasses.astuple(law) == pytest.approx(dataclasses.astuple(other), rel=1e-3)


@pytest.mark.parametrize(
    "law",
    [
        LAW,
        LatencyLaw(0.0065, 4e-5, 1.5e-8, 2.5e-9),
        LatencyLaw(0.02, 0.0, 1e-7, 1e-9, 96, 5e-5, 1e-7),
        LatencyLaw(0.01, 1e-5, 0.0, 0.0, 512, 1e-5),
    ],
)
def test_law_is_recovered_from_operators(law: LatencyLaw) -> None:
    fitted = fit(operators(law), LIMITS)
    assert close(fitted.law, law)
    assert fitted.error == FitError(0.0, 0.0, 0.0, 0.0, 0.0)


def test_law_is_recovered_from_a_file_of_whole_iterations(tmp_path: Path) -> None:
    profile = read_profile(write(tmp_path, "own"), target())
    fitted = fit(profile, LIMITS)
    assert close(fitted.law, LAW)
    assert fitted.error == FitError(0.0, 0.0, 0.0, 0.0, 0.0)
    assert len(fitted.checked) == 44  # every row once


def test_law_is_recovered_from_files_of_operators(tmp_path: Path) -> None:
    # What the files were made with: 1.3 times the roofline, which bends where arithmetic takes over.
    profile = read_profile(write(tmp_path, "dense", "per_sequence", "attention"), target())
    fitted = fit(profile, LIMITS)
    weights_s = 1.3 * 2 * 8.03e9 / 3.35e12
    assert fitted.law.base_s == pytest.approx(weights_s, rel=0.15)
    assert fitted.law.per_context_token_s == pytest.approx(1.3 * 131_072 / 3.35e12, rel=0.1)
    assert 128 <= fitted.law.knee_tokens <= 512
    slope_s = fitted.law.per_token_s + fitted.law.per_token_beyond_knee_s
    assert slope_s == pytest.approx(1.3 * 2 * 7e9 / 989e12, rel=0.15)
    assert max(dataclasses.astuple(fitted.error)) < 5


def test_the_largest_chunk_shares_a_kernel_with_the_decodes() -> None:
    batch = Batch((100, 301), ((10, 5), (40, 0), (7, 900)))
    law = operators(LAW)
    assert law.iteration_s(batch) == pytest.approx(LAW.iteration_s(batch.tokens, batch.context, batch.quad))
    calls: list[tuple[float, ...]] = []

    def mixed_s(*figures: float) -> float:
        calls.append(figures)
        return 0.5

    parts = replace(law.parts, mixed_attention_s=mixed_s, prefill_attention_s=lambda n, c: n)
    assert Operators(parts, target()).attention_s(batch) == 0.5 + 10 + 7
    assert calls == [(40, 0, 2, 199.5)]
    parts = replace(parts, mixed_attention_s=None, decode_attention_s=lambda n, c: n * c)
    assert Operators(parts, target()).attention_s(batch) == 2 * 199.5 + 57


def test_a_law_always_has_some_time_for_nothing() -> None:
    batches = [Batch((100 * n,) * n, ()) for n in range(1, 30)]
    seconds = np.array([1e-4 * batch.tokens for batch in batches])
    law = fit_law(batches, seconds, np.ones(len(batches)))
    assert law.base_s == 1e-6
    assert law.iteration_s(10, 10_000, 0) == pytest.approx(1e-3, rel=2e-3)


def test_heavier_rows_count_more() -> None:
    batches = [Batch((100,) * n, ()) for n in (1, 50)] * 2 + [Batch((), ((64, 0),))]
    seconds = np.array([0.010, 0.010, 0.020, 0.020, 0.02])
    law = fit_law(batches, seconds, np.array([1e6, 1e6, 1.0, 1.0, 1.0]))
    assert law.iteration_s(20, 2000, 0) == pytest.approx(0.010, rel=1e-3)
    law = fit_law(batches, seconds, np.array([1.0, 1.0, 1e6, 1e6, 1.0]))
    assert law.iteration_s(20, 2000, 0) == pytest.approx(0.020, rel=1e-3)


def test_error_is_relative() -> None:
    # Two times for one batch: least relative squares lie at (1/a + 1/b) / (1/a^2 + 1/b^2).
    batches = [Batch((100,), ())] * 2
    law = fit_law(batches, np.array([0.010, 0.030]), np.ones(2))
    assert law.iteration_s(1, 100, 0) == pytest.approx(0.012, rel=1e-3)


def test_weights_are_those_of_the_batches_that_serving_visits() -> None:
    batches = [Batch((500,) * 8, ()), Batch((500,) * 8, ((2048, 0),)), Batch((8192,) * 2048, ())]
    visited = [Batch((510,) * n, ()) for n in (7, 8, 9)] + [Batch((480,) * 9, ((2000, 100),))]
    weights = fitting._nearness(batches, visited)
    assert weights.mean() == pytest.approx(1.0)
    mean = 4 / 3
    expected = np.array([3.0, 1.0, 0.0]) + 0.02 * mean
    assert weights == pytest.approx(expected / expected.mean())


def test_rows_equally_near_share_their_weight() -> None:
    near, far = Batch((500,) * 8, ()), Batch((8000,) * 99, ())
    weights = fitting._nearness([near, near, far], [near] * 6)
    # Three each and none, and of their mean, two, a fiftieth to all.
    assert weights[0] == weights[1] == pytest.approx(3.04 / 0.04 * weights[2])


def test_the_fit_follows_the_weights() -> None:
    # Batches that serving never sees take twice as long; the law is that of the others.
    seen = LIMITS.visited(7, 200)
    strange = [Batch((8192,) * n, ((8192 * k, 50_000),)) for n in (900, 1000) for k in (4, 8)]
    profile = iterations(LAW, seen + strange)
    profile.seconds[len(seen) :] *= 2
    table = fit(profile, LIMITS).checked
    assert table["weight"][table["quad"] > 1e8].sum() < 0.01 * table["weight"].sum()
    law = fit(profile, LIMITS).law
    for batch in seen[:40]:
        measured_s = LAW.iteration_s(batch.tokens, batch.context, batch.quad)
        assert law.iteration_s(batch.tokens, batch.context, batch.quad) == pytest.approx(measured_s, rel=0.05)


def test_each_row_is_predicted_by_a_law_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = iterations(LAW, LIMITS.visited(5, 40))
    trained: list[set[Batch]] = []

    def spy(batches: list[Batch], seconds: np.ndarray, weights: np.ndarray) -> LatencyLaw:
        trained.append(set(batches))
        return replace(LAW, base_s=len(trained))

    monkeypatch.setattr(fitting, "fit_law", spy)
    table = fit(profile, LIMITS).checked
    assert len(trained) == 6  # one for the law, one for each fold
    assert trained[0] == set(profile.batches)
    assert len(table) == len(profile.batches)
    numbers = table["predicted_s"] - [
        LAW.iteration_s(*row) - LAW.base_s
        for row in table[["tokens", "context", "quad"]].itertuples(index=False)
    ]
    for number, row in zip(numbers.round().astype(int), table.itertuples(), strict=True):
        (batch,) = (
            b for b in profile.batches if (b.tokens, b.context, b.quad) == (row.tokens, row.context, row.quad)
        )
        assert 2 <= number <= 6
        assert batch not in trained[number - 1]
        assert len(trained[number - 1]) >= 0.7 * len(profile.batches)


def test_one_strange_row_is_not_predicted_by_itself() -> None:
    profile = iterations(LAW, LIMITS.visited(5, 60))
    row = profile.batches.index(next(b for b in profile.batches if b.region == "decode_only"))
    profile.seconds[row] *= 3
    table = fit(profile, LIMITS).checked
    off = table["measured_s"] / table["predicted_s"]
    assert off.max() == pytest.approx(3, rel=0.1)


def test_operators_are_checked_on_other_batches() -> None:
    fitted = fit(operators(LAW), LIMITS)
    others = LIMITS.visited(fitting.CHECK_SEED)
    assert fitted.checked["quad"].tolist() == [batch.quad for batch in others]
    assert fitted.checked["quad"].tolist() != [batch.quad for batch in LIMITS.visited(fitting.FIT_SEED)]


def test_errors_by_hand() -> None:
    table = pd.DataFrame(
        {
            "region": ["decode_only", "decode_only", "mixed", "mixed"],
            "weight": [3.0, 1.0, 1.0, 0.0],
            "measured_s": [1.0, 1.0, 2.0, 1.0],
            "predicted_s": [1.1, 0.8, 3.0, 9.0],
        }
    )
    error = errors(table)
    assert error.decode_only == 12.5  # (3 x 10 + 20) / 4
    assert error.mixed == 50.0
    assert error.overall == 20.0  # (3 x 10 + 20 + 50) / 5
    assert np.isnan(error.prefill_only)
    assert error.p95 == 50.0
    table = pd.DataFrame(
        {"region": "mixed", "weight": 1.0, "measured_s": 1.0, "predicted_s": 1 + np.arange(100) / 1000}
    )
    assert errors(table).p95 == pytest.approx(9.4, abs=0.11)
    assert errors(table).overall == pytest.approx(4.95, abs=0.06)


def test_compared_has_a_row_for_each_batch() -> None:
    batches = [Batch((10, 20), ()), Batch((), ((4, 6),)), Batch((5,), ((2, 0), (3, 1)))]
    table = compared(LatencyLaw(1.0, 1.0, 10.0, 100.0), batches, np.array([1.0, 2.0, 3.0]))
    assert table["region"].tolist() == list(REGIONS)
    assert table["tokens"].tolist() == [2, 4, 6]
    assert table["context"].tolist() == [30, 0, 5]
    assert table["quad"].tolist() == [0, 4 * 8, 2 * 1 + 3 * 2.5]
    assert table["predicted_s"].tolist() == [303.0, 3205.0, 1007.0]
    assert table["weight"].tolist() == [1.0, 1.0, 1.0]
    assert batches[2].sequences == 3


# Batches


@pytest.mark.parametrize(
    "limits",
    [
        *(pytest.param(name, id=name) for name in preset_names()),
        Limits(kv_tokens=1000, max_num_seqs=4, max_num_batched_tokens=16, max_model_len=100),
        Limits(kv_tokens=32, max_num_seqs=2, max_num_batched_tokens=2, max_model_len=2),
        Limits(kv_tokens=10**6, max_num_seqs=64, max_num_batched_tokens=32, max_model_len=500),
    ],
)
def test_served_batches_are_ones_the_instance_can_hold(limits: Limits | str) -> None:
    if isinstance(limits, str):
        names = ("max_num_seqs", "max_num_batched_tokens", "max_model_len")
        instance = load_preset(limits).instance
        kv_tokens = 16 * (instance["num_gpu_blocks"] - 1)
        limits = Limits(kv_tokens, *(instance[name] for name in names))
    batches = limits.visited(3, 1000)
    assert {batch.region for batch in batches} == set(REGIONS)
    for batch in batches:
        assert 1 <= batch.sequences <= limits.max_num_seqs
        assert batch.tokens <= limits.max_num_batched_tokens
        assert sum(batch.contexts) + sum(n + c for n, c in batch.chunks) <= limits.kv_tokens
        assert all(n >= 1 and c >= 0 and n + c <= limits.max_model_len for n, c in batch.chunks)
        assert all(1 <= context <= limits.max_model_len for context in batch.contexts)


def test_served_batches_are_what_serving_visits() -> None:
    batches = LIMITS.visited(0)
    assert len(batches) > 1950
    shares = pd.Series([batch.region for batch in batches]).value_counts(normalize=True)
    assert shares["decode_only"] == pytest.approx(0.70, abs=0.05)
    assert shares["prefill_only"] == pytest.approx(0.08, abs=0.02)
    assert shares["mixed"] == pytest.approx(0.22, abs=0.05)
    decodes = [len(batch.contexts) for batch in batches if batch.contexts]
    assert min(decodes) == 1
    assert max(decodes) > 150
    assert any(c > 0 for batch in batches for _, c in batch.chunks)
    assert any(len(batch.chunks) > 1 for batch in batches)


def test_batches_and_fits_are_determined_by_the_seed() -> None:
    draw = {"kv_tokens": 10_000, "max_num_seqs": 64, "budget": 512, "max_model_len": 4096, "count": 50}
    assert served_batches(1, **draw) == served_batches(1, **draw) != served_batches(2, **draw)
    first, second = (fit(operators(LAW), LIMITS) for _ in range(2))
    assert first.law == second.law
    assert first.error == second.error
    pd.testing.assert_frame_equal(first.checked, second.checked)
