"""What an instance of the slow reference is expected to store, iteration by iteration.

A running request that has produced ``g >= 1`` tokens is expected to grow by a token in every iteration,
until its predicted end. The variants differ in what happens at that end:

* ``paper``: one that outlives its prediction is extended by a fifth of it, again and again; one that
  completes early counts no more.
* ``artifact``: a token more is counted; one that outlives its prediction by 10 tokens is extended by 30 more
  from there, again and again; one that completes with at most 10 iterations left goes on as if it had not.
"""

from __future__ import annotations

from tests.reference_instance import Instance


def paper_end(predicted_tokens: int, decoded: int) -> int:
    """Predicted output length, extended until it exceeds ``decoded``."""
    end = predicted_tokens
    while end <= decoded:
        end += -(-predicted_tokens // 5)  # ceil(0.2 * predicted), at least 1
    return end


def artifact_end(predicted_tokens: int, decoded: int) -> int:
    """Predicted output length, extended where ``decoded`` is 10 past it; it may be below ``decoded``."""
    end = predicted_tokens
    while decoded >= end + 10:
        end += 10 + 30
    return end


def anticipated_tokens(instance: Instance, look_ahead: int, variant: str = "paper") -> list[int]:
    """Tokens that ``instance`` is expected to store in its next ``look_ahead`` iterations."""
    assert variant in ("paper", "artifact")
    stored = [0] * look_ahead
    for request in instance.running:
        if request.generated == 0:
            continue
        decoded = request.generated - 1
        if variant == "paper":
            first, end = request.prompt_tokens + decoded, paper_end(request.predicted_tokens, decoded)
        else:
            first, end = request.prompt_tokens + 1 + decoded, artifact_end(request.predicted_tokens, decoded)
        for j in range(min(look_ahead, end - decoded)):
            stored[j] += first + j
    if variant == "artifact":
        for request, decode_steps in instance.completions:
            decoded = request.output_tokens - 1
            end = artifact_end(request.predicted_tokens, decoded)
            if end - decoded > 10:
                continue
            decoded += instance.decode_steps - decode_steps  # as if it had not completed
            for j in range(min(look_ahead, end - decoded)):
                stored[j] += request.prompt_tokens + 1 + decoded + j
    return stored


def anticipated(instance: Instance, look_ahead: int, variant: str = "paper") -> list[float]:
    """The same as shares of the KV pool."""
    return [tokens / instance.kv_tokens for tokens in anticipated_tokens(instance, look_ahead, variant)]
