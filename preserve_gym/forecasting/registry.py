"""The forecasters by name."""

from __future__ import annotations

from collections.abc import Callable

from preserve_gym.errors import InputError, did_you_mean
from preserve_gym.forecasting import sktime_adapter
from preserve_gym.forecasting.ensemble import Ensemble
from preserve_gym.forecasting.forecaster import Forecaster
from preserve_gym.forecasting.naive import Drift, LastValue, SeasonalNaive
from preserve_gym.forecasting.profile_ar import ProfileAR
from preserve_gym.forecasting.recurrent import ArtifactLstmForecaster, LstmForecaster, MlstmForecaster
from preserve_gym.forecasting.trees import Trees

SKTIME = "sktime:"
KNOW_THE_FUTURE = ("noisy", "oracle")
INSTANT = ("naive", "seasonal-naive", "seasonal-naive-week", "drift")
"""Not worth a cache."""


def _ensemble(window_s: float) -> Forecaster:
    return Ensemble([ProfileAR(window_s), Trees(window_s), sktime_adapter.theta(window_s)])


LEARNERS: dict[str, Callable[[float], Forecaster]] = {
    "naive": lambda window_s: LastValue(),
    "seasonal-naive": lambda window_s: SeasonalNaive(1, window_s),
    "seasonal-naive-week": lambda window_s: SeasonalNaive(7, window_s),
    "drift": lambda window_s: Drift(),
    "profile-ar": ProfileAR,
    "ets": sktime_adapter.ets,
    "theta": sktime_adapter.theta,
    "arima": sktime_adapter.arima,
    "prophet": sktime_adapter.prophet,
    "trees": Trees,
    "ensemble": _ensemble,
    "lstm": lambda window_s: LstmForecaster(),
    "mlstm": lambda window_s: MlstmForecaster(),
    "lstm-artifact": lambda window_s: ArtifactLstmForecaster(),
}
"""Forecasters that learn from the past: each is made from the length of a window in seconds."""

FORECASTERS = (*LEARNERS, *KNOW_THE_FUTURE)
"""All names that ``make_forecast`` and ``WorkloadConfig.forecaster`` take, but for those of sktime."""


def make_forecaster(name: str, window_s: float) -> Forecaster:
    """The forecaster called ``name``, one of ``LEARNERS`` or ``sktime:`` and the name of a class of sktime.

    Raises:
        InputError: on an unknown name, or if the library that it needs is missing.
    """
    if name.startswith(SKTIME):
        return sktime_adapter.by_class_name(name.removeprefix(SKTIME))
    if name not in LEARNERS:
        raise unknown(name)
    return LEARNERS[name](window_s)


def unknown(name: object) -> InputError:
    """The error for a name that no forecaster has."""
    return InputError(
        f"forecast: expected one of {', '.join(FORECASTERS)}, or sktime: and the name of a class, "
        f"got {name!r}{did_you_mean(name, FORECASTERS)}"
    )
