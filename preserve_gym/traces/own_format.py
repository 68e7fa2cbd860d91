"""The project's own format, as CSV and as Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from preserve_gym.errors import InputError
from preserve_gym.traces.csv_table import LONGEST_S, SECONDS, Column, Columns, check_header, read_columns
from preserve_gym.traces.request_rows import RequestRows
from preserve_gym.traces.trace import INT32_MAX, Trace

COLUMNS = {
    "arrival_s": SECONDS,
    "prompt_tokens": Column("integer", least=1),
    "output_tokens": Column("integer", least=1),
}
OPTIONAL = {
    "class": Column("integer"),
    "predicted_tokens": Column("integer", least=1),
    "predicted_upper_tokens": Column("integer", least=1),
}
BATCH_ROWS = 2**20


def read_own_csv(path: Path, chunks: Iterator[bytes], name: str) -> Trace:
    """The trace in the ``chunks`` of a CSV file; the columns may come in any order."""
    rows = RequestRows(path)
    for first_row, columns in read_columns(path, chunks, COLUMNS, OPTIONAL):
        _check_upper(path, first_row, columns)
        rows.add(**_named(columns))
    return rows.trace(name)


def read_own_parquet(path: Path, stream: BinaryIO, name: str) -> Trace:
    """The trace in a Parquet file with the columns of the CSV file; rows count from 1."""
    rows = RequestRows(path)
    first_row, last_s = 1, 0.0
    try:
        file = pq.ParquetFile(stream)
        header = file.schema_arrow.names
        check_header(path, header, tuple(COLUMNS), tuple(OPTIONAL))
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            columns = {column: _numbers(path, batch, column, first_row) for column in header}
            arrival_s = columns["arrival_s"].astype(np.float64)
            falls = np.diff(arrival_s, prepend=last_s) < 0.0
            _refuse(
                path, first_row, "arrival_s", falls, "a time at or after that of the row before", arrival_s
            )
            if len(arrival_s):
                last_s = float(arrival_s[-1])
            _check_upper(path, first_row, columns)
            integers = {name: column.astype(np.int32) for name, column in columns.items()}
            rows.add(**_named({**integers, "arrival_s": arrival_s}))
            first_row += len(batch)
    except (pa.ArrowException, OSError) as error:
        problem = str(error).splitlines()[0]
        raise InputError(f"{path}: expected a whole Parquet file, got a broken one ({problem})") from None
    return rows.trace(name)


def _named(columns: Columns) -> Columns:
    """The columns under the names that ``Trace`` has for them."""
    return {"request_class" if name == "class" else name: column for name, column in columns.items()}


def _check_upper(path: Path, first_row: int, columns: Columns) -> None:
    """Refuse upper quantiles without predictions, or below them."""
    upper = columns.get("predicted_upper_tokens")
    if upper is None:
        return
    tokens = columns.get("predicted_tokens")
    if tokens is None:
        raise InputError(f"{path}: row 1: predicted_upper_tokens: expected predicted_tokens too, got none")
    expected = "at least the predicted_tokens of the row"
    _refuse(path, first_row, "predicted_upper_tokens", upper < tokens, expected, upper)


def _numbers(path: Path, batch: pa.RecordBatch, name: str, first_row: int) -> NDArray:
    """A column whose values are in the range of its kind."""
    values = batch.column(name)
    known = {**COLUMNS, **OPTIONAL}
    least, most = (0.0, LONGEST_S) if name == "arrival_s" else (known[name].least, INT32_MAX)
    expected = (
        f"a number in [0, {LONGEST_S:.0f}]" if name == "arrival_s" else f"an integer in [{least}, {most}]"
    )
    kinds = "iuf" if name == "arrival_s" else "iu"
    dtype = values.type.to_pandas_dtype()
    if np.dtype(dtype).kind not in kinds:
        raise InputError(f"{path}: {name}: expected {expected}, got a column of type {values.type}")
    if values.null_count:
        row = first_row + int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        raise InputError(f"{path}: row {row}: {name}: expected {expected}, got nothing")
    array = values.to_numpy()
    _refuse(path, first_row, name, ~((array >= least) & (array <= most)), expected, array)
    return array


def _refuse(
    path: Path, first_row: int, name: str, bad: NDArray[np.bool_], expected: str, values: NDArray
) -> None:
    if bad.any():
        place = int(np.argmax(bad))
        value = values[place].item()
        raise InputError(f"{path}: row {first_row + place}: {name}: expected {expected}, got {value!r}")
