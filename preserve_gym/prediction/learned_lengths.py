"""A length predictor learned from what a gateway knows of a request without reading its text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError
from preserve_gym.prediction.output_history import OutputHistory
from preserve_gym.traces import Trace
from preserve_gym.traces.trace import SECONDS_PER_DAY

MIN_ROWS = 100
"""Fewest training requests."""

MAX_FITTED_ROWS = 200_000
_CHUNK_ROWS = 500_000
# Share of the training requests, the latest ones, that the upper quantile is corrected on.
_HELD_OUT = 0.2


class LearnedLengths:
    """Gradient-boosted quantile regression of the logarithm of the output length.

    It knows of each request its prompt length, service class and time of day, and how long the earlier
    answers of the service were, those of its class, those to prompts of just its length in its class, and
    those to prompts with the same first block, where the trace has prefix blocks. An answer's length is
    known only to requests that arrive more than ``known_after_s`` after its request.

    Args:
        trace: the requests.
        known_after_s: seconds, long enough for nearly all answers to be complete.
    """

    def __init__(self, trace: Trace, known_after_s: float) -> None:
        self._trace = trace
        groups = [np.zeros(len(trace), np.int64), _prompt_groups(trace)]
        if trace.request_class is not None:
            groups.append(trace.request_class.astype(np.int64))
        if trace.prefix_blocks is not None:
            groups.append(_first_blocks(trace))
        self._histories = [
            OutputHistory(trace.arrival_s, trace.output_tokens, group, known_after_s) for group in groups
        ]

    def predict(self, train: slice, level: float) -> NDArray[np.float64]:
        """Quantiles of the output lengths of all requests, given what is known of each, float64[n].

        At most ``MAX_FITTED_ROWS`` of the training requests, evenly spread, are fitted. The last fifth of
        them is not, if ``level`` is not the median's: their residuals correct the level, so that it is
        right for requests that the model has not seen.

        Args:
            train: rows to learn from.
            level: of the quantile, in (0, 1).

        Raises:
            InputError: without scikit-learn, or on fewer than ``MIN_ROWS`` rows.
        """
        rows = np.arange(len(self._trace))[train]
        if len(rows) < MIN_ROWS:
            raise InputError(
                f"length predictor 'learned': expected at least {MIN_ROWS} training requests, got {len(rows)}"
            )
        if len(rows) > MAX_FITTED_ROWS:
            rows = rows[np.linspace(0, len(rows) - 1, MAX_FITTED_ROWS).astype(np.int64)]
        known = np.concatenate([self._features(chunk)[taken] for chunk, taken in _chunks_of(rows)])
        logs = np.log(self._trace.output_tokens[rows])
        fitted = len(rows) if level == 0.5 else int(len(rows) * (1.0 - _HELD_OUT))
        model = _new_model(level).fit(known[:fitted], logs[:fitted])
        shift = 0.0
        if fitted < len(rows):
            shift = float(np.quantile(logs[fitted:] - model.predict(known[fitted:]), level))
        predicted = np.empty(len(self._trace))
        for chunk in _chunks(len(self._trace)):
            predicted[chunk] = np.exp(model.predict(self._features(chunk)) + shift)
        return predicted

    def _features(self, rows: slice) -> NDArray[np.float32]:
        """What a gateway knows of some requests, float32[k, features]; NaN where there is no history."""
        trace = self._trace
        hour = (trace.clock_s + trace.arrival_s[rows]) % SECONDS_PER_DAY / 3600.0
        columns: list[Any] = [trace.prompt_tokens[rows], hour]
        if trace.request_class is not None:
            columns.append(trace.request_class[rows])
        columns += [history.features(rows) for history in self._histories]
        return np.column_stack(columns).astype(np.float32)


def _prompt_groups(trace: Trace) -> NDArray[np.int64]:
    """One number for each pair of service class and prompt length."""
    groups = trace.prompt_tokens.astype(np.int64)
    return groups if trace.request_class is None else groups + (trace.request_class.astype(np.int64) << 31)


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


def _new_model(level: float) -> Any:
    try:
        from sklearn.ensemble import HistGradientBoostingRegressor
    except ImportError:
        raise InputError(
            "length predictor 'learned': needs scikit-learn; install preserve-gym[forecast]"
        ) from None
    # Stopping early would draw a random split; so nothing here is random.
    return HistGradientBoostingRegressor(
        loss="quantile",
        quantile=level,
        learning_rate=0.1,
        max_iter=100,
        min_samples_leaf=50,
        early_stopping=False,
        random_state=0,
    )
