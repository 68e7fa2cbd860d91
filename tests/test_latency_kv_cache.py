"""KV pools: as real servers logged them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from preserve_gym.errors import InputError
from preserve_gym.latency.cold_start import cold_start_s
from preserve_gym.latency.gpus import find_gpu
from preserve_gym.latency.kv_cache import OTHER_BYTES, num_gpu_blocks, working_bytes
from preserve_gym.latency.models import find_model
from preserve_gym.latency.presets import find_preset
from tests.real_vllm import real_run


def blocks(
    model: str, gpu: str, tp: int = 1, *, share: float = 0.9, budget: int = 2048, seqs: int = 256
) -> int:
    return num_gpu_blocks(
        find_model(model),
        find_gpu(gpu),
        tp,
        gpu_memory_utilization=share,
        max_num_batched_tokens=budget,
        max_num_seqs=seqs,
    )


def test_pool_of_the_rtx_4090_is_that_of_the_real_run(data_dir: Path) -> None:
    meta = json.loads((real_run(data_dir, "rtx4090_llama-3.1-8b") / "meta.json").read_text())
    logged = meta["kv_cache"]["num_gpu_blocks"]
    assert logged == 2588
    assert blocks("llama-3.1-8b", "rtx-4090") == logged
    assert find_preset("llama-3.1-8b", "rtx-4090").instance["num_gpu_blocks"] == logged
    assert find_gpu("rtx-4090").memory_bytes == meta["hardware"]["device_total_memory_bytes"]


@pytest.mark.parametrize(("model", "tp", "logged"), [("llama-3.1-8b", 1, 35_913), ("qwen3-32b", 2, 28_884)])
def test_pools_that_vllm_0_28_logged_at_0_92_of_an_rtx_pro_6000(model: str, tp: int, logged: int) -> None:
    assert blocks(model, "rtx-pro-6000", tp, share=0.92, seqs=128) == pytest.approx(logged, rel=0.02)


def test_pool_by_hand() -> None:
    # Llama-2-7B on an A100: activations of 2,048 tokens against logits of 256 sequences.
    activations = 2 * 2048 * (3 * 11008 + 4 * 4096)
    assert working_bytes(find_model("llama-2-7b"), 1, 2048, 256) == OTHER_BYTES + activations
    left = 0.9 * int(79.15 * 2**30) - 2 * 6_738_415_616 - OTHER_BYTES - activations
    assert blocks("llama-2-7b", "a100") == int(left / (16 * 524_288))


def test_logits_count_where_they_are_more() -> None:
    shape = find_model("llama-3.1-8b")
    assert working_bytes(shape, 1, 16, 1024) == OTHER_BYTES + 10 * 128_256 * 1024


def test_more_memory_holds_more_and_more_gpus_hold_less_each_of_the_weights() -> None:
    assert blocks("llama-3.1-8b", "a100", share=0.8) < blocks("llama-3.1-8b", "a100", share=0.9)
    assert blocks("llama-3.1-8b", "a100", 2) > 2 * blocks("llama-3.1-8b", "a100", 1)


def test_model_that_does_not_fit() -> None:
    with pytest.raises(InputError, match=r"llama-3.1-70b on 1 x h100: 0.9 of 85.0 GB leaves no KV cache"):
        blocks("llama-3.1-70b", "h100")
    with pytest.raises(InputError, match="leaves no KV cache"):
        blocks("llama-3.1-8b", "h100", share=0.01)


def test_cold_start_grows_with_the_weights_of_a_gpu() -> None:
    assert cold_start_s(find_model("llama-2-7b"), 1) == 45  # as measured on an A100
    assert cold_start_s(find_model("llama-3.1-70b"), 4) == round(
        20 + 0.56 * 80 + 2 * 70_553_706_496 / 4 / 1.8e9
    )
