"""Whether the bounds of a benchmark are bounds: what must not happen, whoever plays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from baselines.bounds.kept import file_name, read_bounds

COLUMNS = ("scenario", "policy", "gpu_hours", "hindsight_gpu_hours", "lower_gpu_hours")


def against_bounds(episodes: pd.DataFrame, folder: Path, split: str, oracles: frozenset[str]) -> pd.DataFrame:
    """The cheapest policy of each scenario beside the bounds of the same seed.

    Args:
        episodes: as ``RunRecords.episodes``.
        folder: of bounds, as ``python -m experiments.bounds`` keeps them.
        split: whose windows were played.
        oracles: policies that are left out, as they know more than a controller can.

    Returns:
        ``COLUMNS``, one row for each scenario that has bounds: ``policy`` is the one that meets the target
        on that seed with the fewest GPU-hours, None if none does; ``hindsight_gpu_hours`` is NaN where the
        largest fleet does not meet it either.
    """
    rows = []
    for scenario, of_scenario in episodes.groupby("scenario", sort=False):
        for seed, played in of_scenario.groupby("seed"):
            path = folder / file_name(str(scenario), split, int(str(seed)))
            if path.is_file():
                row = read_bounds(path).row
                rows.append(_cheapest(played[~played["policy"].isin(oracles)], row))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _cheapest(played: pd.DataFrame, bounds: Mapping[str, object]) -> dict[str, object]:
    totals = played.groupby("policy", sort=False)[["violations", "arrived", "gpu_hours"]].sum()
    windows = played.groupby("policy", sort=False)["window"].nunique()
    attainment = 1.0 - totals["violations"] / totals["arrived"]
    meeting = totals["gpu_hours"][(attainment >= bounds["target"]) & (windows == bounds["windows"])]
    return {
        "scenario": bounds["scenario"],
        "policy": str(meeting.idxmin()) if len(meeting) else None,
        "gpu_hours": float(meeting.min()),
        "hindsight_gpu_hours": bounds["hindsight_gpu_hours"],
        "lower_gpu_hours": bounds["lower_gpu_hours"],
    }
