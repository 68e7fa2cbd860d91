"""How long an instance takes to start: an estimate from measured stages."""

from __future__ import annotations

from preserve_gym.latency.models import ModelShape

FIXED_S = 20.0
"""Process, engine, memory profiling and CUDA graphs."""
PER_LAYER_S = 0.56
"""Compilation, from a cache that an earlier start has filled."""
LOAD_BYTES_PER_S = 1.8e9
"""Weights from a local disk, by each GPU of an instance at the same time."""


def cold_start_s(model: ModelShape, tp: int) -> float:
    """From the start of a vLLM process to its readiness, to whole seconds.

    Fits the starts of vLLM 0.10 with eleven models of 0.5 to 14 billion weights on an A100 (40 GB) within
    3 s, Llama-2-7B in 45 s among them (upb-cn/vllm-startup-profiler, arXiv 2606.07362). The image, the
    compiled code and the weights are on the machine and the GPU is free: filling the cache of compiled code
    adds 20 s and more, a download or a new machine minutes.
    """
    return float(round(FIXED_S + PER_LAYER_S * model.layers + model.weight_bytes(tp) / LOAD_BYTES_PER_S))
