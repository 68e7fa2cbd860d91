"""Fits the latency laws of ``preserve_gym.latency.presets`` to measured GPU profiles.

Run as ``python -m tests.fit_presets`` with the data folder in ``PRESERVE_GYM_DATA``: prints, for each
preset, the coefficients and the errors that the presets module records, and a check of the RTX 4090
law against a run of real vLLM that the fit never saw.

Method. The *measured* time of a batch is the sum of the profiled times of its layers, interpolated in
the profile's own grids. The law is fitted to the batches that a chat service visits (a law fitted to
a whole profile grid is far worse end to end), by least squares of the *relative* error with
non-negative coefficients, and judged on other batches of the same kind.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preserve_gym.data import ENVIRONMENT_VARIABLE, data_dir
from preserve_gym.latency.law import LatencyLaw
from preserve_gym.latency.presets import PRESETS, FitError, Preset

FloatArray = NDArray[np.float64]
REGIONS = ("decode_only", "prefill_only", "mixed")
REGION_SHARES = (0.70, 0.08, 0.22)  # of the batches; a request prefills once and then decodes for long
LAYERS = 32  # of both Llamas
QWEN3_32B_LAYERS, QWEN3_32B_HIDDEN, QWEN3_32B_VOCABULARY = 64, 5120, 151_936
FIT_SEED, CHECK_SEED = 0, 1
BATCHES = 2000


@dataclass(frozen=True)
class Batch:
    """One iteration: the contexts of its decodes (tokens) and its prefill chunks (tokens, tokens before)."""

    contexts: tuple[int, ...]
    chunks: tuple[tuple[int, int], ...]

    @property
    def region(self) -> str:
        if not self.chunks:
            return "decode_only"
        return "mixed" if self.contexts else "prefill_only"

    @property
    def sequences(self) -> int:
        return len(self.contexts) + len(self.chunks)

    @property
    def tokens(self) -> int:
        return len(self.contexts) + sum(n for n, _ in self.chunks)

    @property
    def features(self) -> tuple[float, float, float, float]:
        """Multipliers of the law's four coefficients."""
        quad = sum(n * (n / 2 + c) for n, c in self.chunks)
        return (1.0, float(self.tokens), float(sum(self.contexts)), float(quad))


class Profile(NamedTuple):
    """What a profile says, in seconds."""

    iteration_s: Callable[[Batch], float]
    prefill_attention_s: Callable[[int, int], float]
    """Attention of all layers for a chunk of some tokens after some others of its prompt."""


# Batches that a chat service visits ------------------------------------------------------------------


def chat_batches(
    seed: int, *, kv_tokens: int, max_num_seqs: int, budget: int, max_model_len: int, count: int = BATCHES
) -> list[Batch]:
    """Draw batches of an instance that serves chat, from nearly idle to full.

    Each batch is of a service whose prompts are lognormal with a median between 250 tokens (ShareGPT)
    and 2,500 (twice that of Azure's conversations), so that the number of sequences and their total
    context do not grow together only; outputs are lognormal with median 150. The number of decoding
    sequences is log-uniform, cut to what ``kv_tokens`` holds; a batch that prefills takes one prompt
    or a few, up to ``budget`` tokens, a quarter of the first ones being the rest of a prompt that an
    earlier batch began.
    """
    rng = np.random.default_rng(seed)
    median = 0.0

    def prompt() -> int:
        return int(np.clip(rng.lognormal(np.log(median), 0.8), 16, max_model_len - 1))

    def context() -> int:
        # An output is met while decoding in proportion to its length: mu becomes mu + sigma^2.
        output = rng.lognormal(np.log(150) + 0.8**2, 0.8)
        return min(prompt() + 1 + int(rng.uniform() * output), max_model_len)

    batches = []
    for region in rng.choice(REGIONS, size=count, p=REGION_SHARES):
        median = float(np.exp(rng.uniform(np.log(250), np.log(2500))))
        contexts: list[int] = []
        room = kv_tokens
        if region != "prefill_only":
            for _ in range(int(np.exp(rng.uniform(0, np.log(max_num_seqs + 1))))):
                tokens = context()
                if tokens > room:
                    break
                contexts.append(tokens)
                room -= tokens
        chunks: list[tuple[int, int]] = []
        left = budget - len(contexts)
        if region != "decode_only":
            for index in range(1 + int(rng.poisson(0.4))):
                length, done = prompt(), 0
                if index == 0 and rng.uniform() < 0.25:
                    done = int(rng.integers(1, length))
                chunk = min(length - done, left)
                if chunk > 0 and chunk + done <= room:
                    chunks.append((chunk, done))
                    left -= chunk
                    room -= chunk + done
        if contexts or chunks:
            batches.append(Batch(tuple(contexts), tuple(chunks)))
    return batches


