"""How fast one instance prefills and decodes, from its law: what planners read off a profile."""

from __future__ import annotations

import math
from dataclasses import dataclass

from preserve_gym.config import ClusterConfig


@dataclass(frozen=True)
class SloTargets:
    """Targets of mean latencies.

    Attributes:
        ttft_s: time to first token, s.
        itl_s: time between tokens, s.
    """

    ttft_s: float
    itl_s: float


def slo_targets(cluster: ClusterConfig, prompt_tokens: float, output_tokens: float) -> SloTargets:
    """The targets that the deadlines amount to for a request of that size.

    A deadline that is not set is replaced by what the normalised one leaves: all of it for each token, for
    the first as much as for the whole answer.
    """
    slo = cluster.slo
    normalized_s = math.inf if slo.normalized_latency_s is None else slo.normalized_latency_s
    ttft_s = output_tokens * normalized_s
    if slo.ttft_s is not None:
        ttft_s = min(ttft_s, slo.ttft_s + slo.ttft_per_prompt_token_s * prompt_tokens)
    itl_s = min(normalized_s, math.inf if slo.tpot_s is None else slo.tpot_s)
    return SloTargets(ttft_s, itl_s)


@dataclass(frozen=True)
class InstanceSpeed:
    """Prefill and decode of one instance of a cluster, each on its own."""

    cluster: ClusterConfig

    def prefill_s(self, prompt_tokens: float) -> float:
        """Time to read a prompt alone, in chunks of the token budget, s."""
        instance, read, seconds = self.cluster.instance, 0.0, 0.0
        while read < prompt_tokens:
            chunk = min(prompt_tokens - read, float(instance.max_num_batched_tokens))
            seconds += instance.latency.iteration_s(chunk, 0.0, chunk * (0.5 * chunk + read))
            read += chunk
        return seconds

    def decode_s(self, batch: float, context: float) -> float:
        """Time of an iteration of ``batch`` decoding requests of ``context`` tokens each, s."""
        return self.cluster.instance.latency.iteration_s(batch, batch * context, 0.0)

    def largest_batch(self, context: float) -> int:
        """Requests of ``context`` tokens each that run at once, at least 1."""
        instance = self.cluster.instance
        return max(1, min(instance.max_num_seqs, int(instance.kv_tokens / max(context, 1.0))))

    def decode_throughput(self, itl_s: float, context: float) -> float:
        """Most tokens per second with iterations of at most ``itl_s``; of a batch of 1 where none are."""
        low, high = 1, self.largest_batch(context)
        while low < high:
            middle = (low + high + 1) // 2
            if self.decode_s(middle, context) <= itl_s:
                low = middle
            else:
                high = middle - 1
        return low / self.decode_s(low, context)
