from __future__ import annotations

import numpy as np
import pytest

from preserve_gym.errors import InputError
from preserve_gym.forecasting.accuracy import forecast_accuracy, mase_scale

SERIES = np.array([10.0, 20.0, 40.0, 0.0, 50.0])


def test_measures_by_hand() -> None:
    mean = np.array([[10.0, 10.0], [10.0, 10.0], [30.0, 30.0], [10.0, 10.0], [50.0, 99.0]])
    # Windows 2, 3, 4: 30 for 40, 30 for 0, 10 for 0, 10 for 50, 50 for 50; what lies beyond is left out.
    found = forecast_accuracy(SERIES, mean, slice(2, 5), scale=10.0)
    assert found.mase == pytest.approx((10 + 30 + 10 + 40 + 0) / 5 / 10)
    assert found.ape_mean == pytest.approx((0.25 + 0.8 + 0.0) / 3)
    assert found.ape_p95 == pytest.approx(np.percentile([0.25, 0.8, 0.0], 95))
    assert np.isnan(found.pinball)
    assert np.isnan(found.coverage)


def test_quantiles_by_hand() -> None:
    quantiles = np.tile(np.array([5.0, 25.0])[:, None], (5, 1, 1))
    found = forecast_accuracy(SERIES, np.full((5, 1), 20.0), slice(0, 3), 2.0, quantiles, (0.1, 0.9))
    low = [0.1 * 5, 0.1 * 15, 0.1 * 35]
    high = [0.1 * 15, 0.1 * 5, 0.9 * 15]
    assert found.pinball == pytest.approx(np.mean(low + high) / 2)
    assert found.coverage == pytest.approx(2 / 3)


def test_the_scale_is_that_of_the_last_value() -> None:
    assert mase_scale(SERIES) == pytest.approx((10 + 20 + 40 + 50) / 4)
    naive = np.append(np.nan, SERIES[:-1])[:, None]
    assert forecast_accuracy(SERIES, naive, slice(1, 5), mase_scale(SERIES)).mase == pytest.approx(1.0)


def test_nothing_to_compare() -> None:
    with pytest.raises(InputError, match="windows that differ"):
        mase_scale(np.full(5, 3.0))
    with pytest.raises(InputError, match="at least one window"):
        forecast_accuracy(SERIES, np.ones((5, 1)), slice(5, 9), 1.0)