# Interpolation -----------------------------------------------------------------------------------------


def line(x: float, xs: FloatArray, ys: FloatArray) -> float:
    """Piecewise linear interpolation, continued beyond the ends with the slope of the end segments."""
    if len(xs) == 1:
        return float(ys[0])
    i = int(np.clip(np.searchsorted(xs, x) - 1, 0, len(xs) - 2))
    return float(ys[i] + (ys[i + 1] - ys[i]) * (x - xs[i]) / (xs[i + 1] - xs[i]))


def curve(frame: pd.DataFrame, x: str, y: str) -> Callable[[float], float]:
    """``y`` as a function of ``x``; repeated measurements are averaged."""
    means = frame.groupby(x)[y].mean()
    xs, ys = means.index.to_numpy(float), means.to_numpy(float)
    return lambda value: line(value, xs, ys)


def surface(frame: pd.DataFrame, x: str, y: str, z: str) -> Callable[[float, float], float]:
    """``z(x, y)``, linear between the rows of ``x`` and within each; rows may end at different ``y``."""
    xs = np.unique(frame[x].to_numpy(float))
    rows = {key: curve(frame[frame[x] == key], y, z) for key in xs}

    def value(at_x: float, at_y: float) -> float:
        i = int(np.clip(np.searchsorted(xs, at_x) - 1, 0, max(len(xs) - 2, 0)))
        near = xs[i : i + 2]
        return line(at_x, near, np.array([rows[key](at_y) for key in near]))

    return value


def read(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / "profiles" / f"{name}.csv.gz", float_precision="round_trip")


# Profiles -----------------------------------------------------------------------------------------------


def llmservingsim(
    folder: Path, name: str, layers: int, collectives_us: Callable[[Batch], float] = lambda batch: 0.0
) -> Profile:
    """A model on a GPU, every layer of it measured inside vLLM 0.19 by LLMServingSim.

    Decodes of one batch share a kernel whose cost is looked up at their mean context; of several
    prefill chunks the largest shares the kernel with the decodes (as measured) and each further one
    adds its own. ``collectives_us`` is what GPUs that share the model spend on exchanging data.
    """
    parts = ("dense", "per_sequence", "attention")
    dense, heads, attention = (read(folder, f"llmservingsim_{name}_{part}") for part in parts)
    times = dense.pivot(index="tokens", columns="layer", values="time_us")
    in_block = {"qkv_proj", "qk_norm", "rotary_emb", "o_proj", "gate_up_proj", "act_fn", "down_proj"}
    block = [layer for layer in times.columns if layer in in_block]
    once = times["embedding"] + times["final_layernorm"]
    total_us = layers * (times[block].sum(axis=1) + 2 * times["layernorm"]) + once
    tokens_us = curve(
        pd.DataFrame({"tokens": times.index, "us": total_us}).reset_index(drop=True), "tokens", "us"
    )
    per_batch = heads.pivot_table("time_us", "sequences", aggfunc="sum").reset_index()
    sequences_us = curve(per_batch, "sequences", "time_us")

    pure = attention[attention.prefill_chunk == 0]
    decode_us = surface(pure, "n_decode", "kv_decode", "time_us")
    joint = attention[attention.prefill_chunk > 0]
    prefill_us = surface(joint[joint.n_decode == 0], "prefill_chunk", "kv_prefill", "time_us")
    # Chunks have axes of their own: the grids of the RTX PRO 6000 are two, one laid over the other.
    mixed = {
        float(chunk): {
            float(before): surface(cell, "n_decode", "kv_decode", "time_us")
            for before, cell in rows.groupby("kv_prefill")
        }
        for chunk, rows in joint[joint.n_decode > 0].groupby("prefill_chunk")
    }
    chunk_axis = np.array(list(mixed))

    def joint_us(chunk: float, before: float, decodes: int, cached: float) -> float:
        i = int(np.clip(np.searchsorted(chunk_axis, chunk) - 1, 0, len(chunk_axis) - 2))
        chunks, at_chunk = chunk_axis[i : i + 2], []
        for x in chunks:
            axis = np.array(list(mixed[x]))
            j = int(np.clip(np.searchsorted(axis, before) - 1, 0, len(axis) - 2))
            near = axis[j : j + 2]
            at_chunk.append(line(before, near, np.array([mixed[x][y](decodes, cached) for y in near])))
        return line(chunk, chunks, np.array(at_chunk))

    def seconds(batch: Batch) -> float:
        decodes = len(batch.contexts)
        cached = float(np.mean(batch.contexts)) - 1 if decodes else 0.0
        chunks = sorted(batch.chunks, reverse=True)
        attention_us = decode_us(decodes, cached) if not chunks else 0.0
        for index, (tokens, before) in enumerate(chunks):
            shared = index == 0 and decodes
            attention_us += (
                joint_us(tokens, before, decodes, cached) if shared else prefill_us(tokens, before)
            )
        per_batch_us = tokens_us(batch.tokens) + sequences_us(batch.sequences) + collectives_us(batch)
        return 1e-6 * (per_batch_us + layers * attention_us)

    return Profile(seconds, lambda tokens, before: 1e-6 * layers * prefill_us(tokens, before))


