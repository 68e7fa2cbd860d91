"""Forecasts of a whole series, each made from what was known at its time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError
from preserve_gym.forecasting.forecaster import FloatArray, Forecaster, Prediction, day_lag, refit_period

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class ForecastTable:
    """Forecasts of one series, row k made at the start of window k.

    Attributes:
        mean: float64[n, horizon]; column h forecasts window k + h.
        quantiles: float64[n, levels, horizon], or None where no level was asked for. A row whose
            forecast has none repeats its mean.
        fell_back: bool[n], rows that are not the forecaster's own but the fallback.
        failure: what went wrong first, where it was not too little history; else empty.
    """

    mean: FloatArray
    quantiles: FloatArray | None
    fell_back: NDArray[np.bool_]
    failure: str = ""

    @property
    def fallbacks(self) -> int:
        """Rows that are not the forecaster's own."""
        return int(self.fell_back.sum())


@dataclass(frozen=True, eq=False)
class Past:
    """A series as it was known at the start of each window.

    Attributes:
        series: float64[n], tokens of each window.
        pending: float64[n, m]: what must be added to window k - 1 - j as it is known at the start of
            window k, in ``pending[k, j]``.
        train_windows: windows of the training part.
        prior: forecast at the start of window 0.
        window_s: length of a window in seconds.
        clock_s: time of day at the start of window 0, in seconds since midnight.
    """

    series: FloatArray
    pending: FloatArray
    train_windows: int
    prior: float
    window_s: float
    clock_s: float

    def before(self, window: int) -> FloatArray:
        """The windows before this one, as they are known at its start."""
        history = self.series[:window].copy()
        count = min(window, self.pending.shape[1])
        history[window - count :] += self.pending[window, :count][::-1]
        return np.maximum(history, 0.0)


def walk_forward(
    forecaster: Forecaster,
    series: FloatArray,
    horizon: int,
    *,
    train_windows: int,
    window_s: float,
    clock_s: float,
    levels: tuple[float, ...] = (),
    prior: float | None = None,
    pending: FloatArray | None = None,
    report: Callable[[int, int], None] | None = None,
) -> ForecastTable:
    """Forecast at the start of every window, from the windows before it.

    A forecaster with ``refit_windows`` is fitted on all the past as soon as it has its ``min_history``
    and at every multiple of ``refit_windows``. One without is trained on the training part alone; inside
    it, where that model would have seen what it forecasts, it is one trained on the quarter or half that
    had passed.

    Where the forecaster has too little history, raises, does not converge or gives a number that is not
    finite, the forecast is the window at the same time of the day before; without a day of history the
    last window; and for window 0 the prior. Those rows are marked. Forecasts below 0 become 0.

    Args:
        forecaster: the model.
        series: float64[n], tokens of each window.
        horizon: windows to forecast, the one that begins included.
        train_windows: windows of the training part, 1 <= train_windows <= n.
        window_s: length of a window in seconds.
        clock_s: time of day at the start of window 0, in seconds since midnight.
        levels: of the quantiles, ascending in (0, 1).
        prior: forecast before any window has closed; None: the mean of the training part.
        pending: corrections of windows that are not known in full yet, ``Past.pending``; None: none.
        report: called with the windows done and those to do.
    """
    if prior is None:
        prior = float(np.mean(series[:train_windows]))
    if pending is None:
        pending = np.zeros((len(series), 0))
    past = Past(np.asarray(series, np.float64), pending, train_windows, prior, window_s, clock_s)
    return walk_past(forecaster, past, horizon, levels, report)


def walk_past(
    forecaster: Forecaster,
    past: Past,
    horizon: int,
    levels: tuple[float, ...] = (),
    report: Callable[[int, int], None] | None = None,
    wanted_from: int = 0,
) -> ForecastTable:
    """``walk_forward`` over a series that is put together already.

    Chunks that end before window ``wanted_from`` are skipped (``skipped_rows``).
    """
    walker = Walker(forecaster, past, horizon, levels)
    tables = []
    for first, end in chunks(past):
        if end <= wanted_from:
            tables.append(skipped_rows(past, first, end, horizon, levels))
        else:
            tables.append(walker.rows(first, end, report))
    return join(tables)


def skipped_rows(past: Past, first: int, end: int, horizon: int, levels: tuple[float, ...]) -> ForecastTable:
    """Rows that nobody asked for: the fallback of ``walk_forward``, not marked as such."""
    mean = np.stack([fallback(past, past.before(window), horizon) for window in range(first, end)])
    quantiles = np.repeat(mean[:, None], len(levels), axis=1) if levels else None
    return ForecastTable(mean, quantiles, np.zeros(end - first, np.bool_))


