"""Profiles of LLMServingSim (casys-kaist/LLMServingSim, profiler/perf): every layer, measured inside vLLM.

Three files of one GPU's share of a model: ``dense``, ``per_sequence`` and ``attention``. Times are in
microseconds, of one layer of a kind.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from preserve_gym.errors import InputError
from preserve_gym.latency.parts import Parts, Target
from preserve_gym.latency.tables import curve, line, surface

DENSE_COLUMNS = ("layer", "tokens", "time_us")
PER_SEQUENCE_COLUMNS = ("layer", "sequences", "time_us")
ATTENTION_COLUMNS = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us")

MATRICES = {
    "qkv_proj": "qkv",
    "o_proj": "attention_output",
    "gate_up_proj": "gate_up",
    "down_proj": "down",
    "lm_head": "head",
}
IN_BLOCK = {"rotary_emb": 1, "act_fn": 1, "layernorm": 2}
"""Small layers of a block, and how often it has them."""
ONCE = ("embedding", "final_layernorm")


def _times(table: pd.DataFrame, by: str, layers: tuple[str, ...], source: str) -> pd.DataFrame:
    times = table.pivot_table("time_us", by, "layer", aggfunc="mean")
    missing = [layer for layer in layers if layer not in times]
    if missing:
        raise InputError(f"{source}: layer: expected {', '.join(layers)}; {missing[0]} is missing")
    return times


def dense(table: pd.DataFrame, target: Target, source: str) -> Parts:
    """Layers without attention, embedding and final norm, by tokens."""
    products = [name for name in MATRICES if name != "lm_head"]
    small = dict(IN_BLOCK, **({"qk_norm": 1} if target.model.qk_norm else {}))
    times = _times(table, "tokens", (*products, *small, *ONCE), source)

    def us(tokens: float, row: pd.Series) -> float:
        block = sum(target.scaled(row[x], *target.matrix_product(MATRICES[x], tokens)) for x in products)
        # Bound by memory, whatever their shape.
        block += sum(often * target.scaled(row[x], 0.0, 1.0) for x, often in small.items())
        return target.model.layers * block + sum(target.scaled(row[x], 0.0, 1.0) for x in ONCE)

    tokens = times.index.to_numpy(float)
    seconds = [1e-6 * us(m, row) for m, (_, row) in zip(tokens, times.iterrows(), strict=True)]
    return Parts(layers_s=curve(pd.DataFrame({"tokens": tokens, "s": seconds}), "tokens", "s"))


def per_sequence(table: pd.DataFrame, target: Target, source: str) -> Parts:
    """Output head and sampler, by sequences."""
    times = _times(table, "sequences", ("lm_head", "sampler"), source)
    sequences = times.index.to_numpy(float)
    head_us = [
        target.scaled(us, *target.matrix_product("head", n))
        for n, us in zip(sequences, times["lm_head"], strict=True)
    ]
    sampler_us = [target.scaled(us, 0.0, 1.0) for us in times["sampler"]]
    frame = pd.DataFrame({"sequences": sequences, "s": 1e-6 * (np.array(head_us) + np.array(sampler_us))})
    return Parts(head_s=curve(frame, "sequences", "s"))


def attention(table: pd.DataFrame, target: Target, source: str) -> Parts:
    """Attention of decodes, of a chunk, and of both in one kernel, times the layers."""
    table = table.astype(float)
    seconds = []
    for chunk, before, decodes, cached, us in table[list(ATTENTION_COLUMNS)].itertuples(index=False):
        pairs = decodes * cached + chunk * (chunk / 2 + before)
        work = target.attention(pairs, max(decodes * cached + chunk + before, 1.0))
        seconds.append(1e-6 * target.model.layers * target.scaled(us, *work))
    table = table.assign(s=seconds)
    pure = table[table["prefill_chunk"] == 0]
    joint = table[table["prefill_chunk"] > 0]
    alone = joint[joint["n_decode"] == 0]
    if pure.empty or alone.empty:
        what = "n_decode > 0 and prefill_chunk 0" if pure.empty else "prefill_chunk > 0 and n_decode 0"
        raise InputError(f"{source}: expected rows with {what}")
    together = joint[joint["n_decode"] > 0]
    return Parts(
        decode_attention_s=surface(pure, "n_decode", "kv_decode", "s"),
        prefill_attention_s=surface(alone, "prefill_chunk", "kv_prefill", "s"),
        mixed_attention_s=None if together.empty else _four_dimensional(together),
    )


def _split(table: pd.DataFrame, column: str) -> dict[float, pd.DataFrame]:
    return {float(value): table[table[column] == value] for value in np.unique(table[column])}


def _four_dimensional(table: pd.DataFrame) -> Callable[[float, float, float, float], float]:
    # Chunks have axes of their own: the grids of the RTX PRO 6000 are two, one laid over the other.
    grid = {
        chunk: {
            before: surface(cell, "n_decode", "kv_decode", "s")
            for before, cell in _split(rows, "kv_prefill").items()
        }
        for chunk, rows in _split(table, "prefill_chunk").items()
    }
    chunk_axis = np.array(list(grid))

    def seconds(chunk: float, before: float, decodes: float, cached: float) -> float:
        i = int(np.clip(np.searchsorted(chunk_axis, chunk) - 1, 0, max(len(chunk_axis) - 2, 0)))
        chunks, at_chunk = chunk_axis[i : i + 2], []
        for x in chunks:
            axis = np.array(list(grid[x]))
            j = int(np.clip(np.searchsorted(axis, before) - 1, 0, max(len(axis) - 2, 0)))
            near = axis[j : j + 2]
            at_chunk.append(line(before, near, np.array([grid[x][y](decodes, cached) for y in near])))
        return line(chunk, chunks, np.array(at_chunk))

    return seconds
