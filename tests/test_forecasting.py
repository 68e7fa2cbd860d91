from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preserve_gym.errors import InputError
from preserve_gym.forecasting import (
    WorkloadForecast,
    make_forecast,
    naive_forecast,
    needed_instances,
    noisy_forecast,
    oracle_forecast,
    sigma_of_mape,
)
from preserve_gym.forecasting.pending import pending_tokens
from preserve_gym.sim.profile import InstanceProfile
from preserve_gym.traces import Trace, synthetic_trace


def steady(windows: int, window_s: float = 10.0) -> Trace:
    """Window k holds one request of k + 1 prompt and 10 * (k + 1) output tokens."""
    tokens = np.arange(1, windows + 1)
    return Trace(np.arange(windows) * window_s + 1.0, tokens, 10 * tokens, span_s=windows * window_s)


def test_naive_repeats_the_last_closed_window() -> None:
    forecast = naive_forecast(steady(4), 10.0, 3, prior=(7.0, 8.0))
    np.testing.assert_array_equal(forecast.prompt_tokens, [[7] * 3, [1] * 3, [2] * 3, [3] * 3])
    np.testing.assert_array_equal(forecast.output_tokens, [[8] * 3, [10] * 3, [20] * 3, [30] * 3])
    assert not forecast.uses_future
    assert (len(forecast), forecast.horizon, forecast.name) == (4, 3, "naive")


@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 1000))
def test_naive_never_looks_ahead(window: int, horizon: int, seed: int) -> None:
    trace = synthetic_trace("code", duration_s=1800.0, seed=1)
    cut_s = window * 60.0
    rng = np.random.default_rng(seed)
    later = trace.arrival_s >= cut_s
    changed = Trace(
        trace.arrival_s,
        np.where(later, rng.integers(1, 9999, len(trace)), trace.prompt_tokens),
        np.where(later, rng.integers(1, 9999, len(trace)), trace.output_tokens),
        span_s=trace.span_s,
    )
    first, second = (naive_forecast(t, 60.0, horizon, (1.0, 1.0)) for t in (trace, changed))
    # The forecast at the start of the window of the cut is made at the cut.
    np.testing.assert_array_equal(first.prompt_tokens[: window + 1], second.prompt_tokens[: window + 1])
    np.testing.assert_array_equal(first.output_tokens[: window + 1], second.output_tokens[: window + 1])


def test_the_oracle_knows_the_windows_to_come() -> None:
    forecast = oracle_forecast(steady(4), 10.0, 3)
    np.testing.assert_array_equal(forecast.prompt_tokens, [[1, 2, 3], [2, 3, 4], [3, 4, 4], [4, 4, 4]])
    np.testing.assert_array_equal(forecast.output_tokens, 10 * forecast.prompt_tokens)
    assert forecast.uses_future


def test_the_end_of_a_recording_is_no_fall_of_the_load() -> None:
    trace = Trace([5.0, 15.0, 21.0], [100, 200, 30], [1, 2, 3], span_s=22.5)
    # A quarter of the last window is recorded; three quarters of the window before make it whole.
    np.testing.assert_allclose(
        oracle_forecast(trace, 10.0, 2).prompt_tokens, [[100, 200], [200, 180], [180, 180]]
    )
    np.testing.assert_allclose(oracle_forecast(trace, 45.0, 2).prompt_tokens, [[660, 660]])
    np.testing.assert_allclose(oracle_forecast(Trace([0.0], [9], [1]), 10.0, 1).prompt_tokens, [[9]])


@pytest.mark.parametrize("tail", ["thin", "fat"])
@pytest.mark.parametrize("mape", [0.0415, 0.0617, 0.0774, 0.24, 1.0])
def test_noise_has_the_mean_error_that_is_set(mape: float, tail: str) -> None:
    count = 200_000
    trace = Trace(np.arange(count) + 0.5, np.full(count, 1000), np.full(count, 50), span_s=count)
    forecast = noisy_forecast(trace, 1.0, 1, prompt_mape=mape, output_mape=mape / 2, seed=2, tail=tail)
    for values, truth, expected in (
        (forecast.prompt_tokens, 1000.0, mape),
        (forecast.output_tokens, 50.0, mape / 2),
    ):
        ratio = values[:, 0] / truth
        assert np.abs(ratio - 1).mean() == pytest.approx(expected, rel=0.02 if tail == "thin" else 0.05)
        assert np.median(ratio) == pytest.approx(1.0, abs=0.01)
    assert abs(np.corrcoef(forecast.prompt_tokens[:, 0], forecast.output_tokens[:, 0])[0, 1]) < 0.01
    assert forecast.uses_future


