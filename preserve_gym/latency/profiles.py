"""Reading profiles: which format a file has, whether it can be right, and what iterations take by it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from preserve_gym.errors import InputError
from preserve_gym.latency import aiconfigurator, collectives, iterations, llmservingsim, vidur
from preserve_gym.latency.iterations import Iterations
from preserve_gym.latency.models import BYTES_PER_VALUE
from preserve_gym.latency.parts import Operators, Parts, Target

_FASTER = 0.85
"""A measured time may be so much of the least possible one: caches, clocks above the data sheet's."""
_SLOWER = 100.0
"""And so many times as long."""
_SLOWER_LINK = 5000.0
"""Links between GPUs, compared with a card's memory: NVLink has a tenth, gigabit Ethernet a thousandth."""
_LEAST_CPU_S, _SLOWER_CPU = 2e-5, 1e4


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
        sparse: a row may have only some of the times.
    """

    name: str
    columns: tuple[str, ...]
    times: tuple[str, ...]
    read: Callable[[pd.DataFrame, Target, str], Parts | Iterations]
    fewest: int
    unit: str
    operation: str = ""
    sparse: bool = False


_TEXTS = frozenset(
    {
        "attn_dtype",
        "collective",
        "gemm_dtype",
        "gpu",
        "hardware",
        "is_prefill",
        "kv_cache_dtype",
        "layer",
        "model",
        "model_name",
        "op_name",
    }
)
"""Columns that hold no number. Those that hold no time either hold a count."""

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
        sparse=True,
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
    for number, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:number]]:
            raise InputError(f"{path}: expected each file once")
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
    exchange_s = parts.exchange_s if whole.of_one_gpu and target.tp > 1 else None
    if parts != Parts(exchange_s=exchange_s):
        raise InputError("profile: expected parts of iterations or whole iterations, got files of both kinds")
    if target.extrapolated:
        raise InputError(
            f"profile: whole iterations of a {target.measured_on.name} cannot be carried over to a "
            f"{target.gpu.name}; that needs its operators one by one"
        )
    if whole.of_one_gpu and target.tp > 1:
        if exchange_s is None:
            raise InputError(
                f"profile: `measure` times one GPU alone; no file has what {target.tp} GPUs exchange "
                "(Vidur all_reduce or a table of collectives)"
            )
        whole = whole.with_exchange(exchange_s)
    return whole.distinct()


def _format_of(path: Path) -> tuple[Format, pd.DataFrame]:
    table = _read_table(path)
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


def _read_table(path: Path) -> pd.DataFrame:
    """The rows of a CSV file; its index plus 2 is the line that an editor shows."""
    packed = path.suffix == ".gz"
    try:
        table = pd.read_csv(
            path,
            compression="gzip" if packed else None,
            float_precision="round_trip",
            low_memory=False,
            skip_blank_lines=False,
        )
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        kind = "CSV file packed with gzip" if packed else "CSV file"
        raise InputError(f"{path}: expected a {kind}: {' '.join(str(error).split())}") from None
    if not isinstance(table.index, pd.RangeIndex):
        raise InputError(f"{path}: row 2: expected as many fields as the header has, got more")
    table = table.dropna(how="all")
    if table.empty:
        raise InputError(f"{path}: row 2: expected rows below the header")
    return table


def _check_table(table: pd.DataFrame, known: Format, path: Path) -> None:
    if len(table) < known.fewest:
        raise InputError(f"{path}: expected at least {known.fewest} rows of a {known.name}, got {len(table)}")
    timed = table[list(known.times)].notna().sum(axis=1)
    for column in known.columns:
        if column in _TEXTS:
            continue
        values = pd.to_numeric(table[column], errors="coerce").astype(float)
        right = np.isfinite(values) & (values >= 0)
        if column in known.times:
            wanted = f"a time >= 0 in {known.unit}"
            if known.sparse:
                right |= table[column].isna() & (timed > 0)
        else:
            wanted = "an integer >= 0"
            right &= (values % 1 == 0) & (values <= 2**53)
        if not right.all():
            row = table.index[~right][0]
            raise InputError(
                f"{path}: row {row + 2}, {column}: expected {wanted}, got {str(table[column][row])!r}"
            )
        table[column] = values if column in known.times else values.astype("int64")


def _check_parts(parts: Parts, target: Target, known: Format, source: str) -> None:
    """Refuse times that no card with the peak rates of the target's can reach, or that are absurdly long."""
    model, tokens = target.model, 2048

    def attention_s(pairs: float, kv_tokens: float) -> float:
        return model.layers * target.gpu.roofline_s(*target.attention(pairs, kv_tokens))

    linear_s = parts.layers_s or parts.products_s
    head_s = parts.product_head_s if parts.cpu_s else parts.head_s or parts.product_head_s
    head_least_s = target.gpu.roofline_s(*target.matrix_product("head", 1))
    exchanged_bytes = (2 * model.layers + 1) * BYTES_PER_VALUE * model.hidden * tokens
    checks: tuple[tuple[str, Callable[..., float] | None, tuple[int, ...], float, float], ...] = (
        ("the linear layers for one token", linear_s, (1,), _layers_s(1, target), _SLOWER),
        ("the linear layers for 2,048 tokens", linear_s, (tokens,), _layers_s(tokens, target), _SLOWER),
        ("the output head", head_s, (1,), head_least_s, _SLOWER),
        (
            "attention of a prompt of 2,048 tokens",
            parts.prefill_attention_s,
            (tokens, 0),
            attention_s(tokens**2 / 2, tokens),
            _SLOWER,
        ),
        (
            "attention of 64 decodes with 2,048 tokens each",
            parts.decode_attention_s,
            (64, 2047),
            attention_s(64 * 2048, 64 * 2048),
            _SLOWER,
        ),
        (
            "what the GPUs exchange for 2,048 tokens",
            parts.exchange_s,
            (tokens, 1),
            exchanged_bytes / target.gpu.bandwidth,
            _SLOWER_LINK,
        ),
        ("the CPU for one sequence", parts.cpu_s, (1,), _LEAST_CPU_S, _SLOWER_CPU),
    )
    for what, function, arguments, least_s, slower in checks:
        if function is not None:
            _check_time(float(function(*arguments)), least_s, slower, what, target, known, source)


