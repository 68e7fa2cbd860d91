"""BurstGPT: requests to GPT-3.5 and GPT-4 over months."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preserve_gym.traces.csv_table import IGNORED, SECONDS, TOKENS, Column, read_columns
from preserve_gym.traces.request_rows import RequestRows
from preserve_gym.traces.trace import SECONDS_PER_DAY, Trace

COLUMNS = {
    "Timestamp": SECONDS,
    "Model": IGNORED,
    "Request tokens": TOKENS,
    "Response tokens": TOKENS,
    "Total tokens": IGNORED,
    "Log Type": Column("word", words=("Conversation log", "API log")),
}
LATER_COLUMNS = {"Session ID": IGNORED, "Elapsed time": IGNORED}


def read_burstgpt(path: Path, chunks: Iterator[bytes], name: str) -> Trace:
    """The trace in the ``chunks`` of a BurstGPT file.

    Clock zero is the midnight before the first row, the class 0 for a conversation and 1 for the API.
    """
    rows = RequestRows(path)
    zero_s = None
    for _, columns in read_columns(path, chunks, COLUMNS, LATER_COLUMNS):
        if zero_s is None:
            zero_s = columns["Timestamp"][0] // SECONDS_PER_DAY * SECONDS_PER_DAY
        arrival_s = columns["Timestamp"] - zero_s
        rows.add(arrival_s, columns["Request tokens"], columns["Response tokens"], columns["Log Type"])
    return rows.trace(name, span_s=float(arrival_s[-1]))
