"""Any forecaster of sktime, and the ready-made ones."""

from __future__ import annotations

import difflib
import importlib
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from preserve_gym.errors import InputError, missing_extra
from preserve_gym.forecasting.forecaster import (
    FloatArray,
    Prediction,
    day_lag,
    refit_period,
    seconds_of_day,
)
from preserve_gym.forecasting.lag_features import log_offset
from preserve_gym.traces.trace import SECONDS_PER_DAY


class SktimeForecaster:
    """A forecaster of sktime.

    Args:
        model: the forecaster; cloned at each fit.
        name: of the forecaster.
        min_history: fewest closed windows that it needs.
        refit_windows: it is fitted again every so many windows; in between it is given the new windows with
            ``update(update_params=False)``, which some forecasters of sktime ignore. 1 is right for all.
        keep_windows: fitted on the last so many windows; None: on all.
        in_logs: forecast the logarithm, as loads grow and vary by factors.
        fourier_terms: pairs of sine and cosine of the time of day, given to it as exogenous variables.
    """

    def __init__(
        self,
        model: Any,
        name: str,
        *,
        min_history: int = 2,
        refit_windows: int = 1,
        keep_windows: int | None = None,
        in_logs: bool = False,
        fourier_terms: int = 0,
    ) -> None:
        self.name, self.min_history = name, min_history
        self.refit_windows: int | None = refit_windows
        self._model, self._in_logs, self._terms = model, in_logs, fourier_terms
        self._keep = keep_windows

    def fit(self, history: FloatArray, first_window: int, window_s: float, clock_s: float) -> None:
        """Fit a clone of the model."""
        self._calendar = (first_window, window_s, clock_s)
        self._offset = log_offset(history)
        self._known = len(history)
        first = 0 if self._keep is None else max(0, len(history) - self._keep)
        self._fitted = self._model.clone().fit(
            self._series(history, first), X=self._exogenous(first, len(history))
        )

    def predict(self, history: FloatArray, horizon: int, levels: tuple[float, ...] = ()) -> Prediction:
        """The mean of the model, or in logarithms the median; quantiles if it has them."""
        count = len(history)
        if count > self._known:
            self._fitted.update(
                self._series(history, self._known),
                X=self._exogenous(self._known, count),
                update_params=False,
            )
            self._known = count
        ahead = {"fh": np.arange(1, horizon + 1), "X": self._exogenous(count, count + horizon)}
        mean = np.ravel(self._fitted.predict(**ahead))
        quantiles = None
        if levels and self._fitted.get_tag("capability:pred_int"):
            table = self._fitted.predict_quantiles(alpha=list(levels), **ahead)
            quantiles = np.asarray(table, np.float64).T
        if self._in_logs:
            mean = np.exp(mean) - self._offset
            quantiles = None if quantiles is None else np.exp(quantiles) - self._offset
        return Prediction(np.asarray(mean, np.float64), quantiles)

    def _series(self, history: FloatArray, first: int) -> Any:
        import pandas as pd

        values = history[first:]
        return pd.Series(
            np.log(values + self._offset) if self._in_logs else values, pd.RangeIndex(first, len(history))
        )

    def _exogenous(self, first: int, end: int) -> Any:
        if not self._terms:
            return None
        import pandas as pd

        first_window, window_s, clock_s = self._calendar
        time_s = seconds_of_day(first_window + np.arange(first, end), window_s, clock_s)
        angle = 2 * np.pi * np.outer(time_s / SECONDS_PER_DAY, np.arange(1, self._terms + 1))
        return pd.DataFrame(np.hstack([np.sin(angle), np.cos(angle)]), pd.RangeIndex(first, end))


def ets(window_s: float) -> SktimeForecaster:
    """Exponential smoothing with a damped trend, after the profile of the day is taken out; in logarithms."""
    _need("ets", "statsmodels")
    from sktime.forecasting.ets import AutoETS

    return _seasonal(_quiet(lambda: AutoETS(trend="add", damped_trend=True)), "ets", window_s)


