"""What requests of the slow reference experienced, and histograms of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import pairwise

from tests.reference_schedulers import Request


def inter_token_latencies_s(request: Request) -> list[float]:
    """Times between its output tokens, waiting after a preemption included."""
    return [later - earlier for earlier, later in pairwise(request.token_times_s)]


def ttft_s(request: Request) -> list[float]:
    """Time to its first token, once there is one."""
    return [] if request.first_token_s is None else [request.first_token_s - request.arrival_s]


def tpot_s(request: Request) -> list[float]:
    """Time per output token after the first, once completed with at least two."""
    if request.completed_s is None or request.first_token_s is None or request.output_tokens < 2:
        return []
    return [(request.completed_s - request.first_token_s) / (request.output_tokens - 1)]


def e2e_s(request: Request) -> list[float]:
    """Time to its completion, once completed."""
    return [] if request.completed_s is None else [request.completed_s - request.arrival_s]


def normalized_latency_s(request: Request) -> list[float]:
    """The same per output token."""
    return [latency_s / request.output_tokens for latency_s in e2e_s(request)]


FIGURES: dict[str, Callable[[Request], list[float]]] = {
    "inter_token_latency_s": inter_token_latencies_s,
    "ttft_s": ttft_s,
    "tpot_s": tpot_s,
    "e2e_s": e2e_s,
    "normalized_latency_s": normalized_latency_s,
}
"""The values of a request by figure: none if it has none yet."""

PER_OCTAVE = 64
LOWEST, HIGHEST = -14, 18  # 2**-14 s and 2**18 s
BINS = 1 + (HIGHEST - LOWEST) * PER_OCTAVE + 1


def bin_of(seconds: float) -> int:
    """The first bin is below ``2**LOWEST``, the last from ``2**HIGHEST`` on; in between 64 an octave."""
    if seconds < 2.0**LOWEST:
        return 0
    if seconds >= 2.0**HIGHEST:
        return BINS - 1
    mantissa, exponent = math.frexp(seconds)  # seconds == mantissa * 2**exponent, mantissa in [0.5, 1)
    octave = exponent - 1 - LOWEST
    return 1 + PER_OCTAVE * octave + math.floor((2.0 * mantissa - 1.0) * PER_OCTAVE)


def histogram(values_s: Iterable[float]) -> list[int]:
    """How many of the values are in each bin."""
    counts = [0] * BINS
    for seconds in values_s:
        counts[bin_of(seconds)] += 1
    return counts
