"""The slow, obvious simulator that guards the fast engine: plain Python, one iteration at a time.

Nothing here is clever. A request is an object, the queues of an instance are Python lists, every
iteration is visited and every sum is taken anew, so that a reader can hold each line against the rules
that were read in vLLM's own scheduler, and in Vidur's. It shares only the configuration with
``preserve_gym``. What an iteration computes is chosen in ``reference_schedulers``, an instance plays it
(``reference_instance``), what it will store is foreseen in ``reference_anticipator``, requests are routed by
``reference_routers`` and what they experienced is counted by ``reference_metrics``. The cluster puts the
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
from collections.abc import Sequence

from preserve_gym.config import ClusterConfig
from tests.reference_anticipator import anticipated, anticipated_tokens
from tests.reference_instance import DRAINING, OFF, READY, STARTING, Instance
from tests.reference_metrics import FIGURES, bin_of, histogram
from tests.reference_routers import ROUTERS, Router, RouterView, least_requests, round_robin, uniform
from tests.reference_schedulers import Request

__all__ = [
    "DRAINING",
    "FIGURES",
    "OFF",
    "READY",
    "ROUTERS",
    "STARTING",
    "Instance",
    "ReferenceCluster",
    "Request",
    "Router",
    "RouterView",
    "anticipated",
    "anticipated_tokens",
    "bin_of",
    "histogram",
    "least_requests",
    "round_robin",
    "uniform",
]


class ReferenceCluster:
    """Instances behind a router, scaled from outside.

    Args:
        config: the cluster.
        arrival_s: arrival times, ascending, not before ``start_s``.
        prompt_tokens, output_tokens, predicted_tokens: per request.
        router: chooses the instance of each request.
        initial_instances: instances ready at ``start_s``: slots 0, 1, ...
        start_s: where the clock starts.
        seed: of the routers and of the cold starts that are drawn.
        look_ahead: iterations that routers look ahead.
        anticipator: how they do, ``paper`` or ``artifact``.
        router_weights: seven numbers >= 0 for ``linear``.
        request_class: per request; all 0 if None.
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
        *,
        seed: int = 0,
        look_ahead: int = 100,
        anticipator: str = "paper",
        router_weights: Sequence[float] = (0.0,) * 7,
        request_class: Sequence[int] | None = None,
    ) -> None:
        assert config.min_instances <= initial_instances <= config.max_instances
        instance = config.instance
        # vLLM refuses this too: a prompt above the budget would wait for ever.
        assert instance.enable_chunked_prefill or instance.max_num_batched_tokens >= instance.max_model_len
        self.config = config
        self.router = router
        self.debug = debug
        self.start_s = start_s
        self.seed = seed
        self.look_ahead = look_ahead
        self.anticipator = anticipator
        self.router_weights = tuple(map(float, router_weights))
        assert len(self.router_weights) == 7
        assert min(self.router_weights) >= 0.0
        classes = [0] * len(arrival_s) if request_class is None else request_class
        self.requests = [
            Request(index, float(arrival), int(prompt), int(output), int(predicted), int(its_class))
            for index, (arrival, prompt, output, predicted, its_class) in enumerate(
                zip(arrival_s, prompt_tokens, output_tokens, predicted_tokens, classes, strict=True)
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
        self.prefill_busy_s = 0.0  # of these, the iterations that prefill
        self.kv_block_s = 0.0  # block-seconds allocated
        self.requests_s = 0.0  # request-seconds running or waiting
        self.waiting_s = 0.0  # request-seconds waiting
        self.scale_ups = 0  # instances started or taken back
        self.scale_downs = 0  # instances cancelled while starting, or drained
        self._arrived = 0
        self._routed = 0
        self._completed = 0
        self._rejected = 0
        self._starts = 0
        self._drains = 0
        # (deadline in seconds, index of the request, name of the result that must be there by then)
        self._deadlines: list[tuple[float, int, str]] = []

    @property
    def generated_tokens(self) -> int:
        """Output tokens handed out."""
        return sum(len(request.token_times_s) for request in self.requests)

    @property
    def compliant_output_tokens(self) -> int:
        """Output tokens of the requests that completed within all their deadlines."""
        completed = [request for request in self.requests if request.completed_s is not None]
        return sum(request.output_tokens for request in completed if request.violated_at_s is None)

    def view(self) -> RouterView:
        """What a router sees now."""
        return RouterView(
            ready=self._in_state(READY),
            routed=self._routed,
            seed=self.seed,
            now_s=self.now_s,
            start_s=self.start_s,
            look_ahead=self.look_ahead,
            anticipator=self.anticipator,
            weights=self.router_weights,
        )

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
                if instance.batches[0].prefills:
                    self.prefill_busy_s += elapsed_s
            self.kv_block_s += elapsed_s * instance.kv_blocks_used
            self.requests_s += elapsed_s * len(instance.requests_in_flight)
            self.waiting_s += elapsed_s * len(instance.waiting)
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
            request.instance = self.router(self.view(), request)
            self._routed += 1
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
        cold_starts_s = self.config.cold_starts_s
        drawn = int(uniform(self.seed, 2**62 + self._starts) * len(cold_starts_s))
        self._starts += 1
        instance = self._in_state(OFF)[0]
        instance.started_s = self.now_s
        instance.ready_at_s = self.now_s + cold_starts_s[drawn]
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
        instance.forget()
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
