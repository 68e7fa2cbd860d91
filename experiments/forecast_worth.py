"""What a better forecast is worth: the same policies, tuned with forecasts of different quality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from preserve_gym.forecasting import FORECASTERS

COLUMNS = ("scenario", "policy", "forecaster", "gpu_hours")


def read_worth(tables: Path, own: str, target: float) -> pd.DataFrame:
    """What policies that were tuned with several forecasters need on the validation windows.

    Args:
        tables: folder of ``python -m experiments.tune``, with a folder for each ``--forecaster``.
        own: forecaster of the scenarios, whose tables lie in the folder itself.
        target: SLO attainment to meet.

    Returns:
        ``COLUMNS``, of scenarios and policies that were tuned with each; ``gpu_hours`` of the cheapest
        configuration that meets the target is NaN where none does.
    """
    folders = {name: tables / name for name in FORECASTERS if (tables / name).is_dir()} | {own: tables}
    found = [
        table[table["chosen"]].assign(forecaster=name)
        for name, folder in folders.items()
        for path in sorted(folder.glob("*.csv"))
        for table in [pd.read_csv(path)]
    ]
    if not found:
        return pd.DataFrame(columns=list(COLUMNS))
    frame = pd.concat(found, ignore_index=True)
    frame["gpu_hours"] = frame["gpu_hours"].where(frame["attainment"] >= target)
    several = frame.groupby(["scenario", "policy"])["forecaster"].transform("nunique") == len(folders)
    return frame.loc[several, list(COLUMNS)].reset_index(drop=True)


def mean_ratio(worth: pd.DataFrame, forecaster: str, other: str) -> float:
    """Geometric mean of GPU-hours with one forecaster over those with another, where both meet the target."""
    hours = worth.pivot_table(index=["scenario", "policy"], columns="forecaster", values="gpu_hours")
    return float(np.exp(np.log(hours[forecaster] / hours[other]).mean()))
