"""Workload forecasts: prompt and output tokens of the windows to come."""

from preserve_gym.forecasting.forecaster import Forecaster, Prediction
from preserve_gym.forecasting.makers import (
    make_forecast,
    naive_forecast,
    noisy_forecast,
    oracle_forecast,
    sigma_of_mape,
)
from preserve_gym.forecasting.registry import FORECASTERS, make_forecaster
from preserve_gym.forecasting.sktime_adapter import SktimeForecaster
from preserve_gym.forecasting.walk_forward import ForecastTable, walk_forward
from preserve_gym.forecasting.workload_forecast import WorkloadForecast, needed_instances

__all__ = [
    "FORECASTERS",
    "ForecastTable",
    "Forecaster",
    "Prediction",
    "SktimeForecaster",
    "WorkloadForecast",
    "make_forecast",
    "make_forecaster",
    "naive_forecast",
    "needed_instances",
    "noisy_forecast",
    "oracle_forecast",
    "sigma_of_mape",
    "walk_forward",
]
