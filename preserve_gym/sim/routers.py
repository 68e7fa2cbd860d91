"""The built-in routers, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError
from preserve_gym.sim.draws import uniform
from preserve_gym.sim.jit import kernel
from preserve_gym.sim.routing import RequestView, RouterView, router
from preserve_gym.sim.state import MOST_WEIGHTS, ROUTER_WEIGHTS

LINEAR_FEATURES = (
    "queued prefill tokens",
    "KV use",
    "expected tokens",
    "requests in flight",
    "requests waiting",
    "anticipated tokens",
    "unlike prompts",
)
"""What ``linear`` weighs, in the order of its weights, each as a share of what an instance holds.

The last is ``abs(P - m)/(P + m)`` of the request's prompt P and the mean prompt m of the requests there, 0
where there are none, as PRISM has it.
"""
USUAL_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0)
"""Of ``linear`` where nobody sets them: all loads alike."""


def _round_robin(view: RouterView, request: RequestView) -> int:
    """The ready instances in turn."""
    return view.ready[view.routed % view.n_ready]


def _random(view: RouterView, request: RequestView) -> int:
    """Any ready instance, each with the same probability."""
    return view.ready[int(uniform(view.seed, view.routed) * view.n_ready)]


def _power_of_two(view: RouterView, request: RequestView) -> int:
    """Of two ready instances drawn at random, the one with fewer requests; ties to the first drawn.

    Source: Mitzenmacher, "The power of two choices in randomized load balancing" (2001).
    """
    if view.n_ready == 1:
        return view.ready[0]
    first = int(uniform(view.seed, 2 * view.routed) * view.n_ready)
    second = int(uniform(view.seed, 2 * view.routed + 1) * (view.n_ready - 1))
    if second >= first:
        second += 1
    a, b = view.ready[first], view.ready[second]
    return b if view.in_flight[b] < view.in_flight[a] else a


def _least_requests(view: RouterView, request: RequestView) -> int:
    """Fewest requests running and waiting (join the shortest queue); ties to the lowest slot."""
    best, least = view.ready[0], view.in_flight[view.ready[0]]
    if view.n_ready == len(view.ready):
        # All slots: two plain loops, which the compiler turns into vector instructions.
        for i in range(len(view.in_flight)):
            least = min(least, view.in_flight[i])
        while view.in_flight[best] > least:
            best += 1
        return best
    for k in range(1, view.n_ready):
        i = view.ready[k]
        if view.in_flight[i] < least:
            best, least = i, view.in_flight[i]
    return best


def _least_kv(view: RouterView, request: RequestView) -> int:
    """Fewest KV-cache blocks in use; ties to the lowest slot."""
    best, least = view.ready[0], view.blocks_used[view.ready[0]]
    for k in range(1, view.n_ready):
        i = view.ready[k]
        if view.blocks_used[i] < least:
            best, least = i, view.blocks_used[i]
    return best


def _least_tokens(view: RouterView, request: RequestView) -> int:
    """Fewest outstanding tokens, prompts plus predicted outputs; ties to the lowest slot."""
    best, least = view.ready[0], view.expected_tokens[view.ready[0]]
    for k in range(1, view.n_ready):
        i = view.ready[k]
        if view.expected_tokens[i] < least:
            best, least = i, view.expected_tokens[i]
    return best


def _preserve(view: RouterView, request: RequestView) -> int:
    """PreServe's router (its published artifact): ``2*queued prefill + expected tokens``, least first.

    Queued prefill is the current load, expected tokens (prompt plus predicted output of everything in
    flight) the anticipated one; the weight 2 stands for the time of a prefill token over that of a
    decode token. Ties to the lowest slot. Source: arXiv 2504.03702 and its artifact.
    """
    best = view.ready[0]
    least = 2 * view.queued_prefill_tokens[best] + view.expected_tokens[best]
    if view.n_ready == len(view.ready):
        # As in least-requests.
        for i in range(len(view.expected_tokens)):
            least = min(least, 2 * view.queued_prefill_tokens[i] + view.expected_tokens[i])
        while 2 * view.queued_prefill_tokens[best] + view.expected_tokens[best] > least:
            best += 1
        return best
    for k in range(1, view.n_ready):
        i = view.ready[k]
        score = 2 * view.queued_prefill_tokens[i] + view.expected_tokens[i]
        if score < least:
            best, least = i, score
    return best


def _preserve_look_ahead(view: RouterView, request: RequestView) -> int:
    """PreServe's router as the text of its paper suggests: on the look-ahead map.

    Prompt tokens queued there plus the peak of the map over the look-ahead window with the new request
    added, both in tokens; least first, ties to the lowest slot. Source: arXiv 2504.03702.
    """
    best, least = -1, 0
    for k in range(view.n_ready):
        i = view.ready[k]
        score = view.queued_prefill_tokens[i] + view.anticipated_tokens[i]
        if best < 0 or score < least:
            best, least = i, score
    return best


def _llumnix(view: RouterView, request: RequestView) -> int:
    """Llumnix: highest freeness, ``(free blocks - waiting blocks) / requests``; infinite for an empty one.

    Ties to the lowest slot. Source: Sun et al., "Llumnix" (OSDI 2024).
    """
    best, most = -1, 0.0
    for k in range(view.n_ready):
        i = view.ready[k]
        freeness = math.inf
        if view.in_flight[i] > 0:
            free = view.kv_blocks - view.blocks_used[i] - view.waiting_blocks[i]
            freeness = free / view.in_flight[i]
        if best < 0 or freeness > most:
            best, most = i, freeness
    return best


def _llm_d(view: RouterView, request: RequestView) -> int:
    """The endpoint picker of llm-d (Gateway API Inference Extension), without its prefix scorer.

    ``2*queue + 2*kv``, highest first: queue is 1 for the shortest waiting queue, 0 for the longest and
    linear in between; kv is the free share of the KV cache. Ties to the lowest slot.
    """
    fewest, longest = view.waiting[view.ready[0]], view.waiting[view.ready[0]]
    for k in range(1, view.n_ready):
        waiting = view.waiting[view.ready[k]]
        fewest, longest = min(fewest, waiting), max(longest, waiting)
    best, most = -1, 0.0
    for k in range(view.n_ready):
        i = view.ready[k]
        queue = 1.0
        if longest > fewest:
            queue = (longest - view.waiting[i]) / (longest - fewest)
        score = 2.0 * queue + 2.0 * (1.0 - view.blocks_used[i] / view.kv_blocks)
        if best < 0 or score > most:
            best, most = i, score
    return best


def _aibrix_throughput(view: RouterView, request: RequestView) -> int:
    """AIBrix's throughput policy: least ``2*prompt + generation`` tokens/s; ties to the lowest slot."""
    best, least = -1, 0.0
    for k in range(view.n_ready):
        i = view.ready[k]
        score = 2.0 * view.prompt_throughput[i] + view.generation_throughput[i]
        if best < 0 or score < least:
            best, least = i, score
    return best


