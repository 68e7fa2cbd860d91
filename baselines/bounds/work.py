"""The least time that a request takes of an instance, whoever routes and schedules it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preserve_gym.config import ClusterConfig
from preserve_gym.sim.cluster import fit_requests
from preserve_gym.workload import Episode

FloatArray = NDArray[np.float64]

_KNEE_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_ROUNDING_S = 1e-6


@dataclass(frozen=True, eq=False)
class Work:
    """The requests of the scored part of a window that can comply with the SLO, by arrival.

    Attributes:
        arrival_s: when each arrives, float64[n], s.
        prefill_s, decode_s: instance time that it takes at least, float64[n], up to its first token and
            after it.
        prefill_due_s, decode_due_s: when these have to be done if it is to comply, float64[n].
        hopeless: requests that can never comply: rejected, or too slow even alone.
    """

    arrival_s: FloatArray
    prefill_s: FloatArray
    decode_s: FloatArray
    prefill_due_s: FloatArray
    decode_due_s: FloatArray
    hopeless: int

    @property
    def total_s(self) -> FloatArray:
        """Of each request, float64[n]."""
        return self.prefill_s + self.decode_s


def works(cluster: ClusterConfig, episode: Episode) -> Iterator[Work]:
    """The least work of the requests of a window, by several rules; each is valid by itself.

    An iteration takes ``base + p*tokens + q*max(0, tokens - knee) + c*context + quad``. For any weight
    ``h`` in [0, 1], ``q*max(0, tokens - knee) >= h*q*(tokens - knee)``, so it takes at least
    ``base' + (p + h*q)*tokens + c*context + quad`` with ``base' = max(0, base - h*q*knee)``: but for
    ``base'`` a sum over the requests of the batch. A request with P prompt and O output tokens is in at
    least ``K = ceil(P / max_num_batched_tokens) + O - 1`` iterations. Its own terms sum to at least
    ``(p + h*q)*(P + O - 1) + c*sum(P + j, j = 1 ... O-1) + d*P**2/2``: a preemption only adds to them.

    ``base'`` is shared out among the requests of the batch, by one of three rules that hand out no more
    than all of it:

    * *seats*: an equal part to each of the at most ``max_num_seqs`` requests;
    * *memory*: in proportion to the KV tokens that the request holds, P + j in its j-th decode, of all that
      there are, as those of a batch fit into the cache together;
    * *deadline*: in proportion to the request's own terms ``a`` in this iteration. If the request complies,
      the iterations that it is in end within E of its arrival, so their own terms of all requests, x_i in
      iteration i, sum to at most ``X = E - K*base'``. It gets ``base' * sum(a_i / x_i)``, by Cauchy and
      Schwarz at least ``base' * sum(sqrt(a_i))**2 / X``.

    If the terms of a request and ``K*base'`` exceed E it cannot comply.
    """
    scored = episode.trace.arrival_s >= episode.start_s
    prompt, rejected = fit_requests(
        cluster, episode.trace.prompt_tokens[scored], episode.trace.output_tokens[scored]
    )
    requests = _Requests(
        cluster,
        episode.trace.arrival_s[scored][~rejected],
        prompt[~rejected].astype(np.float64),
        episode.trace.output_tokens[scored][~rejected].astype(np.float64),
    )
    for weight in _KNEE_WEIGHTS:
        for rule in ("seats", "memory", "deadline"):
            yield requests.work(weight, rule, int(rejected.sum()))


class _Requests:
    """Requests that fit, and their deadlines."""

    def __init__(
        self, cluster: ClusterConfig, arrival_s: FloatArray, prompt: FloatArray, output: FloatArray
    ) -> None:
        slo, self.instance = cluster.slo, cluster.instance
        self.arrival_s, self.prompt = arrival_s, prompt
        first_s = np.full(len(prompt), np.inf)
        if slo.ttft_s is not None:
            first_s = slo.ttft_s + slo.ttft_per_prompt_token_s * prompt
        last_s = np.full(len(prompt), np.inf)
        if slo.tpot_s is not None:
            last_s = first_s + slo.tpot_s * (output - 1.0)
        if slo.normalized_latency_s is not None:
            last_s = np.minimum(last_s, slo.normalized_latency_s * output)
        # Without a deadline for the completion nothing has to be decoded.
        self.decodes = np.where(np.isinf(last_s), 0.0, output - 1.0)
        self.last_s = np.where(np.isinf(last_s), first_s, last_s)
        self.first_s = np.minimum(first_s, self.last_s)

    def work(self, weight: float, rule: str, rejected: int) -> Work:
        """By the rule, with ``weight`` for the part of the law beyond its knee."""
        law, instance = self.instance.latency, self.instance
        prompt, decodes = self.prompt, self.decodes
        beyond = weight * law.per_token_beyond_knee_s
        base_s = max(0.0, law.base_s - beyond * law.knee_tokens)
        per_token_s = law.per_token_s + beyond
        chunks = np.ceil(prompt / instance.max_num_batched_tokens)
        context = decodes * prompt + 0.5 * decodes * (decodes + 1.0)
        prefill_s = per_token_s * prompt + 0.5 * law.per_quad_s * prompt**2
        decode_s = per_token_s * decodes + law.per_context_token_s * context
        left_s = self.last_s - base_s * (chunks + decodes) + _ROUNDING_S
        complies = prefill_s + decode_s <= left_s
        complies &= prefill_s + base_s * chunks <= self.first_s + _ROUNDING_S
        if rule == "seats":
            shares = base_s / instance.max_num_seqs * chunks, base_s / instance.max_num_seqs * decodes
        elif rule == "memory":
            of_token_s = base_s / instance.kv_tokens
            shares = of_token_s * prompt, of_token_s * context
        else:
            roots = self._roots(per_token_s, law.per_context_token_s)
            # One chunk has all of the prompt's terms at the least sum of roots.
            root = np.sqrt(prefill_s) + roots
            share = base_s * root**2 / np.maximum(left_s, 1e-12)
            shares = np.zeros(len(prompt)), share
        keep = complies
        return Work(
            arrival_s=self.arrival_s[keep],
            prefill_s=(prefill_s + shares[0])[keep],
            decode_s=(decode_s + shares[1])[keep],
            prefill_due_s=(self.arrival_s + self.first_s)[keep],
            decode_due_s=(self.arrival_s + self.last_s)[keep],
            hopeless=rejected + int((~keep).sum()),
        )

    def _roots(self, per_token_s: float, per_context_token_s: float) -> FloatArray:
        """At least the sum of the roots of the terms of the decodes, float64[n]."""
        # The root is concave: the mean over a run is at least that of the ends.
        first = np.sqrt(per_token_s + per_context_token_s * (self.prompt + 1.0))
        last = np.sqrt(per_token_s + per_context_token_s * (self.prompt + np.maximum(self.decodes, 1.0)))
        return self.decodes * 0.5 * (first + last)
