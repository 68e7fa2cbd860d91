"""The schedulers of the slow reference: which tokens of which requests the next iteration computes.

A scheduler owns the queue of its instance, the running requests and the pool of KV blocks. All of them
are first come first served and preempt by recomputation: a victim loses its blocks, keeps the tokens it
has produced, and goes to the head of the queue. As only the tail of the running list is evicted, the
running requests followed by the waiting ones are always in order of arrival.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field

from preserve_gym.config import InstanceConfig


@dataclass(eq=False)
class Request:
    """A request: what it asks for, what became of it, and what its scheduler knows of it."""

    index: int  # its place in the trace
    arrival_s: float
    prompt_tokens: int  # shortened if it is clipped
    output_tokens: int
    predicted_tokens: int  # predicted output length
    request_class: int = 0

    instance: int | None = None  # where it was routed to; None before its arrival or if rejected
    first_scheduled_s: float | None = None  # start of its first iteration, known once that batch is formed
    first_token_s: float | None = None  # end of the iteration that produced its first token
    completed_s: float | None = None  # end of the iteration that produced its last token
    token_times_s: list[float] = field(default_factory=list)  # ends of the iterations of all its tokens
    preemptions: int = 0
    rejected: bool = False
    violated_at_s: float | None = None  # its first missed deadline, or its arrival if rejected

    generated: int = 0  # output tokens whose iteration has ended
    pending: int = 0  # output tokens of batches formed but not ended; up to 2 if asynchronous
    computed: int = 0  # tokens whose KV cache is computed, or will be by a batch already formed
    blocks: int = 0  # KV blocks held
    sampled: bool = False  # a token was sampled since its last admission: from then on it decodes

    @property
    def known_tokens(self) -> int:
        """Prompt and the output tokens that the scheduler has received."""
        return self.prompt_tokens + self.generated


@dataclass(frozen=True)
class Chunk:
    """Tokens of one request in a batch: a piece of its prefill, or one decoded token."""

    request: Request
    tokens: int
    computed_before: int
    is_decode: bool
    samples_token: bool


class Scheduler(ABC):
    """Queue, running requests and block pool of one instance."""

    spare_blocks = 0
    """Blocks that stay free even when a request runs alone."""

    def __init__(self, config: InstanceConfig) -> None:
        self.config = config
        self.waiting: deque[Request] = deque()  # hold no blocks; the head is admitted first
        self.running: list[Request] = []  # hold blocks; in the order of their last admission

    @abstractmethod
    def schedule(self) -> list[Chunk]:
        """Choose the chunks of the next batch."""

    @property
    def usable_blocks(self) -> int:
        """Blocks of the pool; vLLM's null block is not usable."""
        return self.config.num_gpu_blocks - 1

    @property
    def kv_blocks_used(self) -> int:
        """Blocks that running requests hold."""
        return sum(request.blocks for request in self.running)

    @property
    def free_blocks(self) -> int:
        """Usable blocks that nobody holds."""
        return self.usable_blocks - self.kv_blocks_used

    @property
    def max_request_tokens(self) -> int:
        """Longest prompt plus output that can be served: the KV of the last token is never computed."""
        most_stored = (self.usable_blocks - self.spare_blocks) * self.config.block_size
        return min(self.config.max_model_len, most_stored + 1)

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold ``tokens`` tokens."""
        return -(-tokens // self.config.block_size)

    def blocks_due(self, request: Request) -> int:
        """Blocks that ``request``, which is running, must hold."""
        return self.blocks_for(request.computed)

    def _take(self, request: Request, tokens: int) -> Chunk:
        """Count ``tokens`` more tokens of ``request`` as computed, and give it the blocks it is due."""
        computed_before = request.computed
        is_decode = request.sampled
        request.computed += tokens
        samples_token = request.computed == request.known_tokens + request.pending
        if samples_token:
            request.pending += 1
            request.sampled = True
        request.blocks = self.blocks_due(request)
        return Chunk(request, tokens, computed_before, is_decode, samples_token)

    def _preempt_last(self) -> Request:
        """Evict the running request that was admitted last, and return it."""
        victim = self.running.pop()
        victim.blocks = 0
        victim.computed = 0
        victim.sampled = False
        victim.preemptions += 1
        self.waiting.appendleft(victim)
        return victim

    def check(self) -> None:
        """Assert what must hold at every instant."""
        assert 0 <= self.kv_blocks_used <= self.usable_blocks
        assert len(self.running) <= self.config.max_num_seqs
        order = [request.index for request in (*self.running, *self.waiting)]
        assert order == sorted(set(order))
        for request in self.running:
            assert request.blocks == self.blocks_due(request) > 0
            assert request.computed <= request.prompt_tokens + request.output_tokens - 1
            assert request.computed <= request.known_tokens + max(request.pending - 1, 0)
        for request in self.waiting:
            assert request.blocks == request.computed == 0


class Vllm(Scheduler):
    """vLLM's V1 scheduler: chunked prefill, decodes and prefills under one token budget."""

    def _at_most_threshold(self, tokens: int) -> int:
        threshold = self.config.long_prefill_token_threshold
        return min(tokens, threshold) if threshold > 0 else tokens

    def schedule(self) -> list[Chunk]:
        """Choose the chunks of the next batch, as one call of vLLM's ``schedule()`` does."""
        budget = self.config.max_num_batched_tokens
        chunks, any_preempted = self._schedule_running(budget)
        if not any_preempted:
            budget -= sum(chunk.tokens for chunk in chunks)
            chunks += self._schedule_waiting(budget)
        return chunks

    def _schedule_running(self, budget: int) -> tuple[list[Chunk], bool]:
        chunks: list[Chunk] = []
        any_preempted = False
        position = 0
        while position < len(self.running) and budget > 0:
            request = self.running[position]
            if request.pending > 0 and request.generated + request.pending == request.output_tokens:
                position += 1  # its last token is in flight
                continue
            tokens = self._at_most_threshold(request.known_tokens + request.pending - request.computed)
            tokens = min(tokens, budget, self.config.max_model_len - 1 - request.computed)
            if tokens == 0:
                position += 1
                continue
            while self.blocks_for(request.computed + tokens) - request.blocks > self.free_blocks:
                any_preempted = True
                if self._preempt_last() is request:
                    return chunks, any_preempted
            chunks.append(self._take(request, tokens))
            budget -= tokens
            position += 1
        return chunks, any_preempted

    def _schedule_waiting(self, budget: int) -> list[Chunk]:
        chunks: list[Chunk] = []
        while self.waiting and budget > 0 and len(self.running) < self.config.max_num_seqs:
            request = self.waiting[0]
            # Its token in flight when it was preempted has come back: that iteration has ended by now.
            assert request.pending == 0
            tokens = self._at_most_threshold(request.known_tokens)
            if tokens > budget and not self.config.enable_chunked_prefill:
                break
            tokens = min(tokens, budget)
            full = min(request.known_tokens, self.config.max_model_len)
            if self.config.scheduler_reserve_full_isl and self.blocks_for(full) > self.free_blocks:
                break
            if self.blocks_for(tokens) > self.free_blocks:
                break
            self.running.append(self.waiting.popleft())
            chunks.append(self._take(request, tokens))
            budget -= tokens
        return chunks


