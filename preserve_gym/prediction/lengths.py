"""Predicted output lengths (D-hat in the papers), known at the arrival of a request."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError
from preserve_gym.prediction.learned_lengths import LearnedLengths
from preserve_gym.prediction.length_classes import (
    POWERS_OF_TWO,
    bucket_lengths,
    checked_edges,
    ssjf_lengths,
)
from preserve_gym.prediction.length_errors import log_error
from preserve_gym.prediction.upper_lengths import upper_lengths
from preserve_gym.streams import normal_at, uniform_at
from preserve_gym.traces import Trace

PREDICTORS = ("bucket", "column", "empirical", "learned", "mean", "noisy", "oracle", "ssjf")
"""All names that ``predict_lengths`` and ``WorkloadConfig.predictor`` take."""

FOR_ANY_TRACE = tuple(name for name in PREDICTORS if name != "column")
"""Those that need no predictions in the trace itself."""

PRESERVE_SIGMA = 0.33
"""Noise with about the quality of PreServe's learned predictor (arXiv 2504.03702)."""

TRAINED_SHARE = 0.2
"""Share of the requests, the first ones, that are learned from unless the caller names others."""

_STREAM = "output length"


@dataclass(frozen=True, eq=False)
class LengthPrediction:
    """What is predicted of the output length of each request.

    Attributes:
        tokens: int32[n], the predictions, >= 1.
        upper_tokens: int32[n], lengths that most requests do not exceed, >= ``tokens``.
    """

    tokens: NDArray[np.int32]
    upper_tokens: NDArray[np.int32]


@dataclass(frozen=True)
class _Dials:
    """The checked arguments of ``predict_lengths``."""

    sigma: float
    accuracy: float
    edges: Sequence[int]
    known_after_s: float


def predict_lengths(
    name: str,
    trace: Trace,
    *,
    train: slice | None = None,
    seed: int = 0,
    sigma: float = PRESERVE_SIGMA,
    accuracy: float = 0.75,
    edges: Sequence[int] = POWERS_OF_TWO,
    known_after_s: float = 120.0,
) -> NDArray[np.int32]:
    """Predicted output tokens of each request, int32[n], each >= 1.

    * ``oracle``: the true length;
    * ``noisy``: the true length times ``exp(sigma * z)``, z standard normal, rounded. The median of the
      factor is 1; its mean is ``exp(sigma**2 / 2)``, 5.6 % above at the default sigma;
    * ``empirical``: the true length with an error drawn from those of a real predictor for answers about
      as long (``preserve_gym.prediction.length_errors``);
    * ``ssjf``: what the classifier of SSJF (arXiv 2404.08509) can tell: one of five classes of lengths,
      drawn by its published confusion matrix. The classes end at 25, 50, 75 and 99 % of the training
      requests; the prediction is the median of the training requests that would be put into the class;
    * ``bucket``: the middle of the true length's bucket, or of a neighbouring one;
    * ``learned``: the median by gradient-boosted regression on what a gateway knows without the text
      (``preserve_gym.prediction.LearnedLengths``). It needs the extra ``forecast``;
    * ``column``: the trace's own ``predicted_tokens``, whatever made them, such as
      ``preserve_gym.prediction.TextLengths``, which reads the prompts;
    * ``mean``: the mean length of the training requests for each request, that is, no prediction.

    All but ``learned``, ``column`` and ``mean`` know the true length and blur it; a blur depends on ``seed``
    and the request's place in the trace alone. ``learned`` depends on the training requests and on answers
    that were known before. Predict for the whole trace and slice the result, and no choice of episode shifts
    it. A cluster clips predictions to what its model can generate after the prompt.

    Args:
        name: one of ``PREDICTORS``; each takes the arguments that it knows.
        trace: the requests.
        train: rows to learn from (``learned``, ``mean``, ``ssjf``); None: the first fifth of them.
        seed: of the errors.
        sigma: standard deviation of the log error (``noisy``).
        accuracy: share of requests in the right bucket (``bucket``).
        edges: longest length of each bucket, rising; what is longer than all is taken for one token more
            than the last (``bucket``).
        known_after_s: time after its arrival at which the length of an answer is known (``learned``).

    Raises:
        InputError: on an unknown predictor, an argument out of range, too few training requests, or
            without scikit-learn for ``learned``, or on a trace without predictions for ``column``.
    """
    dials = _checked(name, sigma, accuracy, edges, known_after_s)
    if name == "learned" and len(trace):
        return _tokens(LearnedLengths(trace, _train(trace, train), known_after_s).predict(0.5))
    return _known(name, trace, train, seed, dials)