# Two RTX PRO 6000 on one PCIe host: bytes of a GPU, microseconds of NCCL's all-reduce and all-gather inside
# a CUDA graph. LLMServingSim measured them on 2026-09-08, on the machine of its profiles (profiler/perf/
# RTXPRO6000/hardware.yaml, commit e08dc388d0e919df6ef92623f943e092e8ea20b3). After the host was set up anew
# (ACS and IOMMU off) they took about half on 2026-09-26; these are the ones nearest to the run of April.
RTX_PRO_6000_COLLECTIVES_US = pd.DataFrame(
    [
        (10_240, 16.24, 14.52),
        (40_960, 17.5, 16.44),
        (139_264, 22.78, 20.15),
        (327_680, 30.6, 30.36),
        (557_056, 42.64, 46.12),
        (1_114_112, 78.36, 84.1),
        (1_310_720, 90.59, 95.45),
        (2_228_224, 148.95, 154.57),
        (5_242_880, 335.41, 352.81),
        (8_912_896, 566.73, 589.39),
        (16_777_216, 1051.83, 1093.41),
        (20_971_520, 1309.13, 1362.23),
    ],
    columns=["bytes", "all_reduce", "all_gather"],
)


def qwen3_32b_collectives() -> Callable[[Batch], float]:
    """What two RTX PRO 6000 spend on exchanging data for one iteration of Qwen3-32B, in microseconds.

    LLMServingSim profiles each GPU's share of the layers on one GPU, so none of this is in its profile: an
    all-reduce of the hidden states (bf16) after the embedding and twice in every layer, and an all-gather
    of the logits.
    """
    all_reduce_us = curve(RTX_PRO_6000_COLLECTIVES_US, "bytes", "all_reduce")
    all_gather_us = curve(RTX_PRO_6000_COLLECTIVES_US, "bytes", "all_gather")

    def us(batch: Batch) -> float:
        hidden_bytes = 2 * QWEN3_32B_HIDDEN * batch.tokens
        logits_bytes = 2 * QWEN3_32B_VOCABULARY // 2 * batch.sequences
        return (2 * QWEN3_32B_LAYERS + 1) * all_reduce_us(hidden_bytes) + all_gather_us(logits_bytes)

    return us


def vidur_linear_ms(folder: Path, name: str) -> Callable[[float], float]:
    """Milliseconds of all layers but attention, by tokens, from a Vidur MLP profile at TP 1."""
    mlp = read(folder, name)
    mlp = mlp[mlp.num_tensor_parallel_workers == 1]
    columns = [c for c in mlp.columns.astype(str) if c.endswith(".median") and ".emb." not in c]
    frame = pd.DataFrame({"tokens": mlp.num_tokens, "ms": LAYERS * mlp[columns].sum(axis=1)})
    return curve(frame, "tokens", "ms")


def aiconfigurator_prefill_ms(folder: Path, kv_heads: int) -> Callable[[int, int], float]:
    """Milliseconds of one layer's prefill attention, 32 query heads, for a chunk after some tokens.

    The profile holds whole prompts only: a chunk costs what its prompt costs to its end, less what it
    costs up to the chunk.
    """
    table = read(folder, "aiconfigurator_a100_vllm-0.14.0_context_attention")
    shape = (table.num_heads == 32) & (table.num_key_value_heads == kv_heads) & (table.batch_size == 1)
    whole = curve(table[shape], "isl", "latency")
    return lambda tokens, before: whole(before + tokens) - (whole(before) if before else 0.0)


