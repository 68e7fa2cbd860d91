"""Readers of trace files: the Azure LLM inference CSV and the project's own.

Each file is parsed by pyarrow, and what that does not take as it is goes through a slow, strict
parser row by row, which defines the format: it gives the same columns or names the first bad row.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from preserve_gym.errors import InputError
from preserve_gym.traces.trace import INT32_MAX, SECONDS_PER_DAY, Trace

AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
CSV_COLUMNS = ("arrival_s", "prompt_tokens", "output_tokens")
CLASS_COLUMN = "class"
LONGEST_S = 366 * SECONDS_PER_DAY
"""Longest recording; a Unix time taken for seconds since the start would make one of 50 years."""

_GZIP_MAGIC = b"\x1f\x8b"
_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d(?:[ T]\d\d(?::\d\d(?::\d\d)?)?)?)(?:(?<=:\d\d:\d\d)\.(\d{1,9}))?", re.ASCII
)
_INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
# pyarrow also reads hexadecimal and words such as "nan" as numbers: anything else takes the slow path.
_PLAIN_BYTES = b"0123456789+-.:,eET \r\n"

Columns = dict[str, NDArray]


def read_trace(path: str | Path) -> Trace:
    """Read a trace file, plain or gzip-compressed, in whichever known format its header shows.

    Raises:
        InputError: one line naming file, row (as an editor counts, the header is row 1), field and
            what was expected.
    """
    return read_trace_bytes(Path(path), read_bytes(Path(path)))


def read_trace_bytes(path: Path, content: bytes) -> Trace:
    """``read_trace`` of a file that has been read; ``path`` is for names and errors."""
    header = _header(path, content)
    if set(header) & set(AZURE_COLUMNS):
        return parse_azure(path, content)
    if set(header) & {*CSV_COLUMNS, CLASS_COLUMN}:
        return parse_csv(path, content)
    raise InputError(
        f"{path}: row 1: expected the columns {','.join(CSV_COLUMNS)}[,{CLASS_COLUMN}] or "
        f"{','.join(AZURE_COLUMNS)}, got {_shown(','.join(header))}"
    )


def read_azure(path: str | Path) -> Trace:
    """Read an Azure LLM inference trace as released (``TIMESTAMP,ContextTokens,GeneratedTokens``).

    Arrivals count from the first row, exact to the nanosecond of the time stamps, and ``clock_s`` is
    the first row's time of day. Errors as in ``read_trace``.
    """
    return parse_azure(Path(path), read_bytes(Path(path)))


def read_csv(path: str | Path) -> Trace:
    """Read the project's own CSV: ``arrival_s,prompt_tokens,output_tokens`` and optionally ``class``.

    The columns may come in any order; ``arrival_s`` need not start at 0. Errors as in ``read_trace``.
    """
    return parse_csv(Path(path), read_bytes(Path(path)))


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, decompressed if it is a gzip file.

    Raises:
        InputError: if it is missing, not a file, unreadable, empty, or a broken gzip file.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: expected a file, got a directory") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if content.startswith(_GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: expected a whole gzip file, got a broken one ({error})") from None
    elif path.suffix == ".gz" and content:
        raise InputError(f"{path}: expected a gzip file (or a name without .gz), got other content")
    if not content.strip():
        raise InputError(f"{path}: expected a header and at least one row, got an empty file")
    return content


def parse_azure(path: Path, content: bytes, name: str = "") -> Trace:
    """The trace in the ``content`` of an Azure file, called ``name``; ``path`` is for errors."""
    columns = _columns(path, content, AZURE_COLUMNS, ())
    stamp_ns = columns["TIMESTAMP"]
    arrival_s = (stamp_ns - stamp_ns[0]) / 1e9
    if arrival_s[-1] > LONGEST_S:
        row = 2 + int(np.argmax(arrival_s > LONGEST_S))
        raise InputError(f"{path}: row {row}: TIMESTAMP: expected a time within 366 days of the first row's")
    clock_s = float(stamp_ns[0] % int(SECONDS_PER_DAY * 1e9)) / 1e9
    prompt_tokens, output_tokens = columns["ContextTokens"], columns["GeneratedTokens"]
    return Trace(arrival_s, prompt_tokens, output_tokens, name=name or _stem(path), clock_s=clock_s)


def parse_csv(path: Path, content: bytes) -> Trace:
    """The trace in the ``content`` of a file of the project's own format; ``path`` is for errors."""
    columns = _columns(path, content, CSV_COLUMNS, (CLASS_COLUMN,))
    arrival_s, prompt_tokens, output_tokens = (columns[name] for name in CSV_COLUMNS)
    return Trace(arrival_s, prompt_tokens, output_tokens, columns.get(CLASS_COLUMN), name=_stem(path))


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".csv")


def _header(path: Path, content: bytes) -> list[str]:
    return [name.strip() for name in next(_rows(path, content), (1, []))[1]]


def _columns(path: Path, content: bytes, required: tuple[str, ...], optional: tuple[str, ...]) -> Columns:
    """The columns by name: int64 nanoseconds for TIMESTAMP, float64 for arrival_s, int32 for the others."""
    header = _header(path, content)
    expected = ",".join(required) + "".join(f"[,{name}]" for name in optional)
    found = _shown(",".join(header))
    for problem, names in (
        ("missing", [name for name in required if name not in header]),
        ("unknown", [name for name in header if name not in required + optional]),
        ("repeated", [name for name in dict.fromkeys(header) if header.count(name) > 1]),
    ):
        if names:
            listed = ", ".join(map(_shown, names))
            raise InputError(
                f"{path}: row 1: expected the columns {expected}, got {found} ({problem}: {listed})"
            )
    return _parse_fast(content, header) or _parse_strictly(path, content, header)


