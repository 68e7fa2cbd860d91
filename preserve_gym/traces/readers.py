"""Reading a trace of requests from a file, whatever its format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from preserve_gym.errors import InputError
from preserve_gym.traces import azure, burstgpt, lengths, mooncake, own_format
from preserve_gym.traces.csv_table import header_of
from preserve_gym.traces.files import line_chunks, open_content, shown, stem
from preserve_gym.traces.trace import Trace

_PARQUET_MAGIC = b"PAR1"
_TAR_MAGIC = b"ustar"


def read_trace(path: str | Path, seed: int = 0, name: str | None = None) -> Trace:
    """Read a trace file, plain or gzip-compressed, in whichever known format its content shows.

    Args:
        path: the file.
        seed: of what a reader draws: arrivals inside coarse time stamps.
        name: name of the trace, by default that of the file.

    Raises:
        InputError: one line naming file, row (as an editor counts), field and what was expected.
    """
    path = Path(path)
    name = stem(path) if name is None else name
    with open_content(path) as stream:
        start = stream.read(512)
        stream.seek(0)
        if start.startswith(_PARQUET_MAGIC):
            return own_format.read_own_parquet(path, stream, name)
        if start[257:].startswith(_TAR_MAGIC):
            raise InputError(
                f"{path}: expected requests, got a tar file; preserve_gym.traces.read_client_windows reads "
                "those of ServeGen"
            )
        return read_text(path, line_chunks(stream), seed, name)


def read_text(path: Path, chunks: Iterator[bytes], seed: int, name: str) -> Trace:
    """``read_trace`` of a text file that is being read in chunks of whole lines."""
    first = next(chunks, b"")
    if not first.strip():
        raise InputError(f"{path}: expected a header and at least one row, got an empty file")
    if first.lstrip().startswith(b"{"):
        return mooncake.read_mooncake(path, chain([first], chunks), name, seed)
    header = header_of(path, first)
    for columns, read in _CSV_FORMATS:
        if columns & set(header):
            return read(path, chain([first], chunks), name)
    if set(lengths.COLUMNS) & set(header):
        raise InputError(
            f"{path}: row 1: expected requests with times of arrival, got lengths only; "
            "preserve_gym.traces.read_lengths reads them"
        )
    own, *others = (",".join(columns) for columns in (own_format.COLUMNS, azure.COLUMNS, burstgpt.COLUMNS))
    raise InputError(
        f"{path}: row 1: expected the columns {own}[,class] or {' or '.join(others)}, or Mooncake's JSON "
        f"lines, got {shown(','.join(header))}"
    )


_CSV_FORMATS: tuple[tuple[set[str], Callable[[Path, Iterator[bytes], str], Trace]], ...] = (
    (set(azure.COLUMNS), azure.read_azure),
    (set(burstgpt.COLUMNS), burstgpt.read_burstgpt),
    ({*own_format.COLUMNS, *own_format.OPTIONAL}, own_format.read_own_csv),
)
