from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console

from experiments.compare import as_text, compare, show
from experiments.evaluate import Cell
from experiments.latency_histogram import Histogram
from experiments.metrics import (
    normalized_latency_s,
    per_interval,
    percentile,
    summarize,
    tpot_s,
    ttft_s,
    violated,
)
from experiments.options import Options
from experiments.policy_table import policy_table
from experiments.progress import CellProgress, outcome
from experiments.report import describe, episodes_table
from experiments.run_plan import make_plan
from experiments.run_records import RunRecords
from preserve_gym import InstanceConfig, LatencyLaw
from preserve_gym.config import PowerConfig

NAN = np.nan
TOTALS = {
    "instance_s": 7200.0,
    "busy_s": 1800.0,
    "prefill_busy_s": 600.0,
    "scale_ups": 3.0,
    "scale_downs": 2.0,
}
INSTANCE = InstanceConfig(
    LatencyLaw(1.0, 0.0, 0.0, 0.0), 100, power=PowerConfig(60.0, 600.0, 300.0), usd_per_gpu_hour=1.5
)


@pytest.fixture
def requests() -> pd.DataFrame:
    """Four requests: in time, one token only, late, rejected."""
    return pd.DataFrame(
        {
            "arrival_s": [100.0, 101.0, 112.0, 113.0],
            "prompt_tokens": [10, 20, 30, 99_999],
            "output_tokens": [11, 1, 5, 7],
            "first_token_s": [100.5, 101.25, 116.0, NAN],
            "completed_s": [102.5, 101.25, 118.0, NAN],
            "preemptions": [0, 0, 2, 0],
            "rejected": [False, False, False, True],
            "violated_s": [NAN, NAN, 114.0, 113.0],
        }
    )


def test_latencies(requests: pd.DataFrame) -> None:
    np.testing.assert_allclose(ttft_s(requests), [0.5, 0.25, 4.0, NAN])
    np.testing.assert_allclose(tpot_s(requests), [0.2, NAN, 0.5, NAN])
    np.testing.assert_allclose(normalized_latency_s(requests), [2.5 / 11, 0.25, 1.2, NAN])
    np.testing.assert_array_equal(violated(requests), [False, False, True, True])


def test_a_rejected_request_counts_once_however_it_is_marked(requests: pd.DataFrame) -> None:
    requests["violated_s"] = NAN
    np.testing.assert_array_equal(violated(requests), [False, False, False, True])


def test_summary(requests: pd.DataFrame) -> None:
    summary = summarize(requests, TOTALS, 3600.0, replace(INSTANCE, gpus=2))
    assert summary["arrived"] == 4
    assert summary["completed"] == 3
    assert summary["rejected"] == 1
    assert summary["violations"] == 2
    assert summary["slo_attainment"] == 0.5
    assert summary["ttft_p50_s"] == 0.5
    assert summary["tpot_mean_s"] == pytest.approx(0.35)
    assert summary["gpu_hours"] == 4.0
    # Of each GPU 5400 s idle, 600 s of prefill and 1200 s of decoding: 90, 100 and 100 Wh.
    assert summary["energy_kwh"] == pytest.approx(2 * 0.29)
    assert summary["cost_usd"] == 6.0
    assert summary["mean_instances"] == 2.0
    assert summary["busy_share"] == 0.25
    assert summary["scaling_actions"] == 5
    assert summary["preemptions"] == 2


def test_summary_of_nothing_has_no_latency(requests: pd.DataFrame) -> None:
    summary = summarize(requests.iloc[:0], TOTALS, 3600.0, INSTANCE)
    assert summary["arrived"] == 0
    assert np.isnan(summary["slo_attainment"])
    assert np.isnan(summary["ttft_p99_s"])
    assert np.isnan(percentile(np.array([NAN]), 50.0))


def test_per_interval(requests: pd.DataFrame) -> None:
    columns = per_interval(requests, np.array([100.0, 101.0, 110.0, 120.0]), 130.0)
    assert columns["arrived"].tolist() == [1, 1, 2, 0]
    assert columns["prompt_tokens"].tolist() == [10, 20, 100_029, 0]
    assert columns["output_tokens"].tolist() == [11, 1, 12, 0]
    assert columns["violations"].tolist() == [0, 0, 2, 0]
    np.testing.assert_allclose(columns["ttft_mean_s"], [0.5, 0.25, 4.0, NAN])


AsRun = Callable[[pd.DataFrame], tuple[RunRecords, pd.DataFrame]]
CONFIG = make_plan(Options(policies=("static-2",))).config


