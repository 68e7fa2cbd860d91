from __future__ import annotations

from pathlib import Path

import pytest

from experiments.predict import Options, length_rows
from preserve_gym.prediction import FOR_ANY_TRACE, PREDICTORS
from tests.measure_length_predictors import TRACES, rows_of
from tests.pages import ROOT, table_of

PAGE = ROOT / "docs" / "length-predictors.md"


def test_every_predictor_is_told() -> None:
    assert sorted(row[0] for row in table_of(PAGE, "Length predictors")) == sorted(PREDICTORS)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * name.startswith("servegen")) for name in TRACES]
)
def test_accuracy(data_dir: Path, name: str) -> None:
    rows = table_of(PAGE, name)
    measured = rows_of(name)
    assert [row[0] for row in rows] == [row[0].strip("`") for row in measured]
    for row, found in zip(rows, measured, strict=True):
        # The last column is a time.
        assert list(map(float, row[1:7])) == pytest.approx(list(map(float, found[1:7])), rel=0.02, abs=0.6)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", Options.length_scenarios)
def test_accuracy_on_scenarios(data_dir: Path, scenario: str) -> None:
    rows = {row[1]: row[2:] for row in table_of(PAGE, "Test part of scenarios") if row[0] == scenario}
    assert list(rows) == sorted(FOR_ANY_TRACE)
    for found in length_rows(scenario, FOR_ANY_TRACE):
        measures = [found[name] for name in ("mae", "bias", "acc_50", "acc_100", "kendall_tau", "coverage")]
        percent = [1.0, 1.0, 100.0, 100.0, 1.0, 100.0]
        expected = [value * factor for value, factor in zip(measures, percent, strict=True)]
        assert list(map(float, rows[found["predictor"]])) == pytest.approx(expected, rel=0.02, abs=0.6)
