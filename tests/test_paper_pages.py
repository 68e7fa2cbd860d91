"""The pages on PreServe's experiments say what is in ``results``, and that is what comes out today."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.paper_calibration import CALIBRATIONS
from experiments.paper_routing import run_rows
from experiments.paper_scaling import Task, week_runs
from experiments.paper_week import PROFILES
from tests.pages import DOCS, ROOT, tables_of

ROUTING, SCALING = DOCS / "paper-routing.md", DOCS / "paper-scaling.md"
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")


def result(folder: str, name: str) -> pd.DataFrame:
    frame = pd.read_csv(ROOT / "results" / folder / f"{name}.csv")
    text = [column for column in ("lengths", "knowledge") if column in frame]
    return frame.fillna(dict.fromkeys(text, ""))


def says(cell: str, *values: float) -> None:
    """The numbers of a cell are these values, rounded; a cell without numbers: there is nothing to say."""
    numbers = _NUMBER.findall(cell)
    known = [value for value in values if not np.isnan(value)]
    assert len(numbers) == len(known), (cell, values)
    for number, value in zip(numbers, known, strict=True):
        decimals = len(number.partition(".")[2])
        assert float(number.replace(",", "")) == pytest.approx(value, abs=0.5001 * 10.0**-decimals), cell


def filled(rows: list[list[str]], columns: int) -> Iterator[list[str]]:
    """Rows, of whose first ``columns`` cells the empty ones repeat those above."""
    above = [""] * columns
    for row in rows:
        above = [cell or before for cell, before in zip(row[:columns], above, strict=True)]
        yield above + row[columns:]


def with_interval(row: pd.Series, name: str, low: str | None = None) -> tuple[float, float, float]:
    stem = low or name
    return row[name], row[f"{stem}_low"], row[f"{stem}_high"]


def test_the_artifacts_figures_beside_ours() -> None:
    names = {
        "TTFT, mean": "ttft_mean_s",
        "TTFT, P50": "ttft_p50_s",
        "TTFT, P99": "ttft_p99_s",
        "latency, mean": "e2e_mean_s",
        "latency, P99": "e2e_p99_s",
        "time per token, mean": "tpot_mean_s",
        "time per token, P99": "tpot_p99_s",
    }
    *_, table = tables_of(ROUTING, "Calibration")
    known = result("paper-routing", "calibration").set_index(["calibration", "router", "figure"])
    rows = list(filled(table, 1))
    assert len(rows) == len(known) // 2
    for router, figure, published, *ours in rows:
        for calibration, cell in zip(("gpu", "gpu-and-prompts"), ours, strict=True):
            row = known.loc[(calibration, router.replace(" KV", "-kv").replace(" ", "-"), names[figure])]
            says(published, row["published"])
            says(cell, row["mean"], row["low"], row["high"])
            assert ("*" in cell) == row["fitted"]


def test_routers_at_each_rate() -> None:
    (table,) = tables_of(ROUTING, "Routers")
    lengths = {"predicted": "regression", "none": "mean", "oracle": "oracle", "": ""}
    known = result("paper-routing", "routing").set_index(["rate_rps", "router", "lengths"])
    rows = list(filled(table, 1))
    assert len(rows) >= 30
    for rate, router, told, *cells in rows:
        row = known.loc[(float(rate), router, lengths[told])]
        says(cells[0], row["ttft_mean_s"])
        says(cells[1], row["ttft_p99_s"])
        says(cells[3], 1000.0 * row["normalized_latency_mean_s"])
        says(cells[4], 1000.0 * row["normalized_latency_p99_s"])
        if router != "least-requests":
            says(cells[2], *with_interval(row, "change_ttft_p99"))
            says(cells[5], *with_interval(row, "change_normalized_latency_p99"))


def test_predicted_lengths_that_a_router_serves_as_true() -> None:
    (table,) = tables_of(ROUTING, "Predicted lengths served as true")
    tails = {"P99 TTFT": "ttft_p99_s", "P99 normalised latency": "normalized_latency_p99_s"}
    known = result("paper-routing", "flaw").set_index(["tail", "router", "lengths"])
    rows = list(filled(table, 1))
    assert len(rows) == 6
    for tail, predictor, served, honest, oracle, none, predicted, survives, *values in rows:
        row = known.loc[(tails[tail], "preserve", predictor)]
        says(served, *with_interval(row, "gain_served", "served"))
        says(honest, *with_interval(row, "gain_honest", "honest"))
        says(oracle, row["gain_oracle"])
        says(none, row["gain_none"])
        says(predicted, *with_interval(row, "gain_predicted", "predicted"))
        says(survives, *with_interval(row, "survives"))
        says(values[0], row["value_served"])
        says(values[1], row["value_honest"])


def policy_rows(folder: str) -> pd.DataFrame:
    return result(folder, "policies").set_index(["service", "policy", "knowledge"])


def says_changes(row: pd.Series, cells: list[str]) -> None:
    for cell, reference in zip(cells, ("reactive", "hybrid", "static"), strict=True):
        if cell:
            says(cell, *with_interval(row, f"tail_over_{reference}"))


def test_policies() -> None:
    (table,) = tables_of(SCALING, "Policies")
    known = policy_rows("paper-scaling")
    rows = list(filled(table, 1))
    assert len(rows) >= 50
    for service, policy, told, *cells in rows:
        row = known.loc[(service, policy.replace("`", ""), told)]
        names = ("p99_s", "mean_s", "attainment", "instances", "resources")
        for cell, name in zip(cells[:5], names, strict=True):
            says(cell, row[name])
        says_changes(row, cells[5:])


def test_policies_by_our_profile() -> None:
    *_, table = tables_of(SCALING, "Published and ours")
    known = policy_rows("paper-scaling-measured")
    rows = list(filled(table, 1))
    assert len(rows) == 14
    for service, policy, told, *cells in rows:
        row = known.loc[(service, policy, told)]
        for cell, name in zip(cells[:3], ("p99_s", "attainment", "instances"), strict=True):
            says(cell, row[name])
        says_changes(row, cells[3:])


def test_errors_of_the_forecasts() -> None:
    *_, table = tables_of(SCALING, "The set-up")
    known = result("paper-scaling", "forecasts").set_index(["service", "forecast"])
    names = {
        "predicted": "noisy",
        "who knows the windows before they were sampled": "expected",
        "last window": "naive",
    }
    for name, *cells in table:
        if name == "published":
            continue
        for k, service in enumerate(("code", "conv")):
            row = known.loc[(service, names.get(name, name))]
            says(cells[2 * k], row["prompt"])
            says(cells[2 * k + 1], row["output"])


def test_the_two_flaws() -> None:
    (table,) = tables_of(SCALING, "The two flaws")
    known = result("paper-scaling", "flaws").set_index(["flaw", "service", "policy", "over"])
    assert len(table) == 16
    for flaw, service, policy, flawed, honest, difference, survives in table:
        row = known.loc[({"served as true": "served"}.get(flaw, flaw), service, policy, "reactive")]
        says(flawed, *with_interval(row, "gain_flawed", "flawed"))
        says(honest, *with_interval(row, "gain_honest", "honest"))
        says(difference, *with_interval(row, "difference"))
        if survives:
            says(survives, *with_interval(row, "survives"))


@pytest.mark.slow
def test_a_routing_run_is_what_comes_out_today(data_dir: Path) -> None:
    runs = result("paper-routing", "runs")
    of_one = runs[(runs["rate_rps"] == 9.5) & (runs["seed"] == 3)]
    again = pd.DataFrame(run_rows(CALIBRATIONS["gpu-and-prompts"], 9.5, 3000, 3))
    pd.testing.assert_frame_equal(again, of_one.reset_index(drop=True), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["artifact", "measured"])
def test_a_scaling_run_is_what_comes_out_today(data_dir: Path, profile: str) -> None:
    folder = {"artifact": "paper-scaling", "measured": "paper-scaling-measured"}[profile]
    runs = result(folder, "runs")
    for name, service in PROFILES[profile].items():
        cells = ["label", "knowledge", "served_as_true"]
        of_one = runs[(runs["service"] == name) & (runs["seed"] == 3)].set_index(cells)
        again = pd.DataFrame(week_runs(Task(service, 3, 7200.0, learned=False)).runs).set_index(cells)
        assert len(again) >= 25
        pd.testing.assert_frame_equal(again, of_one.loc[again.index], rtol=1e-6)
