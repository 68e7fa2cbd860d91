"""Routers: compiled functions ``(view, request) -> instance``, called at each arrival.

All have one signature, so the engine is compiled once and takes any of them. Write your own::

    from preserve_gym import router

    @router
    def shortest_prefill_queue(view, request):
        best = view.ready[0]
        for i in view.ready[: view.n_ready]:
            if view.instances[i].queued_prefill_tokens < view.instances[best].queued_prefill_tokens:
                best = i
        return best

It must return one of ``view.ready[:view.n_ready]``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import float64, from_dtype, int64, types
from numpy.typing import NDArray

from preserve_gym.errors import InputError
from preserve_gym.sim.jit import kernel, typed_kernel
from preserve_gym.sim.state import I8, INSTANCE


class RouterView(NamedTuple):
    """What a router sees of the cluster at an arrival.

    ``instances[i]`` has, among others: ``n_running`` (requests in the batch), ``n_waiting`` (in the queue),
    ``queued_prefill_tokens`` (prompts of requests there without a first token), ``expected_tokens``
    (prompt plus predicted output of requests there) and ``blocks_used`` (KV-cache blocks).
    """

    instances: NDArray[np.void]  # (max_instances,)
    ready: I8  # slots that are ready, ascending; the first n_ready count
    n_ready: int
    routed: int  # requests routed before this one
    seed: int  # of the cluster, for ``uniform(view.seed, k)``
    kv_blocks: int  # usable KV-cache blocks of an instance
    block_size: int  # tokens in a block


class RequestView(NamedTuple):
    """What a router sees of the request."""

    arrival_s: float
    prompt_tokens: np.int64
    predicted_tokens: np.int64  # predicted, never true, output tokens


ROUTER_SIGNATURE = int64(
    types.NamedTuple(
        (
            types.Array(from_dtype(INSTANCE), 1, "C"),
            types.Array(int64, 1, "C"),
            int64,
            int64,
            int64,
            int64,
            int64,
        ),
        RouterView,
    ),
    types.NamedTuple((float64, int64, int64), RequestView),
)


def router(function: Callable[[Any, Any], int] | None = None, *, reads_kv: bool = True) -> Any:
    """Compile ``function(view: RouterView, request: RequestView) -> int`` into a router.

    Args:
        function: compiled if given; otherwise a decorator is returned.
        reads_kv: whether it reads ``blocks_used``. Without, instances that just decode need not be brought
            up to date at each arrival, which is faster; ``blocks_used`` may then be too low.
    """
    if function is None:
        return functools.partial(router, reads_kv=reads_kv)
    compiled = typed_kernel(ROUTER_SIGNATURE)(function)
    compiled.reads_kv = reads_kv
    return compiled


@kernel
def uniform(seed: int, draw: int) -> float:
    """The ``draw``-th random number of ``seed``, in [0, 1), with 32 random bits.

    A router keeps no state, so it draws by number: ``view.routed`` differs for every request.
    """
    x = _mix((seed & 0xFFFFFFFF) ^ 0x9E3779B9)
    x = _mix(x ^ (seed >> 32))
    x = _mix(x ^ (draw & 0xFFFFFFFF))
    x = _mix(x ^ (draw >> 32))
    return x * 2.0**-32


@kernel
def _mix(x: int) -> int:
    """A bijection of 32-bit numbers that scatters them; no product exceeds 63 bits."""
    x = (((x >> 16) ^ x) * 0x45D9F3B) & 0xFFFFFFFF
    x = (((x >> 16) ^ x) * 0x45D9F3B) & 0xFFFFFFFF
    return (x >> 16) ^ x


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
    requests_a = view.instances[a].n_running + view.instances[a].n_waiting
    requests_b = view.instances[b].n_running + view.instances[b].n_waiting
    return b if requests_b < requests_a else a


def _least_requests(view: RouterView, request: RequestView) -> int:
    """Fewest requests running and waiting (join the shortest queue); ties to the lowest slot."""
    best, least = -1, 0
    for i in view.ready[: view.n_ready]:
        requests = view.instances[i].n_running + view.instances[i].n_waiting
        if best < 0 or requests < least:
            best, least = i, requests
    return best


def _least_kv(view: RouterView, request: RequestView) -> int:
    """Fewest KV-cache blocks in use; ties to the lowest slot."""
    best, least = -1, 0
    for i in view.ready[: view.n_ready]:
        if best < 0 or view.instances[i].blocks_used < least:
            best, least = i, view.instances[i].blocks_used
    return best


def _least_tokens(view: RouterView, request: RequestView) -> int:
    """Fewest outstanding tokens, prompts plus predicted outputs; ties to the lowest slot."""
    best, least = -1, 0
    for i in view.ready[: view.n_ready]:
        if best < 0 or view.instances[i].expected_tokens < least:
            best, least = i, view.instances[i].expected_tokens
    return best


def _preserve(view: RouterView, request: RequestView) -> int:
    """PreServe's router (its published artifact): ``2*queued prefill + expected tokens``, least first.

    Queued prefill is the current load, expected tokens (prompt plus predicted output of everything in
    flight) the anticipated one; the weight 2 stands for the time of a prefill token over that of a
    decode token. Ties to the lowest slot. Source: arXiv 2504.03702 and its artifact.
    """
    best, least = -1, 0
    for i in view.ready[: view.n_ready]:
        score = 2 * view.instances[i].queued_prefill_tokens + view.instances[i].expected_tokens
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
}
_READS_KV = {"least-kv"}
_compiled: dict[str, Any] = {}


def get_router(name_or_router: Any) -> Any:
    """The compiled router of that name, or the given one if it is compiled already.

    Raises:
        InputError: if there is no router of that name.
    """
    if not isinstance(name_or_router, str):
        if not hasattr(name_or_router, "reads_kv"):
            raise InputError(f"router: expected a name or a function made by @router, got {name_or_router!r}")
        return name_or_router
    if name_or_router not in ROUTERS:
        raise InputError(f"router: expected one of {', '.join(ROUTERS)}, got {name_or_router!r}")
    if name_or_router not in _compiled:
        _compiled[name_or_router] = router(ROUTERS[name_or_router], reads_kv=name_or_router in _READS_KV)
    return _compiled[name_or_router]
