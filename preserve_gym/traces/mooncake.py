"""Mooncake's traces: JSON lines with the ids of the prompt's blocks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

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


def read_mooncake(path: Path, chunks: Iterator[bytes], name: str, seed: int) -> Trace:
    """The trace in the ``chunks`` of a Mooncake file.

    The stamps, milliseconds from the start, are those of batches about 3 s apart: requests that share
    one are spread over the time until the next, which is drawn from ``seed``.
    """
    rows: list[tuple[int, int, int]] = []
    ids: list[int] = []
    offsets = [0]
    for row, line in enumerate((line for chunk in chunks for line in chunk.splitlines()), start=1):
        if not line.strip():
            continue
        values = _parse(path, row, line)
        if rows and values["timestamp"] < rows[-1][0]:
            raise InputError(
                f"{path}: row {row}: timestamp: expected a time at or after that of the row before "
                f"({rows[-1][0]}), got {values['timestamp']}"
            )
        rows.append((values["timestamp"], values["input_length"], values["output_length"]))
        ids += values["hash_ids"]
        offsets.append(len(ids))
    stamp_ms, prompt_tokens, output_tokens = np.array(rows).T
    served = (prompt_tokens > 0) & (output_tokens > 0)
    if not served.any():
        raise InputError(f"{path}: expected at least one request with prompt and output tokens")
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
        span_s=max(float(arrival_s[-1]), float(stamp_ms[-1]) / 1000),
        repairs=tuple(repairs),
        prefix_blocks=PrefixBlocks(np.array(ids, np.int32), np.array(offsets), BLOCK_TOKENS).take(served),
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
