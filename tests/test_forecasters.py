"""Forecasters that learn: what they see, what they do where they cannot forecast, how good they are."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from preserve_gym import Workload, WorkloadConfig
from preserve_gym.errors import InputError
from preserve_gym.forecasting import (
    FORECASTERS,
    Forecaster,
    Prediction,
    SktimeForecaster,
    make_forecast,
    make_forecaster,
    walk_forward,
)
from preserve_gym.forecasting.ensemble import Ensemble
from preserve_gym.forecasting.lag_features import first_row, lag_features
from preserve_gym.forecasting.naive import LastValue
from preserve_gym.forecasting.registry import LEARNERS
from preserve_gym.forecasting.walk_forward import fit_point
from preserve_gym.traces import Trace, synthetic_trace

HOUR_S = 3600.0
LEVELS = (0.1, 0.5, 0.9)
FloatArray = NDArray[np.float64]

# Statsmodels and the trees fit many models: half a minute and more for a series of a few days.
SLOW = ("arima", "ensemble", "ets", "theta", "trees", "sktime:NaiveForecaster")
QUICK = [name for name in LEARNERS if name not in (*SLOW, "prophet")]
BY_NAME = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


def service(days: int, seed: int = 0) -> FloatArray:
    """Hours of a service with a day, whose level wanders."""
    rng = np.random.default_rng(seed)
    hour = np.arange(24 * days)
    level = np.zeros(len(hour))
    for k in hour[1:]:
        level[k] = 0.95 * level[k - 1] + 0.1 * rng.standard_normal()
    noise = 0.05 * rng.standard_normal(len(hour))
    return 1e6 * np.exp(np.sin(2 * np.pi * (hour - 8) / 24) + level + noise)


def walk(forecaster: Forecaster, series: FloatArray, horizon: int = 3, **options: Any) -> Any:
    options = {"train_windows": max(len(series) // 2, 1), "window_s": HOUR_S, "clock_s": 0.0} | options
    return walk_forward(forecaster, series, horizon, **options)


def error(mean: FloatArray, series: FloatArray, first: int) -> float:
    """Mean absolute error over the horizon, from window ``first`` on."""
    horizon = mean.shape[1]
    ahead = np.lib.stride_tricks.sliding_window_view(series, horizon)
    return float(np.abs(mean[first : len(ahead)] - ahead[first:]).mean())


class Mean:
    """The mean of the past that it was fitted on, with a record of all that it was shown."""

    name = "mean"
    min_history = 2

    def __init__(self, refit_windows: int | None) -> None:
        self.refit_windows = refit_windows
        self.fitted: list[int] = []
        self.seen: list[FloatArray] = []

    def fit(self, history: FloatArray, first_window: int, window_s: float, clock_s: float) -> None:
        self.fitted.append(len(history))
        self._mean = history.mean()

    def predict(self, history: FloatArray, horizon: int, levels: tuple[float, ...] = ()) -> Prediction:
        self.seen.append(history)
        return Prediction(np.full(horizon, self._mean))


class Broken(LastValue):
    """Fails in one of several ways, in every window from the third on."""

    def __init__(self, how: str) -> None:
        self._how = how

    def fit(self, history: FloatArray, first_window: int, window_s: float, clock_s: float) -> None:
        if self._how == "fit" and len(history) >= 3:
            raise np.linalg.LinAlgError("singular")

    def predict(self, history: FloatArray, horizon: int, levels: tuple[float, ...] = ()) -> Prediction:
        made = super().predict(history, horizon)
        if len(history) >= 3:
            if self._how == "raise":
                raise RuntimeError("no idea")
            if self._how == "nan":
                made.mean[-1] = np.nan
            elif self._how == "shape":
                return Prediction(made.mean[:-1])
            elif self._how == "quantiles":
                return Prediction(made.mean, np.full((len(levels), horizon), np.inf))
            elif self._how == "convergence":
                import warnings

                from sklearn.exceptions import ConvergenceWarning

                warnings.warn("gave up", ConvergenceWarning, stacklevel=1)
        return made


def test_every_name_is_registered_and_known() -> None:
    assert set(FORECASTERS) == {
        *("naive", "seasonal-naive", "seasonal-naive-week", "drift", "profile-ar", "ets", "theta", "arima"),
        *("prophet", "trees", "ensemble", "lstm", "mlstm", "lstm-artifact", "oracle", "noisy"),
    }
    for name in LEARNERS:
        if name != "prophet":
            assert make_forecaster(name, HOUR_S).name == name


@pytest.mark.parametrize("name", BY_NAME)
def test_no_forecast_looks_ahead(name: str) -> None:
    # A forecast by the week before needs more than a week; what is slow to fit has fewer days.
    days, cut = (9, 5 * 24 + 7) if name in QUICK else (6, 4 * 24 + 7)
    series = service(days)
    changed = series.copy()
    changed[cut:] *= np.random.default_rng(1).uniform(0.2, 5.0, len(series) - cut)
    # The training part ends before the cut, or what is fitted there may differ.
    options: dict[str, Any] = {"levels": LEVELS, "train_windows": 4 * 24 - 1}
    one, two = (walk(make_forecaster(name, HOUR_S), s, **options) for s in (series, changed))
    # The forecast at the start of the window of the cut is made at the cut.
    np.testing.assert_array_equal(one.mean[: cut + 1], two.mean[: cut + 1])
    np.testing.assert_array_equal(one.quantiles[: cut + 1], two.quantiles[: cut + 1])
    assert not np.array_equal(one.mean[cut + 1 :], two.mean[cut + 1 :])
    # ARIMA may not converge on some days.
    assert one.failure == "" or (name == "arima" and "no convergence" in one.failure)


def unfitted(forecaster: Forecaster, windows: int) -> int:
    """Windows before it is first fitted; one that is trained once is trained on a quarter of them first."""
    first = windows // 4 if forecaster.refit_windows is None else 0
    return min(max(forecaster.min_history, first), windows)


@pytest.mark.parametrize("name", QUICK)
def test_forecasts_are_whole_and_quantiles_in_order(name: str) -> None:
    table = walk(make_forecaster(name, HOUR_S), service(5), levels=LEVELS)
    assert table.mean.shape == (120, 3)
    assert table.quantiles.shape == (120, 3, 3)
    assert np.isfinite(table.mean).all()
    assert (table.mean >= 0.0).all()
    assert (np.diff(table.quantiles, axis=1) >= 0.0).all()
    least = unfitted(make_forecaster(name, HOUR_S), 120)
    assert table.fallbacks == least or (name == "arima" and "no convergence" in table.failure)
    if name in ("profile-ar", "ets", "theta", "ensemble"):
        assert (table.quantiles[-1, 2] > table.quantiles[-1, 0]).all()


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("level", [0.0, 5000.0])
def test_a_constant_series_is_forecast_as_it_is(name: str, level: float) -> None:
    table = walk(make_forecaster(name, HOUR_S), np.full(96, level))
    np.testing.assert_allclose(table.mean, level, rtol=0.02, atol=1.0)


@pytest.mark.parametrize("name", QUICK)
def test_hours_without_requests_are_no_failure(name: str) -> None:
    series = service(6)
    series[60:84] = 0.0
    table = walk(make_forecaster(name, HOUR_S), series)
    assert np.isfinite(table.mean).all()
    assert table.fallbacks == unfitted(make_forecaster(name, HOUR_S), len(series)) or table.failure


@pytest.mark.parametrize("name", QUICK)
def test_a_trace_shorter_than_the_history_is_forecast_by_the_last_value(name: str) -> None:
    table = walk(make_forecaster(name, HOUR_S), np.array([3.0]), prior=7.0)
    np.testing.assert_array_equal(table.mean, [[7.0] * 3])
    table = walk(make_forecaster("profile-ar", HOUR_S), np.array([3.0, 4.0, 5.0]), prior=7.0)
    np.testing.assert_array_equal(table.mean, [[7.0] * 3, [3.0] * 3, [4.0] * 3])
    assert table.fallbacks == 3


@pytest.mark.parametrize("how", ["fit", "raise", "nan", "shape", "quantiles", "convergence"])
def test_a_failure_is_answered_by_the_day_before(how: str) -> None:
    series = service(2)
    table = walk(Broken(how), series, levels=LEVELS)
    assert table.fallbacks == len(series) - 2
    assert table.failure
    np.testing.assert_array_equal(table.mean[2], [series[1]] * 3)
    # A day later there is a window at the same time of the day before.
    np.testing.assert_array_equal(table.mean[30], series[6:9])
    np.testing.assert_array_equal(table.quantiles[30], [series[6:9]] * 3)


def test_what_is_below_zero_becomes_zero() -> None:
    series = np.array([100.0, 60.0, 20.0, 10.0])
    table = walk(make_forecaster("drift", HOUR_S), series)
    np.testing.assert_array_equal(table.mean[3], [0.0, 0.0, 0.0])
    assert table.fallbacks == 2


def test_a_season_longer_than_the_history_falls_back_to_the_day() -> None:
    series = service(8)
    table = walk(make_forecaster("seasonal-naive-week", HOUR_S), series)
    assert table.fallbacks == 7 * 24
    np.testing.assert_array_equal(table.mean[100], series[76:79])
    np.testing.assert_array_equal(table.mean[170], series[2:5])


def test_a_model_trained_once_never_saw_what_it_forecasts() -> None:
    model = Mean(None)
    series = np.arange(96.0)
    table = walk(model, series, train_windows=80)
    assert model.fitted == [20, 40, 80]
    assert table.fallbacks == 20
    np.testing.assert_array_equal(table.mean[[20, 39, 40, 79, 80, 95], 0], [9.5, 9.5, 19.5, 19.5, 39.5, 39.5])


def test_a_model_is_fitted_again_at_multiples() -> None:
    model = Mean(10)
    walk(model, np.arange(35.0))
    assert model.fitted == [2, 10, 20, 30]
    assert [fit_point(model, window, 0) for window in (0, 1, 2, 9, 10, 34)] == [None, None, 2, 2, 10, 30]
    assert [len(seen) for seen in model.seen] == list(range(2, 35))


def test_what_is_pending_is_known_later() -> None:
    model = Mean(1)
    pending = np.zeros((4, 2))
    pending[2] = [5.0, 0.5]  # at the start of window 2, of windows 1 and 0
    pending[3] = [-100.0, 0.0]
    walk(model, np.array([10.0, 20.0, 30.0, 40.0]), pending=pending)
    assert [seen.tolist() for seen in model.seen] == [[10.5, 25.0], [10.0, 20.0, 0.0]]


def test_features_are_differences_of_the_past() -> None:
    logs = np.log(service(9))
    origin = np.arange(first_row(HOUR_S), len(logs))
    for step in (0, 5, 23, 24, 50):
        rows = lag_features(logs, origin, step, HOUR_S)
        assert rows.shape == (len(origin), 12)
        np.testing.assert_allclose(lag_features(logs + 3.0, origin, step, HOUR_S), rows, atol=1e-9)
        for k in (0, 40, len(origin) - 1):
            alone = lag_features(logs[: origin[k]], origin[k : k + 1], step, HOUR_S)
            np.testing.assert_allclose(alone[0], rows[k], atol=1e-12)


def test_the_profile_is_learnt_with_its_level() -> None:
    series = service(14)
    first = 8 * 24
    ours = error(walk(make_forecaster("profile-ar", HOUR_S), series, 6).mean, series, first)
    rivals = [
        error(walk(make_forecaster(name, HOUR_S), series, 6).mean, series, first)
        for name in ("naive", "seasonal-naive")
    ]
    assert ours < 0.8 * min(rivals)


def test_quantiles_hold_their_share() -> None:
    series = service(30)
    table = walk(make_forecaster("profile-ar", HOUR_S), series, 1, levels=LEVELS)
    below = (series[240:, None] < table.quantiles[240:, :, 0]).mean(axis=0)
    np.testing.assert_allclose(below, LEVELS, atol=0.1)


def test_quantiles_widen_where_a_service_becomes_livelier() -> None:
    noise = np.random.default_rng(0).standard_normal(30 * 24)
    noise *= np.where(np.arange(30 * 24) < 20 * 24, 0.02, 0.2)
    series = 1e5 * np.exp(noise)
    table = walk(make_forecaster("profile-ar", HOUR_S), series, 1, levels=LEVELS)
    # The model that was fitted after 24 days knows four lively ones.
    rows = slice(24 * 24, None)
    inside = (table.quantiles[rows, 0, 0] <= series[rows]) & (series[rows] <= table.quantiles[rows, -1, 0])
    assert 0.65 < inside.mean() < 0.95


def test_an_ensemble_is_the_median_and_members_keep_their_policy() -> None:
    members = [LastValue(), Mean(10), Mean(5)]
    table = walk(Ensemble(members), np.arange(24.0))
    np.testing.assert_array_equal(table.mean[23], [9.5] * 3)
    assert members[1].fitted == [2, 10, 20]  # type: ignore[attr-defined]
    assert members[2].fitted == [2, 5, 10, 15, 20]  # type: ignore[attr-defined]


def test_a_forecaster_of_sktime_as_an_object() -> None:
    from sktime.forecasting.naive import NaiveForecaster

    tokens = np.arange(1, 31)
    trace = Trace(np.arange(30) * HOUR_S, tokens, tokens, span_s=30 * HOUR_S)
    one = make_forecast(NaiveForecaster(sp=24), trace, HOUR_S, 2)
    assert one.name == "NaiveForecaster"
    np.testing.assert_array_equal(one.prompt_tokens[28], [5, 6])


def test_between_fits_a_model_of_sktime_gets_the_new_windows() -> None:
    from sktime.forecasting.naive import NaiveForecaster

    model = SktimeForecaster(NaiveForecaster(), "last", refit_windows=24)
    series = service(3)
    np.testing.assert_allclose(walk(model, series).mean[2:, 0], series[1:-1])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("season-naive", "did you mean seasonal-naive"),
        ("ensembel", "did you mean ensemble"),
        ("qqq", "expected one of naive, .* got 'qqq'$"),
        ("sktime:NaiveForecastr", "expected a forecaster of sktime .* did you mean 'NaiveForecaster'"),
        ("prophet", r"prophet is missing: pip install 'preserve-gym\[prophet\]"),
    ],
)
def test_a_wrong_name_is_named(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prophet", None)
    with pytest.raises(InputError, match=message):
        make_forecaster(name, HOUR_S)


@pytest.mark.parametrize(
    ("name", "library"),
    [("ets", "sktime"), ("arima", "sktime"), ("sktime:X", "sktime"), ("trees", "sklearn")],
)
def test_a_missing_library_names_its_extra(name: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [m for m in sys.modules if m.split(".")[0] == library]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=r"is missing: pip install 'preserve-gym\[forecast\]"):
        make_forecaster(name, HOUR_S)


class LastHour:
    """A forecaster of one's own."""

    name = "last-hour"
    min_history = 1
    refit_windows = 1

    def fit(self, history: Any, first_window: int, window_s: float, clock_s: float) -> None:
        self.windows = round(3600.0 / window_s)

    def predict(self, history: Any, horizon: int, levels: tuple[float, ...] = ()) -> Prediction:
        return Prediction(np.full(horizon, history[-self.windows :].mean()))


def test_one_of_ones_own_in_a_workload() -> None:
    trace = synthetic_trace("chat", duration_s=7200.0, seed=0)
    config = WorkloadConfig(forecaster=LastHour(), predictor="oracle", horizon_s=600.0)
    workload = Workload(config, trace)
    prompt, _ = trace.window_tokens(600.0)
    assert workload.forecast.name == "last-hour"
    assert workload.forecast.prompt_tokens[8] == pytest.approx(prompt[2:8].mean())
    named = Workload(replace(config, forecaster="naive"), trace).with_predictions(forecaster=LastHour())
    np.testing.assert_array_equal(named.forecast.prompt_tokens, workload.forecast.prompt_tokens)
    with pytest.raises(InputError, match=r"^WorkloadConfig.forecaster: expected a name, got "):
        config.to_mapping()


@pytest.mark.parametrize("wrong", [3, None, object(), LastHour])
def test_what_is_no_forecaster(wrong: Any) -> None:
    trace = synthetic_trace("chat", duration_s=7200.0, seed=0)
    with pytest.raises(InputError, match=r"^forecast: expected a name or an object with name, min_history"):
        Workload(WorkloadConfig(forecaster=wrong, horizon_s=600.0), trace)
