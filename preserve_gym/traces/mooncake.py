"""Mooncake's traces: JSON lines with the ids of the prompt's blocks."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.json as pa_json
from numpy.typing import NDArray

from preserve_gym.errors import InputError
from preserve_gym.traces.csv_table import LONGEST_S
from preserve_gym.traces.files import shown
from preserve_gym.traces.prefix_blocks import PrefixBlocks
from preserve_gym.traces.request_rows import dropped_requests
from preserve_gym.traces.spread import spread_stamps
from preserve_gym.traces.trace import INT32_MAX, Trace

BLOCK_TOKENS = 512
_LIMITS = {"timestamp": int(LONGEST_S * 1000), "input_length": INT32_MAX, "output_length": INT32_MAX}
_KEYS = {*_LIMITS, "hash_ids"}
_SCHEMA = pa.schema([*((key, pa.int64()) for key in _LIMITS), ("hash_ids", pa.list_(pa.int32()))])


class _Table(NamedTuple):
    """Rows of a file, of which row i has ``block_counts[i]`` of the ``ids``."""

    stamp_ms: NDArray[np.int64]
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    block_counts: NDArray[np.int64]
    ids: NDArray[np.int32]


def read_mooncake(path: Path, chunks: Iterator[bytes], name: str, seed: int) -> Trace:
    """The trace in the ``chunks`` of a Mooncake file.

    The stamps, milliseconds from the start, are those of batches about 3 s apart: requests that share
    one are spread over the time until the next, which is drawn from ``seed``.
    """
    tables: list[_Table] = []
    row, last_ms = 1, 0
    for chunk in chunks:
        table = _parse_fast(chunk, last_ms) or _parse_strictly(path, chunk, row, last_ms)
        row += chunk.count(b"\n")
        last_ms = int(table.stamp_ms[-1]) if len(table.stamp_ms) else last_ms
        tables.append(table)
    stamp_ms, prompt_tokens, output_tokens, block_counts, ids = map(np.concatenate, zip(*tables, strict=True))
    offsets = np.concatenate(([0], np.cumsum(block_counts, dtype=np.int64)))
    served = (prompt_tokens > 0) & (output_tokens > 0)
    if not served.any():
        raise InputError(f"{path}: expected at least one request with prompt and output tokens")
    blocks = PrefixBlocks(ids, offsets, BLOCK_TOKENS)
    # Its own stream: others draw from the seed itself.
    arrival_s, spread = spread_stamps(stamp_ms[served] / 1000, np.random.default_rng([seed, 2]))
    dropped, moved = int((~served).sum()), int(spread.sum())
    repairs = [dropped_requests(dropped)] if dropped else []
    if moved:
        repairs.append(f"spread {moved:,} arrivals that shared a time stamp over the gap to the next one")
    return Trace(
        arrival_s,
        prompt_tokens[served],
        output_tokens[served],
        name=name,
        span_s=max(float(arrival_s[-1]), last_ms / 1000),
        repairs=tuple(repairs),
        prefix_blocks=blocks if served.all() else blocks.take(served),
    )


def _parse_fast(chunk: bytes, last_ms: int) -> _Table | None:
    """The rows of a chunk. A good one may be refused, and is then parsed strictly; no bad one is taken."""
    try:
        table = pa_json.read_json(
            io.BytesIO(chunk),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(chunk)),
            parse_options=pa_json.ParseOptions(explicit_schema=_SCHEMA, unexpected_field_behavior="error"),
        )
    except pa.ArrowException:
        return None
    # pyarrow also takes an object over several lines, and several in a line.
    whole_lines = chunk.count(b"}\n") + chunk.endswith(b"}")
    if not whole_lines == chunk.count(b"\n") + (not chunk.endswith(b"\n")) == table.num_rows:
        return None
    lists = table.column("hash_ids").combine_chunks()
    ids = lists.flatten()
    if ids.null_count or any(column.null_count for column in table.columns):
        return None
    columns = [table.column(key).to_numpy() for key in _LIMITS]
    ids = ids.to_numpy()
    if len(ids) and ids.min() < 0:
        return None
    for column, most in zip(columns, _LIMITS.values(), strict=True):
        if column.min() < 0 or column.max() > most:
            return None
    stamp_ms, prompt_tokens, output_tokens = columns
    if stamp_ms[0] < last_ms or (stamp_ms[1:] < stamp_ms[:-1]).any():
        return None
    counts = lists.value_lengths().to_numpy()
    return _Table(stamp_ms, prompt_tokens.astype(np.int32), output_tokens.astype(np.int32), counts, ids)


def _parse_strictly(path: Path, chunk: bytes, first_row: int, last_ms: int) -> _Table:
    """The rows of a chunk: the definition of the format."""
    rows: list[tuple[int, int, int, int]] = []
    ids: list[int] = []
    for row, line in enumerate(chunk.splitlines(), first_row):
        if not line.strip():
            continue
        values = _parse(path, row, line)
        if values["timestamp"] < last_ms:
            raise InputError(
                f"{path}: row {row}: timestamp: expected a time at or after that of the row before "
                f"({last_ms}), got {values['timestamp']}"
            )
        last_ms = values["timestamp"]
        rows.append((last_ms, values["input_length"], values["output_length"], len(values["hash_ids"])))
        ids += values["hash_ids"]
    stamp_ms, prompt_tokens, output_tokens, counts = np.array(rows, np.int64).reshape(-1, 4).T
    return _Table(
        stamp_ms,
        prompt_tokens.astype(np.int32),
        output_tokens.astype(np.int32),
        counts,
        np.array(ids, np.int32),
    )


def _parse(path: Path, row: int, line: bytes) -> dict[str, Any]:
    """The checked values of a line."""
    try:
        pairs = json.loads(line, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        raise InputError(f"{path}: row {row}: expected a JSON object, got {_text(line)}") from None
    if not isinstance(pairs, tuple) or len(pairs) != len(_KEYS) or {key for key, _ in pairs} != _KEYS:
        raise InputError(
            f"{path}: row {row}: expected a JSON object with the keys {', '.join(_LIMITS)}, hash_ids, got "
            f"{_text(line)}"
        )
    values = dict(pairs)
    for key, most in _LIMITS.items():
        if not _is_integer(values[key], most):
            got = shown(str(values[key]))
            raise InputError(f"{path}: row {row}: {key}: expected an integer in [0, {most}], got {got}")
    if not (
        isinstance(values["hash_ids"], list) and all(_is_integer(v, INT32_MAX) for v in values["hash_ids"])
    ):
        got = shown(str(values["hash_ids"]))
        raise InputError(
            f"{path}: row {row}: hash_ids: expected a list of integers in [0, {INT32_MAX}], got {got}"
        )
    return values


def _is_integer(value: object, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def _text(line: bytes) -> str:
    return shown(line.decode("utf-8", errors="surrogateescape").strip())
