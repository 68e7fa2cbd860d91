"""The time of one iteration of an instance, as a function of its batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral

from preserve_gym.errors import InputError

_MAX_KNEE = 2**31 - 1


@dataclass(frozen=True)
class LatencyLaw:
    """The time of an iteration, from three figures of its batch.

    ::

        base_s
        + per_token_s * tokens
        + per_token_beyond_knee_s * max(0, tokens - knee_tokens)
        + (per_context_token_s [+ per_mixed_context_token_s if the batch prefills]) * context
        + per_quad_s * quad

    * *tokens*: prefill tokens of the batch plus one per decoding request;
    * *context*: sum over the decoding requests of the tokens they attend to (prompt plus tokens
      generated so far);
    * *quad*: sum over the prefill chunks of ``n * (n/2 + c)``, with ``n`` tokens in the chunk after
      ``c`` tokens of the same prompt: the query-key pairs of causal attention. The batch prefills if
      it has a chunk, that is, if quad is positive.

    Linear in the context, so that a run of pure decode iterations has a closed form.

    Attributes:
        base_s: of any iteration; > 0, the others >= 0. Seconds, as are all but ``knee_tokens``.
        per_token_s: of each token.
        per_context_token_s: of each token of the context.
        per_quad_s: of each query-key pair.
        knee_tokens: an integer. Up to so many tokens an iteration waits for the weights to be read, beyond
            for the arithmetic (the roofline).
        per_token_beyond_knee_s: what a token beyond the knee costs more.
        per_mixed_context_token_s: what a token of the context costs more in a batch that also prefills,
            where attention is slower.
    """

    base_s: float
    per_token_s: float
    per_context_token_s: float
    per_quad_s: float
    knee_tokens: int = 0
    per_token_beyond_knee_s: float = 0.0
    per_mixed_context_token_s: float = 0.0

    def __post_init__(self) -> None:
        for field in (
            "base_s",
            "per_token_s",
            "per_context_token_s",
            "per_quad_s",
            "per_token_beyond_knee_s",
            "per_mixed_context_token_s",
        ):
            value = getattr(self, field)
            if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
                raise InputError(f"LatencyLaw.{field}: expected a finite number >= 0, got {value!r}")
            object.__setattr__(self, field, float(value))
        if self.base_s <= 0:
            raise InputError(f"LatencyLaw.base_s: expected a number > 0, got {self.base_s!r}")
        knee: object = self.knee_tokens
        if isinstance(knee, bool) or not isinstance(knee, Integral) or not 0 <= int(knee) <= _MAX_KNEE:
            raise InputError(
                f"LatencyLaw.knee_tokens: expected an integer in [0, {_MAX_KNEE}], got {self.knee_tokens!r}"
            )
        object.__setattr__(self, "knee_tokens", int(knee))

    def iteration_s(self, tokens: float, context: float, quad: float) -> float:
        """Time of one iteration in seconds."""
        per_context_token_s = self.per_context_token_s
        if quad > 0:
            per_context_token_s += self.per_mixed_context_token_s
        # The engine has the same order of operations: results are compared bit for bit.
        return (
            self.base_s
            + self.per_token_s * tokens
            + self.per_token_beyond_knee_s * max(0, tokens - self.knee_tokens)
            + per_context_token_s * context
            + self.per_quad_s * quad
        )
