"""``LatencyLaw.iteration_s``, compiled: the same order of operations, so the same to the last bit."""

from __future__ import annotations

from preserve_gym.sim.jit import kernel
from preserve_gym.sim.state import Record


@kernel
def iteration_s(p: Record, tokens: int, context: int, quad: float) -> float:
    """Time of one iteration."""
    per_context_token_s = p.per_context_token_s
    if quad > 0.0:
        per_context_token_s += p.per_mixed_context_token_s
    return without_attention_s(p, tokens) + per_context_token_s * context + p.per_quad_s * quad


@kernel
def without_attention_s(p: Record, tokens: int) -> float:
    """What depends on the number of its tokens alone."""
    return p.base_s + p.per_token_s * tokens + p.per_token_beyond_knee_s * max(0, tokens - p.knee_tokens)
