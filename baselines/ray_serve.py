"""Ray Serve's autoscaler on ongoing requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from baselines.base import REQUESTS, Autoscaler, Observation, ceil_instances
from baselines.fleet import count_fleet, in_flight
from baselines.recent import Recent


@dataclass
class RayServeState:
    """What Ray Serve remembers.

    Attributes:
        requests: ongoing, over the look-back period.
        wanted_since_s: since when the law has wanted more (``wants`` 1) or fewer (-1) than there are.
        wants: 1, -1, or 0 for neither.
    """

    requests: Recent
    wanted_since_s: float = 0.0
    wants: int = 0


@dataclass(frozen=True, kw_only=True)
class RayServe(Autoscaler):
    """``n = ceil(ongoing requests / target)``, after it was wanted long enough.

    Ongoing requests, running and queued, are averaged over ``look_back_s``. The number of instances changes
    to n when all decisions of the last ``upscale_delay_s`` wanted more, or all of the last
    ``downscale_delay_s`` wanted fewer; then, and when the direction changes, the wait begins anew.

    Source: Ray Serve's autoscaling policy and ``AutoscalingConfig`` (H). Smoothing factors are 1 there.

    Adapted: replicas push their metrics every 10 s, so the law decides as often; the loop there runs every
    0.1 s on the same figures. While nothing is ready there is no metric, and the number stays. The law
    divides a total, so starting instances are counted.

    Attributes:
        target_ongoing_requests: per instance.
        look_back_s: span of the mean.
        upscale_delay_s, downscale_delay_s: how long a change must be wanted.
    """

    TUNING: ClassVar[Mapping[str, tuple[float, ...]]] = {"target_ongoing_requests": REQUESTS}

    name: str = "ray-serve"
    target_ongoing_requests: float = 2.0
    look_back_s: float = 30.0
    upscale_delay_s: float = 30.0
    downscale_delay_s: float = 600.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("target_ongoing_requests", "look_back_s"):
            self._check(name, "a number > 0", lambda value: value > 0)
        for name in ("upscale_delay_s", "downscale_delay_s"):
            self._check(name, "a number of seconds >= 0", lambda value: value >= 0)

    def initial_state(self) -> RayServeState:
        """Nothing measured, nothing wanted."""
        return RayServeState(Recent(self.look_back_s))

    def decide(self, obs: Observation, state: RayServeState) -> int:
        """The number that has been wanted for long enough, else the present one."""
        now_s, target = float(obs["time_s"]), int(obs["target"])
        if count_fleet(obs)[0] == 0:
            return target
        state.requests.add(now_s, in_flight(obs))
        wanted = ceil_instances(state.requests.mean(self.look_back_s) / self.target_ongoing_requests)
        # What the cluster cannot have is never reached, and must not count as wanted for ever.
        wanted = min(max(wanted, self.cluster.min_instances), self.cluster.max_instances)
        wants = (wanted > target) - (wanted < target)
        if wants != state.wants:
            state.wants, state.wanted_since_s = wants, now_s
        delay_s = self.upscale_delay_s if wants > 0 else self.downscale_delay_s
        if wants == 0 or now_s - state.wanted_since_s < delay_s - 1e-6:
            return target
        state.wants = 0
        return wanted
