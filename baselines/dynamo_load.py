"""NVIDIA Dynamo's load planner: thresholds on the KV cache in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from baselines.base import SCALES, Autoscaler, Observation
from baselines.fleet import count_fleet, kv_uses
from preserve_gym.errors import InputError


@dataclass
class DynamoLoadState:
    """How many decisions must still pass before an instance may be removed."""

    grace: int = 0


@dataclass(frozen=True, kw_only=True)
class DynamoLoad(Autoscaler):
    """Every 10 s: one instance more when the mean KV use is high, one less when it is low.

    Nothing is decided while an instance is starting. After one was added, none is removed in the next
    ``grace_intervals`` decisions, so that it can fill its cache.

    Source: NVIDIA Dynamo's load-based planner, KV use 0.9 and 0.5, one instance at an interval of 10 s, grace
    of 3 intervals (H).

    Adapted: no disaggregation; this is its law for decode workers and for workers that do both. Its law for
    prefill workers reads a prefill queue that does not exist here. KV use is that of the moment, there the
    mean of the interval.

    Attributes:
        high_kv_use, low_kv_use: mean shares of the KV cache in use.
        grace_intervals: decisions.
        scale: factor on both shares; 1 as published.
    """

    TUNING: ClassVar[Mapping[str, tuple[float, ...]]] = {"scale": SCALES}

    name: str = "dynamo-load"
    high_kv_use: float = 0.9
    low_kv_use: float = 0.5
    grace_intervals: int = 3
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("high_kv_use", "low_kv_use"):
            self._check(name, "a number in [0, 1]", lambda value: 0 <= value <= 1)
        self._check("grace_intervals", "an integer >= 0", lambda value: isinstance(value, int) and value >= 0)
        self._check("scale", "a number > 0", lambda value: value > 0)
        if self.low_kv_use >= self.high_kv_use:
            raise InputError(
                f"DynamoLoad.low_kv_use: expected a number below high_kv_use ({self.high_kv_use}), "
                f"got {self.low_kv_use}"
            )

    def initial_state(self) -> DynamoLoadState:
        """No grace."""
        return DynamoLoadState()

    def decide(self, obs: Observation, state: DynamoLoadState) -> int:
        """One more, one less, or as many as there are."""
        target = int(obs["target"])
        n_ready, n_starting = count_fleet(obs)
        if n_ready == 0 or n_starting > 0:
            return target
        use = kv_uses(obs)[1] / self.scale
        if use > self.high_kv_use and target < self.cluster.max_instances:
            state.grace = self.grace_intervals
            return target + 1
        if state.grace > 0:
            state.grace -= 1
        elif use < self.low_kv_use:
            return target - 1
        return target
