"""The time of one iteration of an instance, as a function of its batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from preserve_gym.errors import InputError


@dataclass(frozen=True)
class LatencyLaw:
    """Iteration time ``base_s + per_token_s*tokens + per_context_token_s*context + per_quad_s*quad``.

    * *tokens*: prefill tokens of the batch plus one per decoding request;
    * *context*: sum over the decoding requests of the tokens they attend to (prompt plus tokens
      generated so far);
    * *quad*: sum over the prefill chunks of ``n * (n/2 + c)``, with ``n`` tokens in the chunk after
      ``c`` tokens of the same prompt: the query-key pairs of causal attention.

    Linear in the context, so that a run of pure decode iterations has a closed form.
    All four coefficients are seconds. ``base_s`` must be positive, the others non-negative.
    """

    base_s: float
    per_token_s: float
    per_context_token_s: float
    per_quad_s: float

    def __post_init__(self) -> None:
        for field in ("base_s", "per_token_s", "per_context_token_s", "per_quad_s"):
            value = getattr(self, field)
            if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
                raise InputError(f"LatencyLaw.{field}: expected a finite number >= 0, got {value!r}")
            object.__setattr__(self, field, float(value))
        if self.base_s <= 0:
            raise InputError(f"LatencyLaw.base_s: expected a number > 0, got {self.base_s!r}")

    def iteration_s(self, tokens: float, context: float, quad: float) -> float:
        """Time of one iteration in seconds."""
        return (
            self.base_s
            + self.per_token_s * tokens
            + self.per_context_token_s * context
            + self.per_quad_s * quad
        )
