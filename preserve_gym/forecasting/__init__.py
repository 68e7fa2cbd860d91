"""Workload forecasts: prompt and output tokens of the windows to come."""

from preserve_gym.forecasting.makers import (
    FORECASTERS,
    make_forecast,
    naive_forecast,
    noisy_forecast,
    oracle_forecast,
    sigma_of_mape,
)
from preserve_gym.forecasting.workload_forecast import WorkloadForecast

__all__ = [
    "FORECASTERS",
    "WorkloadForecast",
    "make_forecast",
    "naive_forecast",
    "noisy_forecast",
    "oracle_forecast",
    "sigma_of_mape",
]
