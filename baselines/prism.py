"""PRISM's autoscaler on the share of hot and cold instances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from baselines.base import SCALES, Autoscaler, Observation
from baselines.fleet import count_fleet
from preserve_gym.errors import InputError
from preserve_gym.sim.state import READY


@dataclass(frozen=True, kw_only=True)
class Prism(Autoscaler):
    """Every 10 s: one more if more than 20 % of the instances are hot, one less if more than 80 % are cold.

    An instance is hot when its KV use is above ``high_kv_use``, cold when it is below ``low_kv_use``.

    Source: PRISM's paper, thresholds and period (H).

    Adapted: starting instances count as neither hot nor in use towards an addition, and are left out for a
    removal. No stabilisation is published. The router is PRISM's.

    Attributes:
        high_kv_use, low_kv_use: shares of the KV cache.
        hot_share, cold_share: shares of the instances.
        scale: factor on both KV uses; 1 as published.
    """

    TUNING: ClassVar[Mapping[str, tuple[float, ...]]] = {"scale": SCALES}

    name: str = "prism"
    router: str = "prism"
    high_kv_use: float = 0.85
    low_kv_use: float = 0.2
    hot_share: float = 0.2
    cold_share: float = 0.8
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("high_kv_use", "low_kv_use", "hot_share", "cold_share"):
            self._check(name, "a number in [0, 1]", lambda value: 0 <= value <= 1)
        self._check("scale", "a number > 0", lambda value: value > 0)
        if self.low_kv_use >= self.high_kv_use:
            raise InputError(
                f"Prism.low_kv_use: expected a number below high_kv_use ({self.high_kv_use}), "
                f"got {self.low_kv_use}"
            )

    def decide(self, obs: Observation, state: Any) -> int:
        """One more, one less, or as many as there are."""
        target = int(obs["target"])
        n_ready, n_starting = count_fleet(obs)
        if n_ready == 0:
            return target
        use = obs["kv_use"][obs["state"] == READY]
        hot = np.count_nonzero(use > self.scale * self.high_kv_use)
        cold = np.count_nonzero(use < self.scale * self.low_kv_use)
        if hot > self.hot_share * (n_ready + n_starting):
            return target + 1
        if cold > self.cold_share * n_ready:
            return target - 1
        return target
