"""PreServe as the artifact of its authors has it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from baselines.base import HEADROOMS, Autoscaler, Observation, ceil_instances
from baselines.forecast_need import forecast_need, windows_ahead
from baselines.preserve import check_tiers
from preserve_gym.config import AnticipatorConfig
from preserve_gym.errors import InputError
from preserve_gym.sim.state import READY, STARTING

_ROUNDING_S = 1e-6


@dataclass
class ArtifactState:
    """What the artifact's PreServe remembers.

    Attributes:
        wanted: instances that Tier 1 asked for at its last turn; 0 before the first.
        workload_turn_s: when Tier 1 had its last turn.
        locked_until_s: end of the lock.
        emergency_from_s: when an emergency may be answered again.
    """

    wanted: int = 0
    workload_turn_s: float = -math.inf
    locked_until_s: float = -math.inf
    emergency_from_s: float = -math.inf


@dataclass(frozen=True, kw_only=True)
class PreServeArtifact(Autoscaler):
    """PreServe as its published artifact has it (that of arXiv 2504.03702, ICSE '26).

    *Tier 1*, every 20 s: n instances (not rounded) are what Algorithm 2 gives for the forecast of the window
    two ahead. If ``ceil(n + 0.2)`` is above the number N of instances, it asks for that many; else, if
    ``ceil(n + 0.3)`` is below N, for that many; else for N.

    *Tier 2*, every 5 s: r is the mean over the instances of the peak of the look-ahead map. Above 0.7 it
    asks for one more than N, above 0.85 for two, below 0.2 for one less.

    The larger of both counts; whoever changes N locks it for 60 s. *Emergency*: above r = 0.8, N becomes
    ``floor(r*N/0.4)`` at once, whatever the lock says, at most once in 15 s.

    *Router*: ``preserve`` (H). *Anticipator*: the artifact's map over 200 iterations (H), always up to date;
    the artifact keeps its maximum until the next first token.

    Where the figures come from: H, read in the artifact; M, inferred.

    Settled where that leaves it open (all M):

    * The artifact's windows are 20 s long: the one two ahead, counted from the last complete one, begins in
      20 s. With longer windows this is the window that holds the time in ``lead_s``.
    * Tier 2 asks for nothing between its thresholds, so that Tier 1 may remove. Between two turns of Tier 1
      what it asked for stays, so that Tier 2 does not remove what the forecast needs.
    * There is one lock for both tiers. With one for each, Tier 1 would take back within 20 s what Tier 2
      has added. An emergency takes the lock, too, for the same reason. As it comes before the thresholds
      of Tier 2, the second instance above 0.85 is added only where ``emergency_use`` is set higher.
    * A starting instance has no map yet: it counts as empty in r for an addition or an emergency, and is
      left out for a removal, as in ``Reactive``. N has it, of course.

    Attributes:
        tier_1: whether Tier 1 acts.
        tier_2: whether Tier 2, the emergency included, acts.
        interval_s: of Tier 2, s (H).
        workload_interval_s: of Tier 1, s (H).
        headroom: factor on n; 1 as published. Ours, for tuning.
        lead_s: how far ahead Tier 1 looks, s (two windows: H; counted so: M).
        up_headroom, down_headroom: added to n before it is rounded up (H).
        high_use, very_high_use: of r, above which one and two instances are added (H).
        low_use: of r, below which one is removed: 0.2 for Azure's code service, 0.15 for its
            conversations (H).
        lock_s: no change but an emergency's for so long after one, s (H).
        emergency_use: of r, above which there is an emergency (H).
        emergency_target_use: what r is brought down to in one (H).
        emergency_pause_s: from one emergency to the next, at least, s (H).
    """

    TUNING: ClassVar[Mapping[str, tuple[float, ...]]] = {"headroom": HEADROOMS}

    name: str = "preserve-artifact"
    router: str = "preserve"
    interval_s: float = 5.0
    anticipator: AnticipatorConfig = field(
        default_factory=lambda: AnticipatorConfig("artifact", look_ahead=200)
    )
    tier_1: bool = True
    tier_2: bool = True
    workload_interval_s: float = 20.0
    headroom: float = 1.0
    lead_s: float = 20.0
    up_headroom: float = 0.2
    down_headroom: float = 0.3
    high_use: float = 0.7
    very_high_use: float = 0.85
    low_use: float = 0.2
    lock_s: float = 60.0
    emergency_use: float = 0.8
    emergency_target_use: float = 0.4
    emergency_pause_s: float = 15.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_tiers(self, self.tier_1, self.tier_2)
        self._check("workload_interval_s", "a number of seconds > 0", lambda value: value > 0)
        self._check("headroom", "a number > 0", lambda value: value > 0)
        for name in ("lead_s", "lock_s", "emergency_pause_s"):
            self._check(name, "a number of seconds >= 0", lambda value: value >= 0)
        for name in ("up_headroom", "down_headroom"):
            self._check(name, "a number >= 0", lambda value: value >= 0)
        for name in ("high_use", "very_high_use", "emergency_use", "emergency_target_use"):
            self._check(name, "a number > 0", lambda value: value > 0)
        self._check("low_use", "a number >= 0", lambda value: value >= 0)
        for low, high in (
            ("up_headroom", "down_headroom"),
            ("low_use", "high_use"),
            ("high_use", "very_high_use"),
            ("emergency_target_use", "emergency_use"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise InputError(
                    f"PreServeArtifact.{low}: expected at most {high} ({getattr(self, high)}), "
                    f"got {getattr(self, low)}"
                )

    def initial_state(self) -> ArtifactState:
        """Nothing done yet."""
        return ArtifactState()

    def decide(self, obs: Observation, state: ArtifactState) -> int:
        """An emergency's answer; else, without a lock, the larger of what the tiers ask for."""
        now, target = obs["time_s"], int(obs["target"])
        turn = self.tier_1 and now >= state.workload_turn_s + self.workload_interval_s - _ROUNDING_S
        if turn:
            state.workload_turn_s = now
            state.wanted = self._workload_wish(obs, target)
        wishes = [state.wanted] if turn else []
        if self.tier_2:
            emergency = self._emergency(obs, state, target)
            if emergency is not None:
                state.emergency_from_s = now + self.emergency_pause_s
                return self._change(state, now, target, emergency)
            change = self._request_change(obs)
            if change != 0:
                wishes = [state.wanted, target + change]
        if not wishes or now < state.locked_until_s - _ROUNDING_S:
            return target
        return self._change(state, now, target, max(wishes))

    def _change(self, state: ArtifactState, now: float, target: int, wanted: int) -> int:
        """What is wanted, within the bounds of the cluster; locks if that is a change."""
        wanted = min(max(wanted, self.cluster.min_instances), self.cluster.max_instances)
        if wanted != target:
            state.locked_until_s = now + self.lock_s
        return wanted

    def _workload_wish(self, obs: Observation, target: int) -> int:
        """Tier 1: what the forecast needs, with a band in which the fleet stays as it is."""
        ahead = windows_ahead(obs, self.lead_s)
        need = self.headroom * forecast_need(self, obs, ahead, ahead)
        up, down = ceil_instances(need + self.up_headroom), ceil_instances(need + self.down_headroom)
        return min(max(target, up), down)

    def _request_change(self, obs: Observation) -> int:
        """Tier 2: instances more or less."""
        use_with_starting, use = _mean_peaks(obs)
        if use_with_starting > self.very_high_use:
            return 2
        if use_with_starting > self.high_use:
            return 1
        return -1 if use < self.low_use else 0

    def _emergency(self, obs: Observation, state: ArtifactState, target: int) -> int | None:
        """The fleet that an emergency asks for; None if there is none, or one has just been answered."""
        use, _ = _mean_peaks(obs)
        if use <= self.emergency_use or obs["time_s"] < state.emergency_from_s - _ROUNDING_S:
            return None
        return math.floor(use * target / self.emergency_target_use + 1e-9)


def _mean_peaks(obs: Observation) -> tuple[float, float]:
    """Mean peak of the look-ahead map: over ready and starting instances, and over ready ones.

    The latter is infinite if none is ready, so that nothing is removed.
    """
    ready = obs["state"] == READY
    n_ready, n_starting = np.count_nonzero(ready), np.count_nonzero(obs["state"] == STARTING)
    peaks = float(obs["anticipated_peak"][ready].sum())
    if n_ready == 0:
        return 0.0, math.inf
    # The mean of equal peaks is that peak, and not a rounding error above it.
    return round(peaks / (n_ready + n_starting), 12), round(peaks / n_ready, 12)
