"""What one instance can serve: the rates that heuristics and observations measure load in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preserve_gym.config import ClusterConfig
from preserve_gym.errors import InputError
from preserve_gym.sim.cluster import Cluster, fit_requests
from preserve_gym.traces.trace import Trace

_PRECISION = 0.01
_LOWEST, _HIGHEST = 1e-6, 1e9
"""Rates, in requests/s, between which the highest one in time is looked for."""


@dataclass(frozen=True)
class InstanceProfile:
    """The load at which one instance just meets the SLO, for one mix of request lengths.

    Attributes:
        requests_per_s: requests.
        prompt_tokens_per_s: prompt tokens, PreServe's mu_p.
        output_tokens_per_s: output tokens, mu_d.
        total_tokens_per_s: both, mu_t.
        in_flight: mean number of requests in the instance at that load.
        unloaded_attainment: SLO attainment of requests that have the instance to themselves, which no
            fleet can exceed.
        unloaded_e2e_s: mean end-to-end latency of such requests.
    """

    requests_per_s: float
    prompt_tokens_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    in_flight: float
    unloaded_attainment: float
    unloaded_e2e_s: float

    def need(self, prompt_tokens_per_s: Any, output_tokens_per_s: Any) -> Any:
        """Instances that a load needs, not rounded; scalars or arrays (PreServe's Algorithm 2)."""
        return np.maximum(
            np.maximum(
                prompt_tokens_per_s / self.prompt_tokens_per_s,
                output_tokens_per_s / self.output_tokens_per_s,
            ),
            (prompt_tokens_per_s + output_tokens_per_s) / self.total_tokens_per_s,
        )


def profile_instance(
    cluster: ClusterConfig,
    prompt_tokens: NDArray[np.integer[Any]],
    output_tokens: NDArray[np.integer[Any]],
    *,
    attainment: float = 0.99,
    requests: int = 50_000,
    seed: int = 0,
) -> InstanceProfile:
    """Find the highest load of one instance at which ``attainment`` of the requests are in time.

    Of those that would be in time if they had the instance to themselves, that is; the others are lost
    at any load.

    PreServe's Algorithm 1 (arXiv 2504.03702) in an open loop: Poisson arrivals of ``requests`` requests with
    lengths drawn in pairs from those given, the same ones and in the same order at every rate; the rate is
    found by bisection to 1 %. The paper wants no violation at all, so its rate falls the longer one looks.
    A closed loop, or a short window, misjudges the capacity by a factor. Requests that can never fit are
    left out, or clipped, as ``too_long`` says.

    Args:
        prompt_tokens, output_tokens: the mix, integers of shape (n,), n >= 1.
        attainment: share of the requests that must be in time.
        requests: how many are served at each rate; with 50,000 the rate differs between seeds by 1 to 3 %.
        seed: of the draws.

    Raises:
        InputError: if no request fits the instance, or there is no such load: requests that have the instance
            to themselves are late, or none is late at any load.
    """
    instance = cluster.instance
    prompt_tokens, rejected = fit_requests(cluster, prompt_tokens, output_tokens)
    fits = np.flatnonzero(~rejected)
    if len(fits) == 0:
        raise InputError(
            f"instance {instance.name!r}: no request of the workload fits its {instance.max_request_tokens} "
            f"tokens (max_model_len {instance.max_model_len}, KV cache {instance.kv_tokens})"
        )
    single = replace(cluster, min_instances=1, max_instances=1)
    rows = fits[_draw(np.random.default_rng(seed), len(fits), requests)]
    unit_arrival_s = np.cumsum(np.random.default_rng(seed + 1).exponential(size=requests))

    def serve(rate: float) -> tuple[float, float, Trace]:
        """Attainment, mean end-to-end latency and the trace at ``rate`` requests/s."""
        trace = Trace(
            arrival_s=unit_arrival_s / rate,
            prompt_tokens=prompt_tokens[rows],
            output_tokens=output_tokens[rows],
        )
        served = Cluster(single, trace)
        served.settle()
        results = served.results()
        in_time = 1.0 - float(results["violated_s"].notna().mean())
        return in_time, float((results["completed_s"] - results["arrival_s"]).mean()), trace

    # A request at a time: so rarely that they do not meet.
    alone, alone_e2e_s = _alone(single, prompt_tokens[fits], output_tokens[fits], seed)
    wanted = alone - (1.0 - attainment)
    too_tight = InputError(f"instance {instance.name!r} cannot serve the workload within the SLO at any rate")
    if wanted <= 0.0:
        raise too_tight
    low, high = 0.0, 1.0
    while serve(high)[0] >= wanted:
        low, high = high, 2.0 * high
        if high > _HIGHEST:
            raise InputError(f"instance {instance.name!r} serves the workload within the SLO at any rate")
    while low == 0.0 or high - low > _PRECISION * low:
        middle = 0.5 * (low + high)
        if serve(middle)[0] >= wanted:
            low = middle
        else:
            high = middle
        if high < _LOWEST:
            raise too_tight
    _, latency_s, trace = serve(low)
    prompt = float(trace.prompt_tokens.mean()) * low
    output = float(trace.output_tokens.mean()) * low
    return InstanceProfile(
        requests_per_s=low,
        prompt_tokens_per_s=prompt,
        output_tokens_per_s=output,
        total_tokens_per_s=prompt + output,
        in_flight=low * latency_s,
        unloaded_attainment=alone,
        unloaded_e2e_s=alone_e2e_s,
    )


def _draw(rng: np.random.Generator, n: int, size: int) -> NDArray[np.int64]:
    """``size`` draws out of ``n``."""
    return (rng.random(size) * n).astype(np.int64)


def _alone(
    cluster: ClusterConfig,
    prompt_tokens: NDArray[np.integer[Any]],
    output_tokens: NDArray[np.integer[Any]],
    seed: int,
) -> tuple[float, float]:
    """SLO attainment and mean latency of up to 1,000 requests that have the instance to themselves."""
    rows = _draw(np.random.default_rng(seed), len(prompt_tokens), min(1000, len(prompt_tokens)))
    trace = Trace(
        arrival_s=np.arange(len(rows)) * 1e6,
        prompt_tokens=prompt_tokens[rows],
        output_tokens=output_tokens[rows],
    )
    served = Cluster(cluster, trace)
    served.settle()
    results = served.results()
    e2e_s = float((results["completed_s"] - results["arrival_s"]).mean())
    return 1.0 - float(results["violated_s"].notna().mean()), e2e_s
