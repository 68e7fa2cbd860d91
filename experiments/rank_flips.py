"""Where the ranking of policies depends on the scenario."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd

from experiments.equal_attainment import Elasticities, log_gpu_hours
from experiments.statistics import Estimate, FloatArray

_FIGURES = ("violations", "arrived", "gpu_hours")


@dataclass
class Duel:
    """Two policies, on all scenarios.

    Attributes:
        first, second: their names.
        won, lost, even: scenarios where the first needs fewer GPU-hours at the target attainment, more, or
            neither beyond chance. Who misses it by too much to say loses to who does not.
    """

    first: str
    second: str
    won: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    even: list[str] = field(default_factory=list)

    @property
    def flips(self) -> bool:
        """Each is better somewhere."""
        return bool(self.won and self.lost)


def duels(
    episodes: pd.DataFrame, elasticities: Elasticities, policies: Sequence[str], target: float
) -> list[Duel]:
    """All pairs of policies, compared in each scenario that both played, at equal attainment.

    Chance is that of other seeds on the same windows: a difference counts if the 95 % interval of the paired
    ratio leaves out 1.

    Args:
        episodes: as ``RunRecords.episodes``.
        elasticities: by scenario and policy.
        policies: which.
        target: SLO attainment.
    """
    found = [Duel(first, second) for first, second in combinations(policies, 2)]
    for scenario, rows in episodes.groupby("scenario", sort=False):
        table = rows.pivot_table(index=["seed", "window"], columns="policy", values=list(_FIGURES))
        for duel in found:
            names = (duel.first, duel.second)
            if not set(names) <= set(rows["policy"]):
                continue
            pair = pd.concat(
                [table.xs(name, axis=1, level="policy")[list(_FIGURES)] for name in names], axis=1
            )
            own = np.array([elasticities.get((str(scenario), name), np.nan) for name in names])
            sign = _sign(pair.dropna(), own, target)
            (duel.won, duel.even, duel.lost)[sign + 1].append(str(scenario))
    return found


def _sign(pair: pd.DataFrame, elasticities: FloatArray, target: float) -> int:
    """-1 if the first is cheaper beyond chance, 1 if the second is, else 0; rows are seeds and windows."""
    seeds, windows = (pair.index.unique(level).size for level in ("seed", "window"))
    if pair.empty or len(pair) != seeds * windows:
        return 0
    cells = pair.to_numpy(np.float64).reshape(seeds, windows, 2, 3)
    first, second = np.isfinite(log_gpu_hours(cells.sum(axis=(0, 1)), elasticities, target))
    if not (first and second):
        return int(second) - int(first)

    def ratio(totals: FloatArray) -> FloatArray:
        one, other = log_gpu_hours(totals.reshape(2, 3), elasticities, target)
        return np.array([one - other])

    low, high = Estimate.of(cells.reshape(seeds, windows, 1, 2, 3), ratio).over_seeds()
    return int(low[0] > 0.0) - int(high[0] < 0.0)
