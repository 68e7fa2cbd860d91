from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from preserve_gym.errors import InputError
from preserve_gym.traces import Trace, azure_2024, burstgpt_hours
from preserve_gym.traces.length_mix import LengthMix
from preserve_gym.traces.modulation import BIN_S, ArrivalPattern, Modulation, Silence
from preserve_gym.traces.window_counts import WindowCounts
from tests import fit_azure_2024, fit_windows

STEADY = ArrivalPattern()
LENGTHS = LengthMix((0.0, 0.5, 1.0), (10, 100, 1000), (1, 20, 400), 0.2)
REQUESTS = np.array([300, 0, 1200, 40, 700, 701], np.int64)


def counts(requests: np.ndarray = REQUESTS, window_s: float = 600.0) -> WindowCounts:
    return WindowCounts("mine", "generated for a test", window_s, 43_200.0, requests)


def counted(trace: Trace, window_s: float = 600.0) -> np.ndarray:
    return np.bincount((trace.arrival_s // window_s).astype(int), minlength=len(REQUESTS))


@pytest.mark.parametrize(
    "pattern",
    [
        STEADY,
        ArrivalPattern((Modulation(0.5, 30.0), Modulation(0.3, 2000.0)), 0.5),
        ArrivalPattern((Modulation(1.0, 3.0),), 0.2, Silence(5.0, 2.0, 30.0, 900.0)),
    ],
)
def test_every_window_has_its_count(pattern: ArrivalPattern) -> None:
    for seed in range(5):
        trace = counts().generate(pattern, LENGTHS, seed=seed)
        np.testing.assert_array_equal(counted(trace), REQUESTS)
        assert (trace.name, trace.clock_s, trace.span_s) == ("mine", 43_200.0, 3600.0)
        assert "generated for a test" in repr(trace)


def test_seeds() -> None:
    pattern = ArrivalPattern((Modulation(0.5, 30.0),))
    first, again, other = (counts().generate(pattern, LENGTHS, seed=seed) for seed in (1, 1, 2))
    for column in ("arrival_s", "prompt_tokens", "output_tokens"):
        np.testing.assert_array_equal(getattr(first, column), getattr(again, column))
        assert not np.array_equal(getattr(first, column), getattr(other, column))


def test_lengths_do_not_move_with_the_pattern() -> None:
    calm, wild = (
        counts().generate(pattern, LENGTHS, seed=4)
        for pattern in (STEADY, ArrivalPattern((Modulation(0.9, 30.0),)))
    )
    np.testing.assert_array_equal(calm.prompt_tokens, wild.prompt_tokens)
    assert not np.array_equal(calm.arrival_s, wild.arrival_s)


def test_without_modulation_arrivals_are_uniform_in_a_flat_window() -> None:
    trace = counts(np.array([2000] * 6)).generate(STEADY, LENGTHS, seed=0)
    assert stats.kstest(trace.arrival_s / 3600, "uniform").pvalue > 0.01


def test_the_rate_follows_the_windows() -> None:
    """Inside a window between a low and a high one the rate rises."""
    trace = counts(np.array([100, 1000, 1900])).generate(STEADY, LENGTHS, seed=0)
    middle = trace.arrival_s[(trace.arrival_s >= 600) & (trace.arrival_s < 1200)] - 600
    # Linear from 550 to 1450 over the window.
    share = (550 + 1000) / 2 / 1000 / 2
    assert (middle < 300).mean() == pytest.approx(share, abs=0.04)


def test_a_smaller_service_varies_more() -> None:
    pattern = ArrivalPattern((Modulation(0.1, 100.0),))
    small = pattern.averaged(0.25)
    assert np.expm1(small.modulations[0].log_std ** 2) == pytest.approx(4 * np.expm1(0.01))
    variances = []
    for scale in (1.0, 0.25):
        values = [
            fit_windows.within_variance(
                counts(np.full(6, 40_000))
                .generate(pattern, LENGTHS, service_scale=scale, seed=seed)
                .arrival_s,
                600.0,
                6,
                30.0,
            )
            for seed in range(10)
        ]
        variances.append(np.mean(values))
    assert variances[1] / variances[0] == pytest.approx(4.0, rel=0.3)


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5])
def test_a_scale_scales_the_counts(scale: float) -> None:
    requests = np.array([3000, 0, 12000, 400, 7000, 7001], np.int64)
    trace = counts(requests).generate(STEADY, LENGTHS, service_scale=scale, seed=0)
    np.testing.assert_allclose(counted(trace), scale * requests, atol=5 * np.sqrt(requests.max() / 4))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), 1e-9, 1e9, "1", None, True])
def test_a_scale_out_of_range(scale: Any) -> None:
    with pytest.raises(InputError, match=r"mine: service_scale: (expected|1e-09 leaves)"):
        counts().generate(STEADY, LENGTHS, service_scale=scale)


