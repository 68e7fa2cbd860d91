"""Recurrent networks that forecast one series of window totals: PreServe's LSTM, and xLSTM's mLSTM.

They need PyTorch, the extra ``rl``.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from preserve_gym.errors import InputError, missing_extra
from preserve_gym.forecasting.forecaster import FloatArray, Prediction
from preserve_gym.forecasting.recurrent_network import (
    ARCHITECTURES,
    ARTIFACT_TRAINING,
    Training,
    evaluate,
    train,
)
from preserve_gym.forecasting.recurrent_scaling import SCALINGS, Scaling
from preserve_gym.streams import check_seed

if TYPE_CHECKING:
    from torch import nn

_HISTORY = 25
# Fewer days of errors than half of the training part know too few kinds of days.
_CALIBRATION_SHARE = 2
_FORMAT = "preserve_gym recurrent forecaster 1"


@dataclass(frozen=True)
class _Model:
    """A trained network with the scaling of its training part."""

    cell: str
    layers: nn.ModuleDict
    scaling: Scaling

    def forecast(self, windows: FloatArray, following: np.ndarray, horizon: int) -> FloatArray:
        """Forecasts float64[k, horizon] after stretches float64[k, 25]; ``following``: the next windows."""
        stretch = windows
        steps = self.scaling.steps
        for done in range(0, horizon, steps):
            recent = stretch[:, -_HISTORY:]
            outputs = evaluate(self.cell, self.layers, self.scaling.inputs(recent, following + done))
            stretch = np.concatenate([stretch, self.scaling.tokens(recent, outputs)], axis=1)
        return stretch[:, _HISTORY : _HISTORY + horizon]


class RecurrentForecaster:
    """A network with one recurrent layer over the last 25 windows, trained once.

    Quantiles come from the errors of a second network, trained on the first half, over the second half: the
    ratio of what came to what was forecast, separately for each window of the horizon. Equal seeds and data
    give equal forecasts, to the bit on one machine, whether asked for alone or together.

    Args:
        seed: of the first weights and of the order of the training windows.
        training: size and training of the network; as in PreServe's artifact unless given.
        quantiles: whether to train the second network; without it forecasts have no quantiles.

    Raises:
        InputError: on a seed out of range, or if PyTorch is missing.
    """

    name: str
    cell: str
    scaling: str
    min_history = _HISTORY
    refit_windows: int | None = None

    def __init__(
        self, seed: int = 0, training: Training = ARTIFACT_TRAINING, *, quantiles: bool = True
    ) -> None:
        check_seed(seed)
        _check_torch()
        self.seed = seed
        self.training = training
        self.quantiles = quantiles
        self._model: _Model | None = None
        self._trial: _Model | None = None
        self._first_window = 0
        self._calibration = np.zeros(0)
        self._calibration_window = 0
        self._residuals: dict[int, FloatArray] = {}

    def fit(self, history: FloatArray, first_window: int, window_s: float, clock_s: float) -> None:
        """Train on a series.

        Args:
            history: float64[n], tokens of each window, n >= 26.
            first_window: number of the window of ``history[0]``.
            window_s: length of a window in seconds.
            clock_s: time of day at the start of window 0, in seconds since midnight.

        Raises:
            InputError: on fewer than 26 windows, or values that are not finite and non-negative.
            ArithmeticError: on a series of one value, or a training that diverges.
        """
        history = self._checked(history, _HISTORY + 1)
        if history.min() == history.max():
            raise ArithmeticError("a constant series teaches nothing")
        self._model = self._train(history, first_window, window_s, clock_s)
        held_out = (len(history) - _HISTORY) // _CALIBRATION_SHARE
        earlier = history[: len(history) - held_out]
        self._trial = None
        if self.quantiles and held_out and earlier.min() < earlier.max():
            self._trial = self._train(earlier, first_window, window_s, clock_s)
        self._calibration = history[len(earlier) - _HISTORY :].copy()
        self._calibration_window = first_window + len(earlier)
        self._first_window = first_window
        self._residuals = {}

    def predict(self, history: FloatArray, horizon: int, levels: tuple[float, ...] = ()) -> Prediction:
        """Forecast the windows that follow ``history``.

        Args:
            history: float64[n], n >= 25, from the first window of ``fit`` on.
            horizon: windows to forecast.
            levels: of the quantiles, in (0, 1).

        Raises:
            InputError: before ``fit``, or on an argument out of range.
        """
        return self.predict_many([history], horizon, levels)[0]

    def predict_many(
        self, histories: Sequence[FloatArray], horizon: int, levels: tuple[float, ...] = ()
    ) -> list[Prediction]:
        """Forecast after each of several histories, as ``predict`` does, in a fraction of the time."""
        if self._model is None:
            raise InputError(f"forecast {self.name!r}: expected fit or load before a prediction")
        if not 1 <= horizon <= 10_000:
            raise InputError(
                f"forecast {self.name!r}: horizon: expected an integer in [1, 10000], got {horizon!r}"
            )
        if not all(0.0 < level < 1.0 for level in levels):
            raise InputError(f"forecast {self.name!r}: levels: expected numbers in (0, 1), got {levels!r}")
        if not histories:
            return []
        windows = np.stack([self._checked(history, _HISTORY)[-_HISTORY:] for history in histories])
        following = self._first_window + np.array([len(history) for history in histories], np.int64)
        means = self._model.forecast(windows, following, horizon)
        if not levels or self._trial is None:
            return [Prediction(mean) for mean in means]
        residuals = self._residuals_of(horizon)
        # The j-th smallest of n stands for the level j / (n + 1): a new error is as likely in any gap.
        shifts = np.nanquantile(residuals, levels, axis=0, method="weibull")
        offset = self._offset
        return [Prediction(m, np.maximum((m + offset) * np.exp(shifts) - offset, 0.0)) for m in means]

    def save(self, path: str | Path) -> None:
        """Write the trained forecaster to a file.

        Raises:
            InputError: before ``fit``.
        """
        import torch

        if self._model is None:
            raise InputError(f"forecast {self.name!r}: expected fit before save")
        content = {
            "format": _FORMAT,
            "name": self.name,
            "seed": self.seed,
            "training": asdict(self.training),
            "first_window": self._first_window,
            "calibration": torch.from_numpy(self._calibration),
            "calibration_window": self._calibration_window,
            "model": _packed(self._model),
            "trial": None if self._trial is None else _packed(self._trial),
        }
        torch.save(content, path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a forecaster that ``save`` wrote.

        Raises:
            InputError: if the file cannot be read, is none of this kind or holds another forecaster.
        """
        _check_torch()
        content = _read(path)
        if content["name"] != cls.name:
            raise InputError(f"{path}: name: expected a forecaster {cls.name!r}, got {content['name']!r}")
        forecaster = cls(content["seed"], Training(**content["training"]))
        forecaster._first_window = content["first_window"]
        forecaster._calibration = content["calibration"].numpy()
        forecaster._calibration_window = content["calibration_window"]
        forecaster._model = forecaster._unpacked(content["model"])
        if content["trial"] is not None:
            forecaster._trial = forecaster._unpacked(content["trial"])
        return forecaster

    def _checked(self, history: FloatArray, fewest: int) -> FloatArray:
        values = np.asarray(history, np.float64)
        if values.ndim != 1 or len(values) < fewest:
            raise InputError(
                f"forecast {self.name!r}: history: expected at least {fewest} windows, got shape "
                f"{values.shape}"
            )
        bad = ~(np.isfinite(values) & (values >= 0.0))
        if bad.any():
            window = int(bad.argmax())
            raise InputError(
                f"forecast {self.name!r}: history: window {window}: expected a finite number >= 0, "
                f"got {values[window].item()!r}"
            )
        return values

    def _train(self, history: FloatArray, first_window: int, window_s: float, clock_s: float) -> _Model:
        scaling = SCALINGS[self.scaling].fit(history, window_s, clock_s)
        windows, future = _samples(history, scaling.steps)
        following = first_window + _HISTORY + np.arange(len(windows))
        layers = train(
            self.cell,
            scaling.inputs(windows, following),
            scaling.targets(windows, future),
            self.training,
            seed=self.seed,
        )
        return _Model(self.cell, layers, scaling)

    @property
    def _offset(self) -> float:
        """Tokens added before ratios are taken, so that windows without requests have one."""
        return max(1.0, 0.01 * float(self._calibration.mean()))

    def _residuals_of(self, horizon: int) -> FloatArray:
        """Logarithms of actual over forecast, float64[n, horizon]; NaN past the end of the part."""
        if horizon not in self._residuals:
            assert self._trial is not None
            known = min(horizon, len(self._calibration) - _HISTORY)
            windows, future = _samples(self._calibration, known)
            following = self._calibration_window + np.arange(len(windows))
            means = self._trial.forecast(windows, following, known)
            residuals = np.log((future + self._offset) / (means + self._offset))
            # Further ahead than the calibration part is long, the errors of its last window stand in.
            last = np.repeat(residuals[:, -1:], horizon - known, axis=1)
            self._residuals[horizon] = np.concatenate([residuals, last], axis=1)
        return self._residuals[horizon]

    def _unpacked(self, packed: dict[str, Any]) -> _Model:
        scaling = SCALINGS[self.scaling](**packed["scaling"])
        layers = ARCHITECTURES[self.cell].layers(scaling.features, self.training.hidden, scaling.steps)
        layers.load_state_dict(packed["weights"])
        return _Model(self.cell, layers, scaling)


