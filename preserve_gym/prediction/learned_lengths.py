"""A length predictor learned from what a gateway knows of a request without reading its text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError, missing_extra
from preserve_gym.prediction.output_history import OutputHistory
from preserve_gym.traces import Trace
from preserve_gym.traces.trace import SECONDS_PER_DAY

MIN_ROWS = 100
"""Fewest training requests."""

MAX_FITTED_ROWS = 200_000
_CHUNK_ROWS = 500_000
_SIZE = {"max_iter": 60, "learning_rate": 0.1, "max_leaf_nodes": 15, "min_samples_leaf": 200}
# Share of the training requests, the latest ones, that the upper quantile is corrected on.
_HELD_OUT = 0.2


class LearnedLengths:
    """Gradient-boosted quantile regression of the logarithm of the output length.

    It knows of each request its prompt length and service class, and how long the earlier answers were: those
    of the service, those of its class, and those to prompts with the same first block, where the trace has
    prefix blocks; and the time of day, if the training requests span a day. An answer's length is known only
    to requests that arrive more than ``known_after_s`` after its request.

    Args:
        trace: the requests.
        train: rows to learn from.
        known_after_s: seconds, long enough for nearly all answers to be complete.

    Raises:
        InputError: on fewer than ``MIN_ROWS`` training requests.
    """

    def __init__(self, trace: Trace, train: slice, known_after_s: float) -> None:
        rows = np.arange(len(trace))[train]
        if len(rows) < MIN_ROWS:
            raise InputError(
                f"length predictor 'learned': expected at least {MIN_ROWS} training requests, got {len(rows)}"
            )
        if len(rows) > MAX_FITTED_ROWS:
            rows = rows[np.linspace(0, len(rows) - 1, MAX_FITTED_ROWS).astype(np.int64)]
        self._trace, self._rows = trace, rows
        self._knows_hour = float(np.ptp(trace.arrival_s[rows])) >= SECONDS_PER_DAY
        groups = [np.zeros(len(trace), np.int64)]
        if trace.request_class is not None:
            groups.append(trace.request_class.astype(np.int64))
        if trace.prefix_blocks is not None:
            groups.append(_first_blocks(trace))
        self._histories = [
            OutputHistory(trace.arrival_s, trace.output_tokens, group, known_after_s) for group in groups
        ]

    def predict(self, level: float) -> NDArray[np.float64]:
        """Quantiles of the output lengths of all requests, given what is known of each, float64[n].

        At most ``MAX_FITTED_ROWS`` of the training requests, evenly spread, are fitted. The last fifth of
        them is not, if ``level`` is not the median's: their residuals correct the level, so that it is
        right for requests that the model has not seen.

        Args:
            level: of the quantile, in (0, 1).

        Raises:
            InputError: without scikit-learn.
        """
        new_model, threadpool_limits = _scikit_learn()
        rows = self._rows
        known = np.concatenate([self._features(chunk)[taken] for chunk, taken in _chunks_of(rows)])
        logs = np.log(self._trace.output_tokens[rows])
        fitted = len(rows) if level == 0.5 else int(len(rows) * (1.0 - _HELD_OUT))
        predicted = np.empty(len(self._trace))
        # The threads of one fit wait for each other: on a busy machine that takes minutes for seconds.
        with threadpool_limits(limits=1, user_api="openmp"):
            # Stopping early would draw a random split; so nothing here is random.
            model = new_model(
                loss="quantile", quantile=level, early_stopping=False, random_state=0, **_SIZE
            ).fit(known[:fitted], logs[:fitted])
            shift = 0.0
            if fitted < len(rows):
                shift = float(np.quantile(logs[fitted:] - model.predict(known[fitted:]), level))
            for chunk in _chunks(len(predicted)):
                predicted[chunk] = np.exp(model.predict(self._features(chunk)) + shift)
        return predicted

    def _features(self, rows: slice) -> NDArray[np.float32]:
        """What a gateway knows of some requests, float32[k, features]; -1 where there is no history."""
        trace = self._trace
        columns: list[Any] = [trace.prompt_tokens[rows]]
        if self._knows_hour:
            columns.append((trace.clock_s + trace.arrival_s[rows]) % SECONDS_PER_DAY / 3600.0)
        if trace.request_class is not None:
            columns.append(trace.request_class[rows])
        columns += [history.features(rows) for history in self._histories]
        return np.column_stack(columns).astype(np.float32)


def _first_blocks(trace: Trace) -> NDArray[np.int64]:
    """Id of the first prefix block of each request; -1 without any."""
    blocks = trace.prefix_blocks
    assert blocks is not None
    first = np.full(len(trace), -1, np.int64)
    some = np.diff(blocks.offsets) > 0
    first[some] = blocks.ids[blocks.offsets[:-1][some]]
    return first


def _chunks(count: int) -> Iterator[slice]:
    for start in range(0, count, _CHUNK_ROWS):
        yield slice(start, min(start + _CHUNK_ROWS, count))


def _chunks_of(rows: NDArray[np.int64]) -> Iterator[tuple[slice, NDArray[np.int64]]]:
    """Stretches of the trace, and where in each the given rows are, so that no stretch is long."""
    for chunk in _chunks(int(rows[-1]) + 1):
        taken = rows[np.searchsorted(rows, chunk.start) : np.searchsorted(rows, chunk.stop)]
        if len(taken):
            yield chunk, taken - chunk.start


def _scikit_learn() -> tuple[Any, Any]:
    """Its regressor and what limits its threads."""
    try:
        from sklearn.ensemble import HistGradientBoostingRegressor
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise missing_extra("length predictor 'learned'", "scikit-learn", "forecast") from None
    return HistGradientBoostingRegressor, threadpool_limits
