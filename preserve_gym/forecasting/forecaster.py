"""What a forecaster is: something that learns from the windows that have closed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from preserve_gym.traces.trace import SECONDS_PER_DAY

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """The windows to come.

    Attributes:
        mean: float64[horizon], the forecast itself; a mean or a median, as the model has it.
        quantiles: float64[levels, horizon], or None where the model has none.
    """

    mean: FloatArray
    quantiles: FloatArray | None = None


@runtime_checkable
class Forecaster(Protocol):
    """Forecasts one series: the token totals of windows, one number a window.

    It is given the past and never the future. ``predict`` may be called for any number of windows after
    ``fit``, in their order; what it gives may depend on nothing else than those arguments and calls.
    Any exception, and any number that is not finite, is answered by a fallback (``walk_forward``).

    Attributes:
        name: of the forecaster.
        min_history: fewest closed windows that it needs.
        refit_windows: ``fit`` is called again at every multiple of so many windows; None: the model is
            costly to train, and trained on the training part alone.
    """

    name: str
    min_history: int
    refit_windows: int | None

    def fit(self, history: FloatArray, first_window: int, window_s: float, clock_s: float) -> None:
        """Learn from the past.

        Args:
            history: float64[n], tokens of each closed window, n >= ``min_history``.
            first_window: number of the window of ``history[0]``.
            window_s: length of a window in seconds.
            clock_s: time of day at the start of window 0, in seconds since midnight.
        """

    def predict(self, history: FloatArray, horizon: int, levels: tuple[float, ...] = ()) -> Prediction:
        """Forecast the windows that follow ``history``.

        Args:
            history: float64[n], from ``first_window`` of the last ``fit`` to the window before the first
                one forecast.
            horizon: windows to forecast.
            levels: of the quantiles, ascending in (0, 1).
        """


def day_lag(days: int, window_s: float) -> int:
    """Windows in so many days, to the nearest window; at least one."""
    return max(1, round(days * SECONDS_PER_DAY / window_s))


def refit_period(window_s: float) -> int:
    """How often forecasters learn anew, in windows: a day, or the days that 72 windows need."""
    day = day_lag(1, window_s)
    return day * math.ceil(72 / day)


def seconds_of_day(window: NDArray[np.integer], window_s: float, clock_s: float) -> FloatArray:
    """Time of day at the start of windows, in seconds since midnight."""
    return np.asarray((clock_s + np.asarray(window) * window_s) % SECONDS_PER_DAY, np.float64)
