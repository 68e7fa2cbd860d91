"""The table of a scenario: its policies by rank, with 95 % intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table

from experiments.summary import MARGIN

WIDTH = 130
"""Columns that the table takes at most, but for policies with long names."""

# Heading, column of the summary, factor to the shown unit, format (empty: three digits).
_PLAIN: tuple[tuple[str, str, float, str], ...] = (
    ("TTFT\nP50 s", "ttft_p50_s", 1.0, ".2f"),
    ("\nP99 s", "ttft_p99_s", 1.0, ".2f"),
    ("TPOT\nP99 ms", "tpot_p99_s", 1000.0, ".0f"),
    ("E2E/tok\nP99 ms", "normalized_latency_p99_s", 1000.0, ".0f"),
    ("\nUSD", "cost_usd", 1.0, ""),
    ("\nkWh", "energy_kwh", 1.0, ""),
    ("Scal-\nings", "scaling_actions", 1.0, ".0f"),
    ("\nScore", "score", 1.0, ".2f"),
)


def policy_table(summary: pd.DataFrame) -> Table:
    """One row a policy, by rank.

    Args:
        summary: rows of one scenario, as ``experiments.summary.summary`` gives them; columns that are not
            there, or of which nothing is known, are left out.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, show_edge=False)
    plain = [column for column in _PLAIN if column[1] in summary and summary[column[1]].notna().any()]
    compared = "gpu_hours_change" in summary
    table.add_column("\n#", justify="right", no_wrap=True)
    table.add_column("\nPolicy", no_wrap=True)
    several = bool(summary["gpu_hours_low"].notna().any())
    headings = [f"SLO met %\n{'[95 %]' * several}", f"GPU-hours\n{'± 95 %' * several}"]
    if compared:
        headings.append(f"GPU-hours % to\n{_baseline(summary)}{' [95 %]' * several}")
    for heading in (*headings, *(heading for heading, *_ in plain)):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in summary.sort_values("rank").to_dict("records"):
        cells = [_attainment(row), _hours(row)]
        if compared:
            cells.append(_change(row))
        cells += [_number(row[name] * factor, form) for _, name, factor, form in plain]
        table.add_row(str(row["rank"]), str(row["policy"]), *cells)
    return table


def explain(summary: pd.DataFrame) -> str:
    """What the table of a scenario shows, in a few sentences."""
    row = summary.iloc[0]
    text = f"Ranked: SLO met for {100 * row['target']:.4g} % of the requests, cheapest first; marked *: not. "
    if row["seeds"] > 1:
        windows = f"{row['windows']} window{'s' * bool(row['windows'] > 1)}"
        text += (
            f"Intervals: other seeds on the same {windows}, from {row['seeds']} seeds; "
            "summary.csv has those for other days."
        )
        if "gpu_hours_change" in summary:
            text += (
                f" Marked =: not inferior in attainment to {_baseline(summary)} by more than "
                f"{100 * MARGIN:g} percentage points."
            )
    else:
        text += "One seed: no intervals."
    return text


def _baseline(summary: pd.DataFrame) -> str:
    return str(summary["baseline"].dropna().iloc[0])


def _attainment(row: dict[Any, Any]) -> str:
    text = f"{100 * row['slo_attainment']:.2f}{' ' if row['meets_target'] else '*'}"
    if np.isnan(row["slo_attainment_low"]):
        return text
    low, high = (f"{100 * row[f'slo_attainment_{end}']:.2f}" for end in ("low", "high"))
    return f"{text}[{low},{high.replace('100.00', '100')}]"


def _hours(row: dict[Any, Any]) -> str:
    half = (row["gpu_hours_high"] - row["gpu_hours_low"]) / 2.0
    places = 1 if row["gpu_hours"] >= 10.0 else 2
    return f"{row['gpu_hours']:.{places}f}" + ("" if np.isnan(half) else f" ±{half:.{places}f}")


def _change(row: dict[Any, Any]) -> str:
    if row["policy"] == row["baseline"]:
        return "0 "
    change, low, high = (100 * row[f"gpu_hours_change{end}"] for end in ("", "_low", "_high"))
    if np.isnan(change):
        return "- "
    places = 1 if max(abs(change), abs(high)) < 100.0 else 0
    text = f"{change:+.{places}f}"
    if not np.isnan(low):
        text += f" [{low:+.{places}f},{high:+.{places}f}]"
    return text + ("=" if row["non_inferior"] and not pd.isna(row["non_inferior"]) else " ")


def _number(value: float, form: str) -> str:
    if np.isnan(value):
        return "-"
    return format(value, form or f".{2 if value < 10.0 else 1 if value < 100.0 else 0}f")
