"""A decoder with random weights in PyTorch, on one GPU of a tensor-parallel instance.

It computes what a served model computes in one iteration, with the shapes of the model and PyTorch's own
kernels; those between the matrix products can be compiled into one each, as servers have them. Its KV caches
are dense, one row of memory for each request, where a server has pages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from preserve_gym.latency.models import ModelShape

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn.attention import SDPBackend

_EPSILON = 1e-5  # of the RMS norms
_ROTARY_BASE = 10_000.0


class BatchShape(NamedTuple):
    """The batch of one iteration: decodes of one length, and a chunk of one prompt."""

    prefill_tokens: int
    """Tokens of the chunk; 0: no prefill."""
    prefill_context: int
    """Tokens of the same prompt that were computed before."""
    decode_requests: int
    """Requests that decode."""
    decode_context: int
    """Tokens that each of them attends to, the new one included; 0 without decodes."""

    @property
    def tokens(self) -> int:
        """Tokens that pass through the layers."""
        return self.prefill_tokens + self.decode_requests

    @property
    def sequences(self) -> int:
        """Tokens that the output head sees: the last one of each sequence."""
        return self.decode_requests + (self.prefill_tokens > 0)

    def __str__(self) -> str:
        parts = []
        if self.decode_requests:
            plural = "s" if self.decode_requests > 1 else ""
            parts.append(f"{self.decode_requests} decode{plural} at {self.decode_context}")
        if self.prefill_tokens:
            parts.append(f"prefill of {self.prefill_tokens} after {self.prefill_context}")
        return ", ".join(parts)


def tp_share(shape: ModelShape, tp: int) -> ModelShape:
    """What each of ``tp`` GPUs computes of a model: a share of heads, MLP columns and vocabulary.

    A KV head that several GPUs need is on each of them.

    Raises:
        InputError: if the heads cannot be shared so.
    """
    shape.check_tp(tp)
    return replace(
        shape,
        heads=shape.heads // tp,
        kv_heads=max(shape.kv_heads // tp, 1),
        intermediate=-(-shape.intermediate // tp),
        vocabulary=-(-shape.vocabulary // tp),
    )


def decoder_bytes(shape: ModelShape, distinct_layers: int, itemsize: int) -> int:
    """Memory of the weights."""
    return replace(shape, layers=distinct_layers).parameters * itemsize


def batch_bytes(shape: ModelShape, distinct_layers: int, batch: BatchShape, itemsize: int) -> int:
    """Memory of the KV caches and, roughly and rather too much, of what a layer holds at its widest."""
    cached = (batch.decode_requests * batch.decode_context + batch.prefill_context + batch.prefill_tokens) * (
        2 * shape.kv_heads * shape.head_dim
    )
    matrices = shape.matrices
    # Of each wide product: itself, and about as much again for what is computed from it part by part.
    wide = 4 * shape.hidden + 3 * matrices["qkv"][0] + 2 * matrices["gate_up"][0]
    return itemsize * (
        distinct_layers * cached + batch.tokens * wide + 2 * batch.sequences * shape.vocabulary
    )


class Layer(NamedTuple):
    """Weights of a decoder block; matrices are (n, k) as in ``ModelShape.matrices``."""

    attention_norm: Tensor  # (hidden,)
    qkv: Tensor
    query_norm: Tensor  # (head_dim,), used with qk_norm only
    key_norm: Tensor  # (head_dim,), likewise
    attention_output: Tensor
    mlp_norm: Tensor  # (hidden,)
    gate_up: Tensor
    down: Tensor


def _add_norm(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """``x + y``, and its norm."""
    from torch.nn import functional

    x = x + y
    return x, functional.rms_norm(x, weight.shape, weight, _EPSILON)


def _gate(gate_up: Tensor) -> Tensor:
    """The first half of the columns, activated, times the second."""
    from torch.nn import functional

    gate, up = gate_up.chunk(2, dim=-1)
    return functional.silu(gate) * up


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary embedding of (tokens, heads, head_dim): the first half of each head with the second."""
    import torch

    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cosine - b * sine, b * cosine + a * sine), dim=-1)