def _check_iterations(whole: Iterations, target: Target, known: Format, source: str) -> None:
    different = len(set(whole.batches))
    if different < 8:
        raise InputError(f"{source}: expected at least 8 different batches, got {different}")
    if len({batch.tokens for batch in whole.batches}) < 2:
        raise InputError(f"{source}: expected batches of different numbers of tokens")
    for batch, seconds, place in zip(whole.batches, whole.seconds, whole.places, strict=True):
        # Without its attention.
        least_s = _layers_s(batch.tokens, target)
        _check_time(float(seconds), least_s, _SLOWER, place, target, known, source)


def _layers_s(tokens: float, target: Target) -> float:
    """What the roofline of the target's card gives for so many tokens without their attention, s."""
    model = target.model
    products = [target.matrix_product(name, tokens) for name in model.matrices if name != "head"]
    return model.layers * sum(target.gpu.roofline_s(*product) for product in products)


def _check_time(
    seconds: float,
    least_s: float,
    slower: float,
    what: str,
    target: Target,
    known: Format,
    source: str,
) -> None:
    if _FASTER * least_s <= seconds <= slower * least_s:
        return
    side = "at least" if seconds < least_s else f"no more than {slower:,.0f} times"
    raise InputError(
        f"{source}: {what}: got {1e3 * seconds:.4g} ms; at the peak bandwidth and arithmetic of a "
        f"{target.gpu.name} it takes {1e3 * least_s:.4g} ms, so expected {side} that "
        f"(times of a {known.name} are in {known.unit})"
    )
