"""What is left between the engine and the real vLLM servers, and where it comes from.

Run as ``python -m tests.real_vllm_causes`` with the data folder in ``PRESERVE_GYM_DATA``: prints errors of
mean TTFT, TPOT and E2E in percent when the slow reference serves the requests of each run with the profiled
time of every iteration, without a law, and when something is added that the engine leaves out:

* *prefix caching*: a preempted request finds those of its blocks that nobody has taken since;
* *longest context*: decode attention takes longer than at the mean context.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from preserve_gym.config import InstanceConfig
from preserve_gym.data import data_dir
from preserve_gym.latency.batch import Batch
from preserve_gym.latency.parts import Operators
from tests.real_vllm import LATENCIES, RUNS, Played, Recorded, Run, operators_of, play, recorded
from tests.reference_schedulers import Chunk, Request, Vllm

# How far decode attention lies from its time at the mean context towards its time at the longest one. Pooled
# over the batches of LLMServingSim's profiles of 2026-04-24 with vLLM 0.19 (skew_fit.alpha_default in the
# meta.yaml of each model, kept in skyp0714/event_driven_llmsim). The RTX 4090 has no such profile.
TOWARDS_LONGEST = {"llama-3.1-8b_rtx-pro-6000_tp1": 0.0543, "qwen3-32b_rtx-pro-6000_tp2": 0.0649}


class CachingVllm(Vllm):
    """vLLM's scheduler with prefix caching within each request, and so with a name for every block.

    Free blocks are taken from the left and come back on the right, the last one of a request first. A full
    block keeps what it holds until it is taken.
    """

    def __init__(self, config: InstanceConfig) -> None:
        super().__init__(config)
        self.free = deque(range(self.usable_blocks))
        self.holds: dict[int, tuple[int, int]] = {}  # block: request and place in it
        self.blocks_of: dict[int, list[int]] = {}  # of the running requests

    def schedule(self) -> list[Chunk]:
        """As vLLM's scheduler, after taking back the blocks of completed requests."""
        running = {request.index for request in self.running}
        for index in [index for index in self.blocks_of if index not in running]:
            self.free.extend(reversed(self.blocks_of.pop(index)))
        return super().schedule()

    def _take(self, request: Request, tokens: int) -> Chunk:
        chunk = super()._take(request, tokens)
        blocks = self.blocks_of.setdefault(request.index, [])
        while len(blocks) < request.blocks:
            block = self.free.popleft()
            self.holds[block] = (request.index, len(blocks))
            blocks.append(block)
        return chunk

    def _preempt_last(self) -> Request:
        full_blocks = self.running[-1].computed // self.config.block_size
        victim = super()._preempt_last()
        blocks = self.blocks_of.pop(victim.index)
        for block in blocks[full_blocks:]:
            del self.holds[block]
        self.free.extend(reversed(blocks))
        return victim

    def _found(self, request: Request) -> list[int]:
        """Free blocks with the first tokens of ``request``; at least one token is left to compute."""
        held = {self.holds[block]: block for block in self.free if block in self.holds}
        found: list[int] = []
        while (request.index, len(found)) in held and (len(found) + 1) * 16 < request.known_tokens:
            found.append(held[request.index, len(found)])
        return found

    def _schedule_waiting(self, budget: int) -> list[Chunk]:
        chunks: list[Chunk] = []
        while self.waiting and budget > 0 and len(self.running) < self.config.max_num_seqs:
            request = self.waiting[0]
            if self.blocks_for(request.known_tokens) > len(self.free):
                break
            found = self._found(request) if request.preemptions else []
            for block in found:
                self.free.remove(block)
            self.blocks_of[request.index] = found
            request.blocks, request.computed = len(found), len(found) * self.config.block_size
            self.running.append(self.waiting.popleft())
            chunks.append(self._take(request, min(request.known_tokens - request.computed, budget)))
            budget -= chunks[-1].tokens
        return chunks


def slowed_by_longest(profile: Operators, share: float) -> Callable[[Batch], float]:
    """Iteration times of ``profile`` with decode attention ``share`` of the way to the longest context."""

    def seconds(batch: Batch) -> float:
        at_mean_s = profile.iteration_s(batch)
        if not batch.contexts:
            return at_mean_s
        longest = Batch((max(batch.contexts),) * len(batch.contexts), batch.chunks)
        return at_mean_s + share * (profile.iteration_s(longest) - at_mean_s)

    return seconds


def causes(run: Run, record: Recorded) -> Iterator[tuple[str, list[float]]]:
    """What is simulated, and the errors of the mean latencies in percent."""
    config = run.instance()
    profile = operators_of(run)
    instances = {"profiled times": Played(config, profile.iteration_s)}
    if config.name in TOWARDS_LONGEST:
        seconds = slowed_by_longest(profile, TOWARDS_LONGEST[config.name])
        instances["and the longest context"] = Played(config, seconds)
    else:
        instances["and prefix caching"] = Played(config, profile.iteration_s, CachingVllm)
    for name, instance in instances.items():
        ours = play(instance, record.trace)
        yield name, [100 * (ours[k].mean() / record.latencies[k].mean() - 1) for k in LATENCIES]


def main() -> None:
    for run in RUNS:
        for name, errors in causes(run, recorded(run, data_dir())):
            print(f"| {run.title} | {name} |", " | ".join(f"{error:+.1f}" for error in errors), "|")


if __name__ == "__main__":
    main()