def _norm_rotate(x: Tensor, weight: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Norm of each head, then the rotary embedding."""
    from torch.nn import functional

    return _rotate(functional.rms_norm(x, weight.shape, weight, _EPSILON), cosine, sine)


class SmallKernels(NamedTuple):
    """What is computed between the matrix products and attention."""

    add_norm: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] = _add_norm
    gate: Callable[[Tensor], Tensor] = _gate
    rotate: Callable[[Tensor, Tensor, Tensor], Tensor] = _rotate
    norm_rotate: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = _norm_rotate

    def compiled(self) -> SmallKernels:
        """The same, each compiled into one kernel the first time that it is called."""
        import torch

        return SmallKernels(
            torch.compile(self.add_norm, dynamic=True),
            torch.compile(self.gate, dynamic=True),
            torch.compile(self.rotate, dynamic=True),
            torch.compile(self.norm_rotate, dynamic=True),
        )


PLAIN_KERNELS = SmallKernels()
"""Not compiled: several kernels each."""


@dataclass(frozen=True)
class Decoder:
    """Weights of a decoder.

    Attributes:
        shape: of the model, or of one GPU's share of it.
        layers: distinct ones; where there are fewer than ``shape.layers``, they take turns.
        embedding, head: (vocabulary, hidden).
        norm: (hidden,), before the output head.
        kernels: what computes the rest.
    """

    shape: ModelShape
    layers: tuple[Layer, ...]
    embedding: Tensor
    head: Tensor
    norm: Tensor
    kernels: SmallKernels = PLAIN_KERNELS

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.device


def random_decoder(
    shape: ModelShape, distinct_layers: int, *, device: str, dtype: torch.dtype, seed: int = 0
) -> Decoder:
    """A decoder whose activations stay of the order of one."""
    import torch

    generator = torch.Generator(device).manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, device=device, dtype=dtype)

    def matrix(name: str) -> Tensor:
        n, k = shape.matrices[name]
        return normal(n, k).mul_(k**-0.5)

    def layer() -> Layer:
        return Layer(
            attention_norm=normal(shape.hidden),
            qkv=matrix("qkv"),
            query_norm=normal(shape.head_dim),
            key_norm=normal(shape.head_dim),
            attention_output=matrix("attention_output"),
            mlp_norm=normal(shape.hidden),
            gate_up=matrix("gate_up"),
            down=matrix("down"),
        )

    head = matrix("head")
    return Decoder(
        shape=shape,
        layers=tuple(layer() for _ in range(distinct_layers)),
        embedding=head if shape.tied_embedding else normal(shape.vocabulary, shape.hidden),
        head=head,
        norm=normal(shape.hidden),
    )


def random_caches(decoder: Decoder, requests: int, tokens: int, seed: int = 0) -> tuple[Tensor, ...]:
    """KV caches full of noise, one for each distinct layer: (2, requests, kv_heads, tokens, head_dim)."""
    import torch

    shape = decoder.shape
    generator = torch.Generator(decoder.device).manual_seed(seed)
    size = (2, requests, shape.kv_heads, tokens, shape.head_dim)
    return tuple(
        torch.randn(size, generator=generator, device=decoder.device, dtype=decoder.head.dtype)
        for _ in decoder.layers
    )


@dataclass(frozen=True)
class Batch:
    """What one iteration computes; the decodes come before the prefill.

    Attributes:
        shape: how many, and how long.
        tokens: (tokens,) int64.
        decode_caches: for each distinct layer, (2, decode_requests, kv_heads, >= decode_context, head_dim).
        prefill_caches: for each distinct layer, (2, 1, kv_heads, >= prefill_context + prefill_tokens,
            head_dim).
        rows: (sequences,) int64, the last token of each sequence.
        rotary: cosine and sine of the rotary embedding, each (tokens, 1, head_dim / 2).
        mask: what the tokens of the chunk attend to.
    """

    shape: BatchShape
    tokens: Tensor
    decode_caches: tuple[Tensor, ...]
    prefill_caches: tuple[Tensor, ...]
    rows: Tensor
    rotary: tuple[Tensor, Tensor]
    mask: Tensor


def make_batch(
    decoder: Decoder,
    shape: BatchShape,
    tokens: Tensor,
    decode_caches: tuple[Tensor, ...] = (),
    prefill_caches: tuple[Tensor, ...] = (),
) -> Batch:
    """The batch with these tokens and caches."""
    import torch
    from torch.nn.attention.bias import causal_lower_right

    device, half = decoder.device, decoder.shape.head_dim // 2
    decodes, end = shape.decode_requests, shape.prefill_context + shape.prefill_tokens
    positions = torch.cat(
        (
            torch.full((decodes,), shape.decode_context - 1, device=device),
            torch.arange(shape.prefill_context, end, device=device),
        )
    )
    frequencies = _ROTARY_BASE ** -(torch.arange(half, device=device, dtype=torch.float32) / half)
    angles = (positions[:, None] * frequencies)[:, None]
    last = [*range(decodes), shape.tokens - 1] if shape.prefill_tokens else range(decodes)
    return Batch(
        shape=shape,
        tokens=tokens,
        decode_caches=decode_caches,
        prefill_caches=prefill_caches,
        rows=torch.tensor(last, device=device),
        rotary=(angles.cos().to(decoder.head.dtype), angles.sin().to(decoder.head.dtype)),
        mask=causal_lower_right(shape.prefill_tokens, end),
    )


def random_batch(decoder: Decoder, shape: BatchShape, seed: int = 0) -> Batch:
    """A batch of random tokens after random ones."""
    import torch

    generator = torch.Generator(decoder.device).manual_seed(seed)
    return make_batch(
        decoder,
        shape,
        torch.randint(decoder.shape.vocabulary, (shape.tokens,), generator=generator, device=decoder.device),
        random_caches(decoder, shape.decode_requests, shape.decode_context, seed + 1),
        random_caches(decoder, 1, shape.prefill_context + shape.prefill_tokens, seed + 2),
    )


def logits(decoder: Decoder, batch: Batch) -> Tensor:
    """One iteration of the whole depth: (sequences, vocabulary). Writes the new tokens into the KV caches."""
    from torch.nn import functional

    depth, kernels = decoder.shape.layers, decoder.kernels
    order = [i % len(decoder.layers) for i in range(depth)]
    # The norm before each layer's attention; the last one is that before the output head.
    norms = [*(decoder.layers[k].attention_norm for k in order), decoder.norm]
    x = functional.embedding(batch.tokens, decoder.embedding)
    normed = functional.rms_norm(x, norms[0].shape, norms[0], _EPSILON)
    for i, k in enumerate(order):
        layer = decoder.layers[k]
        x, normed = kernels.add_norm(x, _attention(decoder, batch, k, normed), layer.mlp_norm)
        gated = kernels.gate(functional.linear(normed, layer.gate_up))
        x, normed = kernels.add_norm(x, functional.linear(gated, layer.down), norms[i + 1])
    return functional.linear(normed[batch.rows], decoder.head)


def _attention(decoder: Decoder, batch: Batch, k: int, x: Tensor) -> Tensor:
    """Attention of the ``k``-th distinct layer, its projections included: (tokens, hidden)."""
    import torch
    from torch.nn import functional

    shape, layer, kernels = decoder.shape, decoder.layers[k], decoder.kernels
    heads = functional.linear(x, layer.qkv).view(len(x), -1, shape.head_dim)
    if shape.qk_norm:
        query, key = heads[:, : shape.heads], heads[:, shape.heads : -shape.kv_heads]
        query = kernels.norm_rotate(query, layer.query_norm, *batch.rotary)
        key = kernels.norm_rotate(key, layer.key_norm, *batch.rotary)
    else:
        rotated = kernels.rotate(heads[:, : -shape.kv_heads], *batch.rotary)
        query, key = rotated[:, : shape.heads], rotated[:, shape.heads :]
    value = heads[:, -shape.kv_heads :]
    n = batch.shape.decode_requests
    parts = []
    if n:
        cache = batch.decode_caches[k][:, :, :, : batch.shape.decode_context]
        parts.append(_attend_decodes(query[:n], key[:n], value[:n], cache))
    if batch.shape.prefill_tokens:
        end = batch.shape.prefill_context + batch.shape.prefill_tokens
        cache = batch.prefill_caches[k][:, :, :, :end]
        parts.append(_attend_prefill(query[n:], key[n:], value[n:], cache, batch.mask))
    attended = parts[0] if len(parts) == 1 else torch.cat(parts)
    return functional.linear(attended.flatten(1), layer.attention_output)


def _attend_decodes(query: Tensor, key: Tensor, value: Tensor, cache: Tensor) -> Tensor:
    """One token of each request, the last that its cache holds: (requests, heads, head_dim)."""
    from torch.nn import functional
    from torch.nn.attention import sdpa_kernel

    keys, values = cache
    keys[:, :, -1], values[:, :, -1] = key, value
    requests, kv_heads, head_dim = key.shape
    # The query heads that share a KV head stand in one block of queries, so that the cache is read once.
    grouped = query.reshape(requests, kv_heads, -1, head_dim)
    with sdpa_kernel(_decode_backends(requests * kv_heads, key.device)):
        return functional.scaled_dot_product_attention(grouped, keys, values).reshape(query.shape)


def _decode_backends(caches: int, device: torch.device) -> list[SDPBackend]:
    """What may attend to so many pairs of a request and a KV head."""
    import torch
    from torch.nn.attention import SDPBackend

    backends = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    # cuDNN, PyTorch's choice on Hopper, leaves each pair to one multiprocessor, however long its cache is;
    # FlashAttention shares it out, as servers do. With a pair for each of them, cuDNN is the faster one.
    if device.type != "cuda" or caches >= torch.cuda.get_device_properties(device).multi_processor_count:
        backends.append(SDPBackend.CUDNN_ATTENTION)
    return backends


def _attend_prefill(query: Tensor, key: Tensor, value: Tensor, cache: Tensor, mask: Tensor) -> Tensor:
    """A chunk of one prompt, the last tokens that its cache holds: (tokens, heads, head_dim)."""
    from torch.nn import functional

    keys, values = cache
    n = len(query)
    keys[0, :, -n:], values[0, :, -n:] = key.transpose(0, 1), value.transpose(0, 1)
    attended = functional.scaled_dot_product_attention(
        query.transpose(0, 1)[None],
        keys,
        values,
        attn_mask=mask,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return attended[0].transpose(0, 1)
