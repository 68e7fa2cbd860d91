"""Iterations as batches, and the batches that serving visits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

REGIONS = ("decode_only", "prefill_only", "mixed")
REGION_SHARES = (0.70, 0.08, 0.22)
"""Of the batches drawn; a request prefills once and then decodes for long."""


@dataclass(frozen=True)
class Batch:
    """One iteration.

    Attributes:
        contexts: of each decode, the tokens it attends to, the new one included.
        chunks: of each prefill chunk, its tokens and the tokens of the same prompt before it.
    """

    contexts: tuple[int, ...]
    chunks: tuple[tuple[int, int], ...]

    @property
    def region(self) -> str:
        """Which of ``REGIONS`` it belongs to."""
        if not self.chunks:
            return "decode_only"
        return "mixed" if self.contexts else "prefill_only"

    @property
    def sequences(self) -> int:
        """Requests in it."""
        return len(self.contexts) + len(self.chunks)

    @property
    def tokens(self) -> int:
        """Tokens computed, as of ``LatencyLaw``."""
        return len(self.contexts) + sum(n for n, _ in self.chunks)

    @property
    def context(self) -> int:
        """Context of the decodes, as of ``LatencyLaw``."""
        return sum(self.contexts)

    @property
    def quad(self) -> float:
        """Query-key pairs of the prefill chunks, as of ``LatencyLaw``."""
        return float(sum(n * (n / 2 + c) for n, c in self.chunks))


def served_batches(
    seed: int, *, kv_tokens: int, max_num_seqs: int, budget: int, max_model_len: int, count: int
) -> list[Batch]:
    """Draw batches of an instance that serves chat and long prompts, from nearly idle to full.

    Each batch is of a service whose prompts are lognormal with a median between 250 tokens (ShareGPT)
    and 4,000 (long documents), so that the number of sequences and their total context do not grow
    together only; outputs are lognormal with median 150. The number of decoding sequences is
    log-uniform, cut to what ``kv_tokens`` holds; a batch that prefills takes one prompt or a few, up to
    ``budget`` tokens, a quarter of the first ones being the rest of a prompt that an earlier batch began.

    Args:
        seed: of the draw.
        kv_tokens, max_num_seqs, budget, max_model_len: limits of the instance; ``budget`` is its
            ``max_num_batched_tokens``.
        count: batches to draw; the few that come out empty are left out.
    """
    rng = np.random.default_rng(seed)
    median = 0.0

    def prompt() -> int:
        return int(np.clip(rng.lognormal(np.log(median), 0.8), 16, max_model_len - 1))

    def context() -> int:
        # An output is met while decoding in proportion to its length: mu becomes mu + sigma^2.
        output = rng.lognormal(np.log(150) + 0.8**2, 0.8)
        return min(prompt() + 1 + int(rng.uniform() * output), max_model_len)

    batches = []
    for region in rng.choice(REGIONS, size=count, p=REGION_SHARES):
        median = float(np.exp(rng.uniform(np.log(250), np.log(4000))))
        contexts: list[int] = []
        room = kv_tokens
        if region != "prefill_only":
            for _ in range(int(np.exp(rng.uniform(0, np.log(min(max_num_seqs, budget) + 1))))):
                tokens = context()
                if tokens > room:
                    break
                contexts.append(tokens)
                room -= tokens
        chunks: list[tuple[int, int]] = []
        left = budget - len(contexts)
        if region != "decode_only":
            for index in range(1 + int(rng.poisson(0.4))):
                length, done = prompt(), 0
                if index == 0 and rng.uniform() < 0.25 and length > 1:
                    done = int(rng.integers(1, length))
                chunk = min(length - done, left)
                if chunk > 0 and chunk + done <= room and len(contexts) + len(chunks) < max_num_seqs:
                    chunks.append((chunk, done))
                    left -= chunk
                    room -= chunk + done
        if contexts or chunks:
            batches.append(Batch(tuple(contexts), tuple(chunks)))
    return batches
