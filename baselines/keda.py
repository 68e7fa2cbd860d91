"""KEDA: Kubernetes' event-driven autoscaling, on vLLM's queue or on the endpoint picker's metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from baselines.base import REQUESTS, Observation
from baselines.hpa_rules import HpaRules


@dataclass(frozen=True, kw_only=True)
class KedaQueue(HpaRules):
    """``n = ceil(requests waiting / threshold)`` over the whole pool, through the HPA.

    KEDA hands the sum over the pool to an HPA as an External metric with an average value; tolerance,
    stabilisation and rates are the HPA's (``HpaRules``).

    Source: the vLLM production stack's KEDA tutorial and chart: ``vllm:num_requests_waiting``, threshold 5,
    poll 15 s, cooldown 360 s (H).

    Adapted: the cooldown concerns scaling to zero, which the cluster's minimum rules out, so it never acts.
    Draining instances are scraped as well.

    A queue says nothing until an instance is full: without one the law goes to the minimum and meets the
    load anew from there. It flaps under any constant load that keeps an instance busy but not full.

    Attributes:
        threshold: requests waiting per instance.
    """

    TUNING: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "threshold": (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 14.0, 20.0, 30.0)
    }

    name: str = "keda-queue"
    threshold: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("threshold", "a number > 0", lambda value: value > 0)

    def _recommend(self, obs: Observation) -> int:
        return self._external(float(obs["waiting"].sum()) / self.threshold, int(obs["target"]))


@dataclass(frozen=True, kw_only=True)
class KedaEndpointPicker(HpaRules):
    """``n = ceil(requests in flight / threshold)`` over the whole pool, through the HPA.

    As ``KedaQueue``, on what the endpoint picker of llm-d counts: every request that it has sent to the
    pool and that has not ended. This is the path that llm-d recommends, and its default signal.

    Source: llm-d's guide "Autoscaling Workloads with KEDA and EPP Metrics": ``llm_d_epp_request_running``,
    threshold 16 per replica; HPA with no stabilisation upwards, 300 s downwards, 100 % per 15 s (M).

    Adapted: its second trigger, the queue of the gateway's flow control, is off by default there and has no
    counterpart here, as requests wait at instances. The router is that endpoint picker's, without prefixes.

    Attributes:
        threshold: requests in flight per instance.
    """

    TUNING: ClassVar[Mapping[str, tuple[float, ...]]] = {"threshold": REQUESTS}

    name: str = "keda-epp"
    router: str = "llm-d"
    threshold: float = 16.0
    scale_up_instances: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("threshold", "a number > 0", lambda value: value > 0)

    def _recommend(self, obs: Observation) -> int:
        requests = float(obs["running"].sum() + obs["waiting"].sum())
        return self._external(requests / self.threshold, int(obs["target"]))
