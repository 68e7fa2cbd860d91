"""Readers of profiles: against values worked out from the files themselves, and what they refuse."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from preserve_gym.errors import InputError
from preserve_gym.latency import aiconfigurator
from preserve_gym.latency.batch import Batch
from preserve_gym.latency.gpus import find_gpu
from preserve_gym.latency.instance import LINKS
from preserve_gym.latency.iterations import Iterations
from preserve_gym.latency.models import find_model
from preserve_gym.latency.parts import Operators, Parts, Target
from preserve_gym.latency.profiles import FORMATS, read_profile
from preserve_gym.latency.tables import curve, line, surface
from tests import latency_files
from tests.latency_files import AICONFIGURATOR, KINDS, LAW, LLMSERVINGSIM, target, write

Change = Callable[[pd.DataFrame], pd.DataFrame]


def read(data: Path, *names: str, of: Target) -> Operators:
    paths = [data / "profiles" / f"{name}.csv.gz" for name in names]
    found = read_profile(paths, of)
    assert isinstance(found, Operators)
    return found


def rows(data: Path, name: str, **where: Any) -> pd.DataFrame:
    """Rows of a file as they are."""
    table = pd.read_csv(data / "profiles" / f"{name}.csv.gz")
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table)
    return table


def one(data: Path, name: str, column: str, **where: Any) -> float:
    """The one value of a column, or the mean of several."""
    return float(rows(data, name, **where)[column].mean())


def whole(path: Path, of: Target) -> Iterations:
    found = read_profile([path], of)
    assert isinstance(found, Iterations)
    return found


# Values of the public profiles


A100_AICONFIGURATOR = [
    f"aiconfigurator_a100_vllm-0.14.0_{kind}"
    for kind in ("gemm", "context_attention", "generation_attention")
]


@pytest.mark.parametrize(
    ("gpu", "model", "tp", "sums_ms"),
    [
        ("a100", "llama-2-7b", 1, (9.3, 9.5, 12.2, 33.4, 133.5, 261.5)),
        ("a100", "llama-2-7b", 4, (3.1, 3.2, 4.1, 10.2, 33.5, 67.2)),
        ("h100", "llama-2-7b", 1, (5.6, 5.8, 6.4, 12.0, 40.5, 82.9)),
        ("a100", "llama-3-8b", 1, (9.7, 10.9, 13.2, 34.6, 141.8, 272.9)),
        ("a100", "llama-2-70b", 4, (24.9, 26.1, 33.2, 89.3, 334.8, 633.0)),
        ("h100", "llama-2-70b", 4, (14.3, 15.3, 15.9, 30.0, 113.6, 221.8)),
    ],
)
def test_vidur_layers_are_the_sums_of_the_readme(
    gpu: str, model: str, tp: int, sums_ms: tuple[float, ...], data_dir: Path
) -> None:
    # It sums the medians of all operators but `emb`, times the layers; of 2,048 and 4,096 tokens, which
    # occur twice, it has one row and the reader the mean.
    name = f"vidur_mlp_{gpu}_{model}"
    of = target(model, gpu, tp)
    layers_s = FORMATS[0].read(pd.read_csv(data_dir / "profiles" / f"{name}.csv.gz"), of, name)
    assert isinstance(layers_s, Parts)
    assert layers_s.layers_s is not None
    for tokens, ms in zip((1, 32, 128, 512, 2048, 4096), sums_ms, strict=True):
        assert 1e3 * layers_s.layers_s(tokens) == pytest.approx(
            ms, abs=0.051 if tokens < 2048 else 0.015 * ms
        )
        table = rows(data_dir, name, num_tokens=tokens, num_tensor_parallel_workers=tp)
        medians = [c for c in table if str(c).endswith(".median") and ".emb." not in str(c)]
        exact_ms = of.model.layers * table[medians].sum(axis=1).mean()
        assert 1e3 * layers_s.layers_s(tokens) == pytest.approx(exact_ms)


def test_aiconfigurator_on_an_a100(data_dir: Path) -> None:
    operators = read(data_dir, *A100_AICONFIGURATOR, of=target("llama-3.1-8b", "a100"))
    parts = operators.parts
    assert parts.decode_attention_s is not None
    assert parts.prefill_attention_s is not None
    assert parts.products_s is not None
    assert parts.product_head_s is not None
    # Examples of the README: one layer, 0.123 ms and 0.900 ms.
    assert 1e3 * parts.decode_attention_s(32, 1023) / 32 == pytest.approx(0.123, abs=5e-4)
    assert 1e3 * parts.prefill_attention_s(4096, 0) / 32 == pytest.approx(0.900, abs=5e-4)
    # A chunk of a prompt is the difference of two prompts.
    ms = [
        one(
            data_dir,
            A100_AICONFIGURATOR[1],
            "latency",
            batch_size=1,
            isl=isl,
            num_heads=32,
            num_key_value_heads=8,
            kv_cache_dtype="bfloat16",
        )
        for isl in (2048, 3072)
    ]
    assert 1e3 * parts.prefill_attention_s(1024, 2048) / 32 == pytest.approx(ms[1] - ms[0])
    # The output head is not in the grid: between its neighbours.
    gemm = rows(data_dir, A100_AICONFIGURATOR[0], m=64, k=4096, gemm_dtype="bfloat16")
    by_n = gemm.groupby("n")["latency"].mean()
    below, above = by_n.index[by_n.index < 128_256].max(), by_n.index[by_n.index > 128_256]
    lower = by_n.index[by_n.index < below].max() if above.empty else below
    upper = below if above.empty else above.min()
    slope = (by_n[upper] - by_n[lower]) / (upper - lower)
    head_ms = by_n[lower] + slope * (128_256 - lower)
    sampler_ms = 1e3 * (25e-6 + 2.2 * 4 * 128_256 * 64 / 2.039e12)
    assert 1e3 * parts.product_head_s(64) == pytest.approx(head_ms + sampler_ms, rel=1e-6)
    # The layers agree with Vidur's measurement of the same ones.
    vidur_ms = 1e3 * sum_of_vidur(data_dir, "vidur_mlp_a100_llama-3-8b", 512)
    assert 1e3 * parts.products_s(512) == pytest.approx(vidur_ms, rel=0.15)


def sum_of_vidur(data: Path, name: str, tokens: int) -> float:
    table = rows(data, name, num_tokens=tokens, num_tensor_parallel_workers=1)
    medians = [c for c in table if str(c).endswith(".median") and ".emb." not in str(c)]
    return float(32e-3 * table[medians].sum(axis=1).mean())


def test_vidur_attention_and_cpu(data_dir: Path) -> None:
    names = (
        "vidur_mlp_a100_llama-2-70b",
        "vidur_attention_a100_llama-2-70b_tp2",
        "vidur_all_reduce_a100_dgx",
        "aiconfigurator_a100_vllm-0.14.0_gemm",
    )
    operators = read(data_dir, *names, of=target("llama-2-70b", "a100", 2))
    parts = operators.parts
    assert parts.decode_attention_s is not None
    assert parts.prefill_attention_s is not None
    table = rows(data_dir, names[1], is_prefill=False, batch_size=32)
    cached = int(table["kv_cache_size"].iloc[40])
    decode_ms = table[table["kv_cache_size"] == cached]["time_stats.attn_decode.median"].mean()
    assert 1e3 * parts.decode_attention_s(32, cached) == pytest.approx(80 * decode_ms)
    table = rows(data_dir, names[1], is_prefill=True, batch_size=1)
    row = table.iloc[len(table) // 2]
    chunk, before = int(row["prefill_chunk_size"]), int(row["kv_cache_size"])
    same = table[(table["prefill_chunk_size"] == chunk) & (table["kv_cache_size"] == before)]
    prefill_ms = same["time_stats.attn_prefill.median"].mean()
    assert 1e3 * parts.prefill_attention_s(chunk, before) == pytest.approx(80 * prefill_ms)
    batch = Batch((cached + 1,) * 31, ((chunk, before),))
    assert parts.layers_s is not None
    assert parts.product_head_s is not None
    assert parts.exchange_s is not None
    assert operators.iteration_s(batch) == pytest.approx(
        parts.layers_s(31 + chunk)
        + parts.decode_attention_s(31, cached)
        + parts.prefill_attention_s(chunk, before)
        + parts.exchange_s(31 + chunk, 32)
        + parts.product_head_s(32)
    )


def test_cpu_time_holds_the_output_head(data_dir: Path) -> None:
    names = ["vidur_mlp_a100_llama-2-70b", *A100_AICONFIGURATOR, "vidur_all_reduce_a100_dgx"]
    of = target("llama-2-70b", "a100", 4)
    without_cpu = read(data_dir, *names, of=of)
    with_cpu = read(data_dir, *names, "vidur_cpu_overheads_a100", of=of)
    cpu = rows(
        data_dir,
        "vidur_cpu_overheads_a100",
        model_name="meta-llama/Llama-2-70b-hf",
        batch_size=8,
        tensor_parallel_degree=4,
    )
    cpu_ms = cpu[["schedule_median", "prepare_inputs_e2e_median", "sampler_e2e_median"]].sum(axis=1).mean()
    assert with_cpu.parts.cpu_s is not None
    assert without_cpu.parts.product_head_s is not None
    assert 1e3 * with_cpu.parts.cpu_s(8) == pytest.approx(cpu_ms)
    batch = Batch((500,) * 8, ())
    more_s = with_cpu.iteration_s(batch) - without_cpu.iteration_s(batch)
    assert more_s == pytest.approx(1e-3 * cpu_ms - without_cpu.parts.product_head_s(8))


@pytest.mark.parametrize("node", ["a100", "h100"])
def test_all_reduces_of_one_node_and_no_size_dearer_than_a_larger_one(node: str, data_dir: Path) -> None:
    path = data_dir / "profiles" / f"vidur_all_reduce_{node}_dgx.csv.gz"
    of = target("llama-2-70b", node, 4)
    parts = FORMATS[2].read(pd.read_csv(path), of, path.name)
    assert isinstance(parts, Parts)
    assert parts.exchange_s is not None
    table = rows(data_dir, f"vidur_all_reduce_{node}_dgx", num_workers=4, devices_per_node=4)
    by_size = table.groupby("size")["time_stats.all_reduce.median"].mean()
    reduced, gathered = 2 * 8192 * 512, 2 * 32_000 // 4 * 16
    assert reduced in by_size.index
    gather_ms = np.interp(gathered, by_size.index, np.minimum.accumulate(by_size[::-1])[::-1])
    expected_ms = 161 * by_size[by_size.index >= reduced].min() + gather_ms
    assert 1e3 * parts.exchange_s(512, 16) == pytest.approx(expected_ms)
    times = [parts.exchange_s(n, 1) for n in range(1, 3000, 7)]
    assert np.all(np.diff(times) >= 0)


def test_llmservingsim_on_a_4090(data_dir: Path) -> None:
    names = [f"llmservingsim_rtx4090_llama-3.1-8b_{kind}" for kind in LLMSERVINGSIM]
    operators = read(data_dir, *names, of=target("llama-3.1-8b", "rtx-4090"))
    us = rows(data_dir, names[0], tokens=256).set_index("layer")["time_us"]
    block = ["qkv_proj", "rotary_emb", "o_proj", "gate_up_proj", "act_fn", "down_proj"]
    layers_us = 32 * (us[block].sum() + 2 * us["layernorm"]) + us["embedding"] + us["final_layernorm"]
    assert operators.parts.layers_s is not None
    assert 1e6 * operators.parts.layers_s(256) == pytest.approx(layers_us)
    head = rows(data_dir, names[1]).groupby(["layer", "sequences"])["time_us"].mean()
    sequences = 64
    head_us = head["lm_head", sequences] + head["sampler", sequences]
    assert operators.parts.head_s is not None
    assert 1e6 * operators.parts.head_s(sequences) == pytest.approx(head_us)
    table = rows(data_dir, names[2])
    grid = ["prefill_chunk", "kv_prefill", "n_decode", "kv_decode"]
    mixed = table[(table["prefill_chunk"] > 0) & (table["n_decode"] > 0)]
    for index in (0, len(mixed) // 2, len(mixed) - 1):
        chunk, before, decodes, cached = (int(x) for x in mixed[grid].iloc[index])
        same = table[(table[grid] == [chunk, before, decodes, cached]).all(axis=1)]["time_us"].mean()
        batch = Batch((cached + 1,) * decodes, ((chunk, before),))
        assert 1e6 * operators.attention_s(batch) == pytest.approx(32 * same)
    pure = table[table["prefill_chunk"] == 0].iloc[-1]
    batch = Batch((int(pure["kv_decode"]) + 1,) * int(pure["n_decode"]), ())
    assert 1e6 * operators.attention_s(batch) == pytest.approx(32 * pure["time_us"])


def test_exchange_of_two_rtx_pro_6000(data_dir: Path) -> None:
    names = [f"llmservingsim_rtxpro6000_qwen3-32b_tp2_{kind}" for kind in LLMSERVINGSIM]
    paths = [data_dir / "profiles" / f"{name}.csv.gz" for name in names]
    operators = read_profile(
        [*paths, LINKS / "rtx-pro-6000_pcie.csv"], target("qwen3-32b", "rtx-pro-6000", 2)
    )
    assert isinstance(operators, Operators)
    assert operators.parts.exchange_s is not None
    # 129 all-reduces of 2 x 5,120 bytes and a gather of half of 151,936 logits, between two of its points.
    gather_us = 20.15 + (2 * 151_936 / 2 - 139_264) / (327_680 - 139_264) * (30.36 - 20.15)
    assert 1e6 * operators.parts.exchange_s(1, 1) == pytest.approx(129 * 16.24 + gather_us)
    for batch, share in ((Batch((1300,), ()), 0.08), (Batch((), ((2048, 0),)), 0.48)):
        exchange_s = operators.parts.exchange_s(batch.tokens, batch.sequences)
        assert exchange_s / operators.iteration_s(batch) == pytest.approx(share, abs=0.01)


def test_sequences_stand_in_for_kv_heads(data_dir: Path) -> None:
    # Worse on the H100, with few sequences, where attention is a small part of an iteration.
    for gpu, median, p95 in (("a100", 0.02, 0.10), ("h100", 0.04, 0.25)):
        name = f"aiconfigurator_{gpu}_vllm-0.14.0_generation_attention"
        gaps = aiconfigurator.mha_gaps(rows(data_dir, name))
        assert len(gaps) > 100
        assert np.median(gaps) < median
        assert np.quantile(gaps, 0.95) < p95


def test_a_model_of_32_kv_heads_is_given_four_sequences_of_eight(data_dir: Path) -> None:
    operators = read(data_dir, *A100_AICONFIGURATOR, of=target("llama-2-7b", "a100"))
    assert operators.parts.decode_attention_s is not None
    ms = one(
        data_dir,
        A100_AICONFIGURATOR[2],
        "latency",
        batch_size=64,
        step=1023,
        num_heads=8,
        num_key_value_heads=8,
        head_dim=128,
    )
    assert 1e3 * operators.parts.decode_attention_s(16, 1023) == pytest.approx(32 * ms)


def test_a_chunk_never_costs_less_than_nothing(data_dir: Path) -> None:
    # The H100's prompt of 3,072 tokens is slower than that of 4,096.
    names = [name.replace("a100", "h100") for name in A100_AICONFIGURATOR]
    operators = read(data_dir, *names, of=target("llama-2-7b", "h100"))
    prefill_s = operators.parts.prefill_attention_s
    assert prefill_s is not None
    assert min(prefill_s(256, before) for before in range(0, 20_000, 100)) >= 0


def test_prompts_longer_than_any_measured_grow_with_the_square(data_dir: Path) -> None:
    operators = read(data_dir, *A100_AICONFIGURATOR, of=target("llama-3.1-8b", "a100"))
    prefill_s = operators.parts.prefill_attention_s
    assert prefill_s is not None
    assert prefill_s(65_536, 0) == pytest.approx(16 * prefill_s(16_384, 0))


def test_splitwise_and_sageserve_units(data_dir: Path) -> None:
    name = "splitwise_perf_model"
    of = target("llama-2-70b", "a100", 4)
    found = whole(data_dir / "profiles" / f"{name}.csv.gz", of)
    table = rows(data_dir, name, model="llama2-70b", hardware="a100-80gb", tensor_parallel=4)
    times = dict(zip(found.batches, found.seconds, strict=True))
    prompt = table[(table["prompt_size"] == 512) & (table["batch_size"] == 1)]
    medians = prompt.groupby("token_size")["prompt_time"].median()
    assert 1e3 * times[Batch((), ((512, 0),))] == pytest.approx(medians.median())
    same = prompt[prompt["token_size"] == 128]["token_time"].median()
    assert 1e3 * times[Batch((512 + 64,), ())] == pytest.approx(same)

    name = "sageserve_a100_llama-3.1-8b_tp2"
    found = whole(data_dir / "profiles" / f"{name}.csv.gz", target("llama-3.1-8b", "a100", 2))
    table = rows(data_dir, name, prompt_size=128, batch_size=1, token_size=128)
    times = dict(zip(found.batches, found.seconds, strict=True))
    assert times[Batch((128 + 64,), ())] == pytest.approx(table["token_time"].median() / 127)
    assert 0.005 < times[Batch((128 + 64,), ())] < 0.02


def test_all_files_of_sageserve(data_dir: Path) -> None:
    for model in ("llama-3.1-8b", "llama-3.2-3b"):
        for tp in (2, 4):
            path = data_dir / "profiles" / f"sageserve_a100_{model}_tp{tp}.csv.gz"
            assert len(whole(path, target(model, "a100", tp)).batches) >= 8


# Interpolation


def test_line() -> None:
    xs, ys = np.array([1.0, 2.0, 4.0, 8.0, 9.0]), np.array([3.0, 4.0, 8.0, 10.0, 30.0])
    assert [line(x, xs, ys) for x in (-5, 1, 1.5, 2, 3, 8.5, 9)] == [3, 3, 3.5, 4, 6, 20, 30]
    # Beyond: from the first point of the upper half (8 is the first at or above 4.5) to the last.
    assert line(11, xs, ys) == pytest.approx(30 + 2 * (30 - 10) / (9 - 8))
    xs, ys = np.array([1.0, 5.0, 9.0, 10.0]), np.array([1.0, 5.0, 9.0, 25.0])
    assert line(20, xs, ys) == pytest.approx(25 + 10 * (25 - 5) / (10 - 5))
    assert line(7, np.array([2.0]), np.array([6.0])) == 6


def test_curve_averages_and_may_be_made_to_rise() -> None:
    table = pd.DataFrame({"x": [1, 1, 2, 3, 4], "y": [1.0, 3.0, 9.0, 5.0, 7.0]})
    assert [curve(table, "x", "y")(x) for x in (1, 2, 3, 4)] == [2, 9, 5, 7]
    assert [curve(table, "x", "y", rising=True)(x) for x in (1, 2, 3, 4)] == [2, 5, 5, 7]


def test_surface_of_rows_that_end_at_different_places() -> None:
    grid = [(1, 0), (1, 10), (1, 20), (3, 0), (3, 10), (9, 0), (9, 10), (9, 20)]
    table = pd.DataFrame([(x, y, 2 * x + 3 * y + x * y) for x, y in grid], columns=["x", "y", "z"])
    z = surface(table, "x", "y", "z")
    for x, y in ((1, 0), (9, 20), (2, 5), (6, 15), (3, 20), (2, 20), (12, 30), (1, 40)):
        assert z(x, y) == pytest.approx(2 * x + 3 * y + x * y)
    assert z(0, -1) == z(1, 0)  # constant below the grid
    single = surface(table[table["x"] == 3], "x", "y", "z")
    assert single(7, 5) == single(3, 5) == 36


# From one card to another


@pytest.mark.parametrize(
    "kinds",
    [LLMSERVINGSIM, AICONFIGURATOR, ("vidur_mlp", "vidur_attention", *AICONFIGURATOR[:1])],
    ids=["LLMServingSim", "aiconfigurator", "Vidur"],
)
def test_operators_scale_with_the_card(kinds: tuple[str, ...], tmp_path: Path) -> None:
    here = target()
    paths = write(tmp_path, *kinds)
    same = read_profile(paths, here)
    # A card of half the bandwidth and half the arithmetic takes twice as long for everything.
    half = replace(here.gpu, name="half", bandwidth=here.gpu.bandwidth / 2, flops=here.gpu.flops / 2)
    slower = read_profile(paths, replace(here, gpu=half))
    # Same arithmetic: prefills, bound by it, take as long as before, decodes twice as long.
    narrow = replace(here.gpu, name="narrow", bandwidth=here.gpu.bandwidth / 2)
    narrower = read_profile(paths, replace(here, gpu=narrow))
    assert isinstance(same, Operators)
    assert isinstance(slower, Operators)
    assert isinstance(narrower, Operators)
    decode, prefill = Batch((2048,) * 16, ()), Batch((), ((4096, 0),))
    fixed = 0.0 if "aiconfigurator_gemm" not in kinds else 32 * 4 * 2.5e-6 + 25e-6  # what is not measured
    for batch in (decode, prefill, Batch((512,) * 8, ((512, 1024), (100, 0)))):
        assert slower.iteration_s(batch) == pytest.approx(2 * same.iteration_s(batch), abs=fixed)
    assert narrower.iteration_s(decode) == pytest.approx(2 * same.iteration_s(decode), abs=fixed)
    assert narrower.iteration_s(prefill) < 1.15 * same.iteration_s(prefill)
    assert narrower.parts.prefill_attention_s is not None
    assert same.parts.prefill_attention_s is not None
    assert narrower.parts.prefill_attention_s(4096, 0) == pytest.approx(
        same.parts.prefill_attention_s(4096, 0)
    )


def test_scaling_is_the_ratio_of_rooflines() -> None:
    h100, l40s = find_gpu("h100"), find_gpu("l40s")
    to_l40s = Target(find_model("llama-3.1-8b"), l40s, 1, h100)
    assert to_l40s.scaled(2.0, 0.0, 1e9) == pytest.approx(2 * 3.35e12 / 0.864e12)
    assert to_l40s.scaled(2.0, 1e15, 1.0) == pytest.approx(2 * 989 / 362)
    assert replace(to_l40s, gpu=h100).scaled(2.0, 0.0, 0.0) == 2.0


def test_work_of_an_operator() -> None:
    of = target(tp=2)
    assert of.matrix_product("qkv", 10) == (2 * 10 * 3072 * 4096, 2 * (3072 * 4096 + 10 * (3072 + 4096)))
    assert of.matrix_product("down", 1) == (2 * 4096 * 7168, 2 * (4096 * 7168 + 4096 + 7168))
    # Two products of 16 heads of 128, a multiplication and an addition each; K and V of 4 heads, 2 bytes.
    assert of.attention(100, 50) == (2 * 2 * 16 * 128 * 100, 2 * 4 * 128 * 2 * 50)


def test_whole_iterations_do_not_carry_over(tmp_path: Path) -> None:
    of = replace(target(), gpu=find_gpu("h200"))
    with pytest.raises(InputError, match="whole iterations of a h100 cannot be carried over to a h200"):
        read_profile(write(tmp_path, "own"), of)


# Files that are right


@pytest.mark.parametrize("kinds", [LLMSERVINGSIM, AICONFIGURATOR], ids=["LLMServingSim", "aiconfigurator"])
def test_small_profiles_give_operators(kinds: tuple[str, ...], tmp_path: Path) -> None:
    operators = read_profile(write(tmp_path, *kinds), target())
    assert isinstance(operators, Operators)
    least_s = 2 * 8.03e9 / 3.35e12
    assert least_s < operators.iteration_s(Batch((100,), ())) < 2 * least_s


def test_own_profile(tmp_path: Path) -> None:
    found = whole(write(tmp_path, "own")[0], target())
    for batch, seconds in zip(found.batches, found.seconds, strict=True):
        assert seconds == pytest.approx(LAW.iteration_s(batch.tokens, batch.context, batch.quad))
    assert Batch((2048,) * 8, ((128, 2048),)) in found.batches
    assert found.places[0] == "row 2"


def test_the_same_batch_twice_becomes_its_mean(tmp_path: Path) -> None:
    table = latency_files.own(target())
    again = table.iloc[:2].assign(time_s=table["time_s"].iloc[:2] * 1.5)
    pd.concat([table, again]).to_csv(tmp_path / "own.csv", index=False)
    found = whole(tmp_path / "own.csv", target())
    assert len(found.batches) == len(set(found.batches)) == len(table)
    assert found.seconds[:3] == pytest.approx(table["time_s"][:3] * [1.25, 1.25, 1.0])


def test_synthetic_splitwise_and_sageserve_say_the_same(tmp_path: Path) -> None:
    splitwise, sageserve = (whole(path, target()) for path in write(tmp_path, "splitwise", "sageserve"))
    assert splitwise.batches == sageserve.batches
    assert splitwise.seconds == pytest.approx(sageserve.seconds)
    times = dict(zip(splitwise.batches, splitwise.seconds, strict=True))
    assert times[Batch((), ((1024, 0),))] == pytest.approx(8e-3 + 0.04e-3 * 1024)
    assert times[Batch((512 + 64,) * 16, ())] == pytest.approx(11.6e-3)
    assert all(batch.chunks[0][0] in (128, 512, 1024, 2048) for batch in splitwise.batches if batch.chunks)


def test_what_gpus_exchange_is_added_to_what_measure_times(tmp_path: Path) -> None:
    of = target(tp=2)
    alone, link = write(tmp_path, "own", "collectives", of=of)
    with pytest.raises(InputError, match="`measure` times one GPU alone; no file has what 2 GPUs exchange"):
        read_profile([alone], of)
    found = read_profile([alone, link], of)
    assert isinstance(found, Iterations)
    table = latency_files.own(of)
    sizes = 2 * 4096 * found.batches[0].tokens, 128_256 * found.batches[0].sequences
    exchanged_s = 1e-6 * (65 * (10 + 1e6 * sizes[0] / 2e11) + 10 + 1e6 * sizes[1] / 2e11)
    assert found.seconds[0] == pytest.approx(table["time_s"].iloc[0] + exchanged_s)
    with pytest.raises(InputError, match="files of both kinds"):
        read_profile([*write(tmp_path, "own"), *write(tmp_path, "dense")], target())


def test_blank_lines_marks_and_packed_files_are_read(tmp_path: Path) -> None:
    text = latency_files.own(target()).to_csv(index=False)
    plain = whole(write(tmp_path, "own")[0], target())
    spaced = tmp_path / "spaced.csv"
    spaced.write_text("\ufeff" + text.replace("\n", "\n\n", 5) + "\n\n", encoding="utf-8")
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    for path in (spaced, packed):
        again = whole(path, target())
        assert again.batches == plain.batches
        assert again.seconds.tolist() == plain.seconds.tolist()


# Files that are refused


def changed(column: str, value: Any, row: int = 3) -> Change:
    """The table with another value in a row, counted from 0."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        table = table.astype({column: object})
        table.iloc[row, table.columns.get_loc(column)] = value
        return table

    return change