def test_a_fat_tail_has_larger_and_smaller_errors() -> None:
    count = 100_000
    trace = Trace(np.arange(count) + 0.5, np.full(count, 1000), np.full(count, 50), span_s=count)
    thin, fat = (
        np.abs(noisy_forecast(trace, 1.0, 1, 0.06, 0.06, tail=tail).prompt_tokens[:, 0] / 1000 - 1)
        for tail in ("thin", "fat")
    )
    assert np.median(fat) < 0.9 * np.median(thin)
    assert np.quantile(fat, 0.99) > 1.5 * np.quantile(thin, 0.99)


def test_sigma_of_the_published_errors() -> None:
    """PreServe's errors: code 7.74 and 8.45 %, conversation 4.15 and 4.30 %, mean 6.17 %."""
    errors = [0.0774, 0.0845, 0.0415, 0.0430, 0.0617]
    np.testing.assert_allclose(
        [sigma_of_mape(e) for e in errors], [0.097, 0.106, 0.052, 0.054, 0.0772], atol=5e-4
    )
    assert sigma_of_mape(0) == 0.0
    assert sigma_of_mape(10.0) < 4.0


@given(st.integers(2, 6), st.integers(0, 2**40))
def test_a_window_has_one_error_whenever_it_is_forecast(horizon: int, seed: int) -> None:
    trace = steady(12)
    forecast = noisy_forecast(trace, 10.0, horizon, 0.1, 0.2, seed)
    for values in (forecast.prompt_tokens, forecast.output_tokens):
        np.testing.assert_array_equal(values[:-1, 1:], values[1:, :-1])
    longer = noisy_forecast(trace, 10.0, horizon + 1, 0.1, 0.2, seed)
    np.testing.assert_array_equal(longer.prompt_tokens[:, :horizon], forecast.prompt_tokens)
    other = noisy_forecast(trace, 10.0, horizon, 0.1, 0.2, seed + 1)
    assert not np.array_equal(other.prompt_tokens, forecast.prompt_tokens)


def test_no_error_is_the_oracle() -> None:
    noisy, oracle = noisy_forecast(steady(5), 10.0, 2, 0.0, 0.0), oracle_forecast(steady(5), 10.0, 2)
    np.testing.assert_array_equal(noisy.prompt_tokens, oracle.prompt_tokens)


def test_requests_that_still_run_count_with_their_predicted_length() -> None:
    trace = Trace([5.0, 95.0, 150.0, 195.0, 250.0], [1] * 5, [10, 20, 30, 40, 50], span_s=300.0)
    predicted = np.array([1000, 25, 31, 70, 999])
    late = pending_tokens(trace, predicted, 100.0, 60.0)
    # At 100 s the request of 95 s runs; at 200 s those of 150 s and 195 s do.
    np.testing.assert_array_equal(late, [[0.0], [5.0], [31.0]])
    made = make_forecast("naive", trace, 100.0, 1, prior=(0.0, 0.0), predicted_tokens=predicted)
    np.testing.assert_array_equal(made.output_tokens[:, 0], [0, 35, 101])
    drift = make_forecast("drift", trace, 100.0, 1, prior=(0.0, 0.0), predicted_tokens=predicted)
    np.testing.assert_array_equal(drift.output_tokens[:, 0], [0, 35, 101 + 71])
    # Windows shorter than that: several of them hold requests that run.
    short = pending_tokens(trace, predicted, 40.0, 60.0)
    np.testing.assert_array_equal(short[[3, 5, 6]], [[5, 0], [30, 1], [0, 30]])
    assert pending_tokens(trace, predicted, 100.0, 0.0).shape == (3, 0)


@pytest.mark.parametrize("unfinished_s", [-1.0, np.nan, 1e9])
def test_bad_times_of_running_are_named(unfinished_s: float) -> None:
    with pytest.raises(InputError, match="unfinished_s: expected a number in"):
        pending_tokens(steady(3), np.ones(3, np.int32), 10.0, unfinished_s)
    with pytest.raises(InputError, match="predicted_tokens: expected one for each of 3 requests"):
        pending_tokens(steady(3), np.ones(2, np.int32), 10.0)