def aiconfigurator_decode_ms(
    folder: Path, query_heads: int, kv_heads: int
) -> Callable[[float, float], float]:
    """Milliseconds of one layer's decode attention by batch size and cached tokens."""
    table = read(folder, "aiconfigurator_a100_vllm-0.14.0_generation_attention")
    shape = (table.num_heads == query_heads) & (table.num_key_value_heads == kv_heads)
    return surface(table[shape], "batch_size", "step", "latency")


def a100_llama31_8b(folder: Path) -> Profile:
    """Llama-3.1-8B (shape of Llama-3-8B) on an A100-80GB, as vLLM V1 runs it.

    Asynchronous scheduling hides the CPU's work behind the GPU's (Vidur's ``cpu_overheads`` are about
    a quarter of it or less), so only what the GPU does counts: layers, the output head (aiconfigurator's
    matrix product with 65,536 columns, scaled to 128,256) and the sampler (LLMServingSim's on an RTX
    4090 with the same vocabulary, about 1 % of an iteration).
    """
    linear_ms = vidur_linear_ms(folder, "vidur_mlp_a100_llama-3-8b")
    prefill_ms = aiconfigurator_prefill_ms(folder, kv_heads=8)
    decode_ms = aiconfigurator_decode_ms(folder, query_heads=32, kv_heads=8)
    gemm = read(folder, "aiconfigurator_a100_vllm-0.14.0_gemm")
    head_ms = curve(gemm[(gemm.n == 65536) & (gemm.k == 4096)], "m", "latency")
    heads = read(folder, "llmservingsim_rtx4090_llama-3.1-8b_per_sequence")
    sampler_us = curve(heads[heads.layer == "sampler"], "sequences", "time_us")

    def seconds(batch: Batch) -> float:
        attention_ms = sum(prefill_ms(n, c) for n, c in batch.chunks)
        if batch.contexts:
            attention_ms += decode_ms(len(batch.contexts), float(np.mean(batch.contexts)) - 1)
        output_ms = head_ms(batch.sequences) * 128256 / 65536 + 1e-3 * sampler_us(batch.sequences)
        return 1e-3 * (linear_ms(batch.tokens) + LAYERS * attention_ms + output_ms)

    return Profile(seconds, lambda tokens, before: 1e-3 * LAYERS * prefill_ms(tokens, before))


def a100_llama2_7b(folder: Path) -> Profile:
    """Llama-2-7B on an A100-80GB, as vLLM 0.6 runs it: the GPU waits for the CPU between iterations.

    Decode attention with 32 KV heads is in no profile. It is memory bound and works on each (sequence,
    KV head) pair alone, so n sequences of 32 heads cost what 4n sequences of 8 heads do (measured, one
    query head per KV head): the same KV bytes in the same number of pieces. ``mha_equivalence_error``
    tells how well that holds where the profile allows a check.
    CPU time: scheduling, input preparation and sampler (which includes the output head) of Vidur's
    measurements for this model; output processing is left out, as vLLM 0.6 overlaps it.
    """
    linear_ms = vidur_linear_ms(folder, "vidur_mlp_a100_llama-2-7b")
    prefill_ms = aiconfigurator_prefill_ms(folder, kv_heads=32)
    decode_ms = aiconfigurator_decode_ms(folder, query_heads=8, kv_heads=8)
    cpu = read(folder, "vidur_cpu_overheads_a100")
    cpu = cpu[cpu.model_name == "meta-llama/Llama-2-7b-hf"]
    parts = ["schedule_median", "prepare_inputs_e2e_median", "sampler_e2e_median"]
    cpu_ms = curve(cpu.assign(ms=cpu[parts].sum(axis=1)), "batch_size", "ms")

    def seconds(batch: Batch) -> float:
        attention_ms = sum(prefill_ms(n, c) for n, c in batch.chunks)
        if batch.contexts:
            attention_ms += decode_ms(4 * len(batch.contexts), float(np.mean(batch.contexts)) - 1)
        return 1e-3 * (linear_ms(batch.tokens) + LAYERS * attention_ms + cpu_ms(batch.sequences))

    return Profile(seconds, lambda tokens, before: 1e-3 * LAYERS * prefill_ms(tokens, before))


