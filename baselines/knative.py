"""Knative's Pod Autoscaler (KPA) on concurrency, with its panic mode."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from baselines.base import REQUESTS, Autoscaler, Observation
from baselines.fleet import count_fleet, in_flight
from baselines.recent import Recent


@dataclass
class KnativeState:
    """What the KPA remembers.

    Attributes:
        requests: in flight, over the stable window.
        panic_s: when panic was last called for; None: no panic.
        most: instances that panic has asked for so far.
    """

    requests: Recent
    panic_s: float | None = field(default=None)
    most: int = 0


@dataclass(frozen=True, kw_only=True)
class Knative(Autoscaler):
    """``n = ceil(mean requests in flight / target)``, over 60 s, or over 6 s in panic.

    Every 2 s, with r ready instances:

    1. *Stable*: the mean over ``stable_window_s``; *panic*: that over ``panic_window_s``. Both are divided
       by ``container_concurrency * target_share`` and rounded up, then limited to at most
       ``max_scale_up * r`` and at least ``floor(r / max_scale_down)``.
    2. Panic begins, or goes on, when the panic number before its limits is at least ``panic_threshold * r``.
       It ends when that was last so longer than ``stable_window_s`` ago. In panic the law takes the larger
       of the two numbers, and never fewer than it has asked for in this panic.

    Source: Knative Serving's autoscaler and its configuration (H).

    Adapted: the grace period of 30 s concerns scaling to zero, which the cluster's minimum rules out. While
    nothing is ready there is no metric, and the number stays. The law divides a total, so starting
    instances are counted; only the threshold of panic looks at ready ones alone, as published, so that slow
    starts prolong a panic.

    Attributes:
        container_concurrency: requests that an instance is said to serve at once.
        target_share: of it that is aimed at.
        stable_window_s, panic_window_s: spans of the means.
        panic_threshold: ratio to the ready instances.
        max_scale_up, max_scale_down: factors on the ready instances.
    """

    TUNING: ClassVar[Mapping[str, tuple[float, ...]]] = {"container_concurrency": REQUESTS}

    name: str = "knative"
    interval_s: float = 2.0
    container_concurrency: float = 100.0
    target_share: float = 0.7
    stable_window_s: float = 60.0
    panic_window_s: float = 6.0
    panic_threshold: float = 2.0
    max_scale_up: float = 1000.0
    max_scale_down: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("container_concurrency", "target_share", "stable_window_s", "panic_window_s"):
            self._check(name, "a number > 0", lambda value: value > 0)
        for name in ("panic_threshold", "max_scale_up", "max_scale_down"):
            self._check(name, "a number > 1", lambda value: value > 1)

    def initial_state(self) -> KnativeState:
        """Nothing measured, no panic."""
        return KnativeState(Recent(self.stable_window_s))

    def decide(self, obs: Observation, state: KnativeState) -> int:
        """The stable number, or the larger of both in panic."""
        n_ready, _ = count_fleet(obs)
        if n_ready == 0:
            return int(obs["target"])
        now_s = float(obs["time_s"])
        state.requests.add(now_s, in_flight(obs))
        stable, panic = (
            math.ceil(state.requests.mean(span_s) / (self.container_concurrency * self.target_share) - 1e-9)
            for span_s in (self.stable_window_s, self.panic_window_s)
        )
        if panic / n_ready >= self.panic_threshold:
            state.panic_s = now_s
        elif state.panic_s is not None and now_s > state.panic_s + self.stable_window_s:
            state.panic_s, state.most = None, 0
        least, most = math.floor(n_ready / self.max_scale_down), math.ceil(n_ready * self.max_scale_up)
        if state.panic_s is None:
            return min(max(stable, least), most)
        state.most = max(state.most, min(max(stable, panic, least), most))
        return state.most
