"""Llumnix's autoscaler on freeness."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from baselines.base import Autoscaler, Observation
from baselines.fleet import count_fleet, in_flight
from preserve_gym.errors import InputError
from preserve_gym.sim.state import READY


@dataclass(frozen=True, kw_only=True)
class Llumnix(Autoscaler):
    """Adds instances until the mean freeness is enough, removes one when it is more than enough.

    Freeness is ``(free KV blocks - blocks of waiting requests) / requests``: the decode steps that are left
    before the cache is full, over the block size. Every 10 s the mean, that of all instances together:
    below ``low_freeness``, instances are added until an empty one more makes it enough; above
    ``high_freeness``, one is removed. No request at all: infinite.

    Source: Llumnix (OSDI 2024) and its published code, thresholds 10 and 60 (H). The paper adds while the
    mean stays low; the code adds one at a decision.

    Adapted: no migration, so an added instance relieves the others only by what arrives, and a removed one
    first ends its requests. Blocks of waiting requests are those of all prompts without a first token.
    Starting instances count as empty towards an addition and are left out for a removal. The router is
    Llumnix's.

    Attributes:
        low_freeness, high_freeness: thresholds, blocks per request.
        scale: factor on both; 1 as published. The thresholds suit the small cache of the paper.
    """

    TUNING: ClassVar[Mapping[str, tuple[float, ...]]] = {"scale": tuple(2.0**k for k in range(-2, 14))}

    name: str = "llumnix"
    router: str = "llumnix"
    low_freeness: float = 10.0
    high_freeness: float = 60.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("low_freeness", "high_freeness", "scale"):
            self._check(name, "a number > 0", lambda value: value > 0)
        if self.low_freeness >= self.high_freeness:
            raise InputError(
                f"Llumnix.low_freeness: expected a number below high_freeness ({self.high_freeness}), "
                f"got {self.low_freeness}"
            )

    def decide(self, obs: Observation, state: Any) -> int:
        """As many more as make the mean freeness enough, or one less."""
        target = int(obs["target"])
        n_ready, n_starting = count_fleet(obs)
        if n_ready == 0:
            return target
        requests, free = in_flight(obs), self._free_blocks(obs)
        if requests == 0.0 or free / requests > self.scale * self.high_freeness:
            return target - 1
        missing = self.scale * self.low_freeness * requests - free
        blocks = self.cluster.instance.kv_blocks
        # Those that are starting are as good as there.
        return target + max(math.ceil(missing / blocks - 1e-9) - n_starting, 0)

    def _free_blocks(self, obs: Observation) -> float:
        """Free blocks of ready instances, less those that prompts without a first token will take."""
        ready, instance = obs["state"] == READY, self.cluster.instance
        free = (1.0 - obs["kv_use"][ready]).sum() * instance.kv_blocks
        return float(free - obs["queued_prefill_tokens"][ready].sum() / instance.block_size)
