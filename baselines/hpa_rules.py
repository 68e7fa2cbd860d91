"""How Kubernetes' Horizontal Pod Autoscaler damps a recommendation, whatever metric it comes from."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

from baselines.base import Autoscaler, Observation, ceil_instances

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
class HpaRules(Autoscaler):
    """Tolerance, stabilisation and rates of the HPA; subclasses give ``_recommend``.

    1. *Tolerance*: no change if the ratio of the metric to its target is within ``tolerance`` of 1.
    2. *Stabilisation*: down to the highest recommendation of the last ``scale_down_window_s``, up to the
       lowest of the last ``scale_up_window_s``.
    3. *Rates*: in ``period_s`` at most ``scale_up_percent`` or ``scale_up_instances`` more, whichever
       allows more; at most ``scale_down_percent`` less.

    Source: Kubernetes' documentation of horizontal pod autoscaling, algorithm details and default
    behaviour, and its replica calculator (confidence H). The first recommendation is the number of
    instances at the start, so nothing is removed in the first ``scale_down_window_s``.

    Attributes:
        tolerance: of the ratio around 1.
        scale_up_window_s, scale_down_window_s: stabilisation windows.
        scale_up_percent, scale_up_instances, scale_down_percent: rates per period.
        period_s: period of the rates.
    """

    interval_s: float = 15.0
    tolerance: float = 0.1
    scale_up_window_s: float = 0.0
    scale_down_window_s: float = 300.0
    scale_up_percent: float = 100.0
    scale_up_instances: int = 4
    scale_down_percent: float = 100.0
    period_s: float = 15.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("period_s", "a number > 0", lambda value: value > 0)
        for name in ("tolerance", "scale_up_window_s", "scale_down_window_s", "scale_up_percent"):
            self._check(name, "a number >= 0", lambda value: value >= 0)
        self._check(
            "scale_up_instances", "an integer >= 0", lambda value: isinstance(value, int) and value >= 0
        )
        self._check("scale_down_percent", "a number in [0, 100]", lambda value: 0 <= value <= 100)

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

    @abstractmethod
    def _recommend(self, obs: Observation) -> int:
        """Instances that the metric asks for now, at least 1."""

    def _external(self, need: float, current: int) -> int:
        """The recommendation of an External metric with an average value: total over target is ``need``.

        Pods do not report such a metric, so the ratio is taken over all of them, starting ones included.
        """
        if abs(need / max(current, 1) - 1.0) <= self.tolerance + 1e-9:
            return current
        return ceil_instances(need)

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
