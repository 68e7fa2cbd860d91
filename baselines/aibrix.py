"""AIBrix's own autoscaler, APA, on KV use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from baselines.base import Autoscaler, Observation
from baselines.fleet import count_fleet, kv_uses
from baselines.recent import Recent


@dataclass(frozen=True, kw_only=True)
class Aibrix(Autoscaler):
    """``n = ceil(N * use / target)`` outside a tolerance, at most doubled or halved at once.

    With N instances and the mean KV use u: u/target above ``1 + tolerance``: ``min(ceil(N*u/target),
    ceil(max_scale_up*N))``; below ``1 - tolerance``: ``max(ceil(N*u/target), floor(N/max_scale_down))``;
    else N. Up at once; down to the highest of the last ``scale_down_cooldown_s``.

    Source: AIBrix's pod autoscaler, ``APAAlgorithm`` and the defaults of its scaling context: tolerances
    0.1, rates 2, cooldowns 0 and 300 s, on the present value of the metric (H); target 0.5 (M, from its
    examples). Its windows of 180 and 60 s belong to its version of the KPA.

    Adapted: starting instances, which have no metrics yet, count in N as empty when the number grows, and as
    being at the target when it falls, as the HPA counts them. Decides every 10 s, its controller's period.

    Attributes:
        target_kv_use: mean share of the KV cache in use that is aimed at.
        tolerance: of the ratio around 1.
        max_scale_up, max_scale_down: factors on N in one decision.
        scale_down_cooldown_s: window of the highest recommendation.
    """

    TUNING: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "target_kv_use": (
            *(0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15),
            *(0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        )
    }

    name: str = "aibrix"
    target_kv_use: float = 0.5
    tolerance: float = 0.1
    max_scale_up: float = 2.0
    max_scale_down: float = 2.0
    scale_down_cooldown_s: float = 300.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("target_kv_use", "a number in (0, 1]", lambda value: 0 < value <= 1)
        self._check("tolerance", "a number in [0, 1)", lambda value: 0 <= value < 1)
        for name in ("max_scale_up", "max_scale_down"):
            self._check(name, "a number > 1", lambda value: value > 1)
        self._check("scale_down_cooldown_s", "a number of seconds > 0", lambda value: value > 0)

    def initial_state(self) -> Recent:
        """No recommendation yet."""
        return Recent(self.scale_down_cooldown_s)

    def decide(self, obs: Observation, state: Recent) -> int:
        """The highest recommendation of the cooldown."""
        if not state.values:
            state.add(float(obs["time_s"]), float(obs["target"]))
        state.add(float(obs["time_s"]), self._recommend(obs))
        return int(state.highest())

    def _recommend(self, obs: Observation) -> int:
        n_ready, n_starting = count_fleet(obs)
        n = n_ready + n_starting
        if n_ready == 0:
            return n
        over_all, of_ready = (use / self.target_kv_use for use in kv_uses(obs))
        if over_all > 1.0 + self.tolerance + 1e-9:
            return min(math.ceil(n * over_all - 1e-9), math.ceil(self.max_scale_up * n))
        if of_ready < 1.0 - self.tolerance - 1e-9:
            kept = math.ceil(n_ready * of_ready + n_starting - 1e-9)
            return max(kept, math.floor(n / self.max_scale_down))
        return n
