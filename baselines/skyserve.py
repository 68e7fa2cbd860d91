"""SkyServe's request-rate autoscaler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from baselines.base import SHARES, Autoscaler, Observation, ceil_instances
from preserve_gym.envs.physical import RATE_SPANS_S

_QPS_WINDOW = RATE_SPANS_S.index(60.0)


@dataclass
class SkyServeState:
    """How many decisions in a row have wanted more, and fewer, instances than there are."""

    up: int = 0
    down: int = 0


@dataclass(frozen=True, kw_only=True)
class SkyServe(Autoscaler):
    """``n = ceil(requests per second over 60 s / target rate)``, after it was wanted often enough.

    Every 20 s. The number changes to n once ``upscale_delay_s / interval_s`` decisions in a row have
    wanted more, or ``downscale_delay_s / interval_s`` fewer; then counting begins anew.

    Source: SkyPilot's ``RequestRateAutoscaler``, its constants and its service specification (H).

    Adapted: ``target_qps_per_replica`` is the user's to set there; here it is ``target_share`` of the rate
    that is profiled, as for ``Hpa``. The law compares with all instances, starting ones included.

    Attributes:
        target_share: of the profile's ``requests_per_s``.
        upscale_delay_s, downscale_delay_s: how long a change must be wanted.
    """

    TUNING: ClassVar[Mapping[str, tuple[float, ...]]] = {"target_share": SHARES}

    name: str = "skyserve"
    interval_s: float = 20.0
    target_share: float = 0.7
    upscale_delay_s: float = 300.0
    downscale_delay_s: float = 1200.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("target_share", "a number > 0", lambda value: value > 0)
        for name in ("upscale_delay_s", "downscale_delay_s"):
            self._check(name, "a number of seconds >= 0", lambda value: value >= 0)

    def initial_state(self) -> SkyServeState:
        """Nothing wanted."""
        return SkyServeState()

    def decide(self, obs: Observation, state: SkyServeState) -> int:
        """The number that has been wanted often enough, else the present one."""
        target = int(obs["target"])
        target_rate = self.target_share * self.profile.requests_per_s
        wanted = ceil_instances(float(obs["request_rate"][_QPS_WINDOW]) / target_rate)
        wanted = min(max(wanted, self.cluster.min_instances), self.cluster.max_instances)
        state.up = state.up + 1 if wanted > target else 0
        state.down = state.down + 1 if wanted < target else 0
        enough_up = state.up >= int(self.upscale_delay_s / self.interval_s)
        enough_down = state.down >= int(self.downscale_delay_s / self.interval_s)
        if (wanted > target and enough_up) or (wanted < target and enough_down):
            state.up = state.down = 0
            return wanted
        return target
