"""The routers of the slow reference. Of equals, the instance with the lowest index is chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.reference_anticipator import anticipated_tokens
from tests.reference_instance import Instance
from tests.reference_schedulers import Request


@dataclass(frozen=True)
class RouterView:
    """What a router sees of the cluster at an arrival."""

    ready: Sequence[Instance]  # in order of index
    routed: int  # requests routed before this one
    seed: int
    now_s: float
    start_s: float  # where the clock started
    look_ahead: int  # iterations
    anticipator: str  # variant of it
    weights: Sequence[float]  # of ``linear``


Router = Callable[[RouterView, Request], int]
"""Chooses the index of a ready instance."""


def uniform(seed: int, draw: int) -> float:
    """A hash of both in [0, 1), 32 bits after 32 bits."""
    state = 0x9E3779B9
    for part in (seed % 2**32, seed // 2**32, draw % 2**32, draw // 2**32):
        state ^= part
        for _ in range(2):
            state = (state ^ state // 2**16) * 0x45D9F3B % 2**32
        state ^= state // 2**16
    return state / 2**32


def lowest(view: RouterView, score: Callable[[Instance], float]) -> int:
    """The ready instance with the lowest score; ``min`` returns the first of equals."""
    return min(view.ready, key=score).index


def highest(view: RouterView, score: Callable[[Instance], float]) -> int:
    """The ready instance with the highest score; ``max`` returns the first of equals."""
    return max(view.ready, key=score).index


def round_robin(view: RouterView, request: Request) -> int:
    """The instances in turn."""
    return view.ready[view.routed % len(view.ready)].index


def random(view: RouterView, request: Request) -> int:
    """Any, with equal probability."""
    return view.ready[int(uniform(view.seed, view.routed) * len(view.ready))].index


def power_of_two(view: RouterView, request: Request) -> int:
    """Two drawn without replacement, the one with fewer requests, else the first."""
    if len(view.ready) == 1:
        return view.ready[0].index
    first = view.ready[int(uniform(view.seed, 2 * view.routed) * len(view.ready))]
    others = [instance for instance in view.ready if instance is not first]
    second = others[int(uniform(view.seed, 2 * view.routed + 1) * len(others))]
    return min(first, second, key=lambda i: len(i.requests_in_flight)).index


def least_requests(view: RouterView, request: Request) -> int:
    """Fewest requests running or waiting."""
    return lowest(view, lambda i: len(i.requests_in_flight))


def least_kv(view: RouterView, request: Request) -> int:
    """Fewest blocks in use."""
    return lowest(view, lambda i: i.kv_blocks_used)


def least_tokens(view: RouterView, request: Request) -> int:
    """Fewest prompt and predicted output tokens in flight."""
    return lowest(view, lambda i: i.expected_tokens)


def preserve(view: RouterView, request: Request) -> int:
    """Least queued prefill, counted twice, plus expected tokens."""
    return lowest(view, lambda i: 2 * i.queued_prefill_tokens + i.expected_tokens)


def llumnix(view: RouterView, request: Request) -> int:
    """Highest freeness: blocks neither used nor waited for, per request."""

    def freeness(i: Instance) -> float:
        requests = len(i.requests_in_flight)
        return (i.scheduler.free_blocks - i.waiting_blocks) / requests if requests else math.inf

    return highest(view, freeness)


def llm_d(view: RouterView, request: Request) -> int:
    """Short queue and free KV cache, each scored from 0 to 1 and counted twice."""
    waiting = [len(i.waiting) for i in view.ready]
    fewest, most = min(waiting), max(waiting)

    def score(i: Instance) -> float:
        queue = 1.0 if most == fewest else (most - len(i.waiting)) / (most - fewest)
        kv = 1.0 - i.kv_blocks_used / i.scheduler.usable_blocks
        return 2.0 * queue + 2.0 * kv

    return highest(view, score)


def throughputs(view: RouterView, instance: Instance) -> tuple[float, float]:
    """Prompt and generated tokens/s in the last closed 10 s of the cluster's clock; 0 before the first."""
    closed = 0
    while view.start_s + 10.0 * (closed + 1) <= view.now_s:
        closed += 1
    if closed == 0:
        return 0.0, 0.0
    after_s, through_s = view.start_s + 10.0 * (closed - 1), view.start_s + 10.0 * closed
    prompt = sum(tokens for t, tokens in instance.first_tokens if after_s < t <= through_s)
    generated = sum(after_s < t <= through_s for t in instance.token_times_s)
    return prompt / 10.0, generated / 10.0


def aibrix_throughput(view: RouterView, request: Request) -> int:
    """Lowest throughput, that of prompts counted twice."""

    def score(i: Instance) -> float:
        prompt, generated = throughputs(view, i)
        return 2.0 * prompt + generated

    return lowest(view, score)


def unlikeness(instance: Instance, request: Request) -> float:
    """How unlike the prompt is to the mean of those there."""
    prompts = [r.prompt_tokens for r in instance.requests_in_flight]
    if not prompts:
        return 0.0
    mean = sum(prompts) / len(prompts)
    return abs(request.prompt_tokens - mean) / (request.prompt_tokens + mean)


def prism(view: RouterView, request: Request) -> int:
    """Lowest cost of the request, higher where its prompt is unlike those there and the KV cache is full."""
    p, d = request.prompt_tokens, request.predicted_tokens

    def cost(i: Instance) -> float:
        unlike = unlikeness(i, request)
        use = i.kv_blocks_used / i.scheduler.usable_blocks
        return (1e-6 * p * p * (1.0 + unlike) + 1e-3 * (p + d)) * (1.0 + use)

    return lowest(view, cost)


def peak(view: RouterView, instance: Instance, request: Request) -> int:
    """Most tokens stored within the look-ahead window if ``request`` decoded at ``instance`` from now on."""
    stored = anticipated_tokens(instance, view.look_ahead, view.anticipator)
    for j in range(min(view.look_ahead, request.predicted_tokens)):
        stored[j] += request.prompt_tokens + j
    return max(stored)


def preserve_look_ahead(view: RouterView, request: Request) -> int:
    """Least queued prefill plus the anticipated peak with the request."""
    return lowest(view, lambda i: i.queued_prefill_tokens + peak(view, i, request))


def loads(view: RouterView, instance: Instance, request: Request) -> list[float]:
    """What ``linear`` weighs, each as a share of what an instance can hold."""
    return [
        instance.queued_prefill_tokens / instance.kv_tokens,
        instance.kv_blocks_used / instance.scheduler.usable_blocks,
        instance.expected_tokens / instance.kv_tokens,
        len(instance.requests_in_flight) / instance.config.max_num_seqs,
        len(instance.waiting) / instance.config.max_num_seqs,
        peak(view, instance, request) / instance.kv_tokens,
        unlikeness(instance, request),
    ]


def linear(view: RouterView, request: Request) -> int:
    """Lowest weighted sum of loads."""
    w = view.weights

    def score(i: Instance) -> float:
        x = loads(view, i, request)
        # Not ``sum``, which rounds otherwise from Python 3.12 on: this order is part of the semantics.
        first = w[0] * x[0] + w[1] * x[1] + w[2] * x[2] + w[3] * x[3]
        return first + w[4] * x[4] + w[5] * x[5] + w[6] * x[6]

    return lowest(view, score)


ROUTERS: dict[str, Router] = {
    router.__name__: router
    for router in (
        round_robin,
        random,
        power_of_two,
        least_requests,
        least_kv,
        least_tokens,
        preserve,
        llumnix,
        llm_d,
        aibrix_throughput,
        prism,
        preserve_look_ahead,
        linear,
    )
}
