"""llm-d's Workload Variant Autoscaler: the fewest replicas that a queueing model lets meet the SLOs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from baselines.base import SHARES, Observation, ceil_instances
from baselines.hpa_rules import HpaRules
from baselines.instance_speed import InstanceSpeed, SloTargets, slo_targets
from preserve_gym.config import ClusterConfig
from preserve_gym.envs.physical import RATE_SPANS_S

_MINUTE = RATE_SPANS_S.index(60.0)
_QUEUE_PER_BATCH = 10
_LEAST_SHARE, _MOST_SHARE = 0.001, 0.999
_STEPS = 30


@dataclass(frozen=True)
class ReplicaModel:
    """A replica as an M/M/1/k queue whose service depends on how many requests are in the batch.

    A batch of b requests decodes a token in ``alpha + beta*b`` and prefills in ``gamma + delta*b``, so b
    requests in service leave at the rate ``b / (gamma + delta*b + (D-1)*(alpha + beta*b))``. At most
    ``batch`` are in service, and ten times as many wait.

    Attributes:
        alpha_s, beta_s: base and slope of the time between tokens, s.
        gamma_s, delta_s: base and slope of the prefill, s; the slope for the mean prompt.
        decoded: D-1, tokens after the first of the mean output.
        batch: largest batch.
    """

    alpha_s: float
    beta_s: float
    gamma_s: float
    delta_s: float
    decoded: float
    batch: int

    @property
    def fastest(self) -> float:
        """Requests per second that a full batch serves."""
        return self.batch / (self._base_s + self._slope_s * self.batch)

    def latencies(self, requests_per_s: float) -> SloTargets:
        """Mean TTFT and time between tokens at that rate of arrivals."""
        states = np.arange(1, self.batch * (1 + _QUEUE_PER_BATCH) + 1)
        served = np.minimum(states, self.batch)
        rates = served / (self._base_s + self._slope_s * served)
        weights = np.concatenate(([0.0], np.cumsum(np.log(requests_per_s) - np.log(rates))))
        chances = np.exp(weights - weights.max())
        chances /= chances.sum()
        accepted = requests_per_s * (1.0 - chances[-1])
        wait_s = float(chances[1:] @ (states - served)) / accepted
        service_s = float(chances[1:] @ served) / accepted
        batch = min(max((service_s - self._base_s) / max(self._slope_s, 1e-12), 0.0), self.batch)
        return SloTargets(wait_s + self.gamma_s + self.delta_s * batch, self.alpha_s + self.beta_s * batch)

    def highest_rate(self, targets: SloTargets) -> float:
        """Requests per second at which both targets are met; 0 if they are met at none."""
        low, high = _LEAST_SHARE * self.fastest, _MOST_SHARE * self.fastest
        if not self._meets(low, targets):
            return 0.0
        if self._meets(high, targets):
            return high
        for _ in range(_STEPS):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self._meets(middle, targets) else (low, middle)
        return low

    def _meets(self, requests_per_s: float, targets: SloTargets) -> bool:
        found = self.latencies(requests_per_s)
        return found.ttft_s <= targets.ttft_s and found.itl_s <= targets.itl_s

    @property
    def _base_s(self) -> float:
        return self.gamma_s + self.decoded * self.alpha_s

    @property
    def _slope_s(self) -> float:
        return self.delta_s + self.decoded * self.beta_s


def replica_model(cluster: ClusterConfig, prompt_tokens: float, output_tokens: float) -> ReplicaModel:
    """The model of one instance for requests of that mean size, its lines drawn through the law's ends."""
    speed, context = InstanceSpeed(cluster), prompt_tokens + 0.5 * output_tokens
    batch = speed.largest_batch(context)
    one_s, full_s = speed.decode_s(1, context), speed.decode_s(batch, context)
    beta_s = (full_s - one_s) / max(batch - 1, 1)
    base_s = cluster.instance.latency.base_s
    return ReplicaModel(
        alpha_s=one_s - beta_s,
        beta_s=beta_s,
        gamma_s=base_s,
        delta_s=max(speed.prefill_s(prompt_tokens) - base_s, 0.0),
        decoded=max(output_tokens - 1.0, 0.0),
        batch=batch,
    )


@dataclass(frozen=True, kw_only=True)
class VariantAutoscaler(HpaRules):
    """``n = ceil(request rate / highest rate of one replica within its SLOs)``, through the HPA.

    Every 60 s: the rate and mean lengths of the last 60 s, a queueing model of one replica (``ReplicaModel``)
    and the highest rate at which its mean TTFT and mean time between tokens meet their targets. The number
    is handed to an HPA as an External metric.

    Source: llm-d's workload variant autoscaler, its document on modelling and its queue analyser (H; the
    lengths of its queue and the HPA's defaults M). Deprecated there in favour of ``KedaEndpointPicker``.

    Adapted: one variant, so that cost plays no part. The model's four figures come from the instance's law in
    place of benchmarks. Between two recommendations the HPA looks four times, so its rate of 100 % per 15 s
    allows 1,500 % here. Output lengths are predicted ones. Targets that no rate meets ask for the largest
    fleet. The router is llm-d's endpoint picker, without prefixes.

    Attributes:
        slo_share: of both SLOs that is aimed at; deadlines are not means.
    """

    TUNING: ClassVar[Mapping[str, tuple[float, ...]]] = {"slo_share": SHARES}

    name: str = "llm-d-wva"
    router: str = "llm-d"
    interval_s: float = 60.0
    scale_up_percent: float = 1500.0
    slo_share: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("slo_share", "a number > 0", lambda value: value > 0)

    def _recommend(self, obs: Observation) -> int:
        rate = float(obs["request_rate"][_MINUTE])
        if rate <= 0.0:
            return 1
        prompt = float(obs["prompt_token_rate"][_MINUTE]) / rate
        output = float(obs["output_token_rate"][_MINUTE]) / rate
        slo = slo_targets(self.cluster, prompt, output)
        targets = SloTargets(self.slo_share * slo.ttft_s, self.slo_share * slo.itl_s)
        highest = replica_model(self.cluster, prompt, output).highest_rate(targets)
        if highest == 0.0:
            return self.cluster.max_instances
        return self._external(ceil_instances(rate / highest), int(obs["target"]))
