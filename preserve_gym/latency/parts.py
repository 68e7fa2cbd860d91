"""What an iteration is made of, measured piece by piece, and their sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from preserve_gym.errors import InputError
from preserve_gym.latency.batch import Batch
from preserve_gym.latency.gpus import Gpu
from preserve_gym.latency.models import BYTES_PER_VALUE, ModelShape


@dataclass(frozen=True)
class Target:
    """What a law is made for.

    Attributes:
        model: the model.
        gpu: the GPU, of which an instance has ``tp``.
        tp: tensor-parallel degree.
        measured_on: the GPU of the profile. If it is another one, each operator is scaled by what the
            two cards should need for it (``scaled``); what the CPU and the links between GPUs take is not.
    """

    model: ModelShape
    gpu: Gpu
    tp: int
    measured_on: Gpu

    def __post_init__(self) -> None:
        self.model.check_tp(self.tp)

    @property
    def extrapolated(self) -> bool:
        """Whether the profile is of another GPU."""
        return self.gpu != self.measured_on

    def scaled(self, seconds: float, flops: float, moved_bytes: float) -> float:
        """The time on ``gpu`` of an operator that took ``seconds`` on ``measured_on``.

        In proportion to the time that the roofline gives each: arithmetic at the peak rate or memory
        at the peak bandwidth, whichever takes longer.
        """
        if not self.extrapolated:
            return seconds
        return (
            seconds
            * self.gpu.roofline_s(flops, moved_bytes)
            / self.measured_on.roofline_s(flops, moved_bytes)
        )

    def matrix_product(self, name: str, tokens: float) -> tuple[float, float]:
        """Operations and bytes moved of a matrix of the model on one of the GPUs."""
        n, k = self.model.matrices[name]
        n, k = (n, k // self.tp) if name in ("attention_output", "down") else (n // self.tp, k)
        return 2.0 * tokens * n * k, float(BYTES_PER_VALUE * (n * k + tokens * (n + k)))

    def exchange_s(
        self, reduce: Callable[[float], float], gather: Callable[[float], float], unit_s: float
    ) -> Callable[[float, float], float]:
        """What the GPUs spend on exchanging data in an iteration, by tokens and sequences.

        An all-reduce of the hidden states after the embedding and twice in every layer, and a gather of the
        logits. ``reduce`` and ``gather`` give the time of each by a GPU's bytes, in units of ``unit_s``.
        """
        model = self.model

        def seconds(tokens: float, sequences: float) -> float:
            hidden_bytes = BYTES_PER_VALUE * model.hidden * tokens
            logits_bytes = BYTES_PER_VALUE * model.vocabulary / self.tp * sequences
            return unit_s * ((2 * model.layers + 1) * reduce(hidden_bytes) + gather(logits_bytes))

        return seconds

    def attention(self, pairs: float, kv_tokens: float) -> tuple[float, float]:
        """Operations and bytes moved in one layer, by query-key pairs and tokens read from the cache."""
        heads = self.model.heads / self.tp
        cache = self.model.kv_bytes_per_token(self.tp) / self.model.layers
        return 4.0 * heads * self.model.head_dim * pairs, cache * kv_tokens


@dataclass(frozen=True)
class Parts:
    """Times in seconds on one GPU of an instance; None where no file of the profile has it.

    Attributes:
        layers_s: of all layers but their attention, and the embedding, by tokens.
        products_s: the same from matrix products measured one by one and small kernels estimated;
            stands in for ``layers_s`` where that is missing.
        head_s: final norm, output head and sampling, by sequences.
        product_head_s: the same, stands in for ``head_s``.
        decode_attention_s: of all layers, by decodes and the tokens that each has cached.
        prefill_attention_s: of all layers, by the tokens of a chunk and those of its prompt before it.
        mixed_attention_s: of all layers, of a chunk and decodes in one kernel, by all four.
        exchange_s: what the GPUs of an instance spend on exchanging data, by tokens and sequences.
        cpu_s: what the CPU adds to an iteration, by sequences.
    """

    layers_s: Callable[[float], float] | None = None
    products_s: Callable[[float], float] | None = None
    head_s: Callable[[float], float] | None = None
    product_head_s: Callable[[float], float] | None = None
    decode_attention_s: Callable[[float, float], float] | None = None
    prefill_attention_s: Callable[[float, float], float] | None = None
    mixed_attention_s: Callable[[float, float, float, float], float] | None = None
    exchange_s: Callable[[float, float], float] | None = None
    cpu_s: Callable[[float], float] | None = None

    def joined(self, other: Parts, source: str) -> Parts:
        """Both together; ``source`` names the file of ``other``.

        Raises:
            InputError: if both have the same part.
        """
        for field in fields(self):
            if getattr(self, field.name) is not None and getattr(other, field.name) is not None:
                part = field.name.removesuffix("_s").replace("_", " ")
                raise InputError(f"{source}: a file before it has the same part ({part}) of an iteration")
        mine, theirs = ({f.name: getattr(p, f.name) for f in fields(self)} for p in (self, other))
        return Parts(**{name: value if value is not None else theirs[name] for name, value in mine.items()})


class Operators:
    """Iteration times as the sum of their parts.

    Decodes of one batch share a kernel whose cost is looked up at their mean context. Where a kernel for
    prefill and decodes together was measured, the largest chunk shares it with the decodes and each
    further chunk adds its own.

    Raises:
        InputError: if a part that every iteration has is missing.
    """

    def __init__(self, parts: Parts, target: Target) -> None:
        self.parts, self.target = parts, target
        missing = [
            f"{what} ({files})"
            for what, files, found in (
                (
                    "the linear layers",
                    "Vidur mlp, aiconfigurator gemm or LLMServingSim dense",
                    parts.layers_s or parts.products_s,
                ),
                (
                    "the output head",
                    "aiconfigurator gemm or LLMServingSim per_sequence",
                    parts.head_s or parts.product_head_s,
                ),
                (
                    "decode attention",
                    "aiconfigurator generation_attention, Vidur attention or LLMServingSim attention",
                    parts.decode_attention_s,
                ),
                (
                    "prefill attention",
                    "aiconfigurator context_attention, Vidur attention or LLMServingSim attention",
                    parts.prefill_attention_s,
                ),
                (
                    f"what {target.tp} GPUs exchange",
                    "Vidur all_reduce or a table of collectives",
                    parts.exchange_s or target.tp == 1,
                ),
            )
            if not found
        ]
        if missing:
            raise InputError(f"profile: no file has {'; nor '.join(missing)}")

    def attention_s(self, batch: Batch) -> float:
        """Attention of all layers, s."""
        parts = self.parts
        assert parts.decode_attention_s is not None
        assert parts.prefill_attention_s is not None
        decodes = len(batch.contexts)
        cached = float(np.mean(batch.contexts)) - 1 if decodes else 0.0
        chunks = sorted(batch.chunks, reverse=True)
        if not decodes:
            seconds = 0.0
        elif chunks and parts.mixed_attention_s is not None:
            tokens, before = chunks.pop(0)
            seconds = parts.mixed_attention_s(tokens, before, decodes, cached)
        else:
            seconds = parts.decode_attention_s(decodes, cached)
        return seconds + sum(parts.prefill_attention_s(tokens, before) for tokens, before in chunks)

    def iteration_s(self, batch: Batch) -> float:
        """One iteration, s."""
        parts = self.parts
        layers_s, head_s = parts.layers_s or parts.products_s, parts.head_s or parts.product_head_s
        assert layers_s is not None
        assert head_s is not None
        seconds = layers_s(batch.tokens) + head_s(batch.sequences) + self.attention_s(batch)
        if self.target.tp > 1:
            assert parts.exchange_s is not None
            seconds += parts.exchange_s(batch.tokens, batch.sequences)
        return seconds + (parts.cpu_s(batch.sequences) if parts.cpu_s else 0.0)