def mha_equivalence_error(folder: Path) -> FloatArray:
    """Relative differences between n sequences of 8 KV heads and 2n of 4, or 4n of 2, as measured."""
    table = read(folder, "aiconfigurator_a100_vllm-0.14.0_generation_attention")
    table = table[table.num_heads == table.num_key_value_heads]
    table = table[(table.num_heads >= 2) & (table.step >= 127) & (table.step < 4096)]
    table = table.assign(pairs=table.batch_size * table.num_heads)
    wide = table.pivot(index=["pairs", "step"], columns="num_heads", values="latency")
    gaps = [(wide[n] / wide[8] - 1).dropna() for n in (4, 2)]
    return np.abs(np.concatenate(gaps)).astype(float)


PROFILES: dict[str, Callable[[Path], Profile]] = {
    "llama-3.1-8b_rtx-4090_tp1": lambda folder: llmservingsim(folder, "rtx4090_llama-3.1-8b", LAYERS),
    "llama-3.1-8b_rtx-pro-6000_tp1": lambda folder: llmservingsim(folder, "rtxpro6000_llama-3.1-8b", LAYERS),
    "qwen3-32b_rtx-pro-6000_tp2": lambda folder: llmservingsim(
        folder, "rtxpro6000_qwen3-32b_tp2", QWEN3_32B_LAYERS, qwen3_32b_collectives()
    ),
    "llama-3.1-8b_a100-80gb_tp1": a100_llama31_8b,
    "llama-2-7b_a100-80gb_tp1": a100_llama2_7b,
}


# Fit and errors ---------------------------------------------------------------------------------------


def fit(profile: Profile, batches: list[Batch], seconds: FloatArray) -> LatencyLaw:
    """The law of least squared relative error with non-negative coefficients.

    ``per_quad_s`` is the slope of prefill attention alone. Fitted with the others it would take up the
    curvature of the dense layers (flat below about 128 tokens, then linear), for 0.2 to 0.3 points less
    mean error on the visited batches but 42 to 57 % too much for 2,048 tokens that follow 8,192.
    """
    chunks = [chunk for batch in batches for chunk in batch.chunks]
    quad = np.array([n * (n / 2 + c) for n, c in chunks])
    attention_s = np.array([profile.prefill_attention_s(n, c) for n, c in chunks])
    per_quad_s = max(float(np.polyfit(quad, attention_s, 1)[0]), 0.0)

    rows = np.array([batch.features for batch in batches]) / seconds[:, None]
    wanted = 1 - rows[:, 3] * per_quad_s
    scale = rows[:, :3].max(axis=0)
    best, best_error = np.zeros(3), np.inf
    for size in range(1, 4):  # seven active sets: the best feasible one is the non-negative optimum
        for active in itertools.combinations(range(3), size):
            columns = list(active)
            solution = np.linalg.lstsq(rows[:, columns] / scale[columns], wanted, rcond=None)[0]
            if (solution < 0).any():
                continue
            candidate = np.zeros(3)
            candidate[columns] = solution / scale[columns]
            error = float(np.square(rows[:, :3] @ candidate - wanted).sum())
            if error < best_error:
                best, best_error = candidate, error
    return LatencyLaw(*(float(f"{value:.4g}") for value in (*best, per_quad_s)))


def errors(law: LatencyLaw, batches: list[Batch], seconds: FloatArray) -> FitError:
    """Relative errors of ``law`` in percent, to one decimal."""
    predicted = np.array([law.iteration_s(*batch.features[1:]) for batch in batches])
    percent = 100 * np.abs(predicted / seconds - 1)
    regions = np.array([batch.region for batch in batches])
    mean = {region: round(float(percent[regions == region].mean()), 1) for region in REGIONS}
    return FitError(
        overall=round(float(percent.mean()), 1),
        decode_only=mean["decode_only"],
        prefill_only=mean["prefill_only"],
        mixed=mean["mixed"],
        p95=round(float(np.quantile(percent, 0.95)), 1),
    )


def visited(preset: Preset, seed: int) -> list[Batch]:
    """Batches that the instance of ``preset`` visits."""
    instance = preset.instance
    return chat_batches(
        seed,
        kv_tokens=(instance["num_gpu_blocks"] - 1) * 16,
        max_num_seqs=instance["max_num_seqs"],
        budget=instance["max_num_batched_tokens"],
        max_model_len=instance["max_model_len"],
    )


def refit(preset: Preset, folder: Path) -> tuple[LatencyLaw, FitError]:
    """Fit the law of ``preset`` again; the errors are those on batches that the fit has not seen."""
    profile = PROFILES[preset.name](folder)

    def measured(seed: int) -> tuple[list[Batch], FloatArray]:
        batches = visited(preset, seed)
        return batches, np.array([profile.iteration_s(batch) for batch in batches])

    law = fit(profile, *measured(FIT_SEED))
    return law, errors(law, *measured(CHECK_SEED))


