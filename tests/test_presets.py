"""Presets: sane without data, and reproduced from the measured profiles with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from preserve_gym.config import ClusterConfig, InstanceConfig
from preserve_gym.errors import InputError
from preserve_gym.latency.instance import as_yaml, find_profile, profile_of, profile_paths, refit, target_of
from preserve_gym.latency.law import LatencyLaw
from preserve_gym.latency.presets import (
    DEFAULT,
    FOLDER,
    find_preset,
    load_preset,
    preset_names,
    read_preset,
)
from tests.real_vllm import RUNS, decode_throughput

REQUIRED = {
    "qwen3-8b_h100_tp1",
    "llama-2-7b_a100-80gb_tp1",
    "llama-2-7b_h100_tp1",
    "llama-3.1-8b_a100-80gb_tp1",
    "llama-3.1-8b_h100_tp1",
    "llama-3.1-8b_h200_tp1",
    "llama-3.1-8b_l40s_tp1",
    "llama-3.1-8b_rtx-4090_tp1",
    "llama-3.1-8b_rtx-pro-6000_tp1",
    "llama-2-70b_a100-80gb_tp4",
    "llama-2-70b_h100_tp4",
    "llama-3.1-70b_a100-80gb_tp4",
    "llama-3.1-70b_h100_tp4",
    "qwen3-32b_rtx-pro-6000_tp2",
}
QUICK = (DEFAULT, "llama-2-70b_a100-80gb_tp4")

each_preset = pytest.mark.parametrize("name", preset_names())


def instance_of(name: str) -> InstanceConfig:
    preset = load_preset(name)
    return InstanceConfig.from_preset(preset.model, gpu=preset.gpu, tp=preset.tp)


def test_these_presets_there_are() -> None:
    assert set(preset_names()) == REQUIRED
    assert preset_names()[0] == DEFAULT
    assert [name for name in preset_names() if load_preset(name).extrapolated] == ["llama-3.1-8b_l40s_tp1"]


@each_preset
def test_instance_is_built_from_the_preset(name: str) -> None:
    preset, instance = load_preset(name), instance_of(name)
    assert preset.name == instance.name == name
    assert instance.latency == LatencyLaw(**preset.instance["latency"])
    assert instance.num_gpu_blocks == preset.instance["num_gpu_blocks"]
    assert instance.gpus == preset.tp
    assert instance.kv_tokens >= instance.max_model_len  # vLLM refuses to start otherwise
    assert instance.max_model_len <= target_of(preset).model.max_model_len
    assert instance.power is not None
    assert instance.power.idle_w < instance.power.decode_w < instance.power.prefill_w
    assert instance.usd_per_gpu_hour == target_of(preset).gpu.usd_per_hour
    assert isinstance(instance.cold_start_s, float)
    assert 40 < instance.cold_start_s < 120


@each_preset
def test_law_grows_with_every_kind_of_work(name: str) -> None:
    law = instance_of(name).latency
    light = law.iteration_s(1, 100, 0)
    assert 0.004 < light < 0.05  # one decode takes 4 to 50 ms with these models and cards
    assert light <= law.iteration_s(2, 100, 0) < law.iteration_s(2, 200, 0)
    assert law.iteration_s(100, 0, 0) < law.iteration_s(2000, 0, 0)
    assert law.iteration_s(2000, 0, 0) <= law.iteration_s(2000, 0, 2e6) <= law.iteration_s(2000, 9, 2e6)


@each_preset
def test_law_is_no_faster_than_the_card(name: str) -> None:
    preset = load_preset(name)
    law, target = instance_of(name).latency, target_of(preset)
    assert law.iteration_s(1, 1, 0) > 0.85 * target.model.weight_bytes(preset.tp) / target.gpu.bandwidth
    prompt = 2 * target.model.parameters / preset.tp * 2048 / target.gpu.flops
    assert law.iteration_s(2048, 0, 2048**2 / 2) > 0.85 * prompt
    cache = target.model.kv_bytes_per_token(preset.tp) / target.gpu.bandwidth
    assert 0.5 * cache < law.per_context_token_s < 4 * cache


def test_faster_cards_have_faster_laws() -> None:
    light = {gpu: instance_of(f"llama-3.1-8b_{gpu}_tp1").latency.iteration_s(16, 16_000, 0)
             for gpu in ("h200", "h100", "a100-80gb", "rtx-4090", "l40s")}  # fmt: skip
    assert list(light.values()) == sorted(light.values())


@each_preset
def test_every_preset_says_where_it_comes_from_and_how_good_it_is(name: str) -> None:
    preset = load_preset(name)
    assert all(len(checksum) == 64 for checksum in preset.recipe.profiles.values())
    projects = {name.split("_")[0] for name in preset.recipe.profiles if not name.startswith("rtx")}
    assert projects
    assert all(project in preset.provenance.lower() for project in projects)
    assert len(preset.provenance) > 200
    assert "power" in preset.gpu_provenance
    assert "price" in preset.gpu_provenance
    error = preset.fit_error
    assert 0 < error.overall < 6
    assert max(error.decode_only, error.prefill_only, error.mixed) < 12
    assert error.overall < error.p95 < 13


@each_preset
def test_files_hold_what_they_say(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert as_yaml(load_preset(name)) == text
    assert InstanceConfig.from_file(FOLDER / f"{name}.yaml") == instance_of(name)


def test_overrides_replace_fields_of_the_preset_only() -> None:
    law = LatencyLaw(0.01, 1e-5, 1e-8, 1e-9)
    plain = InstanceConfig.from_preset("llama-2-7b", gpu="a100-80gb")
    changed = InstanceConfig.from_preset("llama-2-7b", gpu="a100-80gb", latency=law, num_gpu_blocks=5000)
    assert changed == dataclasses.replace(plain, latency=law, num_gpu_blocks=5000)
    from_file = InstanceConfig.from_file(FOLDER / "llama-2-7b_a100-80gb_tp1.yaml", max_num_seqs=7)
    assert from_file == dataclasses.replace(plain, max_num_seqs=7)


def test_a_caller_cannot_spoil_a_preset() -> None:
    preset: Any = find_preset("llama-2-7b", "a100-80gb")
    blocks = preset.instance["num_gpu_blocks"]
    preset.instance["latency"].clear()
    preset.instance["num_gpu_blocks"] = 3
    again = find_preset("llama-2-7b", "a100-80gb")
    assert again.instance["num_gpu_blocks"] == blocks
    assert again.instance["latency"]


def test_default_cluster_is_of_rtx_4090() -> None:
    assert ClusterConfig().instance == InstanceConfig.from_preset("llama-3.1-8b", gpu="rtx-4090")
    assert ClusterConfig().instance.name == DEFAULT


@pytest.mark.parametrize(
    ("model", "gpu", "name"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "NVIDIA GeForce RTX 4090", "llama-3.1-8b_rtx-4090_tp1"),
        ("Llama-3.1-8B", "rtx4090", "llama-3.1-8b_rtx-4090_tp1"),
        ("meta-llama/Meta-Llama-3.1-8B", "A100", "llama-3.1-8b_a100-80gb_tp1"),
        ("meta-llama/Llama-2-7b-chat-hf", "NVIDIA A100-SXM4-80GB", "llama-2-7b_a100-80gb_tp1"),
        ("meta-llama/Llama-3.1-8B", "RTXPRO6000", "llama-3.1-8b_rtx-pro-6000_tp1"),
        ("Qwen/Qwen3-32B", "NVIDIA RTX PRO 6000 Blackwell Server Edition", "qwen3-32b_rtx-pro-6000_tp2"),
        ("llama2-70b", "NVIDIA H100 80GB HBM3", "llama-2-70b_h100_tp4"),
    ],
)
def test_common_spellings(model: str, gpu: str, name: str) -> None:
    assert find_preset(model, gpu, tp=int(name[-1])).name == name


@pytest.mark.parametrize(
    ("model", "gpu", "tp", "nearest"),
    [
        ("llama-3.1-8b", "h20", 1, "llama-3.1-8b on h200 with tp 1"),
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
    assert "python -m preserve_gym.latency fit" in message
    for known in map(load_preset, preset_names()):
        assert f"{known.model} on {known.gpu} with tp {known.tp}" in message


@pytest.mark.parametrize(
    "spoil",
    [
        {"fit_error": None},
        {"recipe": {"profiles": {}}},
        {"instance": None},
        {"instance": "abc"},
        {"extra": 1},
        {"fit_error": {"overall": 1.0}},
    ],
)
def test_file_that_fit_did_not_write(spoil: dict[str, Any], tmp_path: Path) -> None:
    values = yaml.safe_load((FOLDER / f"{DEFAULT}.yaml").read_text(encoding="utf-8"))
    path = tmp_path / "instance.yaml"
    path.write_text(yaml.safe_dump({**values, **spoil}))
    with pytest.raises(InputError, match=r"instance\.yaml: expected a file that `fit` wrote: ") as caught:
        InstanceConfig.from_file(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"- 1", b"a: [", b"text", b"\xff\xfe\x00", b"max_num_seqs: 3"])
def test_file_of_something_else(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "instance.yaml").write_bytes(content)
    with pytest.raises(InputError, match=r"instance\.yaml: expected a file that `fit` wrote: "):
        read_preset(tmp_path / "instance.yaml")
    with pytest.raises(InputError, match=r"none\.yaml: no such file"):
        read_preset(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="expected a file that `fit` wrote"):
        read_preset(tmp_path)


def reproduced(name: str) -> None:
    committed = load_preset(name)
    again, fitted, _ = refit(committed)
    law, committed_law = (LatencyLaw(**preset.instance["latency"]) for preset in (again, committed))
    assert dataclasses.astuple(law) == pytest.approx(dataclasses.astuple(committed_law), rel=0.01)
    errors = dataclasses.astuple(again.fit_error)
    assert errors == pytest.approx(dataclasses.astuple(committed.fit_error), abs=0.15)
    rest = {"latency": None}
    assert {**again.instance, **rest} == {**committed.instance, **rest}
    assert dataclasses.asdict(again.recipe) == dataclasses.asdict(committed.recipe)
    assert fitted.law == law
    assert fitted.error == again.fit_error


@pytest.mark.parametrize("name", QUICK)
def test_refit_reproduces_a_preset(name: str, data_dir: Path) -> None:
    reproduced(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in preset_names() if name not in QUICK])
def test_refit_reproduces_every_preset(name: str, data_dir: Path) -> None:
    reproduced(name)


def test_profile_of_a_preset_must_be_the_one_it_was_fitted_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESERVE_GYM_DATA", str(tmp_path))
    preset = load_preset(DEFAULT)
    with pytest.raises(InputError, match=r"no such file; set PRESERVE_GYM_DATA to the data folder"):
        profile_of(preset)
    (tmp_path / "profiles").mkdir()
    for name in preset.recipe.profiles:
        (tmp_path / "profiles" / name).write_bytes(b"something else")
    with pytest.raises(InputError, match=r"dense.csv.gz: expected the SHA-256 18ad12ccd21c784e\.\.\., got "):
        profile_paths(preset)
    assert find_profile("rtx-pro-6000_pcie.csv").is_file()  # in the package


def test_default_law_matches_the_decode_throughput_of_real_vllm(data_dir: Path) -> None:
    check = decode_throughput(RUNS[0], data_dir)
    clean = check[check["waiting"] == 0]
    assert len(clean) >= 10
    assert abs(clean["error"].mean()) < 0.10
    assert np.abs(clean["error"]).max() < 0.25
