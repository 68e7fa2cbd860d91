"""The tables of docs/forecasting.md, as far as they can be measured again in a minute."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.predict import REFERENCES, Options
from tests.measure_forecasts import FORECASTERS, rows_of, table_of
from tests.test_docs import FORECASTING
from tests.test_docs import table_of as shown_of


def figures(row: list[str]) -> list[float]:
    """The numbers of a row but for its name and the seconds."""
    return [float(figure) for cell in row[1:7] if cell for figure in cell.split(" / ")]


@pytest.mark.parametrize("workload", Options.workloads)
def test_every_forecaster_is_told(workload: str) -> None:
    assert [row[0] for row in shown_of(FORECASTING, workload)] == list(FORECASTERS)


@pytest.mark.slow
@pytest.mark.parametrize("workload", Options.workloads)
def test_accuracy(workload: str, data_dir: Path) -> None:
    cheap = (*REFERENCES, "profile-ar")
    shown = {row[0]: row for row in shown_of(FORECASTING, workload)}
    for found in rows_of(table_of(workload, cheap)):
        row = shown[found[0].strip("`")]
        assert len(figures(row)) == (12 if row[0] == "profile-ar" else 8)
        assert figures(row) == pytest.approx(figures(found), rel=0.005, abs=0.011)
