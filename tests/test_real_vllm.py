"""Three runs of real vLLM servers: latencies and the course of the run, recorded and simulated.

The latency laws are fitted to kernel timings of the same GPUs, nothing to these runs. Prefix caching was on
in the servers and is not modelled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from tests.pages import SIMULATES, tables_of
from tests.real_vllm import LATENCIES, RUNS, Recorded, Run, Simulated, law_of_visited_batches, real_run
from tests.real_vllm import recorded as read
from tests.real_vllm import simulated as serve
from tests.real_vllm_causes import causes

each_run = pytest.mark.parametrize("run", RUNS, ids=lambda run: run.folder)

STATISTICS: dict[str, Callable[[pd.Series], float]] = {
    "mean": lambda x: float(x.mean()),
    "P50": lambda x: float(x.quantile(0.5)),
    "P90": lambda x: float(x.quantile(0.9)),
    "P99": lambda x: float(x.quantile(0.99)),
}


class Sides(NamedTuple):
    """A run, as it was recorded and as it is simulated with two laws."""

    recorded: Recorded
    preset: Simulated
    visited: Simulated


@cache
def sides(run: Run, data: Path) -> Sides:
    record = read(run, data)
    law = law_of_visited_batches(run, record.trace)
    return Sides(record, serve(run, record), serve(run, record, law))


def errors(record: Recorded, ours: Simulated, latency: str) -> list[float]:
    """Errors of the statistics in percent, and the rank correlation over requests."""
    real, made = record.latencies[latency], ours.latencies[latency]
    percent = [100 * (statistic(made) / statistic(real) - 1) for statistic in STATISTICS.values()]
    return [*percent, float(real.corr(made, method="spearman"))]


def gaps(record: Recorded, ours: Simulated) -> list[float]:
    """Mean absolute gaps: running and waiting requests in percent of their mean, KV use in points."""
    gap = (ours.series - record.series).abs().mean()
    mean = record.series.mean()
    shares = [gap["running"] / mean["running"], gap["waiting"] / mean["waiting"], gap["kv_use"]]
    return [100 * float(share) for share in shares]


def figures(cells: list[str]) -> list[float]:
    return [float(cell) if cell else np.nan for cell in cells]


def shown(run: Run, table: int) -> Iterator[tuple[str, list[str]]]:
    """Second cell, and the rest, of the rows of ``run`` in a table of the page."""
    tables = list(tables_of(SIMULATES, "Against a real server"))
    for title, second, *rest in tables[table]:
        if title == run.title:
            yield second, rest


@each_run
def test_recorded_run_is_read_whole(run: Run, data_dir: Path) -> None:
    record = sides(run, data_dir).recorded
    assert len(record.trace) == 300
    assert 29 < record.trace.arrival_s[-1] < 30
    for latency in LATENCIES:
        # The summary of LLMServingSim gives the latencies that it read from the same file, in ms.
        name = {"E2E": "Latency"}.get(latency, latency)
        summary = (real_run(data_dir, run.folder) / "llmservingsim_summary.txt").read_text()
        for label, statistic in (("Mean", "mean"), ("Median", "P50"), ("P90", "P90"), ("P99", "P99")):
            found = re.search(rf"^{name} {label} +([\d.]+)", summary, flags=re.MULTILINE)
            assert found is not None
            value = 1e3 * STATISTICS[statistic](record.latencies[latency])
            assert value == pytest.approx(float(found[1]), rel=0.01)


@pytest.mark.parametrize(
    ("run", "law", "bar"),
    [
        (RUNS[0], "preset", 5),
        (RUNS[0], "visited", 6),  # above 5 without prefix caching; see test_causes_of_the_page
        (RUNS[1], "preset", 10),  # above 5 without the longest context
        (RUNS[1], "visited", 10),
        (RUNS[2], "preset", 5),
        (RUNS[2], "visited", 5),
    ],
    ids=lambda value: value.folder if isinstance(value, Run) else str(value),
)
def test_mean_latencies_are_those_of_the_server(run: Run, law: str, bar: float, data_dir: Path) -> None:
    both = sides(run, data_dir)
    error = {latency: errors(both.recorded, getattr(both, law), latency)[0] for latency in LATENCIES}
    assert max(map(abs, error.values())) < bar, error


@each_run
@pytest.mark.parametrize("law", ["preset", "visited"])
def test_requests_are_served_in_the_order_of_the_server(run: Run, law: str, data_dir: Path) -> None:
    both = sides(run, data_dir)
    rank = {latency: errors(both.recorded, getattr(both, law), latency)[-1] for latency in LATENCIES}
    assert min(rank["TTFT"], rank["E2E"]) > 0.98, rank
    assert rank["TPOT"] > 0.6, rank


@each_run
def test_the_run_takes_the_same_course(run: Run, data_dir: Path) -> None:
    both = sides(run, data_dir)
    running, waiting, kv_points = gaps(both.recorded, both.visited)
    assert running < 10
    assert waiting < 12
    assert not kv_points > 8
    peak = both.recorded.series.max() / both.visited.series.max()
    assert peak["running"] == pytest.approx(1, abs=0.05)
    assert peak["waiting"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("run", RUNS[1:], ids=lambda run: run.folder)
def test_assumed_kv_pools_are_never_full(run: Run, data_dir: Path) -> None:
    both = sides(run, data_dir)
    for ours in (both.preset, both.visited):
        assert ours.series["kv_use"].max() < 0.6


@each_run
@pytest.mark.parametrize(("law", "table"), [("visited", 0), ("preset", 1)])
def test_latencies_of_the_page(run: Run, law: str, table: int, data_dir: Path) -> None:
    both = sides(run, data_dir)
    rows = dict(shown(run, table))
    assert list(rows) == list(LATENCIES)
    for latency in LATENCIES:
        *percent, rank = errors(both.recorded, getattr(both, law), latency)
        cells = figures(rows[latency])
        assert cells[:4] == pytest.approx(percent, abs=0.06)
        assert cells[4] == pytest.approx(rank, abs=0.006)


@each_run
def test_figures_of_llmservingsim_of_the_page(run: Run, data_dir: Path) -> None:
    summary = (real_run(data_dir, run.folder) / "llmservingsim_summary.txt").read_text()
    for latency, cells in shown(run, 0):
        name = {"E2E": "Latency"}.get(latency, latency)
        theirs = [
            float(re.findall(rf"^{name} {label} .* ([+-][\d.]+)%", summary, flags=re.MULTILINE)[0])
            for label in ("Mean", "Median", "P90", "P99")
        ]
        assert figures(cells[5:]) == theirs


@each_run
def test_series_of_the_page(run: Run, data_dir: Path) -> None:
    both = sides(run, data_dir)
    rows = dict(shown(run, 2))
    for law, ours in (("its own batches", both.visited), ("preset", both.preset)):
        assert figures(rows[law]) == pytest.approx(gaps(both.recorded, ours), abs=0.06, nan_ok=True)


@each_run
def test_causes_of_the_page(run: Run, data_dir: Path) -> None:
    rows = dict(shown(run, 3))
    found = dict(causes(run, sides(run, data_dir).recorded))
    assert list(rows) == list(found)
    for name, percent in found.items():
        assert figures(rows[name]) == pytest.approx(percent, abs=0.06)
    if run is RUNS[0]:
        assert max(map(abs, found["and prefix caching"])) < 2