def test_the_ripple_that_is_fitted_is_the_one_that_was_drawn() -> None:
    for modulation in (Modulation(0.2, 20.0), Modulation(0.4, 100.0)):
        pattern = ArrivalPattern((modulation,), 0.1)
        trace = counts(np.full(200, 6000)).generate(pattern, LENGTHS, seed=1)
        ripple, bin_variance = fit_windows.fit_ripple(trace.arrival_s, 600.0, 200)
        assert ripple.log_std == pytest.approx(modulation.log_std, rel=0.1)
        assert ripple.correlation_s == pytest.approx(modulation.correlation_s, rel=0.25)
        assert bin_variance == pytest.approx(0.1, rel=0.15)


class TestModulation:
    TIMES_S = np.arange(0.0, 400_000.0, 5.0)

    def test_moments_and_correlation(self) -> None:
        drawn = Modulation(0.3, 200.0).draw(self.TIMES_S, np.random.default_rng(0))
        assert drawn.mean() == pytest.approx(1.0, abs=0.03)
        log = np.log(drawn)
        assert log.std() == pytest.approx(0.3, rel=0.05)
        lag = round(200.0 / 5.0)
        assert np.corrcoef(log[:-lag], log[lag:])[0, 1] == pytest.approx(np.exp(-1), abs=0.05)

    def test_bin_noise(self) -> None:
        edges = np.arange(0.0, 50_000.0, BIN_S)
        rate = ArrivalPattern(bin_variance=0.3).relative_rate(edges, np.random.default_rng(0))
        assert rate.mean() == pytest.approx(1.0, abs=0.01)
        assert rate.var() == pytest.approx(0.3, rel=0.05)

    def test_silence(self) -> None:
        silence = Silence(8.0, 2.0, 2.0, 40.0)
        edges = np.arange(0.0, 200_000.0, BIN_S)
        share = silence.busy_share(edges, np.random.default_rng(0))
        assert share.mean() == pytest.approx(1.0, abs=0.05)
        assert (share == 0).mean() == pytest.approx(
            silence.idle_mean_s / (8.0 + silence.idle_mean_s), abs=0.05
        )


class TestLengthMix:
    def test_means_are_those_wanted(self) -> None:
        wanted = np.repeat([90.0, 150.0, 250.0], 60_000)
        prompt, output = LENGTHS.draw(len(wanted), np.random.default_rng(0), wanted, wanted / 3)
        for mean in np.unique(wanted):
            assert prompt[wanted == mean].mean() == pytest.approx(mean, rel=0.02)
            assert output[wanted == mean].mean() == pytest.approx(mean / 3, rel=0.02)
        assert (prompt.min(), prompt.max()) >= (10, 900)
        assert prompt.max() <= 1000

    def test_without_means_the_table_holds(self) -> None:
        prompt, output = LENGTHS.draw(100_000, np.random.default_rng(0))
        assert np.median(prompt) == pytest.approx(100, rel=0.02)
        assert prompt.mean() == pytest.approx(LENGTHS.prompt_mean, rel=0.01)
        assert output.mean() == pytest.approx(LENGTHS.output_mean, rel=0.01)
        assert stats.spearmanr(prompt, output).statistic == pytest.approx(0.2, abs=0.01)


