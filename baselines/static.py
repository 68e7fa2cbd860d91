"""A fixed number of instances: peak provisioning when it is sized for the busiest window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from baselines.base import Autoscaler, Observation, ceil_instances
from preserve_gym.config import ClusterConfig
from preserve_gym.sim.profile import InstanceProfile


@dataclass(frozen=True, kw_only=True)
class Static(Autoscaler):
    """Always ``instances``.

    Sized by ``peak_instances`` it is what a cluster costs that is bought for its peak, the yardstick of
    every autoscaler. It needs to know the peak in advance, so it is a policy in hindsight.

    Attributes:
        instances: the fixed number, within the bounds of the cluster.
    """

    TUNING: ClassVar[Mapping[str, tuple[float, ...]]] = {"instances": tuple(range(1, 17))}

    name: str = "static"
    instances: int

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.cluster.min_instances, self.cluster.max_instances
        self._check(
            "instances",
            f"an integer in [{low}, {high}], the bounds of the cluster",
            lambda value: isinstance(value, int) and low <= value <= high,
        )

    def initial_instances(self, start_s: float) -> int:
        """The fixed number: the fleet was never smaller."""
        return self.instances

    def decide(self, obs: Observation, state: Any) -> int:
        """The fixed number."""
        return self.instances


def peak_instances(
    cluster: ClusterConfig,
    profile: InstanceProfile,
    prompt_tokens: NDArray[Any],
    output_tokens: NDArray[Any],
    window_s: float,
) -> int:
    """Instances for the busiest window, within the bounds of the cluster.

    Args:
        prompt_tokens, output_tokens: tokens that arrive in each window, shape (windows,), at least one.
        window_s: length of a window in s.
    """
    need = profile.need(np.asarray(prompt_tokens) / window_s, np.asarray(output_tokens) / window_s)
    return min(max(ceil_instances(float(np.max(need))), cluster.min_instances), cluster.max_instances)
