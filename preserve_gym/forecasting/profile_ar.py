"""Our own forecaster: how far the service is from its usual day, and how fast it comes back."""

from __future__ import annotations

import numpy as np

from preserve_gym.forecasting.forecaster import FloatArray, Prediction, day_lag, refit_period
from preserve_gym.forecasting.lag_features import first_row, lag_features, log_offset

_ROWS = 48
_STRENGTH = 0.05
_PASSES = 15
_INTERVAL_DAYS = 2


class ProfileAR:
    """A linear model of the logarithms: recent levels, and the profile of the days before.

    The change from the last window to the one forecast is a linear function of ``lag_features``, one for
    each step ahead. It is fitted by least absolute deviations, as the forecast is a median, with a ridge
    penalty that draws it towards the last window. Fitted on all the past once a ``refit_period``.
    Quantiles are those of its errors on the last two days of that past, at least a ``refit_period``, so that
    a service that has become livelier has wider ones.

    Args:
        window_s: length of a window in seconds.
    """

    name = "profile-ar"

    def __init__(self, window_s: float) -> None:
        self.min_history = first_row(window_s) + _ROWS
        self.refit_windows: int | None = refit_period(window_s)
        self._window_s = window_s

    def fit(self, history: FloatArray, first_window: int, window_s: float, clock_s: float) -> None:
        """Keep the past; the model of each step is fitted when it is first asked for."""
        self._offset = log_offset(history)
        self._logs = np.log(history + self._offset)
        self._steps: list[tuple[FloatArray, FloatArray]] = []

    def predict(self, history: FloatArray, horizon: int, levels: tuple[float, ...] = ()) -> Prediction:
        """The median, and quantiles from the errors on the last days that it was fitted on."""
        logs = np.log(history + self._offset)
        origin = np.array([len(logs)])
        while len(self._steps) < horizon:
            self._steps.append(self._fit_step(len(self._steps)))
        center = np.empty(horizon)
        quantiles = np.empty((len(levels), horizon))
        for step in range(horizon):
            weights, errors = self._steps[step]
            center[step] = logs[-1] + (lag_features(logs, origin, step, self._window_s) @ weights)[0]
            quantiles[:, step] = center[step] + np.quantile(errors, levels)
        back = np.exp(center) - self._offset
        return Prediction(back, np.exp(quantiles) - self._offset if levels else None)

    def _fit_step(self, step: int) -> tuple[FloatArray, FloatArray]:
        """Weights float64[features], and the last errors of the fit."""
        # Later steps have fewer rows; one that has none takes the last value.
        origin = np.arange(first_row(self._window_s), max(len(self._logs) - step, first_row(self._window_s)))
        if len(origin) < _ROWS // 2:
            return np.zeros(12), np.zeros(1)
        rows = lag_features(self._logs, origin, step, self._window_s)
        change = self._logs[origin + step] - self._logs[origin - 1]
        weights = least_absolute(rows, change)
        kept = max(day_lag(_INTERVAL_DAYS, self._window_s), refit_period(self._window_s))
        return weights, (change - rows @ weights)[-kept:]


def least_absolute(rows: FloatArray, target: FloatArray) -> FloatArray:
    """Weights with the least absolute deviations, by reweighted least squares with a ridge penalty.

    Args:
        rows: float64[n, k].
        target: float64[n].

    Returns:
        float64[k].
    """
    penalty = _STRENGTH * len(rows) * np.diag(rows.var(axis=0) + 1e-9)
    weight = np.ones(len(rows))
    for _ in range(_PASSES):
        weighted = rows * weight[:, None]
        solution = np.linalg.solve(rows.T @ weighted + penalty, weighted.T @ target)
        error = np.abs(target - rows @ solution)
        # A tenth of the median keeps the weight of a row without error finite.
        weight = 1.0 / np.maximum(error, 0.1 * np.median(error) + 1e-12)
        weight /= weight.mean()
    return np.asarray(solution, np.float64)