def theta(window_s: float) -> SktimeForecaster:
    """The Theta method, after the profile of the day is taken out; in logarithms."""
    _need("theta", "statsmodels")
    from sktime.forecasting.theta import ThetaForecaster

    return _seasonal(_quiet(lambda: ThetaForecaster(deseasonalize=False)), "theta", window_s)


def arima(window_s: float) -> SktimeForecaster:
    """ARIMA(3,1,2) of the logarithm with the day as four Fourier terms.

    Fitted once a ``refit_period`` on the last three days, and given the new windows in between.
    """
    _need("arima", "statsmodels")
    from sktime.forecasting.sarimax import SARIMAX

    day = day_lag(1, window_s)
    return SktimeForecaster(
        # With the scale concentrated out, the likelihood converges in half the steps, or at all.
        _quiet(lambda: SARIMAX(order=(3, 1, 2), maxiter=200, concentrate_scale=True)),
        "arima",
        min_history=max(2 * day, 48),
        refit_windows=refit_period(window_s),
        keep_windows=max(3 * day, 96),
        in_logs=True,
        fourier_terms=4 if day >= 9 else 0,
    )


def prophet(window_s: float) -> SktimeForecaster:
    """Prophet of the logarithm, fitted once a ``refit_period``.

    It knows the time only, not how the last windows went.
    """
    _need("prophet", "prophet", extra="prophet")
    from sktime.forecasting.fbprophet import Prophet

    day = day_lag(1, window_s)
    return SktimeForecaster(
        _quiet(Prophet), "prophet", min_history=2 * day, refit_windows=refit_period(window_s), in_logs=True
    )


def by_class_name(name: str) -> SktimeForecaster:
    """The forecaster of sktime with this class name and its default arguments, fitted at every window.

    Raises:
        InputError: if sktime is missing or has no such forecaster.
    """
    _need(f"sktime:{name}")
    modules = _classes()
    found: Any = getattr(importlib.import_module(modules[name]), name) if name in modules else None
    if not hasattr(found, "update_predict"):
        close = difflib.get_close_matches(name, modules, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(f"forecast: expected a forecaster of sktime after 'sktime:', got {name!r}{hint}")
    try:
        model = _quiet(found)
    except Exception as error:
        raise InputError(f"forecast 'sktime:{name}': {error}") from None
    return SktimeForecaster(model, f"sktime:{name}")


def _classes() -> dict[str, str]:
    """The module of each class of forecasters; the registry of sktime imports them all, for a minute."""
    sktime = importlib.import_module("sktime")
    root = Path(sktime.__file__ or "").parent
    return {
        name: ".".join(("sktime", *path.relative_to(root).with_suffix("").parts))
        for path in sorted((root / "forecasting").rglob("*.py"))
        if "tests" not in path.parts
        for name in re.findall(r"^class ([A-Z]\w*)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }


def _seasonal(model: Any, name: str, window_s: float) -> SktimeForecaster:
    """The model in logarithms, after the profile of the day is taken out where there is one."""
    from sktime.forecasting.compose import TransformedTargetForecaster
    from sktime.transformations.series.detrend import Deseasonalizer

    day = day_lag(1, window_s)
    if day > 1:
        steps = [Deseasonalizer(sp=day, model="additive"), model]
        model = _quiet(lambda: TransformedTargetForecaster(steps))
    return SktimeForecaster(model, name, min_history=max(2 * day, 10), in_logs=True)


def _quiet(make: Callable[[], Any]) -> Any:
    """What it makes, without the warning of sktime 1.2 that a default of every forecaster will change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return make()


def _need(name: str, *libraries: str, extra: str = "forecast") -> None:
    # Without its statsmodels a forecaster of sktime is made and then fails at every window.
    for library in ("sktime", *libraries):
        try:
            importlib.import_module(library)
        except ImportError:
            raise missing_extra(f"forecast {name!r}", library, extra) from None
