"""What a router is: a compiled function ``(view, request) -> instance``, called at each arrival.

All have one signature, so the engine is compiled once and takes any of them. Write your own::

    from preserve_gym import router

    @router
    def shortest_prefill_queue(view, request):
        best = view.ready[0]
        for i in view.ready[: view.n_ready]:
            if view.queued_prefill_tokens[i] < view.queued_prefill_tokens[best]:
                best = i
        return best

It must return one of ``view.ready[:view.n_ready]``.

Quantities that change with every iteration would cost an update of every instance at every arrival. A
router that ``reads`` them sees lower bounds first; the instance that it then chooses is brought up to date,
and it is asked again, until it chooses one that is. So the outcome is exact for every router that never
likes an instance better for a higher KV use or a higher anticipated load of that instance.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import float64, int64, types

from preserve_gym.errors import InputError
from preserve_gym.sim.by_reference import ByReference, ByReferenceType
from preserve_gym.sim.jit import typed_kernel
from preserve_gym.sim.state import F8, I4, I8, Records, State

READS = {"kv": 1, "anticipated": 2, "throughput": 4}
READS_KV, READS_ANTICIPATED, READS_THROUGHPUT = 1, 2, 4


class RouterView(ByReference):
    """What a router sees of the cluster at an arrival. Arrays have shape (max_instances,), by slot.

    Attributes:
        ready: slots that are ready, ascending; only the first ``n_ready`` count.
        n_ready: how many they are, at least one.
        in_flight: requests running and waiting.
        waiting: requests waiting.
        queued_prefill_tokens: prompts of the requests there without a first token.
        prompt_tokens: prompts of the requests there.
        expected_tokens: prompts plus predicted outputs of the requests there.
        blocks_used: KV-cache blocks in use (``reads="kv"``).
        waiting_blocks: blocks that the waiting requests will take when they are admitted.
        anticipated_tokens: peak over the look-ahead window of the tokens that the instance is predicted to
            hold, this request included (``reads="anticipated"``).
        prompt_throughput, generation_throughput: tokens/s over the last whole 10 s, as vLLM logs them
            (``reads="throughput"``).
        weights: what ``router_weights`` gives, float64 of shape (512,); those not given are 0.
        routed: requests routed before this one.
        decision: what ``Route-v0`` was told to do with the request.
        seed: of the cluster, for ``uniform(view.seed, k)``.
        kv_blocks, block_size, max_num_seqs: of an instance.
    """

    ready: I8
    in_flight: I4
    waiting: I4
    queued_prefill_tokens: I8
    prompt_tokens: I8
    expected_tokens: I8
    blocks_used: I4
    waiting_blocks: I8
    anticipated_tokens: I8
    prompt_throughput: F8
    generation_throughput: F8
    weights: F8
    params: Records
    totals: Records

    ARRAYS = {  # noqa: RUF012  (a ClassVar of the base)
        name: State.COLUMNS[name]
        for name in (
            "ready",
            "in_flight",
            "waiting",
            "queued_prefill_tokens",
            "prompt_tokens",
            "expected_tokens",
            "blocks_used",
            "waiting_blocks",
            "anticipated_tokens",
            "prompt_throughput",
            "generation_throughput",
            "weights",
            "params",
            "totals",
        )
    }
    SCALARS = {  # noqa: RUF012
        "n_ready": ("totals", "n_ready"),
        "routed": ("totals", "routed"),
        "decision": ("totals", "decision"),
        "seed": ("params", "seed"),
        "kv_blocks": ("params", "kv_blocks"),
        "block_size": ("params", "block_size"),
        "max_num_seqs": ("params", "max_num_seqs"),
    }


def view_of(state: State) -> RouterView:
    """The routers' view of ``state``."""
    return RouterView(**{name: getattr(state, name) for name in RouterView.ARRAYS})


class RequestView(NamedTuple):
    """What a router sees of the request."""

    arrival_s: float
    prompt_tokens: np.int64
    predicted_tokens: np.int64  # predicted, never true, output tokens


ROUTER_SIGNATURE = int64(ByReferenceType(RouterView), types.NamedTuple((float64, int64, int64), RequestView))


def router(function: Callable[[Any, Any], int] | None = None, *, reads: str | tuple[str, ...] = ()) -> Any:
    """Compile ``function(view: RouterView, request: RequestView) -> int`` into a router.

    Args:
        function: compiled if given; otherwise a decorator is returned.
        reads: which quantities that cost something it reads: ``kv`` (``blocks_used``), ``anticipated``
            (``anticipated_tokens``), ``throughput``. One that is not named here may be out of date.

    Raises:
        InputError: if there is no such quantity.
    """
    names = (reads,) if isinstance(reads, str) else tuple(reads)
    for name in names:
        if name not in READS:
            raise InputError(f"router: reads: expected any of {', '.join(READS)}, got {name!r}")
    if function is None:
        return functools.partial(router, reads=names)
    # Of the function, too: its copy in another process is compiled anew, and keeps nothing else.
    vars(function)["reads"] = sum(READS[name] for name in set(names))
    return typed_kernel(ROUTER_SIGNATURE)(function)
