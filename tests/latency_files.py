"""Small profiles of every format, of an imagined instance, so that tests need no data."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from preserve_gym.latency.batch import served_batches
from preserve_gym.latency.gpus import find_gpu
from preserve_gym.latency.law import LatencyLaw
from preserve_gym.latency.models import find_model
from preserve_gym.latency.parts import Target
from preserve_gym.latency.vidur import OPERATORS

LAW = LatencyLaw(0.008, 2e-5, 5e-8, 1e-9, 256, 3e-5, 2e-8)
"""What the whole iterations of ``own`` take."""
TOKENS = (1, 8, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_SLOWNESS = 1.3
"""Everything takes so many times what the roofline gives."""


drawn_once = cache(served_batches)
"""In place of ``served_batches``: to draw them takes longer than everything else."""


def target(model: str = "llama-3.1-8b", gpu: str = "h100", tp: int = 1) -> Target:
    return Target(find_model(model), find_gpu(gpu), tp, find_gpu(gpu))


def _us(of: Target, flops: float, moved: float) -> float:
    return 2.0 + 1e6 * _SLOWNESS * of.measured_on.roofline_s(flops, moved)


def _product_us(of: Target, name: str, tokens: int) -> float:
    return _us(of, *of.matrix_product(name, tokens))


def _attention_us(of: Target, chunk: int, before: int, decodes: int, cached: int) -> float:
    pairs = chunk * (chunk / 2 + before) + decodes * (cached + 1)
    return _us(of, *of.attention(pairs, chunk + before + decodes * (cached + 1)))


_CHUNKS = [(n, c) for n in (16, 128, 1024, 4096) for c in (0, 1024, 8192)]
_DECODES = [(n, c) for n in (1, 8, 64, 256) for c in (15, 511, 2047, 8191)]


def vidur_mlp(of: Target) -> pd.DataFrame:
    products = {
        "attn_pre_proj": "qkv",
        "attn_post_proj": "attention_output",
        "mlp_up_proj": "gate_up",
        "mlp_down_proj": "down",
    }
    model, rows = of.model, []
    for tokens in TOKENS:
        row: dict[str, float] = {
            "n_head": model.heads,
            "n_kv_head": model.kv_heads,
            "n_embd": model.hidden,
            "n_expanded_embd": model.intermediate,
            "num_tokens": tokens,
            "num_tensor_parallel_workers": of.tp,
        }
        for name in OPERATORS:
            us = _product_us(of, products[name], tokens) if name in products else 3.0 + 0.004 * tokens
            row[f"time_stats.{name}.median"] = 1e-3 * us
        rows.append(row)
    return pd.DataFrame(rows)


def vidur_attention(of: Target) -> pd.DataFrame:
    rows = []
    for chunk, before in _CHUNKS:
        ms = 1e-3 * _attention_us(of, chunk, before, 0, 0)
        rows.append((ms, np.nan, 1, chunk, before, True))
    for decodes, cached in _DECODES:
        ms = 1e-3 * _attention_us(of, 0, 0, decodes, cached)
        rows.append((np.nan, ms, decodes, 0, cached, False))
    names = ["time_stats.attn_prefill.median", "time_stats.attn_decode.median"]
    table = pd.DataFrame(
        rows, columns=[*names, "batch_size", "prefill_chunk_size", "kv_cache_size", "is_prefill"]
    )
    return table.assign(
        n_embd=of.model.hidden,
        n_q_head=of.model.heads,
        n_kv_head=of.model.kv_heads,
        num_tensor_parallel_workers=of.tp,
    )


def vidur_all_reduce(of: Target) -> pd.DataFrame:
    sizes = 2.0 ** np.arange(10, 28)
    return pd.DataFrame(
        {
            "time_stats.all_reduce.median": 1e-3 * (10 + 1e6 * sizes / 2e11),
            "num_workers": 2,
            "devices_per_node": 2,
            "size": sizes.astype(int),
        }
    )


def vidur_cpu_overheads(of: Target) -> pd.DataFrame:
    sizes = np.array([1, 2, 4, 8, 16, 32, 64, 128])
    return pd.DataFrame(
        {
            "schedule_median": 0.1 + 0.01 * sizes,
            "prepare_inputs_e2e_median": 0.5,
            "sampler_e2e_median": 0.4,
            "model_name": "meta-llama/Llama-3.1-8B-Instruct",
            "batch_size": sizes,
            "tensor_parallel_degree": of.tp,
        }
    )


def aiconfigurator_gemm(of: Target) -> pd.DataFrame:
    rows = []
    for name in of.model.matrices:
        n, k = of.model.matrices[name]
        n, k = (n, k // of.tp) if name in ("attention_output", "down") else (n // of.tp, k)
        rows += [("bfloat16", m, n, k, 1e-3 * _product_us(of, name, m)) for m in TOKENS]
    return pd.DataFrame(rows, columns=["gemm_dtype", "m", "n", "k", "latency"])


def _aiconfigurator_attention(of: Target, kind: str, rows: list[tuple[int, int, int, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["batch_size", "isl", "step", "latency"]).assign(
        op_name=kind,
        num_heads=of.model.heads // of.tp,
        num_key_value_heads=of.model.kv_heads // of.tp,
        head_dim=of.model.head_dim,
        attn_dtype="bfloat16",
        kv_cache_dtype="bfloat16",
    )


def aiconfigurator_context(of: Target) -> pd.DataFrame:
    lengths = [2**k for k in range(14)]
    rows = [(b, n, 0, 1e-3 * b * _attention_us(of, n, 0, 0, 0)) for b in (1, 2) for n in lengths]
    return _aiconfigurator_attention(of, "context_attention", rows)


def aiconfigurator_generation(of: Target) -> pd.DataFrame:
    rows = [
        (n, 1, c, 1e-3 * _attention_us(of, 0, 0, n, c)) for n, c in [*_DECODES, *((512, 15), (512, 8191))]
    ]
    rows += [(1024, 1, c, 1e-3 * _attention_us(of, 0, 0, 1024, c)) for c in (15, 8191)]
    return _aiconfigurator_attention(of, "generation_attention", rows)


def dense(of: Target) -> pd.DataFrame:
    products = {
        "qkv_proj": "qkv",
        "o_proj": "attention_output",
        "gate_up_proj": "gate_up",
        "down_proj": "down",
    }
    small = ("rotary_emb", "act_fn", "layernorm", "embedding", "final_layernorm")
    rows = [(x, m, _product_us(of, products[x], m)) for x in products for m in TOKENS]
    rows += [(x, m, 3.0 + 0.004 * m) for x in small for m in TOKENS]
    return pd.DataFrame(rows, columns=["layer", "tokens", "time_us"])


def per_sequence(of: Target) -> pd.DataFrame:
    sizes = (1, 16, 64, 256)
    rows = [("lm_head", n, _product_us(of, "head", n)) for n in sizes]
    rows += [("sampler", n, 25.0 + n) for n in sizes]
    return pd.DataFrame(rows, columns=["layer", "sequences", "time_us"])


def attention(of: Target) -> pd.DataFrame:
    grid = [(0, 0, *d) for d in _DECODES] + [(*c, 0, 0) for c in _CHUNKS]
    grid += [(*c, *d) for c in _CHUNKS for d in _DECODES]
    rows = [(*x, _attention_us(of, *x)) for x in grid]
    return pd.DataFrame(rows, columns=["prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"])


def collectives(of: Target) -> pd.DataFrame:
    sizes = [2**k for k in range(10, 28, 3)]
    rows = [(kind, 2, n, 10 + 1e6 * n / 2e11) for kind in ("all_reduce", "all_gather") for n in sizes]
    return pd.DataFrame(rows, columns=["collective", "workers", "bytes", "time_us"])


def own(of: Target, law: LatencyLaw = LAW) -> pd.DataFrame:
    """A profile as ``measure`` writes it, exactly of ``law``."""
    grid = [(0, 0, n, c) for n in (1, 4, 16, 64, 128, 256) for c in (64, 512, 2048)]
    grid += [(n, c, 0, 0) for n in (16, 64, 256, 1024, 4096) for c in (0, 2048)]
    grid += [(n, c, d, k) for n in (128, 2048) for c in (0, 2048) for d in (8, 64) for k in (256, 2048)]
    rows = [(n, c, d, k, law.iteration_s(n + d, d * k, n * (n / 2 + c))) for n, c, d, k in grid]
    table = pd.DataFrame(
        rows, columns=["prefill_tokens", "prefill_context", "decode_requests", "decode_context", "time_s"]
    )
    return table.assign(model=of.model.name, gpu="NVIDIA H100 80GB HBM3", tp=of.tp, repeats=20)


def splitwise(of: Target) -> pd.DataFrame:
    """Prompts of 20 us a token after 8 ms, output tokens of 10 ms and 0.1 ms for each of the batch."""
    rows = []
    for prompt in (128, 512, 1024, 2048):
        for batch in (1, 4, 16):
            for output in (32, 128):
                prompt_ms, token_ms = 8 + 0.04 * prompt * batch, 10 + 0.1 * batch
                whole_ms = prompt_ms + token_ms * (output - 1)
                rows.append((prompt, batch, output, prompt_ms, token_ms, whole_ms))
    names = ["prompt_size", "batch_size", "token_size", "prompt_time", "token_time", "e2e_time"]
    return pd.DataFrame(rows, columns=names).assign(
        model="llama-3.1-8b", hardware="h100-80gb", tensor_parallel=of.tp
    )


def sageserve(of: Target) -> pd.DataFrame:
    table = splitwise(of)
    altogether = table["token_time"] * (table["token_size"] - 1)
    return table.assign(
        prompt_time=1e-3 * table["prompt_time"],
        token_time=1e-3 * altogether,
        e2e_time=1e-3 * table["e2e_time"],
    )


KINDS: dict[str, Callable[[Target], pd.DataFrame]] = {
    "vidur_mlp": vidur_mlp,
    "vidur_attention": vidur_attention,
    "vidur_all_reduce": vidur_all_reduce,
    "vidur_cpu_overheads": vidur_cpu_overheads,
    "aiconfigurator_gemm": aiconfigurator_gemm,
    "aiconfigurator_context": aiconfigurator_context,
    "aiconfigurator_generation": aiconfigurator_generation,
    "dense": dense,
    "per_sequence": per_sequence,
    "attention": attention,
    "collectives": collectives,
    "own": own,
    "splitwise": splitwise,
    "sageserve": sageserve,
}
LLMSERVINGSIM = ("dense", "per_sequence", "attention")
AICONFIGURATOR = ("aiconfigurator_gemm", "aiconfigurator_context", "aiconfigurator_generation")


def write(folder: Path, *kinds: str, of: Target | None = None) -> list[Path]:
    """Files of these kinds in ``folder``."""
    paths = []
    for kind in kinds:
        paths.append(folder / f"{kind}.csv")
        KINDS[kind](of or target()).to_csv(paths[-1], index=False)
    return paths
