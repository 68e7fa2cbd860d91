"""Policies fare on generated traffic as on the real traffic, and the page says what they do.

Generated are windows that nothing was fitted to, with the counts and mean lengths of the real ones.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from tests import modulation_2024, plot_resemblance, resemblance, week_shape
from tests.pages import ROOT, tables_of
from tests.resemblance import CASES, RANKED, Comparison
from tests.window_statistics import counts, windows_of

PAGE = ROOT / "docs" / "generated-workloads.md"
P99S = RANKED[1:]
FIGURE = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]\d+)?")
# Heading of the page, and the tables below it in order.
SECTIONS = {
    "The conversation service": ("chat: windows", "chat: ranking", "chat: variance"),
    "The code service": ("code: windows", "code: ranking"),
    "What was not fitted": ("chat: not fitted", "code: not fitted"),
    "The embedded services": ("chat: synthetic", "code: synthetic"),
}


@pytest.fixture(scope="module")
def made(data_dir: Path) -> dict[str, Comparison]:
    return resemblance.compare(resemblance.SEEDS)


def inside(table: pd.DataFrame) -> pd.Series:
    """Whether the real figure lies in the band of the generated ones; rounding is no miss."""
    return (table["real"] >= table["p5"] * (1 - 1e-9)) & (table["real"] <= table["p95"] * (1 + 1e-9))


def of(table: pd.DataFrame, measures: tuple[str, ...]) -> pd.DataFrame:
    return table[table.index.get_level_values(1).isin(measures)]


@pytest.mark.slow
def test_chat_windows_are_as_hard_as_the_real_ones(made: dict[str, Comparison]) -> None:
    table = of(made["chat: windows"].table(), RANKED)
    assert len(table) == len(CASES[0].policies) * len(RANKED)
    assert (table["difference"].abs() < 0.1).all(), table


@pytest.mark.slow
def test_chat_windows_rank_the_policies_as_the_real_ones_do(made: dict[str, Comparison]) -> None:
    rankings = made["chat: windows"].rankings()
    assert (rankings["generated"] == rankings["real"]).all(), rankings
    assert (rankings["apart_alike"] == 1.0).all(), rankings


@pytest.mark.slow
def test_a_wrong_variance_would_show(made: dict[str, Comparison]) -> None:
    table = of(made["chat: variance x 8"].table(), RANKED)
    assert (table["difference"].abs() > 0.1).mean() > 0.3, table


@pytest.mark.slow
def test_the_real_code_hour_lies_among_the_generated_ones(made: dict[str, Comparison]) -> None:
    comparison = made["code: windows"]
    assert inside(comparison.table()).all(), comparison.table()
    rankings = comparison.rankings().loc[list(P99S)]
    assert (rankings["alike"] == 1.0).all(), rankings


@pytest.mark.slow
def test_the_real_chat_hour_lies_among_the_synthetic_ones(made: dict[str, Comparison]) -> None:
    table = of(made["chat: synthetic"].table(), RANKED[:3])
    assert inside(table).all(), table


@pytest.mark.slow
@pytest.mark.parametrize("heading", SECTIONS)
def test_tables_of_the_page(heading: str, made: dict[str, Comparison]) -> None:
    measured = resemblance.tables(made)
    shown = list(tables_of(PAGE, heading))
    assert len(shown) == len(SECTIONS[heading])
    for name, table in zip(SECTIONS[heading], shown, strict=True):
        assert_alike(table, measured[name])


@pytest.mark.slow
def test_modulation_of_the_page(data_dir: Path) -> None:
    (shown,) = tables_of(PAGE, "Where the modulation comes from")
    assert_alike(shown, modulation_2024.rows(data_dir / "traces"))


@pytest.mark.slow
def test_weeks_of_the_page(data_dir: Path) -> None:
    (shown,) = tables_of(PAGE, "Their weeks")
    assert_alike(shown, week_shape.rows(data_dir / "traces"))


def assert_alike(shown: list[list[str]], measured: list[list[str]]) -> None:
    """Equal, but figures may be off by 2 %, or two points where they are percents, for other platforms."""
    assert [[FIGURE.sub("#", cell) for cell in row] for row in shown] == [
        [FIGURE.sub("#", cell) for cell in row] for row in measured
    ]
    for row, found in zip(shown, measured, strict=True):
        for cell, value in zip(row, found, strict=True):
            numbers = [[float(text) for text in FIGURE.findall(side)] for side in (cell, value)]
            assert numbers[0] == pytest.approx(numbers[1], rel=0.02, abs=2.0 if "%" in cell else 0.01), row


def test_arrivals_inside_chat_windows_are_those_of_the_real_ones(data_dir: Path) -> None:
    """What no fit has seen, but for the lags of half a minute and more, which the page admits."""
    windows, _ = resemblance.compare_statistics(CASES[0], data_dir / "traces", 12)
    table = windows.table().drop("longest gap, s")
    arrivals = table[table.index.str.contains("CV|dispersion|, 10 s")]
    assert inside(arrivals)[1:].all(), arrivals
    lengths = table[table.index.str.contains("tokens")]
    assert (lengths["difference"].abs() <= 0.12).all(), lengths


def test_held_out_hours_have_the_counts_and_the_mean_lengths_of_the_windows(data_dir: Path) -> None:
    for case in CASES:
        hour = case.hour(data_dir / "traces")
        (made,) = resemblance.held_out_hours(case, hour, 1)
        for real, window in zip(*(windows_of(t, case.window_s) for t in (hour, made)), strict=True):
            assert len(real) == len(window)
            assert real.prompt_tokens.mean() == pytest.approx(window.prompt_tokens.mean(), rel=0.1)
        assert counts(made, 1.0).sum() == len(hour)


def test_the_images_are_there() -> None:
    named = re.findall(r"\((images/generated/[\w-]+\.png)\)", PAGE.read_text(encoding="utf-8"))
    drawn = {path.relative_to(PAGE.parent).as_posix() for path in plot_resemblance.IMAGES.glob("*.png")}
    assert set(named) == drawn