@kernel
def _unlike(view: RouterView, i: int, request: RequestView) -> float:
    """How unlike the request's prompt is to those of the requests on instance i, in [0, 1)."""
    if view.in_flight[i] == 0:
        return 0.0
    mean = view.prompt_tokens[i] / view.in_flight[i]
    return abs(request.prompt_tokens - mean) / (request.prompt_tokens + mean)


def _prism(view: RouterView, request: RequestView) -> int:
    """PRISM: ``(1e-6*P*P*(1 + h) + 1e-3*(P + D)) * (1 + KV use)``, least first.

    P prompt tokens and D predicted output tokens of the request; h = abs(P - m)/(P + m), m the mean prompt
    of the requests there, 0 where there are none. Ties to the lowest slot.
    """
    prompt, predicted = request.prompt_tokens, request.predicted_tokens
    best, least = -1, 0.0
    for k in range(view.n_ready):
        i = view.ready[k]
        unlike = _unlike(view, i, request)
        use = view.blocks_used[i] / view.kv_blocks
        score = (1e-6 * prompt * prompt * (1.0 + unlike) + 1e-3 * (prompt + predicted)) * (1.0 + use)
        if best < 0 or score < least:
            best, least = i, score
    return best


def _linear(view: RouterView, request: RequestView) -> int:
    """The least weighted sum of ``LINEAR_FEATURES``; ``router_weights`` >= 0; ties to the lowest slot."""
    capacity = view.kv_blocks * view.block_size
    w = view.weights
    best, least = -1, 0.0
    for k in range(view.n_ready):
        i = view.ready[k]
        score = (
            w[0] * (view.queued_prefill_tokens[i] / capacity)
            + w[1] * (view.blocks_used[i] / view.kv_blocks)
            + w[2] * (view.expected_tokens[i] / capacity)
            + w[3] * (view.in_flight[i] / view.max_num_seqs)
            + w[4] * (view.waiting[i] / view.max_num_seqs)
            + w[5] * (view.anticipated_tokens[i] / capacity)
            + w[6] * _unlike(view, i, request)
        )
        if best < 0 or score < least:
            best, least = i, score
    return best


