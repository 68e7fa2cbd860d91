"""SageServe's long-term scaling, immediate (LT-I) and by use (LT-U)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from baselines.base import HEADROOMS, Autoscaler, Observation, ceil_instances
from baselines.fleet import kv_uses
from baselines.load import forecast_needs
from preserve_gym.errors import InputError


@dataclass
class SageServeState:
    """What SageServe remembers.

    Attributes:
        window_start_s: start of the forecast window of the last plan.
        planned: instances of that plan.
    """

    window_start_s: float = -math.inf
    planned: int = 1


@dataclass(frozen=True, kw_only=True)
class SageServeImmediate(Autoscaler):
    """LT-I: capacity for the highest forecast demand plus 10 %, set at once.

    Source: SageServe (POMACS 2025). Every hour an ARIMA(3,1,2) on minutes forecasts the tokens; the demand is
    the highest forecast from 20 to 60 minutes ahead plus ``headroom``, and the fewest instances with that
    capacity are planned (H).

    Adapted: the forecast is the environment's, so that all policies with one have the same; it reaches a few
    windows of 10 minutes and is made anew at each, so the plan is too: over all windows forecast, the
    current one included, as nothing else provides for it. One model, one kind of GPU, one region: its
    optimisation comes down to ``ceil(headroom * need)``. No stabilisation is published.

    Attributes:
        headroom: factor on the forecast demand.
    """

    TUNING: ClassVar[Mapping[str, tuple[float, ...]]] = {"headroom": HEADROOMS}

    name: str = "sageserve-i"
    headroom: float = 1.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("headroom", "a number > 0", lambda value: value > 0)

    def initial_state(self) -> SageServeState:
        """No plan yet."""
        return SageServeState()

    def decide(self, obs: Observation, state: SageServeState) -> int:
        """The plan."""
        self._plan(obs, state)
        return state.planned

    def _plan(self, obs: Observation, state: SageServeState) -> bool:
        """Plan anew where a forecast window begins; whether it did."""
        start_s = obs["time_s"] - obs["window_elapsed"] * obs["window_s"]
        if start_s <= state.window_start_s + 0.5 * obs["window_s"]:
            return False
        state.window_start_s = start_s
        state.planned = ceil_instances(self.headroom * float(np.max(forecast_needs(obs, self.profile))))
        return True


@dataclass(frozen=True, kw_only=True)
class SageServeByUse(SageServeImmediate):
    """LT-U: the plan of LT-I, towards which it goes only where the memory in use asks for it.

    An instance of the plan is added while the mean KV use is above ``add_kv_use``, one is removed while it is
    below ``remove_kv_use``; one more than planned is added above ``urgent_kv_use``.

    Source: as LT-I, thresholds 0.5, 0.25 and 0.9 (H); one instance at a decision, every 15 s (M).

    Adapted: as LT-I. Starting instances count as empty towards an addition, and are left out for a removal.
    What was added beyond the plan goes as what is surplus to it does.

    Attributes:
        add_kv_use, remove_kv_use, urgent_kv_use: mean shares of the KV cache in use.
        scale: factor on all three; 1 as published.
    """

    TUNING: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "headroom": (1.0, 1.1, 1.3, 1.6),
        "scale": (0.03, 0.1, 0.3, 1.0),
    }

    name: str = "sageserve-u"
    interval_s: float = 15.0
    add_kv_use: float = 0.5
    remove_kv_use: float = 0.25
    urgent_kv_use: float = 0.9
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("add_kv_use", "remove_kv_use", "urgent_kv_use"):
            self._check(name, "a number in [0, 1]", lambda value: 0 <= value <= 1)
        self._check("scale", "a number > 0", lambda value: value > 0)
        if not self.remove_kv_use < self.add_kv_use <= self.urgent_kv_use:
            raise InputError(
                "SageServeByUse.add_kv_use: expected a number above remove_kv_use "
                f"({self.remove_kv_use}), at most urgent_kv_use ({self.urgent_kv_use}), got {self.add_kv_use}"
            )

    def decide(self, obs: Observation, state: SageServeState) -> int:
        """One step towards the plan, one beyond it, or none."""
        self._plan(obs, state)
        target = int(obs["target"])
        over_all, of_ready = (use / self.scale for use in kv_uses(obs))
        if over_all > self.urgent_kv_use or (state.planned > target and over_all > self.add_kv_use):
            return target + 1
        if state.planned < target and of_ready < self.remove_kv_use:
            return target - 1
        return target