def test_needed_instances() -> None:
    profile = InstanceProfile(1.0, 10.0, 4.0, 12.0, 3.0, 1.0, 2.0)
    prompt = np.array([[300.0, 10.0, 90.0]])
    output = np.array([[10.0, 80.0, 39.0]])
    forecast = WorkloadForecast(10.0, prompt, output, "mine", uses_future=False)
    # Bound by prompt tokens, by output tokens, and by both together.
    np.testing.assert_allclose(needed_instances(forecast, profile), [[3.0, 2.0, 1.075]])


def test_forecasts_by_name() -> None:
    trace = steady(5)
    for name, direct in (
        ("naive", naive_forecast(trace, 10.0, 2, (3.0, 4.0))),
        ("noisy", noisy_forecast(trace, 10.0, 2, 0.1, 0.2, 5)),
        ("oracle", oracle_forecast(trace, 10.0, 2)),
    ):
        made = make_forecast(name, trace, 10.0, 2, prior=(3.0, 4.0), prompt_mape=0.1, output_mape=0.2, seed=5)
        assert made.name == name
        assert made.uses_future == direct.uses_future
        np.testing.assert_array_equal(made.prompt_tokens, direct.prompt_tokens)
        np.testing.assert_array_equal(made.output_tokens, direct.output_tokens)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "crystal"}, "forecast: expected one of naive, .*, or sktime: .*, got 'crystal'"),
        ({"tail": "long"}, "forecast 'noisy': tail: expected one of thin, fat, got 'long'"),
        ({"name": "naive"}, "forecast 'naive': prior: expected"),
        (
            {"name": "naive", "prior": (1.0, -1.0)},
            "forecast 'naive': prior: expected two finite numbers >= 0",
        ),
        ({"name": "naive", "prior": (1.0, float("nan"))}, "prior: expected"),
        ({"name": "naive", "prior": (1.0,)}, "prior: expected"),
        ({"name": "naive", "prior": (1.0, 1.0), "horizon": 0}, "horizon: expected an integer in"),
        ({"horizon": 0}, "horizon: expected"),
        ({"horizon": 1.5}, "horizon: expected"),
        ({"window_s": 0.0}, "window_s: expected a finite number > 0"),
        ({"window_s": float("nan")}, "window_s: expected"),
        ({"prompt_mape": -0.1}, r"mean absolute percentage error: expected a fraction in \[0, 10\]"),
        ({"output_mape": 11.0}, "mean absolute percentage error: expected"),
        ({"output_mape": float("nan")}, "mean absolute percentage error: expected"),
        ({"seed": -1}, "seed: expected an integer"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    defaults = {"name": "noisy", "trace": steady(3), "window_s": 10.0, "horizon": 2}
    with pytest.raises(InputError, match=message):
        make_forecast(**{**defaults, **arguments})  # type: ignore[arg-type]


def test_a_forecast_is_checked_and_read_only() -> None:
    good = np.ones((3, 2))
    forecast = WorkloadForecast(10.0, good, good, "mine", uses_future=False)
    with pytest.raises(ValueError, match="read-only"):
        forecast.prompt_tokens[0, 0] = 2.0
    bad = good.copy()
    bad[2, 1] = np.nan
    for window_s, prompt, output, message in (
        (0.0, good, good, "forecast 'mine': window_s: expected"),
        (10.0, good[0], good[0], r"prompt_tokens: expected an array of windows x horizon, .* shape \(2,\)"),
        (10.0, good[:, :0], good[:, :0], "prompt_tokens: expected an array"),
        (10.0, good, good[:2], r"output_tokens: .* got shape \(2, 2\)"),
        (10.0, good, bad, "window 2, step 1: output_tokens: expected a finite number >= 0, got nan"),
        (10.0, -good, good, "window 0, step 0: prompt_tokens: .* got -1.0"),
    ):
        with pytest.raises(InputError, match=message):
            WorkloadForecast(window_s, prompt, output, "mine", uses_future=False)
    with pytest.raises(InputError, match=r"output_quantiles: expected .* \(3, 1, 2\), got shape \(3, 2, 2\)"):
        WorkloadForecast(10.0, good, good, "mine", False, (0.5,), good[:, None], np.ones((3, 2, 2)))
