"""Kubernetes' Horizontal Pod Autoscaler on requests in flight."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from baselines.base import Autoscaler, Observation, ceil_instances
from preserve_gym.sim.state import READY, STARTING

# Decision times are sums of floats: an age of 300 s must not come out as 299.9999999999.
_SLACK_S = 1e-6


@dataclass
class HpaState:
    """What the HPA remembers, each with the time of the decision, oldest first.

    Attributes:
        recommendations: (time_s, instances) before stabilisation.
        changes: (time_s, instances added, negative for removed).
    """

    recommendations: list[tuple[float, int]] = field(default_factory=list)
    changes: list[tuple[float, int]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Hpa(Autoscaler):
    """``n = ceil(N * metric / target)``, damped as Kubernetes damps it.

    The metric is the mean number of requests in flight (running and waiting) per ready instance, a Pods
    metric with an average value, as people run it for LLM serving. Every 15 s:

    1. *ratio* = metric / target over the ready instances. Starting ones have no metrics yet: if the ratio
       is above 1 they count as 0, if below 1 as the target, and the ratio is computed anew over all. No
       change if it is within ``tolerance`` of 1, or has crossed it. Else the *recommendation* is
       ``ceil(ratio * instances counted)``.
    2. *Stabilisation*: down to the highest recommendation of the last ``scale_down_window_s``, up to the
       lowest of the last ``scale_up_window_s``.
    3. *Rates*: in ``period_s`` at most ``scale_up_percent`` or ``scale_up_instances`` more, whichever
       allows more; at most ``scale_down_percent`` less.

    Source: Kubernetes' documentation of horizontal pod autoscaling, algorithm details and default
    behaviour, and its replica calculator (confidence H). The first recommendation is the number of
    instances at the start, so nothing is removed in the first ``scale_down_window_s``.

    Adapted: Kubernetes' metrics arrive with a delay of up to a scrape interval, here with none.
    ``target_share`` is ours: a metric without a natural target has to be given one, and 0.7 of capacity
    is the customary one (Knative's default).

    Attributes:
        target_share: target of the metric as a share of the profile's ``in_flight``, the requests in
            flight at which an instance just meets the SLO.
        tolerance: of the ratio around 1.
        scale_up_window_s, scale_down_window_s: stabilisation windows.
        scale_up_percent, scale_up_instances, scale_down_percent: rates per period.
        period_s: period of the rates.
    """

    name: str = "hpa"
    interval_s: float = 15.0
    target_share: float = 0.7
    tolerance: float = 0.1
    scale_up_window_s: float = 0.0
    scale_down_window_s: float = 300.0
    scale_up_percent: float = 100.0
    scale_up_instances: int = 4
    scale_down_percent: float = 100.0
    period_s: float = 15.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("target_share", "period_s"):
            self._check(name, "a number > 0", lambda value: value > 0)
        for name in ("tolerance", "scale_up_window_s", "scale_down_window_s", "scale_up_percent"):
            self._check(name, "a number >= 0", lambda value: value >= 0)
        self._check(
            "scale_up_instances", "an integer >= 0", lambda value: isinstance(value, int) and value >= 0
        )
        self._check("scale_down_percent", "a number in [0, 100]", lambda value: 0 <= value <= 100)

    @property
    def target_in_flight(self) -> float:
        """Target of the metric: requests in flight per instance."""
        return self.target_share * self.profile.in_flight

    def initial_state(self) -> HpaState:
        """No recommendation yet."""
        return HpaState()

    def decide(self, obs: Observation, state: HpaState) -> int:
        """Recommend, stabilise, limit the rate."""
        now_s, current = float(obs["time_s"]), int(obs["target"])
        if not state.recommendations:
            state.recommendations.append((now_s, current))
        wanted = self._stabilize(now_s, current, self._recommend(obs), state)
        wanted = self._limit_rate(now_s, current, wanted, state)
        wanted = min(max(wanted, self.cluster.min_instances), self.cluster.max_instances)
        if wanted != current:
            state.changes.append((now_s, wanted - current))
        return wanted

    def _recommend(self, obs: Observation) -> int:
        current = int(obs["target"])
        ready = obs["state"] == READY
        n_ready, n_starting = np.count_nonzero(ready), np.count_nonzero(obs["state"] == STARTING)
        if n_ready == 0:
            return current
        in_flight = float((obs["running"] + obs["waiting"])[ready].sum())
        of_ready = in_flight / (self.target_in_flight * n_ready)
        counted = n_ready + n_starting
        starting_use = n_starting if of_ready < 1.0 else 0
        ratio = (in_flight / self.target_in_flight + starting_use) / counted
        crossed = (of_ready - 1.0) * (ratio - 1.0) <= 0.0
        # The slack keeps a ratio of exactly 1 + tolerance inside whatever its rounding.
        if crossed or abs(ratio - 1.0) <= self.tolerance + 1e-9:
            return current
        return ceil_instances(ratio * counted)

    def _stabilize(self, now_s: float, current: int, wanted: int, state: HpaState) -> int:
        past = state.recommendations
        lowest = min(
            (n for time_s, n in past if time_s > now_s - self.scale_up_window_s + _SLACK_S), default=wanted
        )
        highest = max(
            (n for time_s, n in past if time_s > now_s - self.scale_down_window_s + _SLACK_S), default=wanted
        )
        oldest_s = now_s - max(self.scale_up_window_s, self.scale_down_window_s)
        past[:] = [(time_s, n) for time_s, n in past if time_s > oldest_s]
        past.append((now_s, wanted))
        return min(max(current, min(wanted, lowest)), max(wanted, highest))

    def _limit_rate(self, now_s: float, current: int, wanted: int, state: HpaState) -> int:
        state.changes[:] = [
            (time_s, n) for time_s, n in state.changes if time_s > now_s - self.period_s + _SLACK_S
        ]
        at_period_start = current - sum(n for _, n in state.changes)
        if wanted > current:
            by_percent = ceil_instances(at_period_start * (1.0 + self.scale_up_percent / 100.0))
            most = max(by_percent, at_period_start + self.scale_up_instances)
            return min(wanted, max(most, current))
        if wanted < current:
            least = int(at_period_start * (1.0 - self.scale_down_percent / 100.0) + 1e-9)
            return max(wanted, min(least, current))
        return current
