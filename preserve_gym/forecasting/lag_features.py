"""What the recent windows, and the same time on the days before, say about a window to come."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preserve_gym.forecasting.forecaster import FloatArray, day_lag

_DAYS = 7
_RECENT = (3, 6, 24)


def log_offset(history: FloatArray) -> float:
    """What is added before taking logarithms, so that windows without requests have one: 1 %."""
    return max(1.0, 0.01 * float(np.median(history)))


def first_row(window_s: float) -> int:
    """The fewest windows before a row of ``lag_features``."""
    return day_lag(1, window_s) + 3 * _reach(window_s) + 1


def lag_features(logs: FloatArray, origin: NDArray[np.integer], step: int, window_s: float) -> FloatArray:
    """Features of window ``origin + step``, from the windows before ``origin`` alone.

    All are differences of logarithms, so that they mean the same at any size of the service: of recent
    levels from the last one, and of the seasonal profile between the window forecast and the last one.

    Args:
        logs: float64[n], logarithms of the series.
        origin: int[k], first window that is not known, each in [``first_row``, n].
        step: windows from there to the one forecast, >= 0.
        window_s: length of a window in seconds.

    Returns:
        float64[k, 12].
    """
    sums = np.concatenate(([0.0], np.cumsum(logs)))
    reach = _reach(window_s)

    def around(center: NDArray[np.integer], width: int) -> FloatArray:
        first = np.maximum(center - width, 0)
        end = np.maximum(np.minimum(center + width + 1, origin), first + 1)
        return np.asarray((sums[end] - sums[first]) / (end - first), np.float64)

    last = origin - 1
    level = logs[last]
    columns = [logs[last - 1] - level]
    columns += [
        (sums[origin] - sums[np.maximum(origin - w, 0)]) / np.minimum(w, origin) - level for w in _RECENT
    ]
    # The same time of day must lie in the past, however far ahead the window is.
    skipped = step // day_lag(1, window_s)

    def then_and_now(days: int, width: int) -> tuple[FloatArray, FloatArray]:
        then = around(origin + step - day_lag(days + skipped, window_s), width)
        return then, around(last - day_lag(days, window_s), width)

    for width in (reach, 3 * reach):
        then, now = then_and_now(1, width)
        columns += [then - now, now - level]
    thens, nows, count = np.zeros(len(origin)), np.zeros(len(origin)), np.zeros(len(origin))
    for days in range(1, _DAYS + 1):
        known = last - day_lag(days + skipped, window_s) - reach >= 0
        then, now = then_and_now(days, reach)
        thens += np.where(known, then, 0.0)
        nows += np.where(known, now, 0.0)
        count += known
    some, count = count > 0, np.maximum(count, 1.0)
    columns += [
        np.where(some, (thens - nows) / count, columns[4]),
        np.where(some, nows / count - level, columns[5]),
    ]
    # `then`, `now` and `known` are those of a week before.
    columns += [np.where(known, then - now, columns[4]), np.where(known, now - level, columns[5])]
    return np.column_stack(columns)


def _reach(window_s: float) -> int:
    """Windows to each side over which the profile of a day is smoothed: half an hour."""
    return max(1, round(1800.0 / window_s))
