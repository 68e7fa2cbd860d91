"""The rates that generated traces are drawn from: they are the traces' own, and factors are not foreseen."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from preserve_gym.config import WorkloadConfig
from preserve_gym.errors import InputError
from preserve_gym.traces import (
    ArrivalPattern,
    Burst,
    LengthDrift,
    Modulation,
    SqueezeTime,
    Step,
    Trace,
    WindowCounts,
    dataset_path,
    load_trace,
    mix_traces,
    scale_rate,
    servegen_trace,
    synthetic_trace,
)
from preserve_gym.traces.azure_2024 import SERVICES
from preserve_gym.traces.rate_process import Factor, RateProcess, RateStream
from preserve_gym.workload import prepared_trace

HOUR_S = 3600.0


def generator() -> np.random.Generator:
    return np.random.default_rng(5)


def chat(hours: int = 6) -> Trace:
    return synthetic_trace("chat", duration_s=hours * HOUR_S, mean_rate_rps=60.0, seed=3)


def counts() -> Trace:
    requests = np.array([90_000, 200_000, 40_000, 0, 120_000])
    means = np.array([300.0, 900.0, 500.0, np.nan, 700.0])
    recording = WindowCounts("counts", "made up", HOUR_S, 0.0, requests, means, means / 4)
    pattern = ArrivalPattern((Modulation(0.4, 900.0), Modulation(0.2, 60.0)), 0.05)
    return recording.generate(pattern, SERVICES["conv"].lengths, seed=2)


def assert_rates_are_those_of(trace: Trace, window_s: float = 120.0, sigmas: float = 5.0) -> None:
    """Requests and tokens of each window are what the rates say, within the noise of drawing them."""
    assert trace.rates is not None
    each = round(window_s / trace.rates.bin_s)
    windows = len(trace.rates) // each
    expected = trace.rates.true[:, : windows * each].reshape(3, windows, each).sum(axis=2) * trace.rates.bin_s
    window = (trace.arrival_s / window_s).astype(int)
    columns = (np.ones(len(trace)), trace.prompt_tokens, trace.output_tokens)
    for of_rates, column in zip(expected, columns, strict=True):
        came = np.bincount(window, weights=column, minlength=windows)[:windows]
        # Variance of a compound Poisson sum; a fiftieth for what bins blur.
        noise = np.sqrt(of_rates / column.mean() * np.mean(np.square(column, dtype=float))) + of_rates / 50
        assert np.max(np.abs(came - of_rates) / (noise + 1e-9)) < sigmas
        assert came.sum() == pytest.approx(of_rates.sum(), rel=0.02)


@pytest.mark.parametrize(
    "change",
    [
        lambda trace: trace,
        lambda trace: scale_rate(trace, 0.4, generator()),
        lambda trace: scale_rate(trace, 2.6, generator()),
        lambda trace: Burst(4000.0, 1200.0, 3.0, 60.0).apply(trace, generator()),
        lambda trace: Burst(1000.0, 600.0, 0.2, 60.0, 3600.0, 300.0).apply(trace, generator()),
        lambda trace: Step(5000.0, 2.5).apply(Step(9000.0, 0.4).apply(trace, generator()), generator()),
        lambda trace: LengthDrift(7200.0, 0.9).apply(trace, generator()),
        lambda trace: SqueezeTime(4.0).apply(trace, generator()),
        lambda trace: trace.slice(2000.0, 9000.0),
        lambda trace: mix_traces(trace, synthetic_trace("chat", duration_s=trace.span_s, seed=8)),
    ],
    ids=["none", "thinned", "copies", "burst", "lulls", "steps", "drift", "squeezed", "slice", "mix"],
)
@pytest.mark.parametrize("make", [chat, counts])
def test_the_rates_go_through_every_transform(
    make: Callable[[], Trace], change: Callable[[Trace], Trace]
) -> None:
    assert_rates_are_those_of(change(make()))


def test_splits_keep_the_rates() -> None:
    transforms = ({"kind": "burst", "onset_s": 2000.0, "width_s": 900.0, "height": 2.0, "period_s": 4000.0},)
    config = WorkloadConfig(
        trace="synthetic-chat", service_scale=4.0, split="test", rate_scale=0.7, transforms=transforms
    )
    trace, _ = prepared_trace(config)
    assert_rates_are_those_of(trace, 600.0)


def test_recordings_and_silence_have_none() -> None:
    assert synthetic_trace("code", duration_s=600.0).rates is None
    recorded = Trace([0.0, 5.0], [1, 2], [1, 2])
    assert scale_rate(recorded, 2.0, generator()).rates is None
    assert Step(1.0, 2.0).apply(recorded, generator()).rates is None
    assert mix_traces(chat(1), synthetic_trace("code", duration_s=HOUR_S)).rates is None


def test_published_counts_have_rates(data_dir: Path) -> None:
    trace = load_trace("azure-2024-code-from-hourly", 1, 0.1)
    assert_rates_are_those_of(trace.slice(86_400.0, 172_800.0), 600.0)
    # A window that begins inside one of the recording's.
    part = servegen_trace(
        "m-small", dataset_path("servegen-m-small"), service_scale=0.01, end_s=7200.0, start_s=900.0
    )
    assert part.rates is not None
    assert_rates_are_those_of(part.slice(300.0, 6300.0), 600.0)
    assert part.rates.expected(200)[0, 0] != part.rates.true[0, 200]


def test_what_is_expected_of_a_factor() -> None:
    values = np.array([[0.5, 1.0, 2.0, 3.0]])
    bins = np.arange(4)
    assert np.array_equal(Factor(values).expected(bins, bins, 1e9), values)
    modulation = Factor(values, log_std=0.5, correlation_s=100.0)
    assert np.allclose(modulation.expected(bins, bins, 1e6), 1.0)
    # Mean of the log-normal process given its value, by its definition.
    log = np.log(values) + 0.125
    kept = math.exp(-0.3)
    wanted = np.exp(kept * log - 0.125 + 0.125 * (1 - kept**2))
    assert np.allclose(modulation.expected(bins, bins, 30.0), wanted)


def test_the_base_is_known_ahead_and_factors_from_the_bin_before() -> None:
    base = np.arange(1.0, 6.0) * np.array([[1.0], [10.0], [100.0]])
    process = RateProcess((RateStream(base, (Factor(np.array([[1.0, 2.0, 3.0, 4.0, 5.0]])),)),))
    assert process.expected(0)[0].tolist() == [1.0, 2.0, 6.0, 12.0, 20.0]
    assert process.expected(2)[1].tolist() == [30.0, 40.0, 100.0, 150.0, 200.0]
    assert process.true[2].tolist() == [100.0, 400.0, 900.0, 1600.0, 2500.0]


def test_a_timetable_is_foreseen_and_a_flash_crowd_is_not() -> None:
    trace = Trace([0.0], [1], [1], span_s=1000.0, rates=RateProcess((RateStream(np.ones((3, 200))),)))
    once, hourly = Burst(500.0, 100.0, 2.0), Burst(500.0, 100.0, 2.0, period_s=700.0, jitter_s=50.0)
    assert not once.foreseen
    assert hourly.foreseen
    assert not Burst(500.0, 100.0, 2.0, period_s=700.0, jitter_s=101.0).foreseen
    for burst, before in ((once, 1.0), (hourly, 2.0)):
        rates = burst.apply(trace, generator()).rates
        assert rates is not None
        start = int(np.argmax(rates.true[0] > 1.5))
        assert rates.expected(2)[0, start - 2] == before
        # What has begun is known to its end.
        assert rates.expected(0)[0, start + 1] == 2.0
        assert rates.expected(18)[0, start + 1] == 2.0
        assert rates.expected(19)[0, start + 1] == 1.0


def test_rates_of_another_span_are_refused() -> None:
    with pytest.raises(InputError, match="rates: expected rates of 90 s, got '20 bins of 5 s'"):
        Trace([0.0], [1], [1], span_s=90.0, rates=chat(1).rates and chat(1).rates.part(0.0, 100.0))
