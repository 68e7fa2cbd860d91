"""What laws read of the fleet: instances and requests by the state of the instance."""

from __future__ import annotations

import numpy as np

from baselines.base import Observation
from preserve_gym.sim.state import READY, STARTING


def count_fleet(obs: Observation) -> tuple[int, int]:
    """Instances that are ready, and that are starting."""
    return int(np.count_nonzero(obs["state"] == READY)), int(np.count_nonzero(obs["state"] == STARTING))


def in_flight(obs: Observation) -> float:
    """Requests running and waiting at ready instances; those at draining ones are provided for."""
    return float((obs["running"] + obs["waiting"])[obs["state"] == READY].sum())


def kv_uses(obs: Observation) -> tuple[float, float]:
    """Mean share of the KV cache in use: with starting instances as empty, and of ready ones alone.

    An addition is decided on the first, since a law that looks at ready instances alone adds one at every
    decision until the first is ready; a removal on the second, as Kubernetes counts pods that are not ready.
    Both are 0 where nothing is ready.
    """
    n_ready, n_starting = count_fleet(obs)
    if n_ready == 0:
        return 0.0, 0.0
    use = kv_of_ready(obs)
    return use / (n_ready + n_starting), use / n_ready


def kv_of_ready(obs: Observation) -> float:
    """KV cache in use at ready instances, in caches of one instance."""
    return float(obs["kv_use"][obs["state"] == READY].sum())
