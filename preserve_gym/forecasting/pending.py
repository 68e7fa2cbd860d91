"""Requests that may still be running when the window of their arrival closes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError
from preserve_gym.forecasting.forecaster import FloatArray
from preserve_gym.traces import Trace
from preserve_gym.traces.trace import SECONDS_PER_DAY

UNFINISHED_S = 60.0
"""So long before a boundary a request counts as not finished; most of a chat finish within a minute."""


def pending_tokens(
    trace: Trace,
    predicted_tokens: NDArray[np.integer],
    window_s: float,
    unfinished_s: float = UNFINISHED_S,
) -> FloatArray:
    """What the output tokens of the last windows differ by while requests have their predicted length.

    Which requests are unfinished at a boundary depends on the cluster, and a forecast is made once for a
    trace. So those that arrived in the last ``unfinished_s`` before it count with their predicted length,
    and those before with the true one.

    Args:
        trace: the requests.
        predicted_tokens: int[n], predicted output tokens of each.
        window_s: length of a window in seconds.
        unfinished_s: how long a request counts as unfinished.

    Returns:
        float64[windows, m]: what to add to window k - 1 - j at the start of window k, in row k, column j.

    Raises:
        InputError: on a length that is not finite and >= 0, or predictions of another number of requests.
    """
    if not (math.isfinite(unfinished_s) and 0.0 <= unfinished_s <= SECONDS_PER_DAY):
        raise InputError(f"forecast: unfinished_s: expected a number in [0, 86400], got {unfinished_s!r}")
    if np.shape(predicted_tokens) != (len(trace),):
        raise InputError(
            f"forecast: predicted_tokens: expected one for each of {len(trace)} requests, "
            f"got shape {np.shape(predicted_tokens)}"
        )
    count = trace.window_count(window_s)
    difference = predicted_tokens.astype(np.float64) - trace.output_tokens
    arrived_in = (trace.arrival_s // window_s).astype(np.int64)
    columns = []
    for back in range(math.ceil(unfinished_s / window_s)):
        boundary = arrived_in + 1 + back
        running = (boundary * window_s - trace.arrival_s <= unfinished_s) & (boundary < count)
        columns.append(np.bincount(boundary[running], difference[running], minlength=count))
    return np.column_stack(columns) if columns else np.zeros((count, 0))