class LstmForecaster(RecurrentForecaster):
    """An LSTM of the artifact's size that says how the load changes, given the time of day.

    Inputs are logarithms of ratios to the last window instead of levels, outputs the next six windows at
    once. Trained on logarithms, it forecasts nearer to the median than to the mean.
    """

    name = "lstm"
    cell = "lstm"
    scaling = "ratios"


class MlstmForecaster(RecurrentForecaster):
    """As ``LstmForecaster``, with xLSTM's mLSTM cell (arXiv 2405.04517)."""

    name = "mlstm"
    cell = "mlstm"
    scaling = "ratios"


class ArtifactLstmForecaster(RecurrentForecaster):
    """The LSTM of PreServe's artifact: levels scaled to [0, 1], one window ahead, iterated."""

    name = "lstm-artifact"
    cell = "lstm"
    scaling = "levels"


class ArtifactMlstmForecaster(RecurrentForecaster):
    """As ``ArtifactLstmForecaster``, with xLSTM's mLSTM cell."""

    name = "mlstm-artifact"
    cell = "mlstm"
    scaling = "levels"


def _check_torch() -> None:
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        raise missing_extra("forecast", "PyTorch", "rl") from None


def _samples(history: FloatArray, steps: int) -> tuple[FloatArray, FloatArray]:
    """Every stretch of 25 windows with a window after it, and the next ``steps``; NaN past the end."""
    windows = np.lib.stride_tricks.sliding_window_view(history[:-1], _HISTORY)
    longer = np.append(history[_HISTORY:], np.full(steps - 1, np.nan))
    return windows, np.lib.stride_tricks.sliding_window_view(longer, steps)


def _packed(model: _Model) -> dict[str, Any]:
    return {"scaling": asdict(model.scaling), "weights": model.layers.state_dict()}


def _read(path: str | Path) -> dict[str, Any]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: expected a file that can be read, got {error.strerror or error}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError):
        content = None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise InputError(f"{path}: expected a file of a recurrent forecaster, got another kind of file")
    return content
