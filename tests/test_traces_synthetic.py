from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from preserve_gym.errors import InputError
from preserve_gym.traces import Trace, synthetic_trace
from preserve_gym.traces.synthetic_fits import QUANTILE_LEVELS, SERVICES
from tests import fit_synthetic, fit_windows

KINDS = ("chat", "code")
HOURS = 40


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def real(kind: str, data_dir: Path) -> Trace:
    return fit_windows.hour_of_2023(kind, data_dir / "traces")


@pytest.fixture(scope="module")
def hours(kind: str, real: Trace) -> list[Trace]:
    return fit_synthetic.generated_hours(kind, real, HOURS)


def test_seeds(kind: str) -> None:
    first, again, other = (synthetic_trace(kind, duration_s=3600.0, seed=seed) for seed in (1, 1, 2))
    for column in ("arrival_s", "prompt_tokens", "output_tokens"):
        np.testing.assert_array_equal(getattr(first, column), getattr(again, column))
    assert len(first) != len(other)


def test_a_trace_lies_in_its_span(kind: str) -> None:
    trace = synthetic_trace(kind, duration_s=1000.25, start_clock_s=43_200.0)
    assert (trace.span_s, trace.clock_s, trace.name) == (1000.25, 43_200.0, f"synthetic-{kind}")
    assert len(trace) > 0
    assert trace.arrival_s[-1] <= 1000.25
    fit = SERVICES[kind]
    for tokens, quantiles in (
        (trace.prompt_tokens, fit.prompt_quantiles),
        (trace.output_tokens, fit.output_quantiles),
    ):
        assert quantiles[0] <= tokens.min() <= tokens.max() <= quantiles[-1]


def test_a_moment_may_be_silent() -> None:
    assert min(len(synthetic_trace("code", duration_s=0.1, seed=seed)) for seed in range(5)) == 0


