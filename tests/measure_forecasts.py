"""Measures how good the forecasters are, as the docs record it.

Run as ``python -m tests.measure_forecasts [WORKLOAD ...]`` with the data folder in ``PRESERVE_GYM_DATA``:
prints the tables of docs/forecasting.md, from the measures of ``experiments.predict``. Forecasts are kept, so
that after ``python -m experiments.predict`` only the seconds are new.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import pandas as pd

from experiments.predict import REFERENCES, Options, add_ratio, forecast_rows, load_series

FORECASTERS = (*REFERENCES, *Options.forecasters)
MEASURES = ("mase", "of_reference", "ape_mean", "ape_p95", "pinball", "coverage")
_PERCENT = ("ape_mean", "ape_p95", "coverage")


def table_of(workload: str, forecasters: Sequence[str] = FORECASTERS) -> pd.DataFrame:
    """The table of ``experiments.predict`` for a workload."""
    series = load_series(workload)
    return add_ratio(
        pd.DataFrame([row for name in forecasters for row in forecast_rows(series, name, Options.horizon)])
    )


def rows_of(table: pd.DataFrame) -> list[list[str]]:
    """A row for each forecaster: its name and each of ``MEASURES``, of prompt / output tokens."""
    rows = []
    for name, both in table.groupby("forecaster", sort=False):
        by_tokens = both.set_index("tokens")
        cells = [[_text(by_tokens.loc[t, m], m) for t in ("prompt", "output")] for m in MEASURES]
        rows.append([f"`{name}`", *(" / ".join(pair) if any(pair) else "" for pair in cells)])
    return rows


def _text(value: float, measure: str) -> str:
    if np.isnan(value):
        return ""
    return f"{100 * value:.1f}" if measure in _PERCENT else f"{value:.2f}"


if __name__ == "__main__":
    for name in sys.argv[1:] or Options.workloads:
        print(f"\n{name}\n")
        for row in rows_of(table_of(name)):
            print(f"| {' | '.join(row)} |", flush=True)
