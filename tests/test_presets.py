"""Presets: sane without data, and reproduced from the measured profiles with it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from preserve_gym.config import ClusterConfig, InstanceConfig
from preserve_gym.errors import InputError
from preserve_gym.latency.law import LatencyLaw
from preserve_gym.latency.presets import PRESETS, Preset, find, preset
from tests import fit_presets

each_preset = pytest.mark.parametrize("known", PRESETS, ids=lambda p: p.name)


@each_preset
def test_law_is_positive_and_grows_with_every_kind_of_work(known: Preset) -> None:
    law = known.instance["latency"]
    assert min(law.base_s, law.per_token_s, law.per_context_token_s, law.per_quad_s) > 0
    light = law.iteration_s(1, 100, 0)
    assert 0.005 < light < 0.05  # one decode takes 5 to 50 ms with these models and cards
    assert light < law.iteration_s(2, 100, 0) < law.iteration_s(2, 200, 0) < law.iteration_s(2, 200, 1e6)


@each_preset
def test_instance_is_built_from_the_preset(known: Preset) -> None:
    instance = InstanceConfig.from_preset(known.model, gpu=known.gpu, tp=known.tp)
    assert instance.latency == known.instance["latency"]
    assert instance.name == known.name
    assert instance.gpus == known.tp
    assert instance.kv_tokens >= instance.max_model_len  # vLLM refuses to start otherwise


def test_overrides_replace_fields_of_the_preset_only() -> None:
    law = LatencyLaw(0.01, 1e-5, 1e-8, 1e-9)
    plain = InstanceConfig.from_preset("llama-2-7b", gpu="a100-80gb")
    changed = InstanceConfig.from_preset("llama-2-7b", gpu="a100-80gb", latency=law, num_gpu_blocks=5000)
    assert changed == dataclasses.replace(plain, latency=law, num_gpu_blocks=5000)


def test_preset_returns_a_fresh_dict() -> None:
    preset("llama-2-7b", "a100-80gb").clear()
    assert preset("llama-2-7b", "a100-80gb")["num_gpu_blocks"] == 2307


def test_figures_taken_from_the_sources() -> None:
    assert ClusterConfig().instance == InstanceConfig.from_preset("llama-3.1-8b", gpu="rtx-4090")
    assert InstanceConfig.from_preset("llama-2-7b", gpu="a100-80gb").kv_tokens == 36_896  # PreServe's pool


@each_preset
def test_every_preset_says_where_it_comes_from_and_how_good_it_is(known: Preset) -> None:
    assert len(known.provenance) > 100
    error = known.fit_error
    assert 0 < error.decode_only < error.overall < min(error.mixed, error.prefill_only)
    assert error.overall < 6
    assert max(dataclasses.astuple(error)) < 13


@pytest.mark.parametrize(
    ("model", "gpu", "name"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "NVIDIA GeForce RTX 4090", "llama-3.1-8b_rtx-4090_tp1"),
        ("Llama-3.1-8B", "rtx4090", "llama-3.1-8b_rtx-4090_tp1"),
        ("meta-llama/Meta-Llama-3.1-8B", "A100", "llama-3.1-8b_a100-80gb_tp1"),
        ("meta-llama/Llama-2-7b-chat-hf", "NVIDIA A100-SXM4-80GB", "llama-2-7b_a100-80gb_tp1"),
        ("meta-llama/Llama-3.1-8B", "RTXPRO6000", "llama-3.1-8b_rtx-pro-6000_tp1"),
        ("Qwen/Qwen3-32B", "NVIDIA RTX PRO 6000 Blackwell Server Edition", "qwen3-32b_rtx-pro-6000_tp2"),
    ],
)
def test_common_spellings(model: str, gpu: str, name: str) -> None:
    assert find(model, gpu, tp=int(name[-1])).name == name


@pytest.mark.parametrize(
    ("model", "gpu", "tp", "nearest"),
    [
        ("llama-3.1-8b", "h100", 1, "llama-3.1-8b on a100-80gb with tp 1"),
        ("llama-3.1-8b", "rtx-4090", 2, "llama-3.1-8b on rtx-4090 with tp 1"),
        ("llama-2-13b", "a100", 1, "llama-2-7b on a100-80gb with tp 1"),
        ("qwen3-32b", "rtx-pro-6000", 1, "qwen3-32b on rtx-pro-6000 with tp 2"),
        ("", "", 0, "llama-"),
    ],
)
def test_unknown_preset_lists_those_there_are(model: str, gpu: str, tp: int, nearest: str) -> None:
    with pytest.raises(InputError) as caught:
        InstanceConfig.from_preset(model, gpu=gpu, tp=tp)
    message = str(caught.value)
    assert "\n" not in message
    assert f"nearest: {nearest}" in message
    for known in PRESETS:
        assert f"{known.model} on {known.gpu} with tp {known.tp}" in message


@each_preset
def test_fitted_batches_are_ones_the_instance_can_hold(known: Preset) -> None:
    instance = InstanceConfig.from_preset(known.model, gpu=known.gpu, tp=known.tp)
    batches = fit_presets.visited(known, seed=3)
    assert {batch.region for batch in batches} == set(fit_presets.REGIONS)
    for batch in batches:
        assert len(batch.contexts) + len(batch.chunks) >= 1
        assert batch.tokens <= instance.max_num_batched_tokens
        assert sum(batch.contexts) + sum(n + c for n, c in batch.chunks) <= instance.kv_tokens
        assert all(n >= 1 and n + c <= instance.max_model_len for n, c in batch.chunks)


def test_fit_recovers_a_law_exactly() -> None:
    law = LatencyLaw(0.0065, 4e-5, 1.5e-8, 2.5e-9)
    batches = fit_presets.visited(PRESETS[0], seed=0)
    seconds = np.array([law.iteration_s(*batch.features[1:]) for batch in batches])
    profile = fit_presets.Profile(lambda batch: 0.0, lambda n, c: law.per_quad_s * n * (n / 2 + c))
    assert dataclasses.astuple(fit_presets.fit(profile, batches, seconds)) == pytest.approx(
        dataclasses.astuple(law), rel=1e-3
    )


@each_preset
def test_refit_reproduces_the_preset(known: Preset, data_dir: Path) -> None:
    law, error = fit_presets.refit(known, data_dir)
    committed = known.instance["latency"]
    assert dataclasses.astuple(law) == pytest.approx(dataclasses.astuple(committed), rel=0.01)
    assert dataclasses.astuple(error) == pytest.approx(dataclasses.astuple(known.fit_error), abs=0.11)


def test_kv_blocks_follow_from_the_memory(data_dir: Path) -> None:
    cache = json.loads((fit_presets.real_run(data_dir) / "meta.json").read_text())["kv_cache"]
    assert preset("llama-3.1-8b", "rtx-4090")["num_gpu_blocks"] == cache["num_gpu_blocks"]
    llama = fit_presets.LLAMA_31_8B_WEIGHT_BYTES, fit_presets.LLAMA_31_8B_BLOCK_BYTES
    qwen = fit_presets.QWEN3_32B_TP2_WEIGHT_BYTES, fit_presets.QWEN3_32B_TP2_BLOCK_BYTES
    a100, pro_6000 = fit_presets.A100_80GB_MEMORY_BYTES, fit_presets.RTX_PRO_6000_MEMORY_BYTES
    for known, memory_bytes, model in (
        (find("llama-3.1-8b", "a100-80gb"), a100, llama),
        (find("llama-3.1-8b", "rtx-pro-6000"), pro_6000, llama),
        (find("qwen3-32b", "rtx-pro-6000", tp=2), pro_6000, qwen),
    ):
        assert known.instance["num_gpu_blocks"] == fit_presets.kv_blocks(data_dir, memory_bytes, *model)
    # What vLLM 0.28 logged at 0.92 of the memory, in later runs of LLMServingSim (meta.json).
    for logged, model in ((35_913, llama), (28_884, qwen)):
        computed = fit_presets.kv_blocks(data_dir, pro_6000, *model, utilization=0.92)
        assert computed == pytest.approx(logged, rel=0.02)


def test_exchange_between_gpus_is_small_for_one_decode_and_half_of_a_full_prefill(data_dir: Path) -> None:
    profile = fit_presets.PROFILES["qwen3-32b_rtx-pro-6000_tp2"](data_dir)
    exchange_us = fit_presets.qwen3_32b_collectives()
    for batch, share in (
        (fit_presets.Batch((1300,), ()), 0.08),
        (fit_presets.Batch((), ((2048, 0),)), 0.48),
    ):
        assert 1e-6 * exchange_us(batch) / profile.iteration_s(batch) == pytest.approx(share, abs=0.01)


def test_sequences_stand_in_for_kv_heads(data_dir: Path) -> None:
    gap = fit_presets.mha_equivalence_error(data_dir)
    assert np.median(gap) < 0.02
    assert np.quantile(gap, 0.95) < 0.10


def test_default_law_matches_the_decode_throughput_of_real_vllm(data_dir: Path) -> None:
    default = InstanceConfig.from_preset("llama-3.1-8b", gpu="rtx-4090")
    check = fit_presets.decode_throughput_check(default.latency, default.kv_tokens, data_dir)
    clean = check[check.waiting == 0]
    assert len(clean) >= 10
    assert abs(clean.error.mean()) < 0.10