# The fast path. It may refuse a good file, which then takes the slow one, but accepts no bad one.


def _parse_fast(content: bytes, header: list[str]) -> Columns | None:
    if content[content.find(b"\n") + 1 :].translate(None, _PLAIN_BYTES):
        return None
    types = {name: pa.int64() for name in header}
    types |= {"TIMESTAMP": pa.timestamp("ns"), "arrival_s": pa.float64()}
    try:
        table = pa_csv.read_csv(
            io.BytesIO(content),
            # Threads that have hardly started abort the process when it ends at once, as on bad input.
            read_options=pa_csv.ReadOptions(column_names=header, skip_rows=1, use_threads=False),
            parse_options=pa_csv.ParseOptions(ignore_empty_lines=False),
            convert_options=pa_csv.ConvertOptions(column_types={name: types[name] for name in header}),
        )
    except pa.ArrowException:
        return None
    columns: Columns = {}
    for name in header:
        column = table.column(name)
        if table.num_rows == 0 or column.null_count:
            return None
        if name == "TIMESTAMP":
            column = column.cast(pa.int64())
        values = column.to_numpy()
        if name in ("TIMESTAMP", "arrival_s"):
            good = bool((values[1:] >= values[:-1]).all())
            if name == "arrival_s":
                good = good and bool(values[0] >= 0.0 and values[-1] <= LONGEST_S)
        else:
            good = bool(values.min() >= _least(name) and values.max() <= INT32_MAX)
            values = values.astype(np.int32)
        if not good:
            return None
        columns[name] = values
    return columns


# The slow path: the definition of the format.


def _parse_strictly(path: Path, content: bytes, header: list[str]) -> Columns:
    parsers = [_parser(name) for name in header]
    values: list[list[float]] = [[] for _ in header]
    rows = _rows(path, content)
    next(rows, None)
    blank_row = 0
    for row, fields in rows:
        if not any(field.strip() for field in fields) and len(fields) <= 1:
            # Blank lines at the end are harmless, but a row must not follow one.
            blank_row = blank_row or row
            continue
        if blank_row:
            raise InputError(f"{path}: row {blank_row}: expected {len(header)} fields, got a blank line")
        if len(fields) != len(header):
            raise InputError(
                f"{path}: row {row}: expected {len(header)} fields ({','.join(header)}), got {len(fields)}"
            )
        for name, parse, column, text in zip(header, parsers, values, fields, strict=True):
            try:
                value = parse(text.strip())
                if name in ("TIMESTAMP", "arrival_s") and column and value < column[-1]:
                    raise ValueError("a time at or after that of the row before")
            except ValueError as expected:
                raise InputError(
                    f"{path}: row {row}: {name}: expected {expected}, got {_shown(text)}"
                ) from None
            column.append(value)
    if not values[0]:
        raise InputError(f"{path}: expected at least one row after the header, got none")
    types = {"TIMESTAMP": np.int64, "arrival_s": np.float64}
    return {
        name: np.array(column, types.get(name, np.int32)) for name, column in zip(header, values, strict=True)
    }


def _rows(path: Path, content: bytes) -> Iterator[tuple[int, list[str]]]:
    """Row number (line number as an editor counts) and fields of each line."""
    # Undecodable bytes survive as lone surrogates, so that the field that holds them can be named.
    text = content.decode("utf-8-sig", errors="surrogateescape")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for fields in reader:
            yield reader.line_num, fields
    except csv.Error as error:
        raise InputError(
            f"{path}: row {reader.line_num}: expected comma-separated fields ({error})"
        ) from None


def _least(name: str) -> int:
    return 0 if name == CLASS_COLUMN else 1


def _parser(name: str) -> Callable[[str], float]:
    """The parser of a field; its ValueError says what was expected."""
    if name == "TIMESTAMP":
        return _timestamp_ns
    if name == "arrival_s":
        return _seconds
    least = _least(name)

    def integer(text: str) -> int:
        if _INTEGER.fullmatch(text) and least <= int(text) <= INT32_MAX:
            return int(text)
        raise ValueError(f"an integer in [{least}, {INT32_MAX}]")

    return integer


def _timestamp_ns(text: str) -> int:
    expected = ValueError("a time like 2023-11-16 18:15:46.6805900")
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise expected
    try:
        moment = datetime.fromisoformat(match[1])
    except ValueError:
        raise expected from None
    elapsed = moment - datetime(1970, 1, 1)
    if abs(elapsed.days) > 100_000:  # past what 64 bits of nanoseconds hold
        raise expected
    return (elapsed.days * 86_400 + elapsed.seconds) * 10**9 + int((match[2] or "").ljust(9, "0"))


def _seconds(text: str) -> float:
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not (math.isfinite(value) and value >= 0.0):
        raise ValueError("a finite number of seconds >= 0")
    if value > LONGEST_S:
        raise ValueError(f"seconds since the start of the recording, at most {LONGEST_S:.0f} (366 days)")
    return value


def _shown(text: str) -> str:
    """``text`` quoted on one line, cut if long, with what is not printable ASCII escaped."""
    shown = ascii(text if len(text) <= 80 else text[:77] + "...")
    return f"{shown} (bytes that are not UTF-8)" if re.search("[\udc80-\udcff]", text) else shown
