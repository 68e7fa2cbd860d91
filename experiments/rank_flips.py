"""Where the ranking of policies depends on the scenario."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd

from experiments.statistics import Estimate


@dataclass
class Duel:
    """Two policies, on all scenarios.

    Attributes:
        first, second: their names.
        won, lost, even: scenarios where the first needs fewer GPU-hours, more, or neither beyond chance; or
            where it alone meets the target attainment, or the second alone.
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
    episodes: pd.DataFrame, meets: Mapping[tuple[str, str], bool], policies: Sequence[str]
) -> list[Duel]:
    """All pairs of policies, compared in each scenario that both played.

    Chance is that of other seeds on the same windows: a difference counts if the 95 % interval of the paired
    ratio of GPU-hours leaves out 1.

    Args:
        episodes: as ``RunRecords.episodes``.
        meets: whether a scenario's target is met, by scenario and policy.
        policies: which.
    """
    found = [Duel(first, second) for first, second in combinations(policies, 2)]
    for scenario, rows in episodes.groupby("scenario", sort=False):
        hours = rows.pivot_table(index=["seed", "window"], columns="policy", values="gpu_hours")
        for duel in found:
            names = [duel.first, duel.second]
            if not all((scenario, name) in meets for name in names):
                continue
            first, second = (meets[str(scenario), name] for name in names)
            if first and second:
                sign = _sign(hours[names].dropna())
            else:
                sign = int(second) - int(first)
            (duel.won, duel.even, duel.lost)[sign + 1].append(str(scenario))
    return found


def _sign(hours: pd.DataFrame) -> int:
    """-1 if the first column is lower beyond chance, 1 if higher, else 0; rows are seeds and windows."""
    if hours.empty:
        return 0
    seeds, windows = (hours.index.unique(level).size for level in ("seed", "window"))
    if len(hours) != seeds * windows:
        return 0
    cells = hours.to_numpy(np.float64).reshape(seeds, windows, 1, 2)
    estimate = Estimate.of(cells, lambda totals: np.log(totals[:, 0] / totals[:, 1]))
    low, high = estimate.over_seeds()
    return int(low[0] > 0.0) - int(high[0] < 0.0)
