"""Forecasters that need no training: naive, oracle, and an oracle with a set error."""

from __future__ import annotations

import math
from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError
from preserve_gym.forecasting.workload_forecast import WorkloadForecast
from preserve_gym.streams import normal_at
from preserve_gym.traces import Trace

FORECASTERS = ("naive", "noisy", "oracle")
PRESERVE_MAPE = 0.0617
"""Mean absolute percentage error of PreServe's forecaster (arXiv 2504.03702), as a fraction."""

FloatArray = NDArray[np.float64]


def make_forecast(
    name: str,
    trace: Trace,
    window_s: float,
    horizon: int,
    *,
    prior: tuple[float, float] | None = None,
    prompt_mape: float = PRESERVE_MAPE,
    output_mape: float = PRESERVE_MAPE,
    seed: int = 0,
) -> WorkloadForecast:
    """The forecast called ``name``; each forecaster takes the arguments that it knows.

    Raises:
        InputError: on an unknown name, ``naive`` without a ``prior``, or an argument out of range.
    """
    if name == "naive":
        if prior is None:
            raise InputError("forecast 'naive': prior: expected (prompt, output) tokens per window, got None")
        return naive_forecast(trace, window_s, horizon, prior)
    if name == "noisy":
        return noisy_forecast(trace, window_s, horizon, prompt_mape, output_mape, seed)
    if name == "oracle":
        return oracle_forecast(trace, window_s, horizon)
    raise InputError(f"forecast: expected one of {', '.join(FORECASTERS)}, got {name!r}")


def naive_forecast(
    trace: Trace, window_s: float, horizon: int, prior: tuple[float, float]
) -> WorkloadForecast:
    """The last closed window, for every window of the horizon.

    The output tokens of the window just closed are those of all its requests, though some may still be
    running then: a forecast made once per trace cannot know which.

    Args:
        trace: the whole trace.
        window_s: length of a window in seconds.
        horizon: windows to forecast, the current one included.
        prior: prompt and output tokens per window that are forecast at the start of window 0, when no
            window has closed; for instance the means of the training split.

    Raises:
        InputError: on an argument out of range.
    """
    if len(prior) != 2 or not all(isinstance(p, Real) and math.isfinite(p) and p >= 0 for p in prior):
        raise InputError(f"forecast 'naive': prior: expected two finite numbers >= 0, got {prior!r}")
    _check_horizon(horizon)
    # No forecast reads the last window: it closes at the end of the trace or later.
    prompt, output = (
        np.repeat(np.append(first, closed[:-1])[:, None], horizon, axis=1)
        for first, closed in zip(prior, trace.window_tokens(window_s), strict=True)
    )
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
    trace: Trace, window_s: float, horizon: int, prompt_mape: float, output_mape: float, seed: int = 0
) -> WorkloadForecast:
    """The oracle with a log-normal error ``exp(sigma * z)`` of a set mean absolute percentage error.

    Each window has one error for its prompt and one for its output tokens, whenever it is forecast,
    which ``seed`` and the number of the window determine. The error has median 1, and its mean is
    ``exp(sigma**2 / 2)``.

    Args:
        trace: the whole trace.
        window_s: length of a window in seconds.
        horizon: windows to forecast, the current one included.
        prompt_mape: mean absolute percentage error of the prompt tokens, as a fraction.
        output_mape: the same of the output tokens.
        seed: of the errors.

    Raises:
        InputError: on an argument out of range.
    """
    arrays = []
    truths = _window_truth(trace, window_s, horizon)
    for field, mape, truth in zip(("prompt", "output"), (prompt_mape, output_mape), truths, strict=True):
        sigma = sigma_of_mape(mape)
        error = np.exp(sigma * normal_at(seed, f"forecast {field}", np.arange(len(truth))))
        arrays.append(_ahead(truth * error, horizon))
    return WorkloadForecast(window_s, arrays[0], arrays[1], "noisy", uses_future=True)


def sigma_of_mape(mape: float) -> float:
    """Sigma at which ``exp(sigma * z)`` has the mean absolute percentage error ``mape`` (a fraction).

    It solves ``exp(sigma**2 / 2) * erf(sigma / sqrt(2)) = mape``, the mean of ``|exp(sigma * z) - 1|``.

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
        if math.exp(middle**2 / 2) * math.erf(middle / math.sqrt(2)) < mape:
            low = middle
        else:
            high = middle
    return 0.0 if mape == 0.0 else high


def _check_horizon(horizon: int) -> None:
    if isinstance(horizon, bool) or not isinstance(horizon, Integral) or not 1 <= horizon <= 10_000:
        raise InputError(f"forecast: horizon: expected an integer in [1, 10000] windows, got {horizon!r}")


def _window_truth(trace: Trace, window_s: float, horizon: int) -> tuple[FloatArray, FloatArray]:
    """Prompt and output tokens of each window of the trace and of ``horizon - 1`` after it."""
    _check_horizon(horizon)
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
