"""How long an instance takes to start: an estimate from measured stages."""

from __future__ import annotations

from preserve_gym.latency.models import ModelShape

FIXED_S = 40.0
"""Process, engine, compilation from a cache, memory profiling, CUDA graphs; see ``cold_start_s``."""
LOAD_BYTES_PER_S = 1.8e9
"""Weights from a local disk, by each GPU of an instance at the same time."""


def cold_start_s(model: ModelShape, tp: int) -> float:
    """From the start of a vLLM process to its readiness, to whole seconds.

    vLLM with Llama-2-7B on an A100 takes 43 to 51 s: 10 s to start, 7.5 s for 13.5 GB of weights, 8 s to
    compile, 2 s to profile the memory, up to 8 s for CUDA graphs, the rest overhead. All but the weights is
    taken as fixed. The image is on the machine and the GPU is free: pulling the one or waiting for the
    other adds minutes.
    """
    return float(round(FIXED_S + model.weight_bytes(tp) / LOAD_BYTES_PER_S))
