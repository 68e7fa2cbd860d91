"""Forecasters without anything to learn: the last window, the same time before, the drift."""

from __future__ import annotations

import numpy as np

from preserve_gym.forecasting.forecaster import FloatArray, Prediction, day_lag


class LastValue:
    """The last closed window, for every window of the horizon."""

    name = "naive"
    min_history = 1
    refit_windows: int | None = 1

    def fit(self, history: FloatArray, first_window: int, window_s: float, clock_s: float) -> None:
        """Nothing to learn."""

    def predict(self, history: FloatArray, horizon: int, levels: tuple[float, ...] = ()) -> Prediction:
        """The last value."""
        return Prediction(np.full(horizon, history[-1]))


class SeasonalNaive:
    """The window at the same time of day, one day or seven before.

    Args:
        days: length of the season.
        window_s: length of a window in seconds.
    """

    refit_windows: int | None = 1

    def __init__(self, days: int, window_s: float) -> None:
        self.name = "seasonal-naive" if days == 1 else "seasonal-naive-week"
        self.min_history = day_lag(days, window_s)

    def fit(self, history: FloatArray, first_window: int, window_s: float, clock_s: float) -> None:
        """Nothing to learn."""

    def predict(self, history: FloatArray, horizon: int, levels: tuple[float, ...] = ()) -> Prediction:
        """The last season; repeated where the horizon is longer."""
        return Prediction(np.resize(history[-self.min_history :], horizon))


class Drift:
    """The last closed window, and the mean change from window to window since the first one on top."""

    name = "drift"
    min_history = 2
    refit_windows: int | None = 1

    def fit(self, history: FloatArray, first_window: int, window_s: float, clock_s: float) -> None:
        """Nothing to learn."""

    def predict(self, history: FloatArray, horizon: int, levels: tuple[float, ...] = ()) -> Prediction:
        """The straight line through the first and the last window."""
        slope = (history[-1] - history[0]) / (len(history) - 1)
        return Prediction(history[-1] + slope * np.arange(1, horizon + 1))
