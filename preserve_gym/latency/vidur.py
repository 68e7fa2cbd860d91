"""Profiles of Vidur (microsoft/vidur, data/profiling): MLP, attention, all-reduce, CPU overheads.

Agrawal et al., "Vidur: A Large-Scale Simulation Framework For LLM Inference", MLSys 2024. Times are in
milliseconds; medians are used.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from preserve_gym.errors import InputError
from preserve_gym.latency.models import model_name
from preserve_gym.latency.parts import Parts, Target
from preserve_gym.latency.tables import curve, surface

OPERATORS = (
    "input_layernorm",
    "attn_pre_proj",
    "attn_rope",
    "attn_post_proj",
    "post_attention_layernorm",
    "mlp_up_proj",
    "mlp_act",
    "mlp_down_proj",
    "add",
)
_PRODUCTS = {
    "attn_pre_proj": "qkv",
    "attn_post_proj": "attention_output",
    "mlp_up_proj": "gate_up",
    "mlp_down_proj": "down",
}
MLP_COLUMNS = (
    *(f"time_stats.{name}.median" for name in OPERATORS),
    "n_head",
    "n_kv_head",
    "n_embd",
    "n_expanded_embd",
    "num_tokens",
    "num_tensor_parallel_workers",
)
ATTENTION_COLUMNS = (
    "time_stats.attn_prefill.median",
    "time_stats.attn_decode.median",
    "n_embd",
    "n_q_head",
    "n_kv_head",
    "num_tensor_parallel_workers",
    "batch_size",
    "prefill_chunk_size",
    "kv_cache_size",
    "is_prefill",
)
ALL_REDUCE_COLUMNS = ("time_stats.all_reduce.median", "num_workers", "devices_per_node", "size")
CPU_COLUMNS = (
    "schedule_median",
    "prepare_inputs_e2e_median",
    "sampler_e2e_median",
    "model_name",
    "batch_size",
    "tensor_parallel_degree",
)


def _of_degree(table: pd.DataFrame, column: str, tp: int, source: str) -> pd.DataFrame:
    rows = table[table[column] == tp]
    if rows.empty:
        there = ", ".join(str(n) for n in sorted(table[column].unique()))
        raise InputError(f"{source}: {column}: expected rows for tp {tp}, found {there}")
    return rows


def _check_shape(table: pd.DataFrame, wanted: dict[str, int], target: Target, source: str) -> None:
    for column, value in wanted.items():
        wrong = table[column] != value
        if wrong.any():
            row = table.index[wrong][0]
            raise InputError(
                f"{source}: row {row + 2}, {column}: expected {value} as in {target.model.name}, "
                f"got {table[column][row]}"
            )


def mlp(table: pd.DataFrame, target: Target, source: str) -> Parts:
    """Every layer without attention, by tokens; the embedding, a few microseconds, is left out."""
    model = target.model
    shape = {"n_embd": model.hidden, "n_expanded_embd": model.intermediate}
    _check_shape(table, shape | {"n_head": model.heads, "n_kv_head": model.kv_heads}, target, source)
    rows = _of_degree(table, "num_tensor_parallel_workers", target.tp, source)
    times = rows[[f"time_stats.{name}.median" for name in OPERATORS]].to_numpy(float)
    layer_ms = [
        sum(_scaled(*pair, tokens, target) for pair in zip(OPERATORS, row, strict=True))
        for tokens, row in zip(rows["num_tokens"], times, strict=True)
    ]
    frame = pd.DataFrame({"tokens": rows["num_tokens"], "s": 1e-3 * model.layers * np.array(layer_ms)})
    return Parts(layers_s=curve(frame, "tokens", "s"))


def _scaled(operator: str, time_ms: float, tokens: float, target: Target) -> float:
    if operator in _PRODUCTS:
        return target.scaled(time_ms, *target.matrix_product(_PRODUCTS[operator], tokens))
    return target.scaled(time_ms, 0.0, 1.0)  # bound by memory, whatever its shape


def attention(table: pd.DataFrame, target: Target, source: str) -> Parts:
    """Attention: of decodes by batch and cached tokens, of a chunk by its tokens and those before it."""
    model = target.model
    _check_shape(table, {"n_q_head": model.heads, "n_kv_head": model.kv_heads}, target, source)
    rows = _of_degree(table, "num_tensor_parallel_workers", target.tp, source)
    kinds = rows["is_prefill"].astype(str).str.lower()
    unclear = ~kinds.isin(["true", "1", "false", "0"])
    if unclear.any():
        row = rows.index[unclear][0]
        raise InputError(
            f"{source}: row {row + 2}, is_prefill: expected True or False, got {rows['is_prefill'][row]!r}"
        )
    is_prefill = kinds.isin(["true", "1"])
    prefill = rows[is_prefill & (rows["batch_size"] == 1)].rename(
        columns={"time_stats.attn_prefill.median": "ms"}
    )
    decode = rows[~is_prefill].rename(columns={"time_stats.attn_decode.median": "ms"})
    for what, kind in (("prefills of batch_size 1", prefill), ("decodes", decode)):
        if kind["ms"].isna().any() or kind.empty:
            where = f"row {kind.index[kind['ms'].isna()][0] + 2}: " if len(kind) else ""
            raise InputError(f"{source}: {where}is_prefill: expected rows of {what} with their median time")
    chunk_ms = surface(prefill, "prefill_chunk_size", "kv_cache_size", "ms")
    batch_ms = surface(decode, "batch_size", "kv_cache_size", "ms")

    def prefill_s(tokens: float, before: float) -> float:
        work = target.attention(tokens * (tokens / 2 + before), tokens + before)
        return 1e-3 * model.layers * target.scaled(max(chunk_ms(tokens, before), 0.0), *work)

    def decode_s(decodes: float, cached: float) -> float:
        pairs = decodes * (cached + 1)
        return 1e-3 * model.layers * target.scaled(batch_ms(decodes, cached), *target.attention(pairs, pairs))

    return Parts(prefill_attention_s=prefill_s, decode_attention_s=decode_s)


def all_reduce(table: pd.DataFrame, target: Target, source: str) -> Parts:
    """All-reduces, and the gather of the logits, of which there is no measurement.

    Among GPUs of one node. A size takes no longer than any larger one: medians of small sizes scatter by a
    factor of four. The gather is given the time of an all-reduce of a GPU's share.
    """
    in_a_node = table[table["devices_per_node"] == table["num_workers"]]
    rows = _of_degree(in_a_node, "num_workers", target.tp, source)
    ms = curve(rows, "size", "time_stats.all_reduce.median", rising=True)
    return Parts(exchange_s=target.exchange_s(ms, ms, unit_s=1e-3))


def cpu_overheads(table: pd.DataFrame, target: Target, source: str) -> Parts:
    """CPU time that a server without asynchronous scheduling does not overlap (vLLM up to 0.7).

    Scheduling, preparation of inputs and sampling, which includes the output head there.
    """
    names = table["model_name"].astype(str)
    rows = table[names.map(model_name) == target.model.name]
    if rows.empty:
        there = ", ".join(sorted(set(names)))
        raise InputError(f"{source}: model_name: expected {target.model.name}, found {there}")
    rows = _of_degree(rows, "tensor_parallel_degree", target.tp, source)
    parts_ms = rows[["schedule_median", "prepare_inputs_e2e_median", "sampler_e2e_median"]].sum(axis=1)
    cpu_s = curve(rows.assign(s=1e-3 * parts_ms), "batch_size", "s")
    return Parts(cpu_s=cpu_s, head_s=lambda sequences: 0.0)
