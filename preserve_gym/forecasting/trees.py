"""Reduction to regression: gradient-boosted trees on lags and the time of day."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import missing_extra
from preserve_gym.forecasting.forecaster import FloatArray, Prediction, refit_period, seconds_of_day
from preserve_gym.forecasting.lag_features import first_row, lag_features, log_offset
from preserve_gym.traces.trace import SECONDS_PER_DAY

_ROWS = 96


class Trees:
    """Gradient-boosted trees (scikit-learn), one model for each step, fitted once a ``refit_period``.

    They learn the change of the logarithm from the last window to the one forecast, so that trees, which
    repeat the values that they have seen, follow a service that grows; least absolute deviations.

    Args:
        window_s: length of a window in seconds.

    Raises:
        InputError: if scikit-learn is missing.
    """

    name = "trees"

    def __init__(self, window_s: float) -> None:
        try:
            from sklearn.ensemble import HistGradientBoostingRegressor
        except ImportError:
            raise missing_extra("forecast 'trees'", "scikit-learn", "forecast") from None
        self._make = HistGradientBoostingRegressor
        self.min_history = first_row(window_s) + _ROWS
        self.refit_windows: int | None = refit_period(window_s)

    def fit(self, history: FloatArray, first_window: int, window_s: float, clock_s: float) -> None:
        """Keep the past; the model of each step is fitted when it is first asked for."""
        self._offset = log_offset(history)
        self._logs = np.log(history + self._offset)
        self._calendar = (first_window, window_s, clock_s)
        self._steps: list[Any] = []

    def predict(self, history: FloatArray, horizon: int, levels: tuple[float, ...] = ()) -> Prediction:
        """The median."""
        logs = np.log(history + self._offset)
        while len(self._steps) < horizon:
            self._steps.append(self._fit_step(len(self._steps)))
        origin = np.array([len(logs)])
        change = [
            0.0 if model is None else model.predict(self._rows(logs, origin, step))[0]
            for step, model in enumerate(self._steps[:horizon])
        ]
        return Prediction(np.exp(logs[-1] + np.array(change)) - self._offset)

    def _fit_step(self, step: int) -> Any:
        first = first_row(self._calendar[1])
        origin = np.arange(first, max(len(self._logs) - step, first))
        if len(origin) < _ROWS // 2:
            return None
        model = self._make(
            loss="absolute_error",
            max_iter=100,
            learning_rate=0.08,
            max_leaf_nodes=8,
            min_samples_leaf=20,
            l2_regularization=1.0,
            early_stopping=False,
            random_state=0,
        )
        change = self._logs[origin + step] - self._logs[origin - 1]
        return model.fit(self._rows(self._logs, origin, step), change)

    def _rows(self, logs: FloatArray, origin: NDArray[np.integer], step: int) -> FloatArray:
        first_window, window_s, clock_s = self._calendar
        angle = 2 * np.pi * seconds_of_day(first_window + origin + step, window_s, clock_s) / SECONDS_PER_DAY
        lags = lag_features(logs, origin, step, window_s)
        return np.column_stack([lags, np.sin(angle), np.cos(angle)])