ROUTERS: dict[str, Callable[[RouterView, RequestView], int]] = {
    "round-robin": _round_robin,
    "random": _random,
    "power-of-two": _power_of_two,
    "least-requests": _least_requests,
    "least-kv": _least_kv,
    "least-tokens": _least_tokens,
    "preserve": _preserve,
    "preserve-look-ahead": _preserve_look_ahead,
    "llumnix": _llumnix,
    "llm-d": _llm_d,
    "aibrix-throughput": _aibrix_throughput,
    "prism": _prism,
    "linear": _linear,
}
_READS: dict[str, tuple[str, ...]] = {
    "least-kv": ("kv",),
    "preserve-look-ahead": ("anticipated",),
    "llumnix": ("kv",),
    "llm-d": ("kv",),
    "aibrix-throughput": ("throughput",),
    "prism": ("kv",),
    "linear": ("kv", "anticipated"),
}
_compiled: dict[str, Any] = {}


def check_weights(compiled_router: Any, weights: Sequence[float]) -> NDArray[np.float64]:
    """The weights of a router, float64 of shape (n,), n at least 7; those of the first 7 not given are 0.

    Raises:
        InputError: unless they are finite numbers, at most ``MOST_WEIGHTS``; for ``linear``, unless they are
            at most 7, >= 0, and one is above 0.
    """
    try:
        values = np.asarray(weights)
    except ValueError:  # rows of different lengths
        values = np.array(None)
    linear = compiled_router is _compiled.get("linear")
    most = ROUTER_WEIGHTS if linear else MOST_WEIGHTS
    numbers = values.dtype.kind in "iuf" and values.ndim == 1 and len(values) <= most
    if not numbers or not (np.isfinite(values) & (not linear or values >= 0)).all():
        expected = f"at most {most} finite numbers" + " >= 0" * linear
        raise InputError(f"router_weights: expected {expected}, got {' '.join(repr(weights).split())}")
    if linear and not values.any():
        raise InputError(f"router_weights: linear needs one above 0, got {weights!r}")
    return np.pad(values.astype(np.float64), (0, max(ROUTER_WEIGHTS - len(values), 0)))


def get_router(name_or_router: Any) -> Any:
    """The compiled router of that name, or the given one if it is compiled already.

    Raises:
        InputError: if there is no router of that name.
    """
    if not isinstance(name_or_router, str):
        if not hasattr(name_or_router, "reads"):
            raise InputError(f"router: expected a name or a function made by @router, got {name_or_router!r}")
        return name_or_router
    if name_or_router not in ROUTERS:
        raise InputError(f"router: expected one of {', '.join(ROUTERS)}, got {name_or_router!r}")
    if name_or_router not in _compiled:
        _compiled[name_or_router] = router(ROUTERS[name_or_router], reads=_READS.get(name_or_router, ()))
    return _compiled[name_or_router]