def predict_length_bounds(
    name: str,
    trace: Trace,
    *,
    level: float = 0.9,
    train: slice | None = None,
    seed: int = 0,
    sigma: float = PRESERVE_SIGMA,
    accuracy: float = 0.75,
    edges: Sequence[int] = POWERS_OF_TWO,
    known_after_s: float = 120.0,
) -> LengthPrediction:
    """The predictions of ``predict_lengths``, with an upper quantile for cautious policies.

    That of ``learned`` is a second regression, corrected on the last fifth of its training requests; that
    of ``column`` is the trace's own ``predicted_upper_tokens``, whatever the level, if it has them; that
    of the others follows from how far they are off for the training requests, by predicted length
    (``preserve_gym.prediction.upper_lengths``), and equals the prediction for ``oracle``.

    Args:
        name: one of ``PREDICTORS``.
        trace: the requests.
        level: share of the requests that are to be no longer than ``upper_tokens``, in (0.5, 1).
        train: as in ``predict_lengths``; here all predictors use it.
        seed: as in ``predict_lengths``, like all others.
        sigma: see there.
        accuracy: see there.
        edges: see there.
        known_after_s: see there.

    Raises:
        InputError: as ``predict_lengths``.
    """
    dials = _checked(name, sigma, accuracy, edges, known_after_s)
    if not (isinstance(level, Real) and 0.5 < level < 1.0):
        raise InputError(f"length predictor: level: expected a number in (0.5, 1), got {level!r}")
    if not len(trace):
        return LengthPrediction(np.empty(0, np.int32), np.empty(0, np.int32))
    rows = _train(trace, train)
    if name == "learned":
        learned = LearnedLengths(trace, rows, known_after_s)
        tokens, bounds = (_tokens(learned.predict(q)) for q in (0.5, float(level)))
        return LengthPrediction(tokens, np.maximum(tokens, bounds))
    tokens = _known(name, trace, train, seed, dials)
    if name == "column" and trace.predicted_upper_tokens is not None:
        return LengthPrediction(tokens, trace.predicted_upper_tokens.copy())
    upper = upper_lengths(tokens, tokens[rows], trace.output_tokens[rows], level)
    return LengthPrediction(tokens, _tokens(upper))


def _column(trace: Trace) -> NDArray[np.int32]:
    if trace.predicted_tokens is None:
        raise InputError(
            f"length predictor 'column': expected a trace with predicted_tokens, got {trace.name!r} without"
        )
    return trace.predicted_tokens


def _known(name: str, trace: Trace, train: slice | None, seed: int, dials: _Dials) -> NDArray[np.int32]:
    """The trace's predictions, the true lengths with a predictor's errors, or their mean, int32[n]."""
    true = trace.output_tokens
    request = np.arange(len(true))
    if name == "oracle" or not len(true):
        return true.copy()
    if name == "column":
        return _column(trace).copy()
    lengths = true.astype(np.float64)
    if name == "mean":
        return _tokens(np.full(len(true), lengths[_train(trace, train)].mean()))
    if name == "noisy":
        return _tokens(lengths * np.exp(dials.sigma * normal_at(seed, _STREAM, request)))
    level = uniform_at(seed, _STREAM, request)
    if name == "empirical":
        return _tokens(lengths * np.exp(log_error(true, level)))
    if name == "bucket":
        return _tokens(bucket_lengths(true, dials.edges, dials.accuracy, level))
    return _tokens(ssjf_lengths(true, true[_train(trace, train)], level))


def _tokens(lengths: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.clip(np.rint(lengths), 1, 2**31 - 1).astype(np.int32)


def _train(trace: Trace, train: slice | None) -> slice:
    """The rows to learn from; at least one."""
    if train is None:
        return slice(0, math.ceil(TRAINED_SHARE * len(trace)))
    if not isinstance(train, slice) or train.step not in (None, 1):
        raise InputError(f"length predictor: train: expected a slice of rows without a step, got {train!r}")
    if not len(trace.output_tokens[train]):
        raise InputError(
            f"length predictor: train: expected at least one of {len(trace)} rows, got {train!r}"
        )
    return train


def _checked(name: str, sigma: float, accuracy: float, edges: Sequence[int], known_after_s: float) -> _Dials:
    if name not in PREDICTORS:
        close = difflib.get_close_matches(str(name), PREDICTORS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise InputError(f"length predictor: expected one of {', '.join(PREDICTORS)}, got {name!r}{hint}")
    for field, value, most in (
        ("sigma", sigma, 10.0),
        ("accuracy", accuracy, 1.0),
        ("known_after_s", known_after_s, 1e9),
    ):
        if isinstance(value, bool) or not (isinstance(value, Real) and 0.0 <= value <= most):
            raise InputError(f"length predictor: {field}: expected a number in [0, {most:g}], got {value!r}")
    checked_edges(edges)
    return _Dials(sigma, accuracy, edges, known_after_s)
