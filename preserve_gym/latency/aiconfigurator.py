"""Profiles of aiconfigurator (ai-dynamo/aiconfigurator, systems/data): matrix products and attention.

``latency`` is in milliseconds for one operator of one layer on one GPU. Rows in bfloat16 are used.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from preserve_gym.errors import InputError
from preserve_gym.latency.gpus import gpu_name
from preserve_gym.latency.models import BYTES_PER_VALUE
from preserve_gym.latency.parts import Parts, Target
from preserve_gym.latency.tables import curve, line, surface

GEMM_COLUMNS = ("gemm_dtype", "m", "n", "k", "latency")
ATTENTION_COLUMNS = (
    "op_name",
    "batch_size",
    "isl",
    "num_heads",
    "num_key_value_heads",
    "head_dim",
    "attn_dtype",
    "kv_cache_dtype",
    "step",
    "latency",
)

SMALL_KERNEL_S = 2.5e-6
"""Shortest time of a norm, rotary embedding or activation inside a CUDA graph, as LLMServingSim measured it
in vLLM 0.19 on an RTX 4090 and an RTX PRO 6000: 1.9 to 2.8 us."""
SAMPLER_S, SAMPLER_PASSES = 25e-6, 2.2
"""Greedy sampling: so long, and so many passes over the logits in float32; fits LLMServingSim's sampler on
the same two cards within a quarter, which is 0.3 % of an iteration."""


def _bracket(axis: np.ndarray, wanted: float) -> np.ndarray:
    i = int(np.clip(np.searchsorted(axis, wanted) - 1, 0, max(len(axis) - 2, 0)))
    near = axis[i : i + 2]
    return near[near == wanted] if wanted in near else near


def _product_s(table: pd.DataFrame, n: int, k: int, source: str) -> Callable[[float], float]:
    """Seconds of a matrix product with ``n`` columns and ``k`` rows of weights, by tokens.

    Between the measured shapes linear in both, and so beyond the largest one.
    """
    rows = np.unique(table["k"].to_numpy(float))
    columns = np.unique(table["n"].to_numpy(float))
    at_rows = []
    near_rows = _bracket(rows, k)
    for name, axis, wanted in (("n", columns, n), ("k", rows, k)):
        if len(axis) == 1 and axis[0] != wanted:
            raise InputError(f"{source}: {name}: expected {wanted} or values around it, found {axis[0]:.0f}")
    tokens: np.ndarray | None = None
    for row in near_rows:
        near_columns = _bracket(columns, n)
        measured = []
        for column in near_columns:
            found = table[(table["n"] == column) & (table["k"] == row)].groupby("m")["latency"].mean()
            if found.empty:
                raise InputError(f"{source}: no row for a product of n {column:.0f} and k {row:.0f}")
            measured.append(found)
        joint = pd.concat(measured, axis=1).dropna()
        tokens = joint.index.to_numpy(float) if tokens is None else np.intersect1d(tokens, joint.index)
        values = [line(n, near_columns, joint.loc[m].to_numpy(float)) for m in joint.index]
        at_rows.append(pd.Series(values, index=joint.index))
    if tokens is None or len(tokens) < 2:
        raise InputError(
            f"{source}: m: expected the same values for the products around n {n} and k {k}, "
            f"found {0 if tokens is None else len(tokens)} in common"
        )
    ms = [line(k, near_rows, np.array([series.loc[m] for series in at_rows])) for m in tokens]
    return curve(pd.DataFrame({"tokens": tokens, "s": 1e-3 * np.array(ms)}), "tokens", "s")


def gemm(table: pd.DataFrame, target: Target, source: str) -> Parts:
    """Layers from their four matrix products, and the output head.

    What lies between the products is estimated: each of two norms, the rotary embedding and the
    activation takes its bytes at the peak bandwidth of the target's card, but at least ``SMALL_KERNEL_S``.
    """
    model, tp = target.model, target.tp
    rows = table[table["gemm_dtype"] == "bfloat16"]
    if rows.empty:
        raise InputError(f"{source}: gemm_dtype: expected rows in bfloat16")
    _check_device(rows, target, source)
    measured = {}
    for name, (n, k) in model.matrices.items():
        split = (n, k // tp) if name in ("attention_output", "down") else (n // tp, k)
        measured[name] = _product_s(rows, *split, source)

    def product_s(name: str, tokens: float) -> float:
        return target.scaled(measured[name](tokens), *target.matrix_product(name, tokens))

    in_layer = [name for name in measured if name != "head"]
    heads = (model.heads + model.kv_heads * 2) * model.head_dim / tp
    small = (4 * model.hidden, 4 * model.hidden, 2 * heads, 3 * model.intermediate / tp)  # values a token
    bandwidth = target.gpu.bandwidth

    def layers_s(tokens: float) -> float:
        matrix_s = sum(product_s(name, tokens) for name in in_layer)
        small_s = sum(max(SMALL_KERNEL_S, BYTES_PER_VALUE * v * tokens / bandwidth) for v in small)
        return model.layers * (matrix_s + small_s)

    def head_s(sequences: float) -> float:
        logits_bytes = 4.0 * model.vocabulary * sequences
        return product_s("head", sequences) + SAMPLER_S + SAMPLER_PASSES * logits_bytes / bandwidth

    return Parts(products_s=layers_s, product_head_s=head_s)


def _check_device(table: pd.DataFrame, target: Target, source: str) -> None:
    """Refuse rows that name another GPU; the column may be missing."""
    devices: list[str] = sorted(set(table["device"].astype(str))) if "device" in table else []
    for device in devices:
        if gpu_name(device) != target.measured_on.name:
            raise InputError(
                f"{source}: device: expected {target.measured_on.name}, found {device}; "
                "--measured-on names the GPU of a profile that is another one"
            )


def _of_shape(table: pd.DataFrame, heads: int, kv_heads: int, target: Target, source: str) -> pd.DataFrame:
    head_dim = target.model.head_dim
    bf16 = table[(table["attn_dtype"] == "bfloat16") & (table["kv_cache_dtype"] == "bfloat16")]
    rows = bf16[
        (bf16["num_heads"] == heads)
        & (bf16["num_key_value_heads"] == kv_heads)
        & (bf16["head_dim"] == head_dim)
    ]
    if rows.empty:
        alike = bf16[bf16["head_dim"] == head_dim]
        there = sorted(set(zip(alike["num_heads"], alike["num_key_value_heads"], strict=True)))
        raise InputError(
            f"{source}: num_heads, num_key_value_heads: expected {heads} and {kv_heads} with head_dim "
            f"{head_dim} in bfloat16, found {', '.join(f'{h}/{kv}' for h, kv in there) or 'none'}"
        )
    _check_device(rows, target, source)
    return rows


def context_attention(table: pd.DataFrame, target: Target, source: str) -> Parts:
    """Prefill attention. The profile holds whole prompts only.

    A chunk costs what its prompt costs up to its end, less what it costs up to the chunk; so a prompt must
    cost no more than any longer one, which a point of the H100 does by half. Beyond the longest prompt that
    was measured the cost grows with the square of the length.
    """
    model, tp = target.model, target.tp
    rows = _of_shape(table, model.heads // tp, max(model.kv_heads // tp, 1), target, source)
    rows = rows[rows["batch_size"] == 1]
    if rows.empty:
        raise InputError(f"{source}: batch_size: expected rows of single prompts (1)")
    measured_ms = curve(rows, "isl", "latency", rising=True)
    longest = float(rows["isl"].max())

    def whole_ms(tokens: float) -> float:
        return measured_ms(min(tokens, longest)) * max(tokens / longest, 1.0) ** 2

    def seconds(tokens: float, before: float) -> float:
        ms = whole_ms(before + tokens) - (whole_ms(before) if before else 0.0)
        work = target.attention(tokens * (tokens / 2 + before), tokens + before)
        return 1e-3 * model.layers * target.scaled(ms, *work)

    return Parts(prefill_attention_s=seconds)


def generation_attention(table: pd.DataFrame, target: Target, source: str) -> Parts:
    """Decode attention by batch size and cached tokens.

    The profile ends at 8 KV heads. Decode attention is memory bound and works on each pair of a sequence
    and a KV head alone, so n sequences of a model with a KV head for each of its h query heads are given
    the time of n*h/8 sequences of 8 heads: the same bytes in as many pieces.
    """
    model, tp = target.model, target.tp
    heads, kv_heads, copies = model.heads // tp, max(model.kv_heads // tp, 1), 1
    if kv_heads > 8 and heads == kv_heads and heads % 8 == 0:
        heads, kv_heads, copies = 8, 8, heads // 8
    rows = _of_shape(table, heads, kv_heads, target, source)
    ms = surface(rows, "batch_size", "step", "latency")

    def seconds(decodes: float, cached: float) -> float:
        pairs = decodes * (cached + 1)
        work = target.attention(pairs, pairs)
        return 1e-3 * model.layers * target.scaled(ms(copies * decodes, cached), *work)

    return Parts(decode_attention_s=seconds)


def mha_gaps(table: pd.DataFrame) -> np.ndarray:
    """Relative differences between n sequences of 8 KV heads and 2n of 4, or 4n of 2, as measured.

    How well ``generation_attention`` may exchange heads for sequences.
    """
    rows = table[(table["kv_cache_dtype"] == "bfloat16") & (table["attn_dtype"] == "bfloat16")]
    rows = rows[rows["num_heads"] == rows["num_key_value_heads"]]
    rows = rows[(rows["num_heads"] >= 2) & (rows["step"] >= 127) & (rows["step"] < 4096)]
    rows = rows.assign(pairs=rows["batch_size"] * rows["num_heads"])
    wide = rows.pivot(index=["pairs", "step"], columns="num_heads", values="latency")
    return np.abs(np.concatenate([(wide[n] / wide[8] - 1).dropna() for n in (4, 2)])).astype(float)
