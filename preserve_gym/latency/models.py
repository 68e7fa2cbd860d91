"""Shapes of decoder-only language models: what their weights and their KV cache take."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from preserve_gym.errors import InputError

BYTES_PER_VALUE = 2
"""Weights and KV cache in bfloat16."""


@dataclass(frozen=True)
class ModelShape:
    """A dense decoder with gated MLPs: the shapes of its matrices.

    Attributes:
        name: lower case.
        layers: decoder blocks.
        hidden: width of the residual stream.
        heads, kv_heads: attention heads of the queries, and of keys and values.
        head_dim: width of a head.
        intermediate: width of the MLP.
        vocabulary: rows of the embedding, columns of the output head.
        max_model_len: longest context that the model was made for, in tokens.
        qk_norm: queries and keys are normalised, as in Qwen3.
        tied_embedding: the output head is the embedding.
        source: where the shape comes from.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    max_model_len: int
    qk_norm: bool = False
    tied_embedding: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(
                    f"model {self.name!r}: {field.name}: expected an integer >= 1, got {value!r}"
                )
        if self.heads % self.kv_heads:
            raise InputError(
                f"model {self.name!r}: kv_heads: expected a divisor of heads ({self.heads}), "
                f"got {self.kv_heads}"
            )

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Columns and rows (n, k) of the weights of one layer and of the output head."""
        queries = self.heads * self.head_dim
        return {
            "qkv": (queries + 2 * self.kv_heads * self.head_dim, self.hidden),
            "attention_output": (self.hidden, queries),
            "gate_up": (2 * self.intermediate, self.hidden),
            "down": (self.hidden, self.intermediate),
            "head": (self.vocabulary, self.hidden),
        }

    @property
    def parameters(self) -> int:
        """Weights of the model, the embedding included."""
        matrices = self.matrices
        head_n, head_k = matrices.pop("head")
        per_layer = sum(n * k for n, k in matrices.values()) + 2 * self.hidden
        if self.qk_norm:
            per_layer += 2 * self.head_dim
        embeddings = head_n * head_k * (1 if self.tied_embedding else 2)
        return self.layers * per_layer + embeddings + self.hidden

    def weight_bytes(self, tp: int = 1) -> int:
        """Weights on each of ``tp`` GPUs; what every GPU keeps whole (the norms) is left out of the share."""
        return BYTES_PER_VALUE * self.parameters // tp

    def kv_bytes_per_token(self, tp: int = 1) -> int:
        """KV cache of a token on each of ``tp`` GPUs; a KV head that several GPUs need is on each."""
        heads = max(self.kv_heads // tp, 1)
        return BYTES_PER_VALUE * self.layers * 2 * heads * self.head_dim

    def check_tp(self, tp: int) -> None:
        """Refuse a tensor-parallel degree that does not share the heads evenly, as vLLM does."""
        if isinstance(tp, bool) or not isinstance(tp, int) or tp < 1 or not self._shares_heads(tp):
            degrees = [str(n) for n in range(1, min(self.heads, 16) + 1) if self._shares_heads(n)]
            raise InputError(
                f"tp: expected a divisor of the {self.heads} heads of {self.name} "
                f"({', '.join(degrees)}), got {tp!r}"
            )

    def _shares_heads(self, tp: int) -> bool:
        whole_kv_heads = self.kv_heads % tp == 0 or tp % self.kv_heads == 0
        return self.heads % tp == 0 and whole_kv_heads


def _llama(name: str, hub: str, **shape: Any) -> ModelShape:
    return ModelShape(name=name, head_dim=128, source=f"config.json of {hub}", **shape)


MODELS: tuple[ModelShape, ...] = (
    _llama(
        "llama-3.1-8b",
        "meta-llama/Llama-3.1-8B",
        layers=32,
        hidden=4096,
        heads=32,
        kv_heads=8,
        intermediate=14336,
        vocabulary=128_256,
        max_model_len=131_072,
    ),
    _llama(
        "llama-3.1-70b",
        "meta-llama/Llama-3.1-70B",
        layers=80,
        hidden=8192,
        heads=64,
        kv_heads=8,
        intermediate=28672,
        vocabulary=128_256,
        max_model_len=131_072,
    ),
    _llama(
        "llama-3.2-3b",
        "meta-llama/Llama-3.2-3B",
        layers=28,
        hidden=3072,
        heads=24,
        kv_heads=8,
        intermediate=8192,
        vocabulary=128_256,
        max_model_len=131_072,
        tied_embedding=True,
    ),
    _llama(
        "llama-2-7b",
        "meta-llama/Llama-2-7b-hf",
        layers=32,
        hidden=4096,
        heads=32,
        kv_heads=32,
        intermediate=11008,
        vocabulary=32_000,
        max_model_len=4096,
    ),
    _llama(
        "llama-2-70b",
        "meta-llama/Llama-2-70b-hf",
        layers=80,
        hidden=8192,
        heads=64,
        kv_heads=8,
        intermediate=28672,
        vocabulary=32_000,
        max_model_len=4096,
    ),
    ModelShape(
        name="qwen3-8b",
        layers=36,
        hidden=4096,
        heads=32,
        kv_heads=8,
        head_dim=128,
        intermediate=12288,
        vocabulary=151_936,
        max_model_len=40_960,
        qk_norm=True,
        source="config.json of Qwen/Qwen3-8B",
    ),
    ModelShape(
        name="qwen3-32b",
        layers=64,
        hidden=5120,
        heads=64,
        kv_heads=8,
        head_dim=128,
        intermediate=25600,
        vocabulary=151_936,
        max_model_len=40_960,
        qk_norm=True,
        source="config.json of Qwen/Qwen3-32B",
    ),
)

_ALIASES = {
    "llama-31-8b": "llama-3.1-8b",
    "llama3.1-8b": "llama-3.1-8b",
    "llama-3-8b": "llama-3.1-8b",
    "llama-31-70b": "llama-3.1-70b",
    "llama3.1-70b": "llama-3.1-70b",
    "llama-32-3b": "llama-3.2-3b",
    "llama3.2-3b": "llama-3.2-3b",
    "llama2-7b": "llama-2-7b",
    "llama2-70b": "llama-2-70b",
    "qwen-3-8b": "qwen3-8b",
    "qwen-3-32b": "qwen3-32b",
}


def tidy(name: str) -> str:
    """A name in lower case, its words joined with hyphens."""
    return str(name).strip().lower().replace("_", "-").replace(" ", "-")


def model_name(name: str) -> str:
    """The short name of a model: ``meta-llama/Llama-3.1-8B-Instruct`` is ``llama-3.1-8b``."""
    short = tidy(name).rsplit("/", 1)[-1].removeprefix("meta-")
    for suffix in ("-hf", "-instruct", "-chat"):
        short = short.removesuffix(suffix)
    return _ALIASES.get(short, short)


def find_model(model: str | Path) -> ModelShape:
    """The shape of a known model, or of one whose Hugging Face ``config.json`` is given.

    Raises:
        InputError: unknown name (the message lists those there are), a file without a field that is
            needed, or a model that is not a dense decoder.
    """
    if Path(model).suffix == ".json":
        return read_config(Path(model))
    name = model_name(str(model))
    for shape in MODELS:
        if shape.name == name:
            return shape
    known = [shape.name for shape in MODELS]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    raise InputError(
        f"model {str(model)!r}: not known; expected one of {', '.join(known)} (nearest: {near}), "
        "or the path of the config.json that the model has on Hugging Face"
    )


def read_config(path: Path) -> ModelShape:
    """Read the shape of a model from its Hugging Face ``config.json``."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a Hugging Face config.json: {error}") from None
    experts = [key for key in config if "expert" in key] if isinstance(config, dict) else []
    if experts:
        raise InputError(f"{path}: expected a dense decoder, got a mixture of experts ({experts[0]})")

    def value(key: str, default: int | None = None) -> int:
        found = config.get(key) if isinstance(config, dict) else None
        if found is None:
            found = default
        if isinstance(found, bool) or not isinstance(found, int) or found < 1:
            raise InputError(f"{path}: {key}: expected an integer >= 1, got {found!r}")
        return found

    heads = value("num_attention_heads")
    name = config.get("_name_or_path") or path.resolve().parent.name or path.stem
    return ModelShape(
        name=model_name(name),
        layers=value("num_hidden_layers"),
        hidden=value("hidden_size"),
        heads=heads,
        kv_heads=value("num_key_value_heads", heads),
        head_dim=value("head_dim", value("hidden_size") // heads),
        intermediate=value("intermediate_size"),
        vocabulary=value("vocab_size"),
        max_model_len=value("max_position_embeddings"),
        qk_norm=config.get("model_type") == "qwen3",
        tied_embedding=bool(config.get("tie_word_embeddings", False)),
        source=str(path),
    )
