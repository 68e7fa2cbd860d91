"""One instance of the slow reference: its scheduler, the iterations in flight, and what it remembers."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cached_property

from preserve_gym.config import InstanceConfig
from tests.reference_schedulers import SCHEDULERS, Chunk, Request

OFF, STARTING, READY, DRAINING = range(4)


@dataclass(frozen=True)
class Batch:
    """One iteration: what it computes, and when."""

    chunks: list[Chunk]
    start_s: float
    end_s: float

    @cached_property  # asked for at every event
    def prefills(self) -> bool:
        """Whether it computes any prompt, or part of one."""
        return not all(chunk.is_decode for chunk in self.chunks)


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
        # What the replica in this slot has done since it was started; gone when it is switched off.
        self.token_times_s: list[float] = []  # of all output tokens
        self.first_tokens: list[tuple[float, int]] = []  # time and prompt tokens
        self.decode_steps = 0  # iterations ended in which the decoding requests advance
        self.completions: list[tuple[Request, int]] = []  # while running; and decode_steps then

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
    def kv_tokens(self) -> int:
        """Tokens that fit into the usable blocks."""
        return self.scheduler.usable_blocks * self.config.block_size

    @property
    def waiting_blocks(self) -> int:
        """Blocks that the waiting requests would take: their prompts and the output tokens they keep."""
        return sum(self.scheduler.blocks_for(r.known_tokens + r.pending) for r in self.waiting)

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
        return start_s + self.config.latency.iteration_s(tokens, context, quad)

    def end_iteration(self) -> list[Request]:
        """Hand out the tokens of the executing batch; return the requests that completed."""
        batch = self.batches.popleft()
        # The decoding requests stand still only where vLLM's old scheduler prefills.
        if self.config.scheduler != "vllm_v0" or any(chunk.is_decode for chunk in batch.chunks):
            self.decode_steps += 1
        completed = []
        for chunk in batch.chunks:
            if not chunk.samples_token:
                continue
            request = chunk.request
            request.pending -= 1
            request.generated += 1
            request.token_times_s.append(batch.end_s)
            self.token_times_s.append(batch.end_s)
            if request.generated == 1:
                request.first_token_s = batch.end_s
                self.first_tokens.append((batch.end_s, request.prompt_tokens))
            if request.generated == request.output_tokens:
                request.completed_s = batch.end_s
                request.blocks = 0
                if request in self.running:
                    self.running.remove(request)
                    self.completions.append((request, self.decode_steps))
                else:  # preempted with its last token in flight
                    self.waiting.remove(request)
                completed.append(request)
        if self.requests_in_flight:
            self.form_at_s = batch.end_s
        return completed

    def forget(self) -> None:
        """The replica is switched off; the next one in this slot knows nothing of it."""
        self.token_times_s.clear()
        self.first_tokens.clear()
        self.completions.clear()

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
            assert len(request.token_times_s) == request.generated
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