class Reserving(Scheduler):
    """What ``vllm_v0`` and ``sarathi`` share, as Vidur does it; both are synchronous.

    A request is admitted with the blocks of all its known tokens, if they leave the watermark free. A
    decode wants a free block at its turn, whether or not it needs one.
    """

    def __init__(self, config: InstanceConfig) -> None:
        assert not config.async_scheduling
        super().__init__(config)
        self.watermark_blocks = int(config.watermark * self.usable_blocks)
        self.spare_blocks = max(self.watermark_blocks, 1)

    def blocks_due(self, request: Request) -> int:
        """Blocks that ``request``, which is running, must hold: from its admission those of its prompt."""
        return self.blocks_for(request.computed if request.sampled else request.known_tokens)

    def _can_admit(self) -> bool:
        """Whether the head of the queue gets in; if not, all behind it wait."""
        if not self.waiting or len(self.running) == self.config.max_num_seqs:
            return False
        needed = self.blocks_for(self.waiting[0].known_tokens)
        return self.free_blocks - needed >= self.watermark_blocks

    def _admit(self, tokens: int) -> Chunk:
        """Admit the head of the queue with a first chunk of ``tokens`` tokens."""
        request = self.waiting.popleft()
        self.running.append(request)
        return self._take(request, tokens)

    def _schedule_decodes(self) -> list[Chunk]:
        """One token of every running request whose prefill is done; they are not limited by the budget."""
        chunks: list[Chunk] = []
        position = 0
        while position < len(self.running):
            request = self.running[position]
            position += 1
            if not request.sampled:
                continue
            while self.free_blocks < 1:
                if self._preempt_last() is request:
                    return chunks
            chunks.append(self._take(request, 1))
        return chunks


class VllmV0(Reserving):
    """vLLM's old scheduler: whole prompts, and no decode in an iteration that can prefill."""

    def __init__(self, config: InstanceConfig) -> None:
        # A prompt above the budget would wait for ever.
        assert config.max_num_batched_tokens >= config.max_model_len
        super().__init__(config)

    def schedule(self) -> list[Chunk]:
        """Choose prefills; if there are none, decodes."""
        return self._schedule_prefills() or self._schedule_decodes()

    def _schedule_prefills(self) -> list[Chunk]:
        chunks: list[Chunk] = []
        longest = 0
        while self._can_admit():
            tokens = self.waiting[0].known_tokens
            longest = max(longest, tokens)
            # Every prompt counts as padded to the longest.
            if (len(chunks) + 1) * longest > self.config.max_num_batched_tokens:
                break
            chunks.append(self._admit(tokens))
        return chunks


class Sarathi(Reserving):
    """Sarathi-Serve: decodes first, then the prefill that is half done, then new ones, in chunks."""

    def schedule(self) -> list[Chunk]:
        """Choose decodes, and prefill with what they leave of the budget.

        A preemption does not shut admission: a victim may come back in the same batch.
        """
        chunks = self._schedule_decodes()
        budget = self.config.max_num_batched_tokens - len(chunks)
        for request in self.running:
            if request.sampled:
                continue
            tokens = min(request.known_tokens - request.computed, budget)
            # It is the only one, and the last to be admitted, as the budget ran out on it. The decodes
            # leave it a token: they are fewer than max_num_seqs, which is at most the budget.
            assert request is self.running[-1]
            assert tokens > 0
            chunks.append(self._take(request, tokens))
            budget -= tokens
        while budget > 0 and self._can_admit():
            tokens = min(self.waiting[0].known_tokens, budget)
            chunks.append(self._admit(tokens))
            budget -= tokens
        return chunks


SCHEDULERS: dict[str, type[Scheduler]] = {"vllm": Vllm, "vllm_v0": VllmV0, "sarathi": Sarathi}