def episodes(*figures: dict[str, float], policy: str = "hpa") -> pd.DataFrame:
    """Of one policy on the embedded day, each with another seed."""
    rows = [
        {"scenario": "synthetic-chat", "policy": policy, "seed": seed, "window": 0, "start_s": 300.0, **row}
        for seed, row in enumerate(figures)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def as_run(tmp_path: Path) -> AsRun:
    """The records of a run with such episodes, and their summary."""

    def make(table: pd.DataFrame) -> tuple[RunRecords, pd.DataFrame]:
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
        table.to_csv(tmp_path / "episodes.csv", index=False)
        latency = Histogram.of([0.5, 1234.5]).to_mapping()
        for row in table.to_dict("records"):
            path = tmp_path / f"cells/{row['scenario']}/{row['policy']}/seed{row['seed']}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            latencies = dict.fromkeys(("ttft_s", "tpot_s", "normalized_latency_s"), latency)
            window = {"window": row["window"], "latency": latencies}
            path.write_text(json.dumps({"windows": [window]}), encoding="utf-8")
        records = RunRecords(tmp_path)
        return records, compare(records)

    return make


def test_table_gives_means_and_intervals_over_seeds(requests: pd.DataFrame, as_run: AsRun) -> None:
    first = summarize(requests, TOTALS, 3600.0, INSTANCE)
    second = summarize(requests.iloc[:2], TOTALS | {"instance_s": 10_800.0}, 3600.0, INSTANCE)
    text = as_text(*as_run(episodes(first, second)))
    assert "66.67*[" in text  # of all requests, 4 of 6
    assert "2.50 ±6.35" in text  # 12.7 standard errors of two seeds
    assert "3.75" in text  # USD
    single = as_text(*as_run(episodes(second)))
    assert "±" not in single
    assert "100.00" in single
    assert "One seed: no intervals" in " ".join(single.split())
    assert "Marked =" not in single
    assert all(line == line.rstrip() for line in text.splitlines())


def test_what_is_not_known_of_power_and_price_is_left_out(requests: pd.DataFrame, as_run: AsRun) -> None:
    instance = replace(INSTANCE, power=None, usd_per_gpu_hour=None)
    figures = summarize(requests, TOTALS, 3600.0, instance)
    assert not {"energy_kwh", "cost_usd"} & set(figures)
    assert "USD" not in as_text(*as_run(episodes(figures)))


def test_the_table_says_which_workload_it_is_about() -> None:
    options = Options(trace="synthetic-code", service_scale=0.05, rate_scale=2.0, policies=("static-2",))
    config = make_plan(options).config
    assert config["scenarios"]["synthetic-code"]["traces"][0]["needs"] == {}
    about = describe(
        "synthetic-code", config, pd.DataFrame({"arrived": [9], "horizon_s": [7200.0], "window": [0]})
    )
    assert about.startswith("synthetic-code (service scale 0.05) x2, seed 0: 9 requests in 2.0 h.")
    two = pd.DataFrame({"arrived": [9, 11], "horizon_s": 600.0, "window": [0, 1]})
    assert ": on average 10 requests in 10.0 min." in describe("synthetic-code", config, two)


def test_table_loses_no_figure_in_a_narrow_terminal(requests: pd.DataFrame, as_run: AsRun) -> None:
    records, summary = as_run(
        episodes(summarize(requests, TOTALS, 3600.0, INSTANCE), policy="preserve-up-only")
    )
    assert Console(width=200).measure(policy_table(summary)).maximum <= 130
    stream = io.StringIO()
    show(Console(file=stream, width=40), records, summary)
    assert "preserve-up-only" in stream.getvalue()
    assert re.search(r"1\d{3}\.\d\d", stream.getvalue())


def test_episodes_leave_out_cells_that_failed(tmp_path: Path) -> None:
    def record(policy: str, seed: int, costs: tuple[float, ...]) -> dict[str, Any]:
        windows = [
            {"window": k, "start_s": 60.0 * k, "figures": {"arrived": 9, "gpu_hours": cost}}
            for k, cost in enumerate(costs)
        ]
        return {"scenario": "chat", "policy": policy, "seed": seed, "error": None, "windows": windows}

    records = [record("hpa", 0, (1.0, 2.0)), record("hpa", 1, (3.0, 6.0)), record("bad", 0, ())]
    table = episodes_table(records)
    assert table.columns.tolist() == [
        "scenario", "policy", "seed", "window", "start_s", "arrived", "gpu_hours"
    ]  # fmt: skip
    assert table["gpu_hours"].tolist() == [1.0, 2.0, 3.0, 6.0]
    episodes_table(records[2:]).to_csv(tmp_path / "episodes.csv", index=False)
    (tmp_path / "config.yaml").write_text("{}", encoding="utf-8")
    nothing = RunRecords(tmp_path)
    assert compare(nothing).to_dict("records") == []
    assert as_text(nothing, compare(nothing)) == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_progress(terminal: bool) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100)
    first, second = Cell("chat", "hpa", 0), Cell("code", "preserve", 4)
    with CellProgress(console, 2) as progress:
        progress.share(second, 0.5)
        progress.share(first, 0.25)
        progress.done(first, "well")
        progress.done(second, "as well")
    text = stream.getvalue()
    assert "[1/2] chat, hpa, seed 0: well" in text
    assert "[2/2] code, preserve, seed 4: as well" in text
    assert ("\x1b" in text) == terminal


def test_the_outcome_of_a_cell_is_that_of_all_its_windows() -> None:
    figures = [
        {"arrived": 1000, "violations": 1, "gpu_hours": 2.0},
        {"arrived": 3000, "violations": 4, "gpu_hours": 10.0},
    ]
    record: dict[str, Any] = {"error": None, "windows": [{"figures": one} for one in figures]}
    assert outcome(record) == "99.88% within the SLO, 12.0 GPU-hours"
    assert outcome(record | {"error": {"window": 0, "message": "KeyError: 'x'"}}) == "failed: KeyError: 'x'"
