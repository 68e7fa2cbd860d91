"""How good workload forecasts are, in the usual measures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class ForecastAccuracy:
    """Measures over forecast windows and horizons; NaN where there is nothing to say.

    Attributes:
        mase: mean absolute error over ``scale``.
        ape_mean, ape_p95: absolute percentage error, mean and 95th percentile, as fractions; windows
            without tokens are left out.
        pinball: mean pinball loss of the quantiles over ``scale``; NaN without quantiles.
        coverage: share of the windows between the lowest and the highest quantile; NaN without.
    """

    mase: float
    ape_mean: float
    ape_p95: float
    pinball: float
    coverage: float


def mase_scale(training: FloatArray) -> float:
    """What errors are divided by: the mean absolute change from one window to the next in training.

    Args:
        training: float64[n], tokens of the windows of the training part, n >= 2.

    Raises:
        InputError: if there is no change.
    """
    change = np.abs(np.diff(training))
    if not len(change) or not change.any():
        raise InputError("forecast accuracy: expected windows that differ in the training part")
    return float(change.mean())


def forecast_accuracy(
    series: FloatArray,
    mean: FloatArray,
    rows: slice,
    scale: float,
    quantiles: FloatArray | None = None,
    levels: tuple[float, ...] = (),
) -> ForecastAccuracy:
    """Compare the forecasts of some windows with what came, over all horizons that the recording covers.

    Args:
        series: float64[k], tokens of each window.
        mean: float64[k, horizon], row k forecasts windows k, k + 1 ... (``WorkloadForecast``).
        rows: windows at whose start the forecasts were made.
        scale: of the errors, ``mase_scale`` of the training part.
        quantiles: float64[k, len(levels), horizon].
        levels: of the quantiles, ascending.

    Raises:
        InputError: if no forecast of these windows lies in the recording.
    """
    window = np.arange(len(series))[rows][:, None] + np.arange(mean.shape[1])
    inside = window < len(series)
    if not inside.any():
        raise InputError("forecast accuracy: expected at least one window to compare, got none")
    true, predicted = series[window[inside]], mean[rows][inside]
    error = np.abs(predicted - true)
    some = true > 0
    relative = error[some] / true[some]
    pinball = coverage = float("nan")
    if quantiles is not None and levels:
        each = np.stack([quantiles[rows][:, k][inside] for k in range(len(levels))])
        above = true - each
        share = np.array(levels)[:, None]
        pinball = float(np.maximum(share * above, (share - 1) * above).mean()) / scale
        coverage = float(((each[0] <= true) & (true <= each[-1])).mean())
    return ForecastAccuracy(
        mase=float(error.mean()) / scale,
        ape_mean=float(relative.mean()) if some.any() else float("nan"),
        ape_p95=float(np.percentile(relative, 95)) if some.any() else float("nan"),
        pinball=pinball,
        coverage=coverage,
    )