class TestAzure2024:
    @pytest.mark.parametrize("service", ["conv", "code"])
    def test_the_figures_are_those_that_the_recipe_gives(self, service: str, data_dir: Path) -> None:
        assert fit_azure_2024.fit_service(service, data_dir / "traces") == azure_2024.SERVICES[service]

    @pytest.mark.parametrize(("service", "total"), [("code", 16_803_695), ("conv", 27_303_999)])
    def test_the_two_files_agree(self, service: str, total: int, data_dir: Path) -> None:
        hours = azure_2024.hourly_counts(data_dir / "traces/azure_llm_2024_hourly.csv.gz", service)
        windows = azure_2024.ten_minute_counts(data_dir / "traces/azure_llm_2024_10min.csv.gz", service)
        assert hours.requests.sum() == windows.requests.sum() == total
        np.testing.assert_array_equal(hours.requests, windows.requests.reshape(168, 6).sum(axis=1))

    def test_the_tokens_of_both_services_are_those_published(self, data_dir: Path) -> None:
        path = data_dir / "traces/azure_llm_2024_hourly.csv.gz"
        parts = [azure_2024.hourly_counts(path, service) for service in ("code", "conv")]
        prompt, output = (
            sum(float((part.requests * getattr(part, name)).sum()) for part in parts)
            for name in ("prompt_mean", "output_mean")
        )
        table = np.loadtxt(path, delimiter=",", skiprows=1, usecols=(2, 3))
        assert [prompt, output] == pytest.approx(table.sum(axis=0).tolist())

    @pytest.mark.parametrize("service", [pytest.param("conv", marks=pytest.mark.slow), "code"])
    def test_generated_windows_have_counts_and_mean_lengths(self, service: str, data_dir: Path) -> None:
        path = data_dir / "traces/azure_llm_2024_10min.csv.gz"
        published = azure_2024.ten_minute_counts(path, service)
        trace = azure_2024.trace_from_ten_minutes(path, service)
        count = np.bincount((trace.arrival_s // 600).astype(int), minlength=1008)
        np.testing.assert_array_equal(count, published.requests)
        prompt, output = trace.window_tokens(600.0)
        assert published.prompt_mean is not None
        assert published.output_mean is not None
        np.testing.assert_allclose(prompt / count, published.prompt_mean, rtol=0.08)
        np.testing.assert_allclose(prompt.sum(), (count * published.prompt_mean).sum(), rtol=0.002)
        np.testing.assert_allclose(output.sum(), (count * published.output_mean).sum(), rtol=0.01)


class TestBurstGpt:
    def test_the_ripple_is_that_of_the_recipe(self, data_dir: Path) -> None:
        assert burstgpt_hours.PATTERN.modulations == (fit_azure_2024.fit_burstgpt(data_dir / "traces"),)

    def test_counts_and_tokens(self, data_dir: Path) -> None:
        hourly, daily = (data_dir / f"traces/burstgpt_{name}.csv.gz" for name in ("hourly", "daily"))
        trace = burstgpt_hours.trace_from_hourly(hourly, daily)
        table = np.loadtxt(hourly, delimiter=",", skiprows=1)
        assert trace.request_class is not None
        for kind in range(2):
            hour = (trace.arrival_s[trace.request_class == kind] // 3600).astype(int)
            np.testing.assert_array_equal(np.bincount(hour, minlength=1464), table[:, 2 + kind])
        days = np.loadtxt(daily, delimiter=",", skiprows=1)
        prompt, output = trace.window_tokens(86_400.0)
        np.testing.assert_allclose(prompt + output, days[:, 2], rtol=0.1)
        assert (prompt + output).sum() == pytest.approx(days[:, 2].sum(), rel=0.01)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Modulation(-0.1, 60.0), r"Modulation\.log_std: expected a number in \[0, 10\], got -0\.1"),
        (lambda: Modulation(0.1, 0.0), r"Modulation\.correlation_s: expected a number in \(0, "),
        (lambda: Silence(0.0, 2.0, 1.0, 1.0), r"Silence\.busy_mean_s: expected a number in \(0, "),
        (lambda: Silence(5.0, 2.0, -1.0, 1.0), r"Silence\.idle_short_s: expected a number in \[0, "),
        (lambda: ArrivalPattern(bin_variance=float("nan")), r"ArrivalPattern\.bin_variance: expected"),
        (lambda: LengthMix((0.0, 0.9), (1, 2), (1, 2), 0.0), r"levels: expected numbers that rise from 0"),
        (lambda: LengthMix((0.0, 1.0), (1, 2, 3), (1, 2), 0.0), r"prompt_quantiles: expected 2 numbers"),
        (lambda: LengthMix((0.0, 1.0), (1, 2), (0, 2), 0.0), r"output_quantiles: expected 2 numbers"),
        (lambda: LengthMix((0.0, 1.0), (1, 2), (3, 2), 0.0), r"output_quantiles: expected 2 numbers"),
        (lambda: LengthMix((0.0, 1.0), (1, 2), (1, 2), 0.5), r"LengthMix\.correlation: expected a number"),
        (lambda: counts(np.array([1, -1])), r"WindowCounts\.requests: expected one or more whole numbers"),
        (lambda: counts(np.array([1.0, 2.0])), r"WindowCounts\.requests: expected one or more whole numbers"),
        (lambda: counts(window_s=600.3), r"WindowCounts\.window_s: expected a multiple of 0\.5 s"),
        (lambda: with_means([100.0]), r"WindowCounts\.prompt_mean: expected 2 means, one for each window"),
        (lambda: with_means([100.0, 0.0]), r"WindowCounts\.prompt_mean\[1\]: expected a finite number > 0"),
        (lambda: counts().generate(STEADY, LENGTHS, seed=-1), r"mine: seed: expected an integer >= 0"),
    ],
)
def test_bad_input_is_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def with_means(means: list[float]) -> WindowCounts:
    return WindowCounts("mine", "", 600.0, 0.0, np.array([1, 2]), np.array(means))


def test_an_empty_window_needs_no_mean() -> None:
    counts = WindowCounts("mine", "", 600.0, 0.0, np.array([0, 20_000]), np.array([np.nan, 50.0]))
    assert counts.generate(STEADY, LENGTHS).prompt_tokens.mean() == pytest.approx(50.0, rel=0.05)
