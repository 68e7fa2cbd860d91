"""A router that is learned: the same score for every instance, of its load and of the request."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from preserve_gym import router
from preserve_gym.errors import InputError

ROUTERS = Path(__file__).parent / "routers"
"""The learned routers of the repository, a YAML file each."""
EVOLVED = "router.yaml"
"""What ``python -m experiments.evolve_router`` calls its file."""

TERMS = (
    "queued",
    "queued x short",
    "queued x long",
    "queued x big",
    "expected",
    "expected x short",
    "expected x long",
    "expected x big",
    "in_flight",
    "in_flight x short",
    "in_flight x long",
    "in_flight x big",
    "waiting",
    "waiting x short",
    "queued^2",
    "expected^2",
)
"""What the weights are of. Of an instance: prompts queued there over 4,096 tokens, expected tokens over its
KV cache, requests in flight over 64, requests waiting over 8. Of the request, as logarithms, else 0: how many
times shorter or longer than 256 tokens its predicted output is, how many times larger than 512 its prompt."""


@router
def shared_score(view, request):  # type: ignore[no-untyped-def]  # compiled
    """The ready instance with the least score, ties to the lowest slot; ``view.weights`` are of ``TERMS``."""
    w = view.weights
    capacity = float(view.kv_blocks * view.block_size)
    length = math.log(max(request.predicted_tokens, 1) / 256.0)
    short, long = max(-length, 0.0), max(length, 0.0)
    big = max(math.log(max(request.prompt_tokens, 1) / 512.0), 0.0)
    # The request is the same for all instances, so each quantity has one weight.
    of_queued = w[0] + w[1] * short + w[2] * long + w[3] * big
    of_expected = w[4] + w[5] * short + w[6] * long + w[7] * big
    of_in_flight = w[8] + w[9] * short + w[10] * long + w[11] * big
    of_waiting = w[12] + w[13] * short
    best, least = view.ready[0], 0.0
    for k in range(view.n_ready):
        i = view.ready[k]
        queued = view.queued_prefill_tokens[i] / 4096.0
        expected = view.expected_tokens[i] / capacity
        score = (
            of_queued * queued
            + of_expected * expected
            + of_in_flight * view.in_flight[i] / 64.0
            + of_waiting * view.waiting[i] / 8.0
            + w[14] * queued * queued
            + w[15] * expected * expected
        )
        if k == 0 or score < least:
            best, least = i, score
    return best


def start_weights(kv_tokens: int) -> NDArray[np.float64]:
    """Weights with which it is the router ``preserve`` for instances with so many tokens of KV cache."""
    weights = np.zeros(len(TERMS))
    weights[TERMS.index("queued")] = 2.0 * 4096.0 / kv_tokens
    weights[TERMS.index("expected")] = 1.0
    return weights


@dataclass(frozen=True)
class LearnedRouter:
    """A learned router.

    Attributes:
        name: of its file.
        weights: of ``TERMS``.
        card: how it was learned and what it scores, as the file has it beside the weights.
    """

    name: str
    weights: tuple[float, ...]
    card: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """Write it to a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        values = {"weights": dict(zip(TERMS, map(float, self.weights), strict=True)), **self.card}
        text = yaml.safe_dump(values, sort_keys=False, width=110)
        partial = path.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.rename(path)


def router_names() -> tuple[str, ...]:
    """Those of the repository."""
    return tuple(sorted(path.stem for path in ROUTERS.glob("*.yaml")))


def router_path(name_or_path: str | Path) -> Path:
    """The file of a learned router by its name, or by its file."""
    named = ROUTERS / f"{name_or_path}.yaml"
    return named if named.is_file() else Path(name_or_path)


def load_router(name_or_path: str | Path) -> LearnedRouter:
    """A learned router by its name in ``agents/routers``, or by its file.

    Raises:
        InputError: if there is none, or its weights are not of ``TERMS``.
    """
    path = router_path(name_or_path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"router {str(name_or_path)!r}: {' '.join(str(error).split())}") from None
    weights = values.get("weights") if isinstance(values, Mapping) else None
    numbers = isinstance(weights, Mapping) and all(isinstance(v, int | float) for v in weights.values())
    if not numbers or tuple(weights) != TERMS:  # type: ignore[arg-type]
        given = ", ".join(map(str, weights)) if isinstance(weights, Mapping) else weights
        raise InputError(f"{path}: weights: expected numbers for {', '.join(TERMS)}, got {given}")
    card = {name: value for name, value in values.items() if name != "weights"}
    return LearnedRouter(path.stem, tuple(float(v) for v in weights.values()), card)  # type: ignore[union-attr]
