"""CSV files with a header, read chunk by chunk into checked columns.

Each chunk is parsed by pyarrow, and what that does not take as it is goes through a slow, strict
parser row by row, which defines the format: it gives the same columns or names the first bad row.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from preserve_gym.errors import InputError
from preserve_gym.traces.files import shown
from preserve_gym.traces.trace import INT32_MAX, SECONDS_PER_DAY

LONGEST_S = 366 * SECONDS_PER_DAY
"""Longest recording; a Unix time taken for seconds since the start would make one of 50 years."""

_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d(?:[ T]\d\d(?::\d\d(?::\d\d)?)?)?)(?:(?<=:\d\d:\d\d)\.(\d{1,9}))?"
    r"(Z|[+-]\d\d:\d\d)?",
    re.ASCII,
)
_LINE = re.compile(rb"[^\r\n]*")
_LINE_AND_END = re.compile(_LINE.pattern + rb"(\r\n|\n|\r|$)")
_INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)

Columns = dict[str, NDArray]


@dataclass(frozen=True)
class Column:
    """What a column holds, and the array that it becomes.

    Attributes:
        kind: ``stamp``: date and time of day, int64 nanoseconds of the local clock since 1970.
            ``seconds``: since the start of the recording, float64.
            ``integer``: int32, at least ``least``.
            ``word``: one of ``words``, int32 place in them.
            ``ignored``: anything; it becomes no array.
    """

    kind: Literal["stamp", "seconds", "integer", "word", "ignored"]
    least: int = 0
    words: tuple[str, ...] = ()


STAMP = Column("stamp")
SECONDS = Column("seconds")
TOKENS = Column("integer")
IGNORED = Column("ignored")


def header_of(path: Path, chunk: bytes) -> list[str]:
    """The names in the first row."""
    return [name.strip() for name in next(_rows(path, chunk), (1, []))[1]]


def read_columns(
    path: Path,
    chunks: Iterator[bytes],
    required: Mapping[str, Column],
    optional: Mapping[str, Column] | None = None,
) -> Iterator[tuple[int, Columns]]:
    """Read a table chunk by chunk: the number of the first row of each, and its columns by name.

    Rows count as in an editor: the header is row 1. Times must never fall, all time stamps be in one
    time zone, and there must be at least one row.

    Raises:
        InputError: one line naming file, row, column and what was expected.
    """
    optional = optional or {}
    first = next(chunks, b"")
    header = header_of(path, first)
    check_header(path, header, tuple(required), tuple(optional))
    table = _Table(path, {name: {**required, **optional}[name] for name in header})
    rows = _LINE_AND_END.sub(b"", first, count=1)
    empty = True
    for chunk in chain([rows] if rows else [], chunks):
        row = table.row
        columns = table.parse(chunk)
        if columns is not None:
            empty = False
            yield row, columns
    if empty:
        raise InputError(f"{path}: expected at least one row after the header, got none")


def check_header(path: Path, header: list[str], required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    """Refuse a header that lacks a column, or has one that is unknown or there twice."""
    expected = ",".join(required) + "".join(f"[,{name}]" for name in optional)
    found = shown(",".join(header))
    for problem, names in (
        ("missing", [name for name in required if name not in header]),
        ("unknown", [name for name in header if name not in required + optional]),
        ("repeated", [name for name in dict.fromkeys(header) if header.count(name) > 1]),
    ):
        if names:
            listed = ", ".join(map(shown, names))
            raise InputError(
                f"{path}: row 1: expected the columns {expected}, got {found} ({problem}: {listed})"
            )


class _Table:
    """A table that is being read, and what the next chunk must continue."""

    def __init__(self, path: Path, columns: dict[str, Column]) -> None:
        self.path = path
        self.columns = columns
        self.row = 2  # of the next line
        self._blank_row = 0  # of the first blank line since the last row
        self._last_time: dict[str, float] = {}
        self._zone: str | None = None  # of the first time stamp

    def parse(self, chunk: bytes) -> Columns | None:
        """The columns of some whole lines, or None where all are blank."""
        columns = None if self._blank_row else self._parse_fast(chunk)
        return columns or self._parse_strictly(chunk)

    # The fast path. It may refuse a good chunk, which then takes the slow one, but accepts no bad one.

    def _parse_fast(self, chunk: bytes) -> Columns | None:
        if b"x" in chunk or b"X" in chunk:
            return None  # pyarrow also reads hexadecimal numbers
        zone = self._zone if self._zone is not None else self._first_zone(chunk)
        if zone is None:
            return None
        wanted = {name: column for name, column in self.columns.items() if column.kind != "ignored"}
        try:
            table = pa_csv.read_csv(
                io.BytesIO(chunk),
                # Threads that have hardly started abort the process when it ends at once, as on bad input.
                read_options=pa_csv.ReadOptions(
                    column_names=list(self.columns), use_threads=False, block_size=max(len(chunk), 1)
                ),
                parse_options=pa_csv.ParseOptions(ignore_empty_lines=False),
                convert_options=pa_csv.ConvertOptions(
                    column_types={name: _arrow_type(column, zone) for name, column in wanted.items()},
                    include_columns=list(wanted),
                ),
            )
        except pa.ArrowException:
            return None
        if table.num_rows == 0 or (zone and chunk.count(zone.encode()) != table.num_rows):
            return None
        columns: Columns = {}
        for name, column in wanted.items():
            values = self._checked(name, column, table.column(name), zone)
            if values is None:
                return None
            columns[name] = values
        self._zone = zone
        self.row += table.num_rows
        self._remember(columns)
        return columns

    def _first_zone(self, chunk: bytes) -> str | None:
        """Time zone of the first time stamp, "" if it has none or there is none, None if it is unreadable."""
        places = [place for place, column in enumerate(self.columns.values()) if column.kind == "stamp"]
        if not places:
            return ""
        fields = _LINE.match(chunk)[0].decode("latin-1").split(",")  # type: ignore[index]
        match = _TIMESTAMP.fullmatch(fields[places[0]].strip()) if len(fields) == len(self.columns) else None
        return None if match is None else match[3] or ""

    def _checked(self, name: str, column: Column, values: pa.ChunkedArray, zone: str) -> NDArray | None:
        if column.kind == "word":
            values = pc.index_in(values.cast(pa.string()), value_set=pa.array(column.words))
        if values.null_count:
            return None
        if column.kind == "stamp":
            values = values.cast(pa.int64())
        array = values.to_numpy()
        if column.kind in ("stamp", "seconds"):
            if column.kind == "stamp":
                array = array + _offset_ns(zone)
            elif not (np.isfinite(array).all() and array[0] >= 0.0 and array[-1] <= LONGEST_S):
                return None
            rises = (array[1:] >= array[:-1]).all() and array[0] >= self._last_time.get(name, array[0])
            return array if rises else None
        if array.min() < column.least or array.max() > INT32_MAX:
            return None
        return array.astype(np.int32)

    def _remember(self, columns: Columns) -> None:
        for name, column in self.columns.items():
            if column.kind in ("stamp", "seconds"):
                self._last_time[name] = columns[name][-1].item()

    # The slow path: the definition of the format.

    def _parse_strictly(self, chunk: bytes) -> Columns | None:
        path, first_row = self.path, self.row
        parsers = [self._parser(column) for column in self.columns.values()]
        values: list[list[float]] = [[] for _ in parsers]
        for line, fields in _rows(path, chunk, first_row):
            self.row = line + 1
            if not any(field.strip() for field in fields) and len(fields) <= 1:
                # Blank lines at the end are harmless, but a row must not follow one.
                self._blank_row = self._blank_row or line
                continue
            if self._blank_row:
                raise InputError(
                    f"{path}: row {self._blank_row}: expected {len(parsers)} fields, got a blank line"
                )
            if len(fields) != len(parsers):
                names = ",".join(self.columns)
                raise InputError(
                    f"{path}: row {line}: expected {len(parsers)} fields ({names}), got {len(fields)}"
                )
            for (name, column), parse, parsed, text in zip(
                self.columns.items(), parsers, values, fields, strict=True
            ):
                try:
                    value = parse(text.strip())
                    if column.kind in ("stamp", "seconds"):
                        if value < self._last_time.get(name, value):
                            raise ValueError("a time at or after that of the row before")
                        self._last_time[name] = value
                except ValueError as expected:
                    raise InputError(
                        f"{path}: row {line}: {name}: expected {expected}, got {shown(text)}"
                    ) from None
                parsed.append(value)
        if not values[0]:
            return None
        types = {"stamp": np.int64, "seconds": np.float64}
        return {
            name: np.array(parsed, types.get(column.kind, np.int32))
            for (name, column), parsed in zip(self.columns.items(), values, strict=True)
            if column.kind != "ignored"
        }

    def _parser(self, column: Column) -> Callable[[str], float]:
        """The parser of a field; its ValueError says what was expected."""
        if column.kind == "stamp":
            return self._timestamp_ns
        if column.kind == "seconds":
            return _seconds
        if column.kind == "ignored":
            return lambda text: 0
        if column.kind == "word":
            return lambda text: _word(text, column.words)
        return lambda text: _integer(text, column.least)

    def _timestamp_ns(self, text: str) -> int:
        expected = ValueError("a time like 2023-11-16 18:15:46.6805900")
        match = _TIMESTAMP.fullmatch(text)
        if match is None:
            raise expected
        zone = match[3] or ""
        try:
            moment = datetime.fromisoformat(match[1])
            _offset_ns(zone)
        except ValueError:
            raise expected from None
        if self._zone is None:
            self._zone = zone
        elif zone != self._zone:
            raise ValueError(f"the time zone of the first row ({self._zone or 'none'})")
        elapsed = moment - datetime(1970, 1, 1)
        if abs(elapsed.days) > 100_000:  # past what 64 bits of nanoseconds hold
            raise expected
        return (elapsed.days * 86_400 + elapsed.seconds) * 10**9 + int((match[2] or "").ljust(9, "0"))


def _rows(path: Path, content: bytes, first_row: int = 1) -> Iterator[tuple[int, list[str]]]:
    """Row number (line number as an editor counts) and fields of each line."""
    # Undecodable bytes survive as lone surrogates, so that the field that holds them can be named.
    text = content.decode("utf-8-sig", errors="surrogateescape")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for fields in reader:
            yield reader.line_num + first_row - 1, fields
    except csv.Error as error:
        row = reader.line_num + first_row - 1
        raise InputError(f"{path}: row {row}: expected comma-separated fields ({error})") from None


def _arrow_type(column: Column, zone: str) -> pa.DataType:
    if column.kind == "stamp":
        return pa.timestamp("ns", tz="UTC" if zone else None)
    if column.kind == "word":
        return pa.dictionary(pa.int32(), pa.string())
    return pa.float64() if column.kind == "seconds" else pa.int64()


def _offset_ns(zone: str) -> int:
    """How far the local clock is ahead of UTC."""
    if zone in ("", "Z"):
        return 0
    offset = datetime.strptime(zone, "%z").utcoffset()
    assert offset is not None
    return round(offset.total_seconds()) * 10**9


def _integer(text: str, least: int) -> int:
    if _INTEGER.fullmatch(text) and least <= int(text) <= INT32_MAX:
        return int(text)
    raise ValueError(f"an integer in [{least}, {INT32_MAX}]")


def _word(text: str, words: tuple[str, ...]) -> int:
    if text not in words:
        raise ValueError(f"one of {', '.join(words)}")
    return words.index(text)


def _seconds(text: str) -> float:
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not (math.isfinite(value) and value >= 0.0):
        raise ValueError("a finite number of seconds >= 0")
    if value > LONGEST_S:
        raise ValueError(f"seconds since the start of the recording, at most {LONGEST_S:.0f} (366 days)")
    return value
