"""Requests as a reader gathers them, chunk by chunk, until they become a trace."""

from __future__ import annotations

from pathlib import Path

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
        self._chunks: list[list[NDArray]] = []

    def add(
        self,
        arrival_s: NDArray[np.float64],
        prompt_tokens: NDArray[np.int32],
        output_tokens: NDArray[np.int32],
        request_class: NDArray[np.int32] | None = None,
    ) -> None:
        """Append requests; all calls give a class or none does."""
        columns: list[NDArray] = [arrival_s, prompt_tokens, output_tokens]
        if request_class is not None:
            columns.append(request_class)
        served = (prompt_tokens > 0) & (output_tokens > 0)
        if not served.all():
            columns = [column[served] for column in columns]
            self.dropped += len(served) - len(columns[0])
        self._chunks.append(columns)

    def columns(self) -> list[NDArray]:
        """The columns as read-only arrays; to be called once.

        Raises:
            InputError: if there is no request.
        """
        if not any(len(chunk[0]) for chunk in self._chunks):
            raise InputError(f"{self._path}: expected at least one request with prompt and output tokens")
        columns = []
        chunks, self._chunks = self._chunks, []
        while chunks[0]:
            # One column at a time, so that no more than one is in memory twice.
            column = np.concatenate([chunk.pop(0) for chunk in chunks])
            column.flags.writeable = False
            columns.append(column)
        return columns

    def repairs(self) -> tuple[str, ...]:
        """What ``add`` left out, for ``Trace.repairs``."""
        return (dropped_requests(self.dropped),) if self.dropped else ()

    def trace(self, name: str, clock_s: float = 0.0, span_s: float | None = None) -> Trace:
        """The trace of these requests."""
        arrival_s, prompt_tokens, output_tokens, *classes = self.columns()
        return Trace(
            arrival_s,
            prompt_tokens,
            output_tokens,
            classes[0] if classes else None,
            name=name,
            clock_s=clock_s,
            span_s=span_s,
            repairs=self.repairs(),
        )


def dropped_requests(count: int) -> str:
    """The sentence about requests that were left out."""
    return f"dropped {count:,} request{'s' * (count != 1)} with 0 prompt or output tokens"
