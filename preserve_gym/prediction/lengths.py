"""Predicted output lengths (D-hat in the papers), known at the arrival of a request."""

from __future__ import annotations

from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preserve_gym.errors import InputError
from preserve_gym.streams import normal_at
from preserve_gym.traces import Trace

PREDICTORS = ("oracle", "noisy")
PRESERVE_SIGMA = 0.33
"""Noise with about the quality of PreServe's learned predictor (arXiv 2504.03702)."""


def predict_lengths(
    name: str,
    trace: Trace,
    *,
    max_model_len: int,
    seed: int = 0,
    sigma: float = PRESERVE_SIGMA,
    index: ArrayLike | None = None,
) -> NDArray[np.int32]:
    """Predicted output tokens of each request, int32[n], in [1, max(1, max_model_len - prompt)].

    * ``oracle``: the true length;
    * ``noisy``: the true length times ``exp(sigma * z)``, z standard normal, rounded. The median of the
      factor is 1; its mean is ``exp(sigma**2 / 2)``, 5.6 % above at the default sigma.

    The noise of a request depends on ``seed`` and its index alone, so a part of the trace gets the
    predictions that it has in the whole, if ``index`` says where it lies.

    Args:
        name: one of ``PREDICTORS``.
        trace: the requests.
        max_model_len: longest prompt plus output of the model, in tokens.
        seed: of the noise.
        sigma: standard deviation of the log error.
        index: int[n], position of each request in the full trace; by default 0 to n-1.

    Raises:
        InputError: on an unknown predictor or an argument out of range.
    """
    if name not in PREDICTORS:
        raise InputError(f"length predictor: expected one of {', '.join(PREDICTORS)}, got {name!r}")
    if not (isinstance(max_model_len, int | np.integer) and max_model_len >= 2):
        raise InputError(f"length predictor: max_model_len: expected an integer >= 2, got {max_model_len!r}")
    if not (isinstance(sigma, Real) and 0.0 <= sigma <= 10.0):
        raise InputError(f"length predictor: sigma: expected a number in [0, 10], got {sigma!r}")
    predicted = trace.output_tokens.astype(np.float64)
    if name == "noisy":
        predicted *= np.exp(sigma * normal_at(seed, "output length", _positions(index, len(trace))))
    room = np.maximum(max_model_len - trace.prompt_tokens.astype(np.int64), 1)
    return np.clip(np.rint(predicted), 1, np.minimum(room, 2**31 - 1)).astype(np.int32)


def _positions(index: ArrayLike | None, count: int) -> NDArray[np.integer]:
    if index is None:
        return np.arange(count)
    positions = np.asarray(index)
    if positions.shape != (count,) or positions.dtype.kind not in "iu" or (count and positions.min() < 0):
        raise InputError(
            f"length predictor: index: expected {count} integers >= 0, one per request, got "
            f"{positions.dtype} of shape {positions.shape}"
        )
    return positions
