"""PreServe's two-tier autoscaler: a forecast sets the fleet, the look-ahead map corrects it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from baselines.base import Autoscaler, Observation, ceil_instances
from baselines.forecast_need import forecast_need, windows_ahead
from preserve_gym.errors import InputError
from preserve_gym.sim.state import READY, STARTING

Variant = Literal["paper", "paper-up-only"]

TIER_1_HEADROOMS = (0.7, 0.75, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0)
"""Factors on the need to tune over."""
LEADS_S = (0.0, 90.0)
"""Leads to tune over: none as printed, and more than a cold start takes."""


@dataclass
class PreServeState:
    """What PreServe remembers.

    Attributes:
        overloaded: which slots were overloaded at the last decision, bool of shape (max_instances,).
        window_start_s: start of the forecast window of the last decision.
        windows_ahead: how many windows after that one Tier 1 has provided for.
        may_scale_down: no instances have been removed in this window yet.
    """

    overloaded: NDArray[np.bool_]
    window_start_s: float = -math.inf
    windows_ahead: int = 0
    may_scale_down: bool = False


@dataclass(frozen=True, kw_only=True)
class PreServe(Autoscaler):
    """PreServe as its paper gives it (arXiv 2504.03702, ICSE '26).

    *Tier 1* (Algorithm 2), when a forecast window of length W begins, and at the first decision: from the
    forecast prompt tokens P and output tokens D of the window,
    ``N = ceil(max(P/(mu_p*W), D/(mu_d*W), (P+D)/(mu_t*W)))``, mu being the instance profile.

    *Tier 2*, every 10 s on the look-ahead map U of each instance, its predicted KV use over the next
    iterations. An instance is overloaded when more than ``overload_share`` of the map is above 0.95: one
    instance more for each, once per overload episode, which lasts until the instance is overloaded no
    longer. When max U of every ready instance is below ``low_use``: keep
    ``max(1, ceil(sum of max U / low_use))`` and drain the others, at most once per window. Where Tier 1
    sets N, Tier 2 may only add.

    *Router*: ``preserve``, on queued prefill and predicted tokens (H, but as the artifact has it);
    ``preserve-look-ahead`` reads the look-ahead map instead, as the text of the paper suggests (M).

    Where the figures come from: H, read in the paper or its artifact; M, inferred.

    Each part can be exchanged: Tier 1 and Tier 2 by leaving them out or by a subclass, the router, the
    anticipator, the forecaster (workload predictor) and the predictor (request-load predictor) by name.

    Settled where the paper leaves it open:

    * A starting instance has no map yet. It is kept on top of what Tier 2 keeps, as Kubernetes counts a pod
      without metrics as fully used before it removes one; otherwise Tier 2 would cancel what Tier 1 has
      just started. It is never overloaded.
    * Tier 1 removing instances at a boundary is that window's removal. Otherwise Tier 2 would look at maps
      that the remaining instances have not filled yet, and remove most of those too.
    * ``lead_s`` > 0 brings additions forward only: the next window's instances start early, the removals
      wait for the boundary, since a drain takes effect at once. Tier 2 removes nothing in between.

    The variant ``paper-up-only`` leaves Tier 2's removals out. They suppose a KV cache so small that it is
    what limits an instance; on a large one its use stays below ``low_use`` under any load that meets the
    SLO, and Tier 2 removes what Tier 1 has set.

    Attributes:
        headroom: factor on the need that Tier 1 provides for; 1 as printed. Ours, for tuning.
        variant: ``paper`` or ``paper-up-only``.
        tier_1: whether Tier 1 acts. Without it Tier 2 may remove at a boundary, too.
        tier_2: whether Tier 2 acts.
        interval_s: of Tier 2, 10 s (M).
        lead_s: how long before its window Tier 1 starts instances, s; 0 as printed (M: whether the
            published system acts at the boundary or before it is not said).
        overload_share: share of the look-ahead window (H). The window of 100 iterations and its limit of
            0.95 (both H) are the anticipator's.
        low_use: T_f, share of the KV cache (H).
    """

    TUNING: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "headroom": TIER_1_HEADROOMS,
        "low_use": (0.03, 0.3),
    }

    name: str = "preserve"
    router: str = "preserve"
    headroom: float = 1.0
    variant: Variant = "paper"
    tier_1: bool = True
    tier_2: bool = True
    lead_s: float = 0.0
    overload_share: float = 0.1
    low_use: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in get_args(Variant):
            raise InputError(
                f"PreServe.variant: expected one of {', '.join(get_args(Variant))}, got {self.variant!r}"
            )
        check_tiers(self, self.tier_1, self.tier_2)
        if self.variant == "paper-up-only" and not self.tier_1:
            raise InputError("PreServe.tier_1: expected True with paper-up-only, as nothing else removes")
        self._check("headroom", "a number > 0", lambda value: value > 0)
        self._check("lead_s", "a number of seconds >= 0", lambda value: value >= 0)
        self._check("overload_share", "a number in [0, 1)", lambda value: 0 <= value < 1)
        self._check("low_use", "a number in (0, 1)", lambda value: 0 < value < 1)

    def initial_state(self) -> PreServeState:
        """No window seen, no instance overloaded."""
        return PreServeState(overloaded=np.zeros(self.cluster.max_instances, bool))

    def decide(self, obs: Observation, state: PreServeState) -> int:
        """Tier 1 where a window begins or comes into reach, then Tier 2."""
        target = int(obs["target"])
        window_s = obs["window_s"]
        window_start_s = obs["time_s"] - obs["window_elapsed"] * window_s
        begins = window_start_s > state.window_start_s + 0.5 * window_s
        if begins:
            state.window_start_s = window_start_s
            state.may_scale_down = self.variant == "paper"
        if self.tier_1:
            target = self._provide(obs, state, begins, target)
        if not self.tier_2:
            return target
        target += self._newly_overloaded(obs, state)
        if state.may_scale_down and not (begins and self.tier_1):
            kept = self._kept(obs)
            if kept is not None and kept < target:
                target = kept
                state.may_scale_down = False
        return target

    def _provide(self, obs: Observation, state: PreServeState, begins: bool, target: int) -> int:
        """Tier 1: what the forecast needs where a window begins, more where one comes into reach."""
        ahead = windows_ahead(obs, self.lead_s)
        if begins:
            need = ceil_instances(self.headroom * forecast_need(self, obs, 0, ahead))
            state.may_scale_down &= need >= target
            target = need
        elif ahead > state.windows_ahead:
            need = ceil_instances(self.headroom * forecast_need(self, obs, 0, ahead))
            target = max(target, need)
            state.may_scale_down = False
        state.windows_ahead = ahead
        return target

    def _newly_overloaded(self, obs: Observation, state: PreServeState) -> int:
        """Tier 2, up: overload episodes that begin now."""
        ready = obs["state"] == READY
        overloaded = ready & (obs["anticipated_overload"] > self.overload_share)
        new = int(np.count_nonzero(overloaded & ~state.overloaded))
        state.overloaded = overloaded
        return new

    def _kept(self, obs: Observation) -> int | None:
        """Tier 2, down: instances to keep; None unless every ready one is little used."""
        ready = obs["state"] == READY
        peaks = obs["anticipated_peak"][ready]
        if len(peaks) == 0 or np.max(peaks) >= self.low_use:
            return None
        starting = int(np.count_nonzero(obs["state"] == STARTING))
        return ceil_instances(float(peaks.sum()) / self.low_use) + starting


def check_tiers(policy: Autoscaler, tier_1: object, tier_2: object) -> None:
    """Refuse all but True and False, and both False."""
    for field, value in (("tier_1", tier_1), ("tier_2", tier_2)):
        if not isinstance(value, bool):
            raise InputError(f"{type(policy).__name__}.{field}: expected True or False, got {value!r}")
    if not tier_1 and not tier_2:
        raise InputError(f"{type(policy).__name__}.tier_2: expected True without Tier 1, got False")
