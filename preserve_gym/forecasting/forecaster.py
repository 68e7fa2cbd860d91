"""What a forecaster of one series of window totals is asked, and what it answers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Prediction(NamedTuple):
    """Forecasts of the next windows of one series, in tokens per window."""

    mean: NDArray[np.float64]
    """Point forecasts, float64[horizon]."""
    quantiles: NDArray[np.float64] | None
    """Quantiles at the levels asked for, float64[len(levels), horizon]; None where there are none."""