# KV pool ------------------------------------------------------------------------------------------------


BYTES_PER_GIB = 2**30
LLAMA_31_8B_WEIGHT_BYTES = 2 * 8_030_261_248
LLAMA_31_8B_BLOCK_BYTES = 16 * LAYERS * 2 * 8 * 128 * 2  # tokens, layers, K and V, heads, dims, bf16
QWEN3_32B_TP2_WEIGHT_BYTES = 2 * 32_762_123_264 // 2  # of one of two GPUs
QWEN3_32B_TP2_BLOCK_BYTES = 16 * QWEN3_32B_LAYERS * 2 * 4 * 128 * 2
# Memory as CUDA reports it. That of the RTX PRO 6000 (Blackwell, 96 GB) is in LLMServingSim's later runs.
A100_80GB_MEMORY_BYTES = 79.15 * BYTES_PER_GIB
RTX_PRO_6000_MEMORY_BYTES = 101_976_440_832


def kv_blocks(
    folder: Path, memory_bytes: float, weight_bytes: int, block_bytes: int, utilization: float = 0.9
) -> int:
    """KV blocks as vLLM sizes its pool: its share of the memory less weights and working memory.

    The working memory (activations, CUDA) is that of the RTX 4090 run with Llama-3.1-8B and the same token
    budget; 0.9 is vLLM's default share.
    """
    meta = json.loads((real_run(folder) / "meta.json").read_text())
    cache = meta["kv_cache"]
    working = (
        cache["gpu_memory_utilization"] * meta["hardware"]["device_total_memory_bytes"]
        - LLAMA_31_8B_WEIGHT_BYTES
        - cache["num_gpu_blocks"] * LLAMA_31_8B_BLOCK_BYTES
    )
    return int((utilization * memory_bytes - weight_bytes - working) // block_bytes)


# Check against real vLLM -------------------------------------------------------------------------------


def real_run(folder: Path, name: str = "rtx4090_llama-3.1-8b") -> Path:
    return folder / "golden" / "real_vllm" / name


def decode_throughput_check(law: LatencyLaw, kv_tokens: int, folder: Path) -> pd.DataFrame:
    """Measured and predicted tokens/s in the seconds of the real run without any prompt token.

    The law is asked for n sequences on the KV tokens in use, both taken as the mean of the samples at
    the beginning and the end of the second. With requests waiting, the run also recomputes preempted
    ones, which its prompt throughput does not count: only seconds with an empty queue are clean.
    """
    run = pd.read_csv(real_run(folder) / "timeseries.csv")
    mean = run.rolling(2).mean()
    n, context = mean.running, mean.kv_cache_pct / 100 * kv_tokens
    predicted = [n_ / law.iteration_s(n_, c, 0.0) for n_, c in zip(n, context, strict=True)]
    table = run.assign(n=n, context=context, predicted=predicted, error=predicted / run.gen_throughput - 1)
    steady = (run.prompt_throughput == 0) & (run.running >= 1) & n.notna()
    return table[steady]


def main() -> None:
    folder = data_dir()
    if not (folder / "profiles").is_dir():
        sys.exit(f"{folder}: no folder 'profiles' in it; set {ENVIRONMENT_VARIABLE} to the data folder")
    for preset in PRESETS:
        law, error = refit(preset, folder)
        print(f"{preset.name}\n  {law}\n  {error}")
        if law != preset.instance["latency"] or error != preset.fit_error:
            print(f"  committed: {preset.instance['latency']}\n  {preset.fit_error}")
    gap = 100 * mha_equivalence_error(folder)
    print(f"KV heads for sequences: median {np.median(gap):.1f} %, P95 {np.quantile(gap, 0.95):.1f} %")
    default = PRESETS[0].instance
    check = decode_throughput_check(default["latency"], (default["num_gpu_blocks"] - 1) * 16, folder)
    for label, rows in (("queue empty", check[check.waiting == 0]), ("all", check)):
        print(
            f"real vLLM, RTX 4090, {label}: {len(rows)} s without prefill, error of tokens/s "
            f"mean {100 * rows.error.mean():+.1f} %, median {100 * rows.error.median():+.1f} %, "
            f"total {100 * (rows.predicted.sum() / rows.gen_throughput.sum() - 1):+.1f} %"
        )


if __name__ == "__main__":
    main()