def fallback(past: Past, history: FloatArray, horizon: int) -> FloatArray:
    """What stands in for a forecast after ``history``, float64[horizon]."""
    day = day_lag(1, past.window_s)
    if len(history) >= day:
        return np.resize(history[-day:], horizon)
    return np.full(horizon, history[-1] if len(history) else past.prior)


def chunks(past: Past) -> Iterator[tuple[int, int]]:
    """First window and end of each ``refit_period``, which can be forecast without those before."""
    step = refit_period(past.window_s)
    for first in range(0, len(past.series), step):
        yield first, min(first + step, len(past.series))


class Walker:
    """Walks a forecaster along a series; it is fitted again where its policy says.

    Args:
        forecaster: the model.
        past: the series.
        horizon: windows to forecast, the one that begins included.
        levels: of the quantiles, ascending in (0, 1).
    """

    def __init__(
        self, forecaster: Forecaster, past: Past, horizon: int, levels: tuple[float, ...] = ()
    ) -> None:
        self._forecaster, self._past = forecaster, past
        self._horizon, self._levels = horizon, levels
        self._fitted: int | None = None
        self._works = False
        self._failure = ""

    def rows(self, first: int, end: int, report: Callable[[int, int], None] | None = None) -> ForecastTable:
        """The forecasts at the start of the windows from ``first`` to before ``end``."""
        count, self._failure = end - first, ""
        mean = np.empty((count, self._horizon))
        quantiles = np.empty((count, len(self._levels), self._horizon)) if self._levels else None
        fell_back = np.zeros(count, np.bool_)
        for row, window in enumerate(range(first, end)):
            history = self._past.before(window)
            made = self._predict(window, history)
            fell_back[row] = made is None
            if made is None:
                mean[row] = fallback(self._past, history, self._horizon)
            else:
                mean[row] = np.maximum(made.mean, 0.0)
            if quantiles is not None:
                own = None if made is None else made.quantiles
                quantiles[row] = mean[row] if own is None else np.sort(np.maximum(own, 0.0), axis=0)
            if report is not None:
                report(window + 1, len(self._past.series))
        return ForecastTable(mean, quantiles, fell_back, self._failure)

    def _predict(self, window: int, history: FloatArray) -> Prediction | None:
        due = fit_point(self._forecaster, window, self._past.train_windows)
        if due is None:
            return None
        if due != self._fitted:
            self._fitted = due
            self._works = self._try(lambda: self._fit(due)) is not None
        if not self._works:
            return None
        return self._try(lambda: self._checked(history))

    def _fit(self, due: int) -> bool:
        past = self._past
        self._forecaster.fit(past.before(due), 0, past.window_s, past.clock_s)
        return True

    def _try(self, attempt: Callable[[], T]) -> T | None:
        """What it returns, or None if it fails."""
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                made = attempt()
            # Statsmodels and scikit-learn each have a class of this name.
            for warning in caught:
                if warning.category.__name__ == "ConvergenceWarning":
                    raise ArithmeticError(f"no convergence: {warning.message}")
        except InputError:
            raise
        except Exception as error:
            self._failure = self._failure or f"{type(error).__name__}: {error}"
            return None
        return made

    def _checked(self, history: FloatArray) -> Prediction:
        prediction = self._forecaster.predict(history, self._horizon, self._levels)
        horizon, levels = self._horizon, len(self._levels)
        for values, shape in ((prediction.mean, (horizon,)), (prediction.quantiles, (levels, horizon))):
            if values is not None and (np.shape(values) != shape or not np.all(np.isfinite(values))):
                raise ValueError(f"expected finite numbers of shape {shape}, got {values}")
        return prediction


def fit_point(forecaster: Forecaster, window: int, train_windows: int) -> int | None:
    """How many windows the model in force at the start of ``window`` was fitted on; None: no model."""
    fewest = max(forecaster.min_history, 1)
    if forecaster.refit_windows is None:
        points = [p for p in (train_windows // 4, train_windows // 2, train_windows) if fewest <= p <= window]
        return points[-1] if points else None
    if window < fewest:
        return None
    return max(fewest, window - window % forecaster.refit_windows)


def join(tables: list[ForecastTable]) -> ForecastTable:
    """One table of consecutive ones."""
    quantiles = [t.quantiles for t in tables if t.quantiles is not None]
    return ForecastTable(
        np.concatenate([t.mean for t in tables]),
        np.concatenate(quantiles) if quantiles else None,
        np.concatenate([t.fell_back for t in tables]),
        next((t.failure for t in tables if t.failure), ""),
    )
