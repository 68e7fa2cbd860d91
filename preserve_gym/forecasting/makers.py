"""Forecasts by name, and those that need no training: naive, oracle, and an oracle with a set error."""

from __future__ import annotations

import math
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError
from preserve_gym.forecasting.forecaster import FloatArray, Forecaster
from preserve_gym.forecasting.learnt import check_horizon, check_prior, learnt_forecast
from preserve_gym.forecasting.pending import UNFINISHED_S, pending_tokens
from preserve_gym.forecasting.sktime_adapter import SktimeForecaster
from preserve_gym.forecasting.workload_forecast import WorkloadForecast
from preserve_gym.streams import normal_at
from preserve_gym.traces import Trace

PRESERVE_MAPE = 0.0617
"""Mean absolute percentage error of PreServe's forecaster (arXiv 2504.03702), as a fraction."""
TAILS = ("thin", "fat")
_WILD_SHARE, _WILD_TIMES = 0.1, 4.0
_WILD_ABOVE = 1.2815515655446004  # a tenth of a standard normal lies above


def make_forecast(
    name: str | Forecaster | Any,
    trace: Trace,
    window_s: float,
    horizon: int,
    *,
    prior: tuple[float, float] | None = None,
    train_s: float | None = None,
    predicted_tokens: NDArray[np.integer] | None = None,
    unfinished_s: float = UNFINISHED_S,
    levels: tuple[float, ...] = (),
    prompt_mape: float = PRESERVE_MAPE,
    output_mape: float = PRESERVE_MAPE,
    tail: str = "thin",
    seed: int = 0,
    cache_dir: Path | None = None,
    wanted_from_s: float = 0.0,
) -> WorkloadForecast:
    """The forecast called ``name``; each forecaster takes the arguments that it knows.

    Args:
        name: one of ``FORECASTERS``, ``sktime:`` and the name of a class of sktime; or a forecaster of
            sktime or a ``Forecaster``, whose forecasts are not cached.
        trace: the whole trace.
        window_s: length of a window in seconds.
        horizon: windows to forecast, the current one included.
        prior: prompt and output tokens per window that are forecast at the start of window 0; None: their
            means over the training part. ``naive`` has no training part and must be given it.
        train_s: end of the training part on the trace's clock; None: the whole trace.
        predicted_tokens: predicted output tokens of each request, with which those count that have not
            finished (``pending_tokens``); None: with their true ones.
        unfinished_s: how long a request counts as not finished.
        levels: of the quantiles, ascending in (0, 1), for forecasters that learn.
        prompt_mape, output_mape, tail, seed: of ``noisy_forecast``.
        cache_dir: folder of the cache; None: ``forecasting.cache.cache_dir()``.
        wanted_from_s: forecasters that learn save time by forecasting only the days that end after this;
            rows before have the fallback, which is not counted.

    Raises:
        InputError: on an unknown name, ``naive`` without a ``prior``, an argument out of range, or a
            missing library.
    """
    if name == "noisy":
        return noisy_forecast(trace, window_s, horizon, prompt_mape, output_mape, seed, tail)
    if name == "oracle":
        return oracle_forecast(trace, window_s, horizon)
    pending = None
    if predicted_tokens is not None:
        pending = pending_tokens(trace, predicted_tokens, window_s, unfinished_s)
    if name == "naive" and not levels:
        if prior is None:
            raise InputError("forecast 'naive': prior: expected (prompt, output) tokens per window, got None")
        return naive_forecast(trace, window_s, horizon, prior, pending)
    if not isinstance(name, str) and hasattr(name, "get_tag"):
        name = SktimeForecaster(name, type(name).__name__)
    if not isinstance(name, str) and (isinstance(name, type) or not isinstance(name, Forecaster)):
        members = "name, min_history, refit_windows, fit and predict"
        raise InputError(f"forecast: expected a name or an object with {members}, got {name!r}")
    return learnt_forecast(
        name,
        trace,
        window_s,
        horizon,
        prior=prior,
        train_s=train_s,
        pending=pending,
        levels=levels,
        cache_dir=cache_dir,
        wanted_from_s=wanted_from_s,
    )


def naive_forecast(
    trace: Trace,
    window_s: float,
    horizon: int,
    prior: tuple[float, float],
    pending: FloatArray | None = None,
) -> WorkloadForecast:
    """The last closed window, for every window of the horizon.

    Args:
        trace: the whole trace.
        window_s: length of a window in seconds.
        horizon: windows to forecast, the current one included.
        prior: prompt and output tokens per window that are forecast at the start of window 0, when no
            window has closed; for instance the means of the training split.
        pending: what the output tokens differ by while requests run (``pending_tokens``); None: nothing.

    Raises:
        InputError: on an argument out of range.
    """
    check_prior("naive", prior)
    check_horizon(horizon)
    prompt, output = trace.window_tokens(window_s)
    # No forecast reads the last window: it closes at the end of the trace or later.
    prompt, output = np.append(prior[0], prompt[:-1]), np.append(prior[1], output[:-1])
    if pending is not None and pending.shape[1]:
        output[1:] = np.maximum(output[1:] + pending[1:, 0], 0.0)
    prompt, output = (np.repeat(tokens[:, None], horizon, axis=1) for tokens in (prompt, output))
    return WorkloadForecast(window_s, prompt, output, "naive", uses_future=False)