def test_the_rate_alone_scales_the_arrivals(kind: str) -> None:
    slow, fast = (synthetic_trace(kind, mean_rate_rps=rate, seed=7) for rate in (1.0, 5.0))
    assert len(fast) / len(slow) == pytest.approx(5.0, rel=0.03)
    # Same swell and silence: the counts of minutes go together.
    counts = [np.bincount((t.arrival_s // 60).astype(int), minlength=1440) for t in (slow, fast)]
    assert np.corrcoef(counts[0], counts[1])[0, 1] > 0.8


def test_the_mean_rate_over_many_days(kind: str) -> None:
    weeks = 4
    trace = synthetic_trace(kind, duration_s=weeks * 7 * 86_400.0, start_day=0, mean_rate_rps=0.5, seed=0)
    count = np.bincount((trace.arrival_s // 3600).astype(int), minlength=weeks * 168)
    days = count.reshape(weeks, 7, 24).mean(axis=0) / 3600
    weekday, weekend = days[:5].mean(axis=0), days[5:].mean(axis=0)
    fit = SERVICES[kind]
    assert weekday.mean() == pytest.approx(0.5, rel=0.05)
    assert weekend.mean() / weekday.mean() == pytest.approx(np.mean(fit.weekend_rate), rel=0.1)
    for rates, profile in ((weekday, fit.hourly_rate), (weekend, fit.weekend_rate)):
        assert np.corrcoef(rates, profile)[0, 1] > 0.9
        np.testing.assert_allclose(rates / 0.5, profile, rtol=0.3)


@pytest.mark.parametrize("day", [-1, 7, 1.5])
def test_days_that_are_none(day: float) -> None:
    with pytest.raises(InputError, match="start_day: expected a weekday from 0 to 6"):
        synthetic_trace("chat", start_day=day)  # type: ignore[arg-type]


def test_tables_are_well_formed(kind: str) -> None:
    fit = SERVICES[kind]
    assert len(fit.hourly_rate) == 24
    assert np.mean(fit.hourly_rate) == pytest.approx(1.0, abs=1e-3)
    assert QUANTILE_LEVELS[0] == 0
    assert QUANTILE_LEVELS[-1] == 1
    assert (np.diff(QUANTILE_LEVELS) > 0).all()
    assert abs(fit.length_correlation) <= 1 / 3
    for quantiles in (fit.prompt_quantiles, fit.output_quantiles):
        assert len(quantiles) == len(QUANTILE_LEVELS)
        assert quantiles[0] >= 1
        assert (np.diff(quantiles) >= 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "batch"}, "expected one of chat, code, got 'batch'"),
        ({"duration_s": 0.0}, r"duration_s: expected a number in \(0, "),
        ({"duration_s": float("nan")}, "duration_s: expected"),
        ({"duration_s": float("inf")}, "duration_s: expected"),
        ({"duration_s": "day"}, "duration_s: expected"),
        ({"mean_rate_rps": 0.0}, "mean_rate_rps: expected"),
        ({"mean_rate_rps": -1.0}, "mean_rate_rps: expected"),
        ({"mean_rate_rps": 1e9}, "mean_rate_rps: expected"),
        ({"start_clock_s": 86_400.0}, r"start_clock_s: expected seconds in \[0, 86400\)"),
        ({"start_clock_s": -1.0}, "start_clock_s: expected"),
        ({"seed": -1}, "seed: expected an integer >= 0"),
        ({"seed": 0.5}, "seed: expected"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        synthetic_trace(**{"kind": "chat", **arguments})  # type: ignore[arg-type]


def test_the_committed_fit_is_that_of_the_recipe(kind: str, data_dir: Path) -> None:
    assert fit_synthetic.fit_service(kind, data_dir / "traces") == SERVICES[kind]


@pytest.mark.parametrize("column", ["prompt_tokens", "output_tokens"])
def test_lengths_are_those_of_the_real_hour(real: Trace, hours: list[Trace], column: str) -> None:
    generated = np.concatenate([getattr(hour, column) for hour in hours])
    tokens = getattr(real, column)
    levels = [0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99]
    np.testing.assert_allclose(np.quantile(generated, levels), np.quantile(tokens, levels), rtol=0.05)
    assert generated.mean() == pytest.approx(tokens.mean(), rel=0.03)
    assert generated.std() == pytest.approx(tokens.std(), rel=0.05)


def test_prompts_and_outputs_go_together_as_in_the_real_hour(real: Trace, hours: list[Trace]) -> None:
    correlation = np.mean([fit_windows.rank_correlation(hour) for hour in hours])
    assert correlation == pytest.approx(fit_windows.rank_correlation(real), abs=0.01)


def test_bursts_are_those_of_the_real_hour(kind: str, real: Trace, hours: list[Trace]) -> None:
    """Fitted inside windows of 10 minutes and, above, to 2024, of which the real hour is but one sample."""
    cv = [fit_synthetic.arrival_cv(hour.arrival_s) for hour in hours]
    assert np.mean(cv) == pytest.approx(fit_synthetic.arrival_cv(real.arrival_s), rel=0.05)
    for window_s, rtol in (
        (1.0, 0.3),
        (10.0, 0.3),
        (60.0, 0.3),
        (120.0, 0.3),
        (300.0, 0.4),
        (600.0, 0.4),
    ):
        variance = [fit_synthetic.relative_variance(hour.arrival_s, window_s) for hour in hours]
        expected = fit_synthetic.relative_variance(real.arrival_s, window_s)
        assert np.mean(variance) == pytest.approx(expected, rel=rtol), window_s
        assert np.min(variance) < expected < np.max(variance)


def test_minutes_disperse_as_in_the_real_hour(real: Trace, hours: list[Trace]) -> None:
    def index_of_dispersion(trace: Trace) -> float:
        counts = np.bincount((trace.arrival_s // 60).astype(int))[:-1]
        return float(counts.var() / counts.mean())

    generated = np.mean([index_of_dispersion(hour) for hour in hours])
    assert generated == pytest.approx(index_of_dispersion(real), rel=0.3)


def test_the_day_is_that_of_the_real_week(kind: str, data_dir: Path) -> None:
    """Hourly counts of generated days against the weekdays of 2024: shape, and swell around it."""
    table = fit_synthetic.hours_of_2024(kind, data_dir / "traces", weekend=False)
    real = table["requests"].to_numpy().reshape(5, 24)
    days = [synthetic_trace(kind, seed=seed) for seed in range(5)]
    generated = np.array([np.bincount((day.arrival_s // 3600).astype(int), minlength=24) for day in days])
    assert np.corrcoef(generated.mean(axis=0), real.mean(axis=0))[0, 1] > 0.95
