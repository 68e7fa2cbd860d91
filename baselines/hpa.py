"""Kubernetes' Horizontal Pod Autoscaler on requests in flight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from baselines.base import SHARES, Observation, ceil_instances
from baselines.fleet import count_fleet, in_flight
from baselines.hpa_rules import HpaRules


@dataclass(frozen=True, kw_only=True)
class Hpa(HpaRules):
    """``n = ceil(N * metric / target)``, damped as Kubernetes damps it (``HpaRules``).

    The metric is the mean number of requests in flight (running and waiting) per ready instance, a Pods
    metric with an average value, as people run it for LLM serving. Every 15 s *ratio* = metric / target
    over the ready instances. Starting ones have no metrics yet: if the ratio is above 1 they count as 0, if
    below 1 as the target, and the ratio is computed anew over all. No change if it is within ``tolerance``
    of 1, or has crossed it. Else the recommendation is ``ceil(ratio * instances counted)``.

    Source: Kubernetes' documentation of horizontal pod autoscaling and its replica calculator (confidence
    H).

    Adapted: Kubernetes' metrics arrive with a delay of up to a scrape interval, here with none.
    ``target_share`` is ours: a metric without a natural target has to be given one, and 0.7 of capacity
    is the customary one (Knative's default).

    Attributes:
        target_share: target of the metric as a share of the profile's ``in_flight``, the requests in
            flight at which an instance just meets the SLO.
    """

    TUNING: ClassVar[Mapping[str, tuple[float, ...]]] = {"target_share": SHARES}

    name: str = "hpa"
    target_share: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("target_share", "a number > 0", lambda value: value > 0)

    @property
    def target_in_flight(self) -> float:
        """Target of the metric: requests in flight per instance."""
        return self.target_share * self.profile.in_flight

    def _recommend(self, obs: Observation) -> int:
        current = int(obs["target"])
        n_ready, n_starting = count_fleet(obs)
        if n_ready == 0:
            return current
        requests = in_flight(obs)
        of_ready = requests / (self.target_in_flight * n_ready)
        counted = n_ready + n_starting
        starting_use = n_starting if of_ready < 1.0 else 0
        ratio = (requests / self.target_in_flight + starting_use) / counted
        crossed = (of_ready - 1.0) * (ratio - 1.0) <= 0.0
        # The slack keeps a ratio of exactly 1 + tolerance inside whatever its rounding.
        if crossed or abs(ratio - 1.0) <= self.tolerance + 1e-9:
            return current
        return ceil_instances(ratio * counted)