def oracle_forecast(trace: Trace, window_s: float, horizon: int) -> WorkloadForecast:
    """What arrives, exactly.

    The end of a recording is no fall of the load. So a last window that the recording covers in part
    counts what it has plus the window before at the share that is missing (a trace within one window:
    at its own rate), and the windows after it repeat it.

    Raises:
        InputError: on an argument out of range.
    """
    prompt, output = (_ahead(tokens, horizon) for tokens in _window_truth(trace, window_s, horizon))
    return WorkloadForecast(window_s, prompt, output, "oracle", uses_future=True)


def noisy_forecast(
    trace: Trace,
    window_s: float,
    horizon: int,
    prompt_mape: float,
    output_mape: float,
    seed: int = 0,
    tail: str = "thin",
) -> WorkloadForecast:
    """The oracle with an error ``exp(sigma * z)`` of a set mean absolute percentage error.

    Each window has one error for its prompt and one for its output tokens, whenever it is forecast,
    which ``seed`` and the number of the window determine. With a thin tail z is standard normal: the error
    has median 1, and its mean is ``exp(sigma**2 / 2)``. With a fat one sigma is four times as large in one
    window of ten, and smaller in the others, so that the mean absolute percentage error is the same.

    Args:
        trace: the whole trace.
        window_s: length of a window in seconds.
        horizon: windows to forecast, the current one included.
        prompt_mape: mean absolute percentage error of the prompt tokens, as a fraction.
        output_mape: the same of the output tokens.
        seed: of the errors.
        tail: of the errors, ``thin`` or ``fat``.

    Raises:
        InputError: on an argument out of range.
    """
    if tail not in TAILS:
        raise InputError(f"forecast 'noisy': tail: expected one of {', '.join(TAILS)}, got {tail!r}")
    arrays = []
    truths = _window_truth(trace, window_s, horizon)
    for field, mape, truth in zip(("prompt", "output"), (prompt_mape, output_mape), truths, strict=True):
        window = np.arange(len(truth))
        sigma: float | FloatArray = sigma_of_mape(mape, tail)
        if tail == "fat":
            is_wild = normal_at(seed, f"forecast {field} tail", window) > _WILD_ABOVE
            sigma = sigma * np.where(is_wild, _WILD_TIMES, 1.0)
        error = np.exp(sigma * normal_at(seed, f"forecast {field}", window))
        arrays.append(_ahead(truth * error, horizon))
    return WorkloadForecast(window_s, arrays[0], arrays[1], "noisy", uses_future=True)


def sigma_of_mape(mape: float, tail: str = "thin") -> float:
    """Sigma at which ``exp(sigma * z)`` has the mean absolute percentage error ``mape`` (a fraction).

    It solves ``exp(sigma**2 / 2) * erf(sigma / sqrt(2)) = mape``, the mean of ``|exp(sigma * z) - 1|``, or
    with a fat tail the same of the mixture.

    Raises:
        InputError: unless ``mape`` is in [0, 10].
    """
    if not (isinstance(mape, Real) and 0.0 <= mape <= 10.0):
        raise InputError(
            f"forecast: mean absolute percentage error: expected a fraction in [0, 10], got {mape!r}"
        )
    low, high = 0.0, 4.0
    for _ in range(60):
        middle = (low + high) / 2
        if _mape_of_sigma(middle, tail) < mape:
            low = middle
        else:
            high = middle
    return 0.0 if mape == 0.0 else high


def _mape_of_sigma(sigma: float, tail: str) -> float:
    if tail == "fat":
        wild = _mape_of_sigma(_WILD_TIMES * sigma, "thin")
        return _WILD_SHARE * wild + (1.0 - _WILD_SHARE) * _mape_of_sigma(sigma, "thin")
    return math.exp(sigma**2 / 2) * math.erf(sigma / math.sqrt(2))


def _window_truth(trace: Trace, window_s: float, horizon: int) -> tuple[FloatArray, FloatArray]:
    """Prompt and output tokens of each window of the trace and of ``horizon - 1`` after it."""
    check_horizon(horizon)
    prompt, output = (
        _continued(tokens, trace, window_s, horizon) for tokens in trace.window_tokens(window_s)
    )
    return prompt, output


def _continued(tokens: FloatArray, trace: Trace, window_s: float, horizon: int) -> FloatArray:
    last = len(tokens) - 1
    covered = min(max(trace.span_s / window_s - last, 0.0), 1.0)
    tokens = tokens.copy()
    if last > 0:
        tokens[last] += (1.0 - covered) * tokens[last - 1]
    elif covered > 0.0:
        tokens[last] /= covered
    return np.append(tokens, np.full(horizon - 1, tokens[last]))


def _ahead(tokens: FloatArray, horizon: int) -> FloatArray:
    """Row k holds ``tokens[k : k + horizon]``."""
    return np.lib.stride_tricks.sliding_window_view(tokens, horizon)
