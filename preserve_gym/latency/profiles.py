"""Reading profiles: which format a file has, whether it can be right, and what iterations take by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from preserve_gym.errors import InputError
from preserve_gym.latency import aiconfigurator, collectives, iterations, llmservingsim, vidur
from preserve_gym.latency.batch import Batch
from preserve_gym.latency.iterations import Iterations
from preserve_gym.latency.parts import Operators, Parts, Target

_FASTER = 0.85
"""A measured time may be so much of the least possible one: caches, clocks above the data sheet's."""
_SLOWER = 100.0


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: as users know it.
        columns: that it must have.
        times: of these, those that hold times.
        read: gives its share of an iteration, or whole iterations.
        fewest: rows that it must have.
        unit: of its times.
        operation: the ``op_name`` of its rows, where several kinds have the same columns.
    """

    name: str
    columns: tuple[str, ...]
    times: tuple[str, ...]
    read: Callable[[pd.DataFrame, Target, str], Parts | Iterations]
    fewest: int
    unit: str
    operation: str = ""


FORMATS: tuple[Format, ...] = (
    Format(
        "Vidur mlp",
        vidur.MLP_COLUMNS,
        vidur.MLP_COLUMNS[: len(vidur.OPERATORS)],
        vidur.mlp,
        10,
        "milliseconds",
    ),
    Format(
        "Vidur attention",
        vidur.ATTENTION_COLUMNS,
        vidur.ATTENTION_COLUMNS[:2],
        vidur.attention,
        20,
        "milliseconds",
    ),
    Format(
        "Vidur all_reduce",
        vidur.ALL_REDUCE_COLUMNS,
        vidur.ALL_REDUCE_COLUMNS[:1],
        vidur.all_reduce,
        4,
        "milliseconds",
    ),
    Format(
        "Vidur cpu_overheads",
        vidur.CPU_COLUMNS,
        vidur.CPU_COLUMNS[:3],
        vidur.cpu_overheads,
        4,
        "milliseconds",
    ),
    Format(
        "aiconfigurator gemm",
        aiconfigurator.GEMM_COLUMNS,
        ("latency",),
        aiconfigurator.gemm,
        20,
        "milliseconds",
    ),
    Format(
        "aiconfigurator context_attention",
        aiconfigurator.ATTENTION_COLUMNS,
        ("latency",),
        aiconfigurator.context_attention,
        20,
        "milliseconds",
        "context_attention",
    ),
    Format(
        "aiconfigurator generation_attention",
        aiconfigurator.ATTENTION_COLUMNS,
        ("latency",),
        aiconfigurator.generation_attention,
        20,
        "milliseconds",
        "generation_attention",
    ),
    Format(
        "LLMServingSim dense",
        llmservingsim.DENSE_COLUMNS,
        ("time_us",),
        llmservingsim.dense,
        20,
        "microseconds",
    ),
    Format(
        "LLMServingSim per_sequence",
        llmservingsim.PER_SEQUENCE_COLUMNS,
        ("time_us",),
        llmservingsim.per_sequence,
        4,
        "microseconds",
    ),
    Format(
        "LLMServingSim attention",
        llmservingsim.ATTENTION_COLUMNS,
        ("time_us",),
        llmservingsim.attention,
        20,
        "microseconds",
    ),
    Format(
        "table of collectives",
        collectives.COLUMNS,
        ("time_us",),
        collectives.exchange,
        4,
        "microseconds",
    ),
    Format("profile of measure", iterations.COLUMNS, ("time_s",), iterations.measured, 20, "seconds"),
    Format(
        "Splitwise or SageServe table",
        iterations.WHOLE_INSTANCE_COLUMNS,
        ("prompt_time", "token_time", "e2e_time"),
        iterations.whole_instance,
        20,
        "milliseconds (Splitwise) or seconds (SageServe)",
    ),
)


def read_profile(paths: Sequence[Path], target: Target) -> Operators | Iterations:
    """What the files say about iterations of ``target``.

    Raises:
        InputError: a file that cannot be read, has no known format or lacks columns, has too few rows or
            none of the target, times that cannot be right, or a part of an iteration that no file has.
    """
    if not paths:
        raise InputError("profile: expected at least one file")
    parts, whole = Parts(), None
    for path in paths:
        found, table = _format_of(path)
        source = str(path)
        share = found.read(table, target, source)
        if isinstance(share, Iterations):
            _check_iterations(share, target, found, source)
            whole = share if whole is None else whole.joined(share)
        else:
            _check_parts(share, target, found, source)
            parts = parts.joined(share, source)
    if whole is None:
        return Operators(parts, target)
    if parts != Parts():
        raise InputError("profile: expected parts of iterations or whole iterations, got files of both kinds")
    if target.extrapolated:
        raise InputError(
            f"profile: whole iterations of a {target.measured_on.name} cannot be carried over to a "
            f"{target.gpu.name}; that needs its operators one by one"
        )
    return whole


def _format_of(path: Path) -> tuple[Format, pd.DataFrame]:
    try:
        table = pd.read_csv(path, float_precision="round_trip")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a CSV file: {error}") from None
    columns = set(table.columns.astype(str))
    matching = [known for known in FORMATS if columns.issuperset(known.columns)]
    for known in matching:
        if known.operation and set(table["op_name"].unique()) != {known.operation}:
            continue
        _check_table(table, known, path)
        return known, table
    nearest = max(FORMATS, key=lambda known: len(columns.intersection(known.columns)) / len(known.columns))
    missing = [column for column in nearest.columns if column not in columns]
    if matching:
        operations = " or ".join(known.operation for known in matching)
        raise InputError(f"{path}: op_name: expected {operations} in all rows")
    if len(missing) > len(nearest.columns) / 2:
        names = ", ".join(known.name for known in FORMATS)
        raise InputError(f"{path}: unknown format; expected one of {names}")
    raise InputError(f"{path}: expected the columns of a {nearest.name}; missing: {', '.join(missing)}")


def _check_table(table: pd.DataFrame, known: Format, path: Path) -> None:
    if len(table) < known.fewest:
        raise InputError(f"{path}: expected at least {known.fewest} rows of a {known.name}, got {len(table)}")
    for column in known.times:
        values = pd.to_numeric(table[column], errors="coerce")
        given = table[column].notna()
        wrong = given & ~(np.isfinite(values) & (values >= 0))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise InputError(
                f"{path}: row {row + 2}, {column}: expected a time >= 0 in {known.unit}, "
                f"got {table[column].iloc[row]!r}"
            )


def _check_parts(parts: Parts, target: Target, known: Format, source: str) -> None:
    """Refuse times that no card with the peak rates of the target's can reach, or that are absurdly long."""
    model, tokens = target.model, 2048
    products = [target.matrix_product(name, 1) for name in model.matrices if name != "head"]
    weights = (model.layers * sum(f for f, _ in products), model.layers * sum(b for _, b in products))
    prompt = [target.matrix_product(name, tokens) for name in model.matrices if name != "head"]
    whole_prompt = (model.layers * sum(f for f, _ in prompt), model.layers * sum(b for _, b in prompt))
    pairs = target.attention(tokens**2 / 2, tokens)
    cached = target.attention(64 * 2048, 64 * 2048)
    for what, function, arguments, (flops, moved) in (
        ("the linear layers for one token", parts.layers_s or parts.products_s, (1,), weights),
        (
            "the linear layers for 2,048 tokens",
            parts.layers_s or parts.products_s,
            (tokens,),
            whole_prompt,
        ),
        ("the output head", parts.product_head_s, (1,), target.matrix_product("head", 1)),
        (
            "attention of a prompt of 2,048 tokens",
            parts.prefill_attention_s,
            (tokens, 0),
            (model.layers * pairs[0], model.layers * pairs[1]),
        ),
        (
            "attention of 64 decodes with 2,048 tokens each",
            parts.decode_attention_s,
            (64, 2047),
            (model.layers * cached[0], model.layers * cached[1]),
        ),
    ):
        if function is not None:
            seconds = float(function(*arguments))
            _check_time(seconds, target.gpu.roofline_s(flops, moved), what, target, known, source)


