"""Splits by time: which part of a recording is for training, for validation and for the test."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError
from preserve_gym.traces import Trace
from preserve_gym.traces.prefix_blocks import PrefixBlocks
from preserve_gym.traces.rate_process import joined
from preserve_gym.traces.trace import SECONDS_PER_DAY

Bounds = dict[str, tuple[float, float]]
"""Start and end of each split in seconds: train, validation and test, [start, end) each."""


def split_bounds(span_s: float, split_s: tuple[float, float] | None, gap_s: float) -> Bounds:
    """Where each split of a recording starts and ends.

    Args:
        span_s: length of the recording.
        split_s: end of train and end of validation; None: 60 % and 80 % of the span, in whole seconds.
        gap_s: between one split and the next.

    Raises:
        InputError: if they do not follow each other inside the recording.
    """
    train_s, validation_s = split_s or (math.floor(0.6 * span_s), math.floor(0.8 * span_s))
    bounds = {
        "train": (0.0, float(train_s)),
        "validation": (train_s + gap_s, float(validation_s)),
        "test": (validation_s + gap_s, span_s),
    }
    for split, (start_s, end_s) in bounds.items():
        if not start_s < end_s:
            raise InputError(
                f"split {split!r}: would start at {start_s:g} s and end at {end_s:g} s (split_s "
                f"{train_s:g} and {validation_s:g}, split_gap_s {gap_s:g}, recording of {span_s:g} s): "
                "expected each to end after its start"
            )
    return bounds


def evaluation_windows(first_s: float, last_s: float, horizon_s: float) -> NDArray[np.float64]:
    """Starts of scored parts that follow each other without overlap, float64[k], k >= 1.

    Args:
        first_s, last_s: first and last possible start, ``first_s <= last_s``.
        horizon_s: length of a scored part.
    """
    steps_s = np.full(math.floor((last_s - first_s) / horizon_s) + 2, horizon_s, np.float64)
    steps_s[0] = first_s
    # Added one by one, so that each starts at the very number at which the one before ends.
    starts_s = np.cumsum(steps_s)
    return starts_s[starts_s <= last_s]


def change_by_segment(trace: Trace, bounds: Bounds, change: Callable[[Trace, float, int], Trace]) -> Trace:
    """The trace cut at the bounds of all splits, each piece changed by itself, and put together again.

    So no change carries a request from one split, or from a gap, into another.

    Args:
        trace: the whole recording.
        bounds: of its splits.
        change: gets a piece, whose clock starts at zero, where it starts in the recording, in
            seconds, and its number; returns the changed piece, of the same span.

    Raises:
        InputError: if a changed piece has another span.
    """
    edges_s = sorted({edge_s for bound in bounds.values() for edge_s in bound})
    pieces, times = [], []
    for k, (start_s, end_s) in enumerate(pairwise(edges_s)):
        is_last = end_s == trace.span_s
        rows = trace.row_range(start_s, math.inf if is_last else end_s)
        span_s = end_s - start_s
        piece = trace.take(
            rows,
            arrival_s=np.minimum(trace.arrival_s[rows] - start_s, span_s),
            clock_s=(trace.clock_s + start_s) % SECONDS_PER_DAY,
            span_s=span_s,
            rates=trace.rates and trace.rates.part(start_s, math.inf if is_last else end_s),
        )
        changed = change(piece, start_s, k)
        if changed.span_s != span_s:
            raise InputError(
                f"trace {trace.name!r}: a transform made {changed.span_s:g} s of the {span_s:g} s from "
                f"{start_s:g} s on: one that changes the span needs the whole recording"
            )
        # Rounding must not carry a request over the edge, to which only the recording's last may come.
        latest_s = end_s if is_last else math.nextafter(end_s, 0.0)
        times.append(np.minimum(changed.arrival_s + start_s, latest_s))
        pieces.append(changed)
    return _join(trace, pieces, np.concatenate(times))


def _join(trace: Trace, pieces: Sequence[Trace], arrival_s: NDArray[np.float64]) -> Trace:
    classes = None
    if any(piece.request_class is not None for piece in pieces):
        classes = np.concatenate(
            [np.zeros(len(p), np.int32) if p.request_class is None else p.request_class for p in pieces]
        )
    return Trace(
        arrival_s=arrival_s,
        prompt_tokens=np.concatenate([piece.prompt_tokens for piece in pieces]),
        output_tokens=np.concatenate([piece.output_tokens for piece in pieces]),
        request_class=classes,
        name=pieces[0].name,
        clock_s=trace.clock_s,
        span_s=trace.span_s,
        repairs=tuple(dict.fromkeys(repair for piece in pieces for repair in piece.repairs)),
        prefix_blocks=_join_blocks([piece.prefix_blocks for piece in pieces if len(piece)]),
        predicted_tokens=_join_column([piece.predicted_tokens for piece in pieces]),
        predicted_upper_tokens=_join_column([piece.predicted_upper_tokens for piece in pieces]),
        rates=joined([piece.rates for piece in pieces]),
    )


def _join_column(columns: Sequence[NDArray[np.int32] | None]) -> NDArray[np.int32] | None:
    """Those of all pieces, or none if a piece has none."""
    known = [column for column in columns if column is not None]
    return np.concatenate(known) if len(known) == len(columns) else None


def _join_blocks(blocks: Sequence[PrefixBlocks | None]) -> PrefixBlocks | None:
    """Those of all pieces, or none if a piece has lost its own."""
    known = [piece for piece in blocks if piece is not None]
    if not known or len(known) < len(blocks):
        return None
    counts = np.concatenate([np.diff(piece.offsets) for piece in known])
    return PrefixBlocks(
        ids=np.concatenate([piece.ids for piece in known]),
        offsets=np.concatenate(([0], np.cumsum(counts, dtype=np.int64))),
        block_tokens=known[0].block_tokens,
    )
