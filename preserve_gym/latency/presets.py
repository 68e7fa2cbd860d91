"""Instances of measured models on measured GPUs.

Each preset holds the fields of an ``InstanceConfig``, where its figures come from, and how far its law
lies from the measurements. The laws are the output of ``tests/fit_presets.py``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from preserve_gym.errors import InputError
from preserve_gym.latency.law import LatencyLaw


@dataclass(frozen=True)
class FitError:
    """How far a law lies from the measured iteration times, in percent.

    Mean absolute relative error over batches that a chat service visits and that the fit has not
    seen: all of them, those of one kind, and the 95th percentile over all.
    """

    overall: float
    decode_only: float
    prefill_only: float
    mixed: float
    p95: float


@dataclass(frozen=True)
class Preset:
    """An instance known by the names of its model and GPU.

    Attributes:
        model, gpu: names, lower case.
        tp: tensor-parallel degree, hence GPUs.
        instance: fields of ``InstanceConfig`` other than ``name`` and ``gpus``.
        provenance: public source of each figure, and the method.
        fit_error: error of the law against the profile it was fitted to.
    """

    model: str
    gpu: str
    tp: int
    instance: Mapping[str, Any]
    provenance: str
    fit_error: FitError

    @property
    def name(self) -> str:
        """Model, GPU and tensor-parallel degree in one word."""
        return f"{self.model}_{self.gpu}_tp{self.tp}"


# The first is the project's default.
PRESETS: tuple[Preset, ...] = (
    Preset(
        model="llama-3.1-8b",
        gpu="rtx-4090",
        tp=1,
        instance={
            "latency": LatencyLaw(
                base_s=0.01644, per_token_s=7.717e-05, per_context_token_s=1.474e-07, per_quad_s=4.569e-09
            ),
            "num_gpu_blocks": 2588,
            "max_num_seqs": 256,
            "max_num_batched_tokens": 2048,
            "max_model_len": 32768,
        },
        provenance=(
            "Timings: every layer of one iteration, measured inside vLLM 0.19.0 by LLMServingSim "
            "(casys-kaist/LLMServingSim, profiler/perf, bf16, CUDA 12.8). No CPU time is added: vLLM's "
            "asynchronous scheduling hides it. "
            "KV blocks and limits: as that project's run of real vLLM resolved them (0.9 of 25.25 GB). "
            "Not used in the fit: in the 15 s of that run that only decode with an empty queue, the law "
            "gives the measured tokens/s within 1 % in the mean and 9 % in every second."
        ),
        fit_error=FitError(overall=3.3, decode_only=1.8, prefill_only=9.6, mixed=6.9, p95=10.3),
    ),
    Preset(
        model="llama-3.1-8b",
        gpu="rtx-pro-6000",
        tp=1,
        instance={
            "latency": LatencyLaw(
                base_s=0.01087, per_token_s=3.177e-05, per_context_token_s=9.023e-08, per_quad_s=2.317e-09
            ),
            "num_gpu_blocks": 35515,
            "max_num_seqs": 128,
            "max_num_batched_tokens": 2048,
            "max_model_len": 131072,
        },
        provenance=(
            "Timings: every layer of one iteration on an RTX PRO 6000 Blackwell (96 GB), measured inside "
            "vLLM 0.19.0 by LLMServingSim (casys-kaist/LLMServingSim, profiler/perf, bf16, CUDA 13.0). No "
            "CPU time is added: vLLM's asynchronous scheduling hides it. Decodes are timed at their mean "
            "context; that one long context slows the whole kernel on this GPU is left out. "
            "KV blocks, computed as vLLM does, not read from a run: (0.9 * 101.98 GB as CUDA reports it - "
            "16.06 GB of weights - 1.24 GB) / 2 MiB; the 1.24 GB for activations and CUDA is what the RTX "
            "4090 run with the same model left out of its pool. Limits: those of LLMServingSim's run of "
            "real vLLM; max_model_len is the model's own, the attention profile ends at 16,384 tokens and "
            "is extrapolated. Against that run, to which nothing is fitted, mean TTFT is 14 % low, TPOT "
            "5 %: iterations that mix a prefill with many decodes take 15 % longer than the law says."
        ),
        fit_error=FitError(overall=3.3, decode_only=1.7, prefill_only=7.0, mixed=7.2, p95=12.8),
    ),
    Preset(
        model="qwen3-32b",
        gpu="rtx-pro-6000",
        tp=2,
        instance={
            "latency": LatencyLaw(
                base_s=0.02597, per_token_s=0.0001524, per_context_token_s=8.72e-08, per_quad_s=4.665e-09
            ),
            "num_gpu_blocks": 27551,
            "max_num_seqs": 128,
            "max_num_batched_tokens": 2048,
            "max_model_len": 40960,
        },
        provenance=(
            "Timings: one GPU's share of every layer on an RTX PRO 6000 Blackwell (96 GB), measured inside "
            "vLLM 0.19.0 by LLMServingSim (casys-kaist/LLMServingSim, profiler/perf, bf16, TP 2, CUDA "
            "13.0). What the GPUs exchange is not in that profile; added are 129 all-reduces and an "
            "all-gather of the logits, with the times of NCCL over PCIe that the same project measured on "
            "its host (hardware.yaml of 2026-09-08): 8 % of an iteration that decodes one request, half of a "
            "full prefill. They depend on the host, and were half as long after it was set up anew. "
            "Decodes are timed at their mean context. "
            "KV blocks, computed as vLLM does, not read from a run: (0.9 * 101.98 GB as CUDA reports it - "
            "32.76 GB of weights - 1.24 GB) / 2 MiB for each GPU; the 1.24 GB for activations and CUDA is "
            "what an RTX 4090 run with Llama-3.1-8B left out of its pool. Limits: those of LLMServingSim's "
            "run of real vLLM; max_model_len is the model's own, the attention profile ends at 16,384 "
            "tokens and is extrapolated. Against that run, to which nothing is fitted, mean TTFT, TPOT and "
            "end-to-end latency are 6 to 7 % low."
        ),
        fit_error=FitError(overall=2.4, decode_only=1.2, prefill_only=4.8, mixed=5.5, p95=10.1),
    ),
    Preset(
        model="llama-3.1-8b",
        gpu="a100-80gb",
        tp=1,
        instance={
            "latency": LatencyLaw(
                base_s=0.01081, per_token_s=6.251e-05, per_context_token_s=6.887e-08, per_quad_s=3.596e-09
            ),
            "num_gpu_blocks": 28223,
            "max_num_seqs": 256,
            "max_num_batched_tokens": 2048,
            "max_model_len": 32768,
        },
        provenance=(
            "Timings: linear layers from Vidur (microsoft/vidur, mlp profile of Llama-3-8B, which has the "
            "same shape, A100, TP 1); attention (32 query heads, 8 KV heads) and output head from "
            "aiconfigurator (ai-dynamo/aiconfigurator, vLLM 0.14.0, A100-SXM4-80GB), the head scaled from "
            "65,536 to 128,256 columns; sampler, about 1 % of an iteration, from LLMServingSim's RTX 4090. "
            "No CPU time is added: Vidur's cpu_overheads are well below the GPU's time, and vLLM V1's "
            "asynchronous scheduling hides them. "
            "KV blocks, computed as vLLM does: (0.9 * 79.15 GiB - 16.06 GB of weights - 1.24 GB) / 2 MiB; "
            "the 1.24 GB for activations and CUDA is what the RTX 4090 run with the same model and limits "
            "left out of its pool. Limits: vLLM's defaults for an A100; max_model_len is what the attention "
            "profile covers. Not checked against a whole instance."
        ),
        fit_error=FitError(overall=3.8, decode_only=2.8, prefill_only=7.2, mixed=5.9, p95=10.2),
    ),
    Preset(
        model="llama-2-7b",
        gpu="a100-80gb",
        tp=1,
        instance={
            "latency": LatencyLaw(
                base_s=0.01036, per_token_s=5.661e-05, per_context_token_s=3.027e-07, per_quad_s=3.707e-09
            ),
            "num_gpu_blocks": 2307,
            "max_num_seqs": 128,
            "max_num_batched_tokens": 2048,
            "max_model_len": 4096,
            "async_scheduling": False,
        },
        provenance=(
            "Timings: linear layers from Vidur (microsoft/vidur, mlp profile of Llama-2-7B, A100, TP 1); "
            "prefill attention (32 heads) from aiconfigurator (ai-dynamo/aiconfigurator, vLLM 0.14.0, "
            "A100-SXM4-80GB). Decode attention with 32 KV heads is in no profile: n sequences are given the "
            "time that aiconfigurator measured for 4n sequences of 8 KV heads, the same KV bytes in as many "
            "(sequence, head) pairs; where 8, 4 and 2 heads can be compared so, they differ by 1 % in the "
            "median, 9 % at P95. CPU time that vLLM 0.6 does not overlap (scheduling, input preparation, "
            "sampler with output head): Vidur's cpu_overheads for this model. "
            "Pool and limits of PreServe's experiments (vLLM 0.6.6, 2,306 usable blocks); the token budget "
            "of 2,048 is ours. At their gpu_memory_utilization of 0.7 that pool is one of a card with about "
            "44 GiB (an A100-80GB would have some 5,400 blocks), so their GPU is likely another and slower "
            "one: the preset has their memory and an A100's speed. Not checked against a whole instance."
        ),
        fit_error=FitError(overall=3.6, decode_only=2.4, prefill_only=8.8, mixed=6.6, p95=10.8),
    ),
)

_MODEL_ALIASES = {
    "llama3.1-8b": "llama-3.1-8b",
    "llama-31-8b": "llama-3.1-8b",
    "llama2-7b": "llama-2-7b",
    "qwen-3-32b": "qwen3-32b",
}
_GPU_ALIASES = {
    "rtx4090": "rtx-4090",
    "4090": "rtx-4090",
    "rtxpro6000": "rtx-pro-6000",
    "pro-6000": "rtx-pro-6000",
    "rtx-pro-6000-blackwell": "rtx-pro-6000",
    "rtx-pro-6000-blackwell-server-edition": "rtx-pro-6000",
    "rtx-pro-6000-blackwell-workstation-edition": "rtx-pro-6000",
    "a100": "a100-80gb",
    "a100-80g": "a100-80gb",
    "a100-sxm": "a100-80gb",
    "a100-sxm-80gb": "a100-80gb",
    "a100-sxm4-80gb": "a100-80gb",
}


def preset(model: str, gpu: str, tp: int = 1) -> dict[str, Any]:
    """Fields of the ``InstanceConfig`` of ``model`` on ``tp`` GPUs of type ``gpu``.

    Case does not matter; common spellings such as ``meta-llama/Llama-3.1-8B-Instruct``, ``rtx4090``
    or ``a100`` are understood.

    >>> preset("llama-3.1-8b", gpu="rtx-4090")["num_gpu_blocks"]
    2588

    Raises:
        InputError: if there is no such preset; the message lists those there are.
    """
    found = find(model, gpu, tp)
    return {**found.instance, "gpus": found.tp, "name": found.name}


def find(model: str, gpu: str, tp: int = 1) -> Preset:
    """The preset with its provenance and errors; arguments and errors as for ``preset``."""
    wanted = (_canonical_model(model), _canonical_gpu(gpu), tp)
    for candidate in PRESETS:
        if (candidate.model, candidate.gpu, candidate.tp) == wanted:
            return candidate

    def likeness(candidate: Preset) -> float:
        same_model = difflib.SequenceMatcher(None, wanted[0], candidate.model).ratio()
        same_gpu = difflib.SequenceMatcher(None, wanted[1], candidate.gpu).ratio()
        return 2 * same_model + same_gpu

    raise InputError(
        f"preset: nothing measured for model {model!r} on gpu {gpu!r} with tp {tp!r}; "
        f"expected one of {', '.join(_describe(p) for p in PRESETS)} "
        f"(nearest: {_describe(max(PRESETS, key=likeness))}), "
        "or an InstanceConfig with latency and num_gpu_blocks of your own"
    )


def _describe(candidate: Preset) -> str:
    return f"{candidate.model} on {candidate.gpu} with tp {candidate.tp}"


def _canonical_model(model: str) -> str:
    name = _tidy(model).rsplit("/", 1)[-1].removeprefix("meta-")
    for suffix in ("-hf", "-instruct", "-chat"):
        name = name.removesuffix(suffix)
    return _MODEL_ALIASES.get(name, name)


def _canonical_gpu(gpu: str) -> str:
    name = _tidy(gpu).removeprefix("nvidia-").removeprefix("geforce-")
    return _GPU_ALIASES.get(name, name)


def _tidy(name: str) -> str:
    return str(name).strip().lower().replace("_", "-").replace(" ", "-")
