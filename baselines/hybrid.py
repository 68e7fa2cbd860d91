"""PreServe's hybrid baseline: half reactive, half forecast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from baselines.base import Observation, ceil_instances
from baselines.forecast_need import forecast_need
from baselines.reactive import Reactive


@dataclass(frozen=True, kw_only=True)
class Hybrid(Reactive):
    """Every 10 s: the mean of what ``Reactive`` and PreServe's Tier 1 ask for, rounded up.

    Source: the hybrid baseline in the evaluation of PreServe (arXiv 2504.03702): "ceil of the mean of both"
    (H); that Tier 1 is read again at every decision, for the current forecast window, is inferred (M).

    Attributes:
        high_kv_use, low_kv_use: those of ``Reactive``.
    """

    name: str = "hybrid"

    def decide(self, obs: Observation, state: Any) -> int:
        """Half of the sum, rounded up."""
        need = ceil_instances(forecast_need(self, obs, 0, 0))
        return math.ceil((super().decide(obs, state) + need) / 2)
