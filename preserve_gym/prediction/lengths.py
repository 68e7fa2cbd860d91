"""Predicted output lengths (D-hat in the papers), known at the arrival of a request."""

from __future__ import annotations

from numbers import Real

import numpy as np
from numpy.typing import NDArray

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
    seed: int = 0,
    sigma: float = PRESERVE_SIGMA,
) -> NDArray[np.int32]:
    """Predicted output tokens of each request, int32[n], each >= 1.

    * ``oracle``: the true length;
    * ``noisy``: the true length times ``exp(sigma * z)``, z standard normal, rounded. The median of the
      factor is 1; its mean is ``exp(sigma**2 / 2)``, 5.6 % above at the default sigma.

    The noise of a request depends on ``seed`` and its place in the trace alone. Predict for the whole
    trace and slice the result, and no choice of episode shifts it. A cluster clips predictions to what
    its model can generate after the prompt.

    Args:
        name: one of ``PREDICTORS``.
        trace: the requests.
        seed: of the noise.
        sigma: standard deviation of the log error.

    Raises:
        InputError: on an unknown predictor or an argument out of range.
    """
    if name not in PREDICTORS:
        raise InputError(f"length predictor: expected one of {', '.join(PREDICTORS)}, got {name!r}")
    if not (isinstance(sigma, Real) and 0.0 <= sigma <= 10.0):
        raise InputError(f"length predictor: sigma: expected a number in [0, 10], got {sigma!r}")
    predicted = trace.output_tokens.astype(np.float64)
    if name == "noisy":
        predicted *= np.exp(sigma * normal_at(seed, "output length", np.arange(len(trace))))
    return np.clip(np.rint(predicted), 1, 2**31 - 1).astype(np.int32)
