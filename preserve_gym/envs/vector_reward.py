"""The reward of a control interval as a vector, by MO-Gymnasium's convention.

::

    cost    = reward_cost
    slo     = -scale * min(violations / n, 1)
    scaling = -scale * changes / max_instances

* ``reward_cost``, ``violations`` and ``n``: as in ``preserve_gym.envs.scale_reward``;
* ``changes``: instances started, taken back, cancelled or drained in the interval.

The weights ``(1, violation_weight, 0)`` make it the scalar reward, to the bit if each product is rounded
before they are added; therefore it is float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from preserve_gym.config import ClusterConfig
from preserve_gym.envs.physical import total_index

if TYPE_CHECKING:
    from preserve_gym.envs.batch import EnvBatch

_VIOLATIONS = total_index("violations")
_SCALE_UPS, _SCALE_DOWNS = total_index("scale_ups"), total_index("scale_downs")


def vector_reward_space(
    constants: NDArray[np.void], needs: NDArray[np.float64], cluster: ClusterConfig
) -> spaces.Box:
    """Its bounds, a Box of shape (3,), float64.

    Args:
        constants: a record of ``CONSTANTS``, shape (1,).
        needs: forecast need of each window, float64[W].
        cluster: the cluster.
    """
    scale, headroom = float(constants["scale"][0]), float(constants["baseline_headroom"][0])
    margin = 1.0 + 1e-9  # as sums of instance-seconds are rounded
    # A start that is cancelled is billed to its end at once.
    ahead = max(cluster.cold_starts_s) / float(constants["interval_s"][0])
    lowest_cost = -scale * (1.0 + ahead) * margin
    highest_cost = scale * headroom * float(needs.max()) / cluster.max_instances * margin
    return spaces.Box(
        np.array([lowest_cost, -scale, -scale]), np.array([highest_cost, 0.0, 0.0]), dtype=np.float64
    )


def vector_rewards(batch: EnvBatch) -> NDArray[np.float64]:
    """Of the last interval of each environment, float64[n, 3]."""
    c, change = batch.task.constants[0], batch.now - batch.before
    changes = change[:, _SCALE_UPS] + change[:, _SCALE_DOWNS]
    missed = np.minimum(change[:, _VIOLATIONS] / c["requests_per_interval"], 1.0)
    slots = batch.task.setting.cluster.max_instances
    return np.column_stack((batch.info[:, -2], -c["scale"] * missed, -c["scale"] * (changes / slots)))
