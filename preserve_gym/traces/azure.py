"""Azure's LLM inference traces of 2023 and 2024."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from preserve_gym.errors import InputError
from preserve_gym.traces.csv_table import LONGEST_S, STAMP, TOKENS, read_columns
from preserve_gym.traces.request_rows import RequestRows
from preserve_gym.traces.trace import SECONDS_PER_DAY, Trace

COLUMNS = {"TIMESTAMP": STAMP, "ContextTokens": TOKENS, "GeneratedTokens": TOKENS}


def read_azure(path: Path, chunks: Iterator[bytes], name: str) -> Trace:
    """The trace in the ``chunks`` of an Azure file.

    Arrivals count from the first row, exact to the nanosecond of the time stamps, and ``clock_s`` is
    the first row's time of day in the time zone of the file.
    """
    rows = RequestRows(path)
    first_ns = None
    for first_row, columns in read_columns(path, chunks, COLUMNS):
        stamp_ns = columns["TIMESTAMP"]
        if first_ns is None:
            first_ns = int(stamp_ns[0])
        arrival_s = (stamp_ns - first_ns) / 1e9
        if arrival_s[-1] > LONGEST_S:
            row = first_row + int(np.argmax(arrival_s > LONGEST_S))
            raise InputError(
                f"{path}: row {row}: TIMESTAMP: expected a time within 366 days of the first row's"
            )
        rows.add(arrival_s, columns["ContextTokens"], columns["GeneratedTokens"])
    assert first_ns is not None
    clock_s = first_ns % int(SECONDS_PER_DAY * 1e9) / 1e9
    return rows.trace(name, clock_s=clock_s, span_s=float(arrival_s[-1]))
