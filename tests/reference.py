"""The slow, obvious simulator that guards the fast engine: plain Python, one iteration at a time.

Nothing here is clever. A request is an object, the queues of an instance are Python lists, every
iteration is visited and every sum is taken anew, so that a reader can hold each line against the rules
that were read in vLLM's own scheduler, and in Vidur's. It shares only the configuration with
``preserve_gym``. What an iteration computes is chosen in ``reference_schedulers``. The cluster puts the
events of one instant in this order:

1. ends of iterations (an instance that drained empty is off at once),
2. starting instances become ready,
3. deadlines,
4. the snapshot and the control action (between two calls of ``run_until``),
5. arrivals, in the order of the trace,
6. new batches.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from preserve_gym.config import ClusterConfig, InstanceConfig
from tests.reference_schedulers import SCHEDULERS, Chunk, Request

OFF, STARTING, READY, DRAINING = range(4)


@dataclass(frozen=True)
class Batch:
    """One iteration: what it computes, and when."""

    chunks: list[Chunk]
    start_s: float
    end_s: float


class Instance:
    """One model replica: its scheduler, and the iterations in flight."""

    def __init__(self, index: int, config: InstanceConfig) -> None:
        self.index = index  # its slot in the cluster
        self.config = config
        self.state = OFF
        self.started_s: float | None = None
        self.ready_at_s: float | None = None
        self.drained_as = 0  # the n-th instance of the cluster to begin draining; counts while draining
        self.scheduler = SCHEDULERS[config.scheduler](config)
        self.waiting = self.scheduler.waiting
        self.running = self.scheduler.running
        self.batches: deque[Batch] = deque()  # formed and not ended; the first one is executing
        self.form_at_s: float | None = None  # instant at which to form batches
        self.iterations = 0
        self.empty_schedules = 0
        self.scheduled_tokens = 0

    # What routers and snapshots read.

    @property
    def requests_in_flight(self) -> list[Request]:
        """Requests running or waiting here."""
        return [*self.running, *self.waiting]

    @property
    def kv_blocks_used(self) -> int:
        """Blocks that running requests hold."""
        return self.scheduler.kv_blocks_used

    @property
    def queued_prefill_tokens(self) -> int:
        """Prompt tokens of the requests here that have no first token yet."""
        return sum(r.prompt_tokens for r in self.requests_in_flight if r.first_token_s is None)

    @property
    def expected_tokens(self) -> int:
        """Prompt plus predicted output tokens of the requests here."""
        return sum(r.prompt_tokens + r.predicted_tokens for r in self.requests_in_flight)

    # Iterations.

    def form_batches(self, now: float) -> None:
        """Form as many batches as may be in flight: one, or two with asynchronous scheduling."""
        self.form_at_s = None
        most = 2 if self.config.async_scheduling else 1
        while len(self.batches) < most and self.requests_in_flight:
            chunks = self.scheduler.schedule()
            if not chunks:
                # Only while a last token is in flight; the end of that iteration changes it.
                assert self.batches, "nothing can be scheduled, ever again"
                self.empty_schedules += 1
                return
            start_s = self.batches[-1].end_s if self.batches else now
            self.batches.append(Batch(chunks, start_s, self._end_s(start_s, chunks)))
            self.iterations += 1
            self.scheduled_tokens += sum(chunk.tokens for chunk in chunks)
            for chunk in chunks:
                if chunk.request.first_scheduled_s is None:
                    chunk.request.first_scheduled_s = start_s

    def _end_s(self, start_s: float, chunks: list[Chunk]) -> float:
        tokens = sum(chunk.tokens for chunk in chunks)
        context = sum(chunk.computed_before + 1 for chunk in chunks if chunk.is_decode)
        quad = sum(c.tokens * (c.tokens / 2 + c.computed_before) for c in chunks if not c.is_decode)
        law = self.config.latency
        # This order of operations is part of the semantics: results are compared bit for bit.
        return start_s + (
            ((law.base_s + law.per_token_s * tokens) + law.per_context_token_s * context)
            + law.per_quad_s * quad
        )

    def end_iteration(self) -> list[Request]:
        """Hand out the tokens of the executing batch; return the requests that completed."""
        batch = self.batches.popleft()
        completed = []
        for chunk in batch.chunks:
            if not chunk.samples_token:
                continue
            request = chunk.request
            request.pending -= 1
            request.generated += 1
            if request.generated == 1:
                request.first_token_s = batch.end_s
            if request.generated == request.output_tokens:
                request.completed_s = batch.end_s
                request.blocks = 0
                # A request preempted with its last token in flight completes in the queue.
                (self.running if request in self.running else self.waiting).remove(request)
                completed.append(request)
        if self.requests_in_flight:
            self.form_at_s = batch.end_s
        return completed

    def check(self) -> None:
        """Assert what must hold at every instant."""
        self.scheduler.check()
        in_flight = self.requests_in_flight
        for request in in_flight:
            assert request.instance == self.index
            assert request.generated + request.pending <= request.output_tokens
            formed = [c for batch in self.batches for c in batch.chunks if c.request is request]
            assert request.pending == sum(chunk.samples_token for chunk in formed)
            assert (request.generated > 0) == (request.first_token_s is not None)
        for batch in self.batches:
            assert batch.start_s < batch.end_s
            assert sum(chunk.tokens for chunk in batch.chunks) <= self.config.max_num_batched_tokens
        if self.state in (OFF, STARTING):
            assert not in_flight
            assert not self.batches
        elif not self.batches:
            # Work conservation: an idle instance forms a batch now, or has no request.
            assert self.form_at_s is not None or not in_flight
        if self.state == DRAINING:
            assert in_flight


def anticipated(instance: Instance, look_ahead: int) -> list[float]:
    """Predicted KV use of ``instance`` at its next ``look_ahead`` iterations, as a share of its pool.

    A running request that has produced ``g >= 1`` tokens stores ``prompt + (g - 1) + j`` tokens in
    iteration ``j``, until its predicted end; one that outlives its prediction is extended by a fifth of
    it, again and again.
    """
    pool_tokens = (instance.config.num_gpu_blocks - 1) * instance.config.block_size
    stored_tokens = [0] * look_ahead
    for request in instance.running:
        if request.generated == 0:
            continue
        decoded = request.generated - 1
        expected_end = request.predicted_tokens
        while expected_end <= decoded:
            expected_end += -(-request.predicted_tokens // 5)  # ceil(0.2 * predicted), at least 1
        for j in range(min(look_ahead, expected_end - decoded)):
            stored_tokens[j] += request.prompt_tokens + decoded + j
    return [tokens / pool_tokens for tokens in stored_tokens]


Router = Callable[[Sequence[Instance], Request], int]
"""Chooses an instance: the ready ones in order of index, and the request, to the index of one."""


def round_robin(ready: Sequence[Instance], request: Request) -> int:
    """The instances in turn."""
    return ready[request.routed_before % len(ready)].index


def uniform(seed: int, draw: int) -> float:
    """A hash of both in [0, 1), 32 bits after 32 bits."""
    state = 0x9E3779B9
    for part in (seed % 2**32, seed // 2**32, draw % 2**32, draw // 2**32):
        state ^= part
        for _ in range(2):
            state = (state ^ state // 2**16) * 0x45D9F3B % 2**32
        state ^= state // 2**16
    return state / 2**32


def random(ready: Sequence[Instance], request: Request) -> int:
    """Any, with equal probability."""
    return ready[int(uniform(0, request.routed_before) * len(ready))].index


def power_of_two(ready: Sequence[Instance], request: Request) -> int:
    """Two drawn without replacement, the one with fewer requests, else the first."""
    if len(ready) == 1:
        return ready[0].index
    first = ready[int(uniform(0, 2 * request.routed_before) * len(ready))]
    others = [instance for instance in ready if instance is not first]
    second = others[int(uniform(0, 2 * request.routed_before + 1) * len(others))]
    return min(first, second, key=lambda i: len(i.running) + len(i.waiting)).index


def least_requests(ready: Sequence[Instance], request: Request) -> int:
    """Fewest requests running or waiting."""
    return min(ready, key=lambda i: (len(i.running) + len(i.waiting), i.index)).index


def least_kv(ready: Sequence[Instance], request: Request) -> int:
    """Fewest blocks in use."""
    return min(ready, key=lambda i: (i.kv_blocks_used, i.index)).index


def least_tokens(ready: Sequence[Instance], request: Request) -> int:
    """Fewest prompt and predicted output tokens in flight."""
    return min(ready, key=lambda i: (i.expected_tokens, i.index)).index


def preserve(ready: Sequence[Instance], request: Request) -> int:
    """Least queued prefill, counted twice, plus expected tokens."""
    return min(ready, key=lambda i: (2 * i.queued_prefill_tokens + i.expected_tokens, i.index)).index


ROUTERS: dict[str, Router] = {
    router.__name__: router
    for router in (round_robin, random, power_of_two, least_requests, least_kv, least_tokens, preserve)
}


class ReferenceCluster:
    """Instances behind a router, scaled from outside.

    Args:
        config: the cluster.
        arrival_s: arrival times, ascending, not before ``start_s``.
        prompt_tokens, output_tokens, predicted_tokens: per request.
        router: chooses the instance of each request.
        initial_instances: instances ready at ``start_s``: slots 0, 1, ...
        start_s: where the clock starts.
        debug: assert the invariants after every event.
    """

    def __init__(
        self,
        config: ClusterConfig,
        arrival_s: Sequence[float],
        prompt_tokens: Sequence[int],
        output_tokens: Sequence[int],
        predicted_tokens: Sequence[int],
        router: Router,
        initial_instances: int,
        start_s: float = 0.0,
        debug: bool = False,
    ) -> None:
        assert config.min_instances <= initial_instances <= config.max_instances
        instance = config.instance
        # vLLM refuses this too: a prompt above the budget would wait for ever.
        assert instance.enable_chunked_prefill or instance.max_num_batched_tokens >= instance.max_model_len
        self.config = config
        self.router = router
        self.debug = debug
        self.requests = [
            Request(index, float(arrival), int(prompt), int(output), int(predicted))
            for index, (arrival, prompt, output, predicted) in enumerate(
                zip(arrival_s, prompt_tokens, output_tokens, predicted_tokens, strict=True)
            )
        ]
        arrivals = [start_s, *(request.arrival_s for request in self.requests)]
        assert arrivals == sorted(arrivals)
        self.instances = [Instance(index, config.instance) for index in range(config.max_instances)]
        for initial in self.instances[:initial_instances]:
            initial.state = READY
            initial.started_s = initial.ready_at_s = start_s
        self.now_s = start_s
        self.gpu_s = 0.0  # GPU-seconds of starting, ready and draining instances, and of cancelled starts
        self.busy_s = 0.0  # instance-seconds of executing iterations
        self.kv_block_s = 0.0  # block-seconds allocated
        self.scale_ups = 0  # instances started or taken back
        self.scale_downs = 0  # instances cancelled while starting, or drained
        self._arrived = 0
        self._routed = 0
        self._completed = 0
        self._rejected = 0
        self._drains = 0
        # (deadline in seconds, index of the request, name of the result that must be there by then)
        self._deadlines: list[tuple[float, int, str]] = []

    def run_until(self, until_s: float) -> None:
        """Play ends of iterations, cold starts and deadlines up to and at ``until_s``, the rest before it.

        With ``math.inf`` everything is played, and the clock stays at the last event.
        """
        assert until_s >= self.now_s
        while (now := self._next_event_s(until_s)) is not None:
            self._advance_clock(now)
            self._end_iterations(now)
            self._make_ready(now)
            self._decide_deadlines(now)
            if now < until_s:
                self._admit_arrivals(now)
                self._form_batches(now)
            if self.debug:
                self.check()
        if until_s < math.inf:
            self._advance_clock(until_s)

    def _next_event_s(self, until_s: float) -> float | None:
        through: list[float] = []  # may be at until_s
        before: list[float] = []  # must be before it
        for instance in self.instances:
            if instance.batches:
                through.append(instance.batches[0].end_s)
            if instance.state == STARTING and instance.ready_at_s is not None:
                through.append(instance.ready_at_s)
            if instance.form_at_s is not None:
                before.append(instance.form_at_s)
        if self._deadlines:
            through.append(self._deadlines[0][0])
        if self._arrived < len(self.requests):
            before.append(self.requests[self._arrived].arrival_s)
        due = [t for t in through if t <= until_s] + [t for t in before if t < until_s]
        return min(due, default=None)

    def _advance_clock(self, now: float) -> None:
        elapsed_s = now - self.now_s
        assert elapsed_s >= 0
        for instance in self.instances:
            if instance.state != OFF:
                self.gpu_s += elapsed_s * self.config.instance.gpus
            if instance.batches:
                self.busy_s += elapsed_s
            self.kv_block_s += elapsed_s * instance.kv_blocks_used
        self.now_s = now

    def _end_iterations(self, now: float) -> None:
        for instance in self.instances:
            if instance.batches and instance.batches[0].end_s == now:
                self._completed += len(instance.end_iteration())
                if instance.state == DRAINING and not instance.requests_in_flight:
                    self._switch_off(instance)

    def _make_ready(self, now: float) -> None:
        for instance in self.instances:
            if instance.state == STARTING and instance.ready_at_s == now:
                instance.state = READY

    def _decide_deadlines(self, now: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline_s, index, result = heapq.heappop(self._deadlines)
            request = self.requests[index]
            if getattr(request, result) is None and request.violated_at_s is None:
                request.violated_at_s = deadline_s

    def _admit_arrivals(self, now: float) -> None:
        while self._arrived < len(self.requests) and self.requests[self._arrived].arrival_s == now:
            request = self.requests[self._arrived]
            self._arrived += 1
            if not self._fit(request):
                request.rejected = True
                request.violated_at_s = now
                self._rejected += 1
                continue
            request.routed_before = self._routed
            self._routed += 1
            ready = [instance for instance in self.instances if instance.state == READY]
            request.instance = self.router(ready, request)
            instance = self.instances[request.instance]
            assert instance.state == READY
            instance.waiting.append(request)
            if not instance.batches:
                instance.form_at_s = now
            for deadline in self._deadlines_of(request):
                heapq.heappush(self._deadlines, deadline)

    def _fit(self, request: Request) -> bool:
        """Whether ``request`` fits an empty instance, after clipping its prompt if the config says so."""
        most_tokens = self.instances[0].scheduler.max_request_tokens
        if self.config.too_long == "clip_prompt":
            longest_prompt = max(most_tokens - request.output_tokens, 1)
            request.prompt_tokens = min(request.prompt_tokens, longest_prompt)
        return request.prompt_tokens + request.output_tokens <= most_tokens

    def _deadlines_of(self, request: Request) -> list[tuple[float, int, str]]:
        slo = self.config.slo
        deadlines = []
        if slo.ttft_s is not None:
            first_token_by_s = (request.arrival_s + slo.ttft_s) + (
                slo.ttft_per_prompt_token_s * request.prompt_tokens
            )
            deadlines.append((first_token_by_s, request.index, "first_token_s"))
            if slo.tpot_s is not None:
                completed_by_s = first_token_by_s + slo.tpot_s * (request.output_tokens - 1)
                deadlines.append((completed_by_s, request.index, "completed_s"))
        if slo.normalized_latency_s is not None:
            completed_by_s = request.arrival_s + slo.normalized_latency_s * request.output_tokens
            deadlines.append((completed_by_s, request.index, "completed_s"))
        return deadlines

    def _form_batches(self, now: float) -> None:
        for instance in self.instances:
            if instance.form_at_s is not None:
                assert instance.form_at_s == now
                instance.form_batches(now)

    # Scaling.

    def _in_state(self, *states: int) -> list[Instance]:
        return [instance for instance in self.instances if instance.state in states]

    def scale_to(self, target: int) -> None:
        """Set the number of starting and ready instances, now."""
        target = min(max(target, self.config.min_instances), self.config.max_instances)
        while len(self._in_state(STARTING, READY)) < target:
            self._scale_up()
        while len(self._in_state(STARTING, READY)) > target:
            self._scale_down()
        if self.debug:
            self.check()

    def _scale_up(self) -> None:
        self.scale_ups += 1
        if draining := self._in_state(DRAINING):
            max(draining, key=lambda i: i.drained_as).state = READY
            return
        instance = self._in_state(OFF)[0]
        instance.started_s = self.now_s
        instance.ready_at_s = self.now_s + self.config.cold_start_s
        instance.state = STARTING if instance.ready_at_s > self.now_s else READY

    def _scale_down(self) -> None:
        self.scale_downs += 1
        if starting := self._in_state(STARTING):
            instance = max(starting, key=lambda i: (i.started_s, i.index))
            assert instance.ready_at_s is not None
            # Every start is billed for at least its cold start.
            self.gpu_s += (instance.ready_at_s - self.now_s) * self.config.instance.gpus
            self._switch_off(instance)
            return
        instance = min(self._in_state(READY), key=lambda i: (len(i.requests_in_flight), -i.index))
        if not instance.requests_in_flight:
            self._switch_off(instance)
            return
        self._drains += 1
        instance.drained_as = self._drains
        instance.state = DRAINING

    def _switch_off(self, instance: Instance) -> None:
        assert not instance.batches
        instance.state = OFF
        instance.started_s = instance.ready_at_s = None

    def check(self) -> None:
        """Assert what must hold at every instant, in the cluster and in every instance."""
        for instance in self.instances:
            instance.check()
            assert all(batch.end_s >= self.now_s for batch in instance.batches)
        in_flight = sum(len(instance.requests_in_flight) for instance in self.instances)
        assert self._arrived == self._completed + in_flight + self._rejected
        assert len(self._in_state(STARTING, READY, DRAINING)) <= self.config.max_instances
        assert len(self._in_state(READY)) >= 1