def _check_iterations(whole: Iterations, target: Target, known: Format, source: str) -> None:
    if len(whole.batches) < 8:
        raise InputError(f"{source}: expected at least 8 different batches, got {len(whole.batches)}")
    if len({batch.tokens for batch in whole.batches}) < 2:
        raise InputError(f"{source}: expected batches of different numbers of tokens")
    for batch, seconds in zip(whole.batches, whole.seconds, strict=True):
        least_s = least_time_s(batch, target)
        what = f"an iteration of {len(batch.contexts)} decodes and {len(batch.chunks)} prefill chunks"
        _check_time(float(seconds), least_s, what, target, known, source)


def least_time_s(batch: Batch, target: Target) -> float:
    """What the roofline of the target's card gives for a batch without its attention, s."""
    model = target.model
    products = [target.matrix_product(name, batch.tokens) for name in model.matrices if name != "head"]
    return model.layers * sum(target.gpu.roofline_s(*product) for product in products)


def _check_time(
    seconds: float, least_s: float, what: str, target: Target, known: Format, source: str
) -> None:
    if _FASTER * least_s <= seconds <= _SLOWER * least_s:
        return
    side = "at least" if seconds < least_s else "no more than a hundred times"
    raise InputError(
        f"{source}: {what}: got {1e3 * seconds:.4g} ms; at the peak bandwidth and arithmetic of a "
        f"{target.gpu.name} it takes {1e3 * least_s:.4g} ms, so expected {side} that "
        f"(times of a {known.name} are in {known.unit})"
    )
