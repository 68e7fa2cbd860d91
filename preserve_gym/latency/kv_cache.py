"""KV blocks of an instance, as vLLM sizes its pool."""

from __future__ import annotations

from preserve_gym.errors import InputError
from preserve_gym.latency.gpus import Gpu
from preserve_gym.latency.models import BYTES_PER_VALUE, ModelShape

BLOCK_SIZE = 16
OTHER_BYTES = 0.909e9
"""CUDA's context, graphs and what else vLLM finds in use: what the RTX 4090 run of LLMServingSim with
Llama-3.1-8B (vLLM 0.19, 2,588 blocks of 25.25 GB at 0.9) left out of its pool beside activations."""


def working_bytes(model: ModelShape, tp: int, max_num_batched_tokens: int, max_num_seqs: int) -> float:
    """Memory of a GPU that vLLM's profiling run finds in use beside the weights.

    The activations of a full batch (MLP and residual stream) or, if that is more, the logits of
    ``max_num_seqs`` sequences in float32 and a copy of them; and ``OTHER_BYTES``. An estimate.
    """
    values = 3 * model.intermediate / tp + 4 * model.hidden
    activations = BYTES_PER_VALUE * values * max_num_batched_tokens
    logits = (4 + 4 + BYTES_PER_VALUE) * model.vocabulary * max_num_seqs
    return OTHER_BYTES + max(activations, logits)


def num_gpu_blocks(
    model: ModelShape,
    gpu: Gpu,
    tp: int,
    *,
    gpu_memory_utilization: float,
    max_num_batched_tokens: int,
    max_num_seqs: int,
) -> int:
    """KV blocks of 16 tokens in the memory that weights and working memory leave of vLLM's share.

    Raises:
        InputError: if nothing is left.
    """
    working = working_bytes(model, tp, max_num_batched_tokens, max_num_seqs)
    left = gpu_memory_utilization * gpu.memory_bytes - model.weight_bytes(tp) - working
    blocks = int(left // (BLOCK_SIZE * model.kv_bytes_per_token(tp)))
    if blocks < 2:
        raise InputError(
            f"{model.name} on {tp} x {gpu.name}: {gpu_memory_utilization} of {gpu.memory_bytes / 1e9:.1f} GB "
            f"leaves no KV cache beside {model.weight_bytes(tp) / 1e9:.1f} GB of weights and "
            f"{working / 1e9:.1f} GB of working memory on each GPU; expected a larger tp or card"
        )
    return blocks
