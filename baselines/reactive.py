"""PreServe's reactive baseline: thresholds on the KV cache in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from baselines.base import Autoscaler, Observation
from preserve_gym.errors import InputError
from preserve_gym.sim.state import READY, STARTING


@dataclass(frozen=True, kw_only=True)
class Reactive(Autoscaler):
    """Every 10 s: one instance more when the mean KV use is high, one less when it is low.

    Source: the reactive baseline in the evaluation of PreServe (arXiv 2504.03702). It has two settings, one
    for each of its two traces: 0.92 and 0.1, used here, and 0.9 and 0.2.

    Adapted: a starting instance uses nothing yet, so a law that looks at ready ones alone would add one at
    every tick until the first of them is ready. As Kubernetes does with pods that are not ready, starting
    instances count at zero use towards an addition, and are left out of the mean for a removal.

    Attributes:
        high_kv_use: mean share of the KV cache in use above which an instance is added.
        low_kv_use: below which one is removed.
    """

    TUNING: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "high_kv_use": (0.15, 0.3, 0.6, 0.92),
        "low_kv_use": (0.02, 0.05, 0.1, 0.14),
    }

    name: str = "reactive"
    high_kv_use: float = 0.92
    low_kv_use: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("high_kv_use", "a number in (0, 1]", lambda value: 0 < value <= 1)
        self._check("low_kv_use", "a number in [0, 1)", lambda value: 0 <= value < 1)
        if self.low_kv_use >= self.high_kv_use:
            raise InputError(
                f"Reactive.low_kv_use: expected a number below high_kv_use ({self.high_kv_use}), "
                f"got {self.low_kv_use}"
            )

    def decide(self, obs: Observation, state: Any) -> int:
        """One more, one less, or as many as there are."""
        target = int(obs["target"])
        ready = obs["state"] == READY
        n_ready, n_starting = np.count_nonzero(ready), np.count_nonzero(obs["state"] == STARTING)
        use = float(obs["kv_use"][ready].sum())
        if n_ready and use / (n_ready + n_starting) > self.high_kv_use:
            return target + 1
        if n_ready and use / n_ready < self.low_kv_use:
            return target - 1
        return target