def times(column: str, factor: float) -> Change:
    return lambda table: table.assign(**{column: table[column] * factor})


def every(column: str, value: Any) -> Change:
    return lambda table: table.assign(**{column: value})


def without(column: str) -> Change:
    return lambda table: table.drop(columns=column)


def refused(path: Path, of: Target | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_profile([path], of or target())
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


TIME_COLUMNS = {
    "vidur_mlp": "time_stats.mlp_up_proj.median",
    "vidur_attention": "time_stats.attn_prefill.median",
    "vidur_all_reduce": "time_stats.all_reduce.median",
    "vidur_cpu_overheads": "schedule_median",
    "aiconfigurator_gemm": "latency",
    "aiconfigurator_context": "latency",
    "aiconfigurator_generation": "latency",
    "dense": "time_us",
    "per_sequence": "time_us",
    "attention": "time_us",
    "collectives": "time_us",
    "own": "time_s",
    "splitwise": "token_time",
    "sageserve": "prompt_time",
}
COUNT_COLUMNS = {
    "vidur_mlp": "num_tokens",
    "vidur_attention": "kv_cache_size",
    "vidur_all_reduce": "size",
    "vidur_cpu_overheads": "batch_size",
    "aiconfigurator_gemm": "m",
    "aiconfigurator_context": "isl",
    "aiconfigurator_generation": "step",
    "dense": "tokens",
    "per_sequence": "sequences",
    "attention": "n_decode",
    "collectives": "bytes",
    "own": "decode_requests",
    "splitwise": "batch_size",
    "sageserve": "tensor_parallel",
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def of_kind(kind: str) -> Target:
    return target(tp=2 if kind in ("vidur_all_reduce", "collectives") else 1)


def spoilt(folder: Path, kind: str, change: Change) -> Path:
    path = folder / f"{kind}.csv"
    change(KINDS[kind](of_kind(kind))).to_csv(path, index=False)
    return path


@every_kind
@pytest.mark.parametrize("value", ["fast", -1.0, float("nan"), float("inf"), ""])
def test_time_that_is_none(kind: str, value: Any, tmp_path: Path) -> None:
    message = refused(spoilt(tmp_path, kind, changed(TIME_COLUMNS[kind], value)), of_kind(kind))
    assert message.startswith(f"row 5, {TIME_COLUMNS[kind]}: expected a time >= 0 in ")


@every_kind
@pytest.mark.parametrize("value", ["many", -1, float("nan"), float("inf"), 1.5])
def test_count_that_is_none(kind: str, value: Any, tmp_path: Path) -> None:
    message = refused(spoilt(tmp_path, kind, changed(COUNT_COLUMNS[kind], value)), of_kind(kind))
    assert message.startswith(f"row 5, {COUNT_COLUMNS[kind]}: expected an integer >= 0, got ")


@every_kind
def test_rows_are_counted_as_an_editor_does(kind: str, tmp_path: Path) -> None:
    path = spoilt(tmp_path, kind, changed(TIME_COLUMNS[kind], "fast"))
    lines = path.read_text().split("\n")
    path.write_text("\n".join([*lines[:2], "", "", *lines[2:]]))
    number = next(n for n, text in enumerate(path.read_text().split("\n"), start=1) if "fast" in text)
    assert number == 7
    assert refused(path, of_kind(kind)).startswith("row 7, ")


@every_kind
@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_units_that_cannot_be_right(kind: str, factor: float, tmp_path: Path) -> None:
    columns = [c for known in FORMATS for c in known.times if c in KINDS[kind](of_kind(kind))]

    def change(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(**{column: table[column] * factor for column in set(columns)})

    if kind in ("splitwise", "sageserve") and factor == 1e-3:
        factor = 1e-4  # in seconds, a table as of Splitwise has times that an instance may well have
    message = refused(spoilt(tmp_path, kind, change), of_kind(kind))
    assert re.search(r": got [\d.e+-]+ ms; at the peak bandwidth and arithmetic of a h100 it takes ", message)
    assert ("expected at least that" in message) == (factor < 1)
    unit = next(known.unit for known in FORMATS if known.columns[-1] in KINDS[kind](of_kind(kind)))
    assert f"are in {unit}" in message or kind not in ("own", "splitwise", "sageserve")


@every_kind
def test_missing_column(kind: str, tmp_path: Path) -> None:
    column = TIME_COLUMNS[kind]
    message = refused(spoilt(tmp_path, kind, without(column)), of_kind(kind))
    assert "expected the columns of a" in message
    assert column in message.split("missing: ")[1].split(", ")


@every_kind
def test_header_only(kind: str, tmp_path: Path) -> None:
    path = spoilt(tmp_path, kind, lambda table: table.iloc[:0])
    assert refused(path, of_kind(kind)) == "row 2: expected rows below the header"


@every_kind
def test_too_few_rows(kind: str, tmp_path: Path) -> None:
    message = refused(spoilt(tmp_path, kind, lambda table: table.iloc[:3]), of_kind(kind))
    assert re.fullmatch(r"expected at least \d+ rows of a .*, got 3", message)


@pytest.mark.parametrize(
    ("kind", "change", "tp", "complaint"),
    [
        ("vidur_mlp", every("n_embd", 8192), 1, "row 2, n_embd: expected 4096 as in llama-3.1-8b, got 8192"),
        ("vidur_mlp", changed("n_head", 64), 1, "row 5, n_head: expected 32 as in llama-3.1-8b, got 64"),
        ("vidur_mlp", every("num_tensor_parallel_workers", 8), 1, "expected rows for tp 1, found 8"),
        ("vidur_attention", every("n_kv_head", 32), 1, "row 2, n_kv_head: expected 8 as in llama-3.1-8b, go"),
        ("vidur_attention", every("is_prefill", False), 1, "is_prefill: expected rows of prefills"),
        ("vidur_attention", every("is_prefill", True), 1, "is_prefill: expected rows of"),
        ("vidur_attention", every("batch_size", 2), 1, "is_prefill: expected rows of prefills of batch_size"),
        ("vidur_attention", changed("is_prefill", "no"), 1, "row 5, is_prefill: expected True or False, got"),
        ("vidur_all_reduce", every("num_workers", 8), 2, "num_workers: expected rows for tp 2, found"),
        ("vidur_all_reduce", every("devices_per_node", 1), 2, "num_workers: expected rows for tp 2, found"),
        ("vidur_cpu_overheads", every("model_name", "phi-2"), 1, "model_name: expected llama-3.1-8b, found"),
        ("vidur_cpu_overheads", every("tensor_parallel_degree", 4), 1, "expected rows for tp 1, found 4"),
        ("aiconfigurator_gemm", every("gemm_dtype", "fp8"), 1, "gemm_dtype: expected rows in bfloat16"),
        ("aiconfigurator_gemm", every("device", "NVIDIA H200"), 1, "device: expected h100, found NVIDIA H20"),
        ("aiconfigurator_gemm", every("n", 4096), 1, "n: expected 6144 or values around it, found 4096"),
        ("aiconfigurator_gemm", every("k", 4096), 1, "k: expected 14336 or values around it, found 4096"),
        ("aiconfigurator_gemm", every("m", 64), 1, "m: expected the same values for the products"),
        ("aiconfigurator_context", every("num_heads", 64), 1, "expected 32 and 8 with head_dim 128 in bfloa"),
        ("aiconfigurator_context", every("head_dim", 64), 1, "with head_dim 128 in bfloat16, found none"),
        ("aiconfigurator_context", every("batch_size", 4), 1, "batch_size: expected rows of single prompts"),
        ("aiconfigurator_context", changed("op_name", "x"), 1, "op_name: expected context_attention or gene"),
        ("aiconfigurator_generation", every("kv_cache_dtype", "fp8"), 1, "in bfloat16, found none"),
        ("aiconfigurator_generation", every("device", "NVIDIA L40S"), 1, "device: expected h100, found NVID"),
        ("dense", lambda t: t[t["layer"] != "act_fn"], 1, "layer: expected .*; act_fn is missing"),
        ("per_sequence", every("layer", "lm_head"), 1, "layer: expected lm_head, sampler; sampler is missin"),
        ("attention", lambda t: t[t["prefill_chunk"] > 0], 1, "expected rows with n_decode > 0 and prefill_"),
        ("attention", lambda t: t[t["n_decode"] > 0], 1, "expected rows with prefill_chunk > 0 and n_decode"),
        ("collectives", every("collective", "broadcast"), 2, "workers: expected rows of all_reduce with 2"),
        ("collectives", every("workers", 4), 2, "workers: expected rows of all_reduce with 2"),
        ("own", every("tp", 2), 1, "expected rows of llama-3.1-8b on h100 with tp 1, found .* 2"),
        ("own", every("gpu", "NVIDIA H200"), 1, "expected rows of llama-3.1-8b on h100 with tp 1, found .*H"),
        ("own", every("model", "qwen3-32b"), 1, "expected rows of llama-3.1-8b .*, found qwen3-32b"),
        ("own", changed("decode_requests", 10**9), 1, "row 5: expected a prefill, or at most 65536 decodes"),
        ("own", changed("decode_context", 0), 1, "row 5: expected a prefill, or at most 65536 decodes with"),
        ("own", changed("decode_requests", 0), 1, "row 5: .*got 0 prefill_tokens, 0 decode_requests"),
        ("own", changed("time_s", 1e-3), 1, r"row 5: got 1 ms; .* takes 4\.\d+ ms, so expected at least tha"),
        ("own", lambda t: pd.concat([t.iloc[:7]] * 5), 1, "expected at least 8 different batches, got 7"),
        ("own", lambda t: t.assign(decode_requests=4, decode_context=range(64, 64 + len(t)), prefill_tokens=0,
                                   time_s=0.01), 1, "expected batches of different numbers of tokens"),
        ("splitwise", changed("batch_size", 10**7), 1, "row 5, batch_size: expected at most 65536"),
        ("splitwise", times("token_time", 7), 1, "e2e_time: expected prompt_time plus token_time"),
        ("splitwise", every("e2e_time", 0), 1, "e2e_time: expected times above 0"),
        ("splitwise", every("hardware", "a100-80gb"), 1, "expected rows of llama-3.1-8b on h100 with tp 1,"),
    ],
)  # fmt: skip
def test_file_that_cannot_be_used(kind: str, change: Change, tp: int, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / f"{kind}.csv"
    change(KINDS[kind](target(tp=tp))).to_csv(path, index=False)
    assert re.search(complaint, refused(path, target(tp=tp)))


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", b"", "expected a CSV file: No columns to parse"),
        ("a.csv", b"\n\n", "expected a CSV file|unknown format|below the header"),
        ("a.csv", b"\x1f\x8b\x08\x00\xff\xfe", "expected a CSV file: .*codec"),
        ("a.csv", b"\xff\xfe\x00\x00", "expected a CSV file: .*codec"),
        ("a.csv", b"a,b\n1,2\n", "unknown format; expected one of Vidur mlp, .*SageServe table"),
        (
            "a.csv",
            b"layer,tokens,time_us\nqkv_proj,1,2,3\n",
            "row 2: expected as many fields as the header has",
        ),
        ("a.csv", b"layer,tokens,time_us\nqkv_proj,1,2\nqkv_proj,1,2,3\n", "expected a CSV file: .*line 3"),
        ("a.csv.gz", b"layer,tokens,time_us\n", "expected a CSV file packed with gzip: Not a gzipped"),
        ("a.csv.gz", b"", "expected a CSV file packed with gzip"),
        (
            "a.csv.gz",
            gzip.compress(b"layer,tokens,time_us\n" * 99, mtime=0)[:-20],
            "expected a CSV file packed with gzip",
        ),
        (
            "a.csv.gz",
            gzip.compress(b"x" * 99, mtime=0)[:12] + b"\xff" * 30,
            "expected a CSV file packed with gzip",
        ),
    ],
)
def test_file_that_is_no_table(name: str, content: bytes, complaint: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert re.search(complaint, refused(tmp_path / name))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.csv") == "no such file"
    assert "Is a directory" in refused(tmp_path)


def test_no_file() -> None:
    with pytest.raises(InputError, match="expected at least one file"):
        read_profile([], target())


def test_file_given_twice(tmp_path: Path) -> None:
    for kind in ("own", "dense"):
        (path,) = write(tmp_path, kind)
        with pytest.raises(InputError, match=f"{kind}.csv: expected each file once"):
            read_profile([path, tmp_path / "x" / ".." / path.name], target())


def test_part_given_twice(tmp_path: Path) -> None:
    for kind, part in (("dense", "layers"), ("attention", "decode attention"), ("per_sequence", "head")):
        (path,) = write(tmp_path, kind)
        again = path.rename(tmp_path / "again.csv")
        write(tmp_path, kind)
        with pytest.raises(InputError, match=rf"again.csv: a file before it has the same part \({part}\)"):
            read_profile([path, again], target())


def test_files_of_two_kinds(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="parts of iterations or whole iterations, got files of both"):
        read_profile(write(tmp_path, "own", "dense"), target())
    with pytest.raises(InputError, match="files of `measure` or tables of whole instances, got both"):
        read_profile(write(tmp_path, "own", "splitwise"), target())


@pytest.mark.parametrize(
    ("kinds", "tp", "missing"),
    [
        (("attention",), 1, ["linear layers", "output head"]),
        (("dense", "per_sequence"), 1, ["decode attention", "prefill attention"]),
        (("vidur_mlp", "vidur_attention"), 1, ["output head"]),
        (("vidur_all_reduce",), 2, ["linear layers", "output head", "decode attention", "prefill attention"]),
        (LLMSERVINGSIM, 2, ["what 2 GPUs exchange"]),
    ],
)
def test_parts_that_no_file_has(kinds: tuple[str, ...], tp: int, missing: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_profile(write(tmp_path, *kinds, of=target(tp=tp)), target(tp=tp))
    message = str(caught.value)
    assert message.startswith("profile: no file has ")
    every_part = ["linear layers", "output head", "decode attention", "prefill attention", "GPUs exchange"]
    named = [part for part in every_part if part in message]
    assert len(named) == len(missing)
    assert all(part in message for part in missing)


def test_a_card_cannot_be_faster_than_its_memory(tmp_path: Path) -> None:
    # A profile of an H100 taken for one of an RTX 4090, and the other way round for a slow card.
    paths = write(tmp_path, *LLMSERVINGSIM)
    with pytest.raises(InputError, match=r"dense.csv: the linear layers for one token: .*of a rtx-4090"):
        read_profile(paths, target(gpu="rtx-4090"))
