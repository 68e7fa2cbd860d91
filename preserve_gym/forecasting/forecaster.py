"""What a forecaster is: something that learns from the windows that have closed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
DAY_S = 86_400.0


@dataclass(frozen=True)
class Prediction:
    """The windows to come.

    Attributes:
        mean: float64[horizon], the forecast itself; a mean or a median, as the model has it.
        quantiles: float64[levels, horizon], or None where the model has none.
    """

    mean: FloatArray
    quantiles: FloatArray | None = None


def seconds_of_day(window: NDArray[np.integer], window_s: float, clock_s: float) -> FloatArray:
    """Time of day at the start of windows, in seconds since midnight."""
    return np.asarray((clock_s + np.asarray(window) * window_s) % DAY_S, np.float64)
