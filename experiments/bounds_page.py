"""The tables of docs/bounds.md, made of what is kept of bounds and of tuning."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from baselines.bounds.kept import read_bounds
from experiments.leaderboard_page import table
from experiments.suites import FEASIBLE
from experiments.summary import TARGET


def bounds_table(folder: Path) -> str:
    """The bounds of the test windows in Markdown, a row for each scenario whose fleet can change.

    Args:
        folder: of ``python -m experiments.bounds``.
    """
    heads = (
        *("scenario", "best static", "its attainment, %", "its GPU-hours"),
        *("hindsight: attainment, %", "GPU-hours", "of static, %"),
        *("lower bound: GPU-hours", "of hindsight, %", "effort"),
    )
    cells = []
    for path in sorted(folder.glob("*-test-seed0.json")):
        row = read_bounds(path).row
        if row["hindsight_of_static"] >= 1.0:
            continue
        hours = (row["static_gpu_hours"], row["hindsight_gpu_hours"], row["lower_gpu_hours"])
        static, hindsight, lower = (f"{value:.1f}" if value >= 100.0 else f"{value:.2f}" for value in hours)
        cells.append(
            (
                f"`{row['scenario']}`",
                f"{row['static_instances']}",
                f"{100 * row['static_attainment']:.2f}",
                static,
                f"{100 * row['hindsight_attainment']:.2f}",
                hindsight,
                f"{100 * row['hindsight_of_static']:.0f}",
                lower,
                f"{100 * row['lower_of_hindsight']:.0f}",
                f"{row['effort']:,}",
            )
        )
    return table(heads, cells)


def feasible_table(folder: Path) -> str:
    """The feasible bound beside the cheapest autoscaler of each scenario, on validation, in Markdown.

    Args:
        folder: of ``python -m experiments.tune``.
    """
    heads = (
        *("scenario", "feasible", "headroom", "attainment, %", "GPU-hours"),
        *("cheapest autoscaler", "its attainment, %", "GPU-hours"),
    )
    cells = []
    for path in sorted(folder.glob("*.csv")):
        found = pd.read_csv(path)
        chosen = found[found["chosen"] & (found["attainment"] >= TARGET)].set_index("policy")
        both = chosen.index.intersection(list(FEASIBLE))
        others = chosen.drop(both)
        if both.empty or others.empty:
            continue
        bound, other = (rows.sort_values("gpu_hours").iloc[0] for rows in (chosen.loc[both], others))
        cells.append(
            (
                f"`{path.stem}`",
                f"`{bound.name}`",
                str(bound["parameters"]).removeprefix("headroom="),
                f"{100 * bound['attainment']:.2f}",
                f"{bound['gpu_hours']:.1f}",
                f"`{other.name}`",
                f"{100 * other['attainment']:.2f}",
                f"{other['gpu_hours']:.1f}",
            )
        )
    return table(heads, cells)
