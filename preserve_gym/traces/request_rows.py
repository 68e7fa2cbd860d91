"""Requests as a reader gathers them, chunk by chunk, until they become a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError
from preserve_gym.traces.trace import Trace


class RequestRows:
    """Requests in order of arrival, without those that have no prompt or no output.

    Args:
        path: where they come from, for errors.

    Attributes:
        dropped: requests left out because one of their lengths is 0: most often they failed.
    """

    def __init__(self, path: Path) -> None:
        self.dropped = 0
        self._path = path
        self._columns: dict[str, _Growing] = {}

    def add(
        self,
        arrival_s: NDArray[np.float64],
        prompt_tokens: NDArray[np.int32],
        output_tokens: NDArray[np.int32],
        request_class: NDArray[np.int32] | None = None,
        **others: NDArray[np.int32],
    ) -> None:
        """Append requests; ``others``: columns of ``Trace`` by name. All calls give the same columns."""
        columns: dict[str, NDArray] = {
            "arrival_s": arrival_s,
            "prompt_tokens": prompt_tokens,
            "output_tokens": output_tokens,
            **({} if request_class is None else {"request_class": request_class}),
            **others,
        }
        served = (prompt_tokens > 0) & (output_tokens > 0)
        if not served.all():
            columns = {name: column[served] for name, column in columns.items()}
            self.dropped += int(len(served) - served.sum())
        if not self._columns:
            self._columns = {name: _Growing(column.dtype) for name, column in columns.items()}
        for name, column in columns.items():
            self._columns[name].append(column)

    def trace(self, name: str, clock_s: float = 0.0, span_s: float | None = None) -> Trace:
        """The trace of these requests; no more can be added.

        Raises:
            InputError: if there is no request.
        """
        columns: dict[str, Any] = {name: growing.done() for name, growing in self._columns.items()}
        if not columns or not len(columns["arrival_s"]):
            raise InputError(f"{self._path}: expected at least one request with prompt and output tokens")
        return Trace(
            **columns,
            name=name,
            clock_s=clock_s,
            span_s=span_s,
            repairs=(dropped_requests(self.dropped),) if self.dropped else (),
        )


def dropped_requests(count: int) -> str:
    """The sentence about requests that were left out."""
    return f"dropped {count:,} request{'s' * (count != 1)} with 0 prompt or output tokens"


class _Growing:
    """An array that grows in place: chunks put together at the end would be in memory twice."""

    def __init__(self, dtype: np.dtype) -> None:
        self._array = np.empty(2**16, dtype)
        self._size = 0

    def append(self, values: NDArray) -> None:
        end = self._size + len(values)
        if end > len(self._array):
            self._array.resize(max(end, len(self._array) * 5 // 4), refcheck=False)
        self._array[self._size : end] = values
        self._size = end

    def done(self) -> NDArray:
        """The array, read-only."""
        self._array.resize(self._size, refcheck=False)
        self._array.flags.writeable = False
        return self._array
