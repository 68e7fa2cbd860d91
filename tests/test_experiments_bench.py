"""The benchmark runs, and says what it should; how fast anything is, is not tested."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from experiments.bench import COLUMNS, main, show
from experiments.bench_parts import PARTS, Part
from experiments.bench_setup import (
    FALLBACK_TRACE,
    QUICK,
    ROUTERS,
    SCHEDULERS,
    Setup,
    Sizes,
    find_trace,
    replayed,
)
from preserve_gym import Cluster, InputError, Trace
from preserve_gym.sim import ROUTERS as ENGINE_ROUTERS
from preserve_gym.traces import synthetic_trace
from preserve_gym.traces.generated import GENERATED

TINY = Sizes(
    instances=(1, 2),
    requests=300,
    repeats=2,
    reference_instances=(1,),
    reference_requests=20,
    overload_requests=500,
    request_counts=(100, 200),
    fleets=(1, 3),
    fleet_requests=200,
    memory_requests=(1000, 3000),
)


@pytest.fixture(scope="module")
def setup() -> Setup:
    return Setup(synthetic_trace("chat", duration_s=1200.0, start_clock_s=36_000.0, seed=0), TINY)


def check(part: Part) -> list[dict[str, Any]]:
    """Every figure is a positive number, and every column has a heading."""
    assert part.rows
    for row in part.rows:
        assert set(row) <= set(COLUMNS)
        for name, value in row.items():
            if not isinstance(value, str):
                least = 0.0 if name in ("spread", "preemptions_per_request", "us_routing") else 1e-12
                assert least <= value < math.inf, name
    assert all(0.0 < abs(value) < math.inf for value in part.figures.values())
    console = Console(width=200, record=True, quiet=True)
    show(part, console)
    return part.rows


def test_speed(setup: Setup) -> None:
    rows = check(PARTS["speed"](setup))
    engine = [row for row in rows if row["simulator"] == "engine"]
    cases = {(row["instances"], row["scheduler"], row["router"]) for row in engine}
    routers = [router for router in ROUTERS if router in ENGINE_ROUTERS]
    assert len(routers) >= 3
    assert cases == {(n, s, r) for n in (1, 2) for s in SCHEDULERS for r in routers}
    assert all(row["of_reference"] > 0.0 for row in engine)
    reference = [row for row in rows if row["simulator"] == "reference"]
    assert [(row["instances"], row["scheduler"]) for row in reference] == [(1, s) for s in SCHEDULERS]


def test_overload_evicts(setup: Setup) -> None:
    rows = check(PARTS["overload"](setup))
    assert [row["scheduler"] for row in rows] == [s for s in SCHEDULERS for _ in range(2)]
    engine = [row for row in rows if row["simulator"] == "engine"]
    assert all(row["preemptions_per_request"] > 0.0 for row in engine)
    assert all(row["of_reference"] > 0.0 for row in engine)


def test_scaling(setup: Setup) -> None:
    by_requests = PARTS["requests"](setup)
    assert [row["requests"] for row in check(by_requests)] == [100, 200]
    assert set(by_requests.figures) == {"exponent"}
    by_instances = PARTS["instances"](setup)
    assert [row["instances"] for row in check(by_instances)] == [1, 3]
    alone = PARTS["instances"](Setup(setup.trace, replace(TINY, fleets=(2,))))
    assert alone.figures == {}  # there is no slope


def test_threads(setup: Setup) -> None:
    part = PARTS["threads"](setup)
    assert [row["threads"] for row in check(part)] == [1, 2]
    assert part.figures["throughput_of_two"] > 0.0


def test_memory_counts_the_state_of_a_request(setup: Setup) -> None:
    served, with_results = check(PARTS["memory"](setup))
    assert 50.0 < served["bytes_per_request"] < 1000.0
    assert with_results["bytes_per_request"] >= served["bytes_per_request"]


def test_the_recorded_instance(setup: Setup, data_dir: Path) -> None:
    check(PARTS["golden"](setup))


def test_the_recorded_instance_may_not_be_there(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESERVE_GYM_DATA", str(tmp_path))
    with pytest.raises(InputError, match="golden"):
        PARTS["golden"](setup)


@pytest.mark.slow
def test_compilation(setup: Setup) -> None:
    rows = check(PARTS["compile"](setup))
    assert [(row["scheduler"], row["cache"]) for row in rows] == [
        (scheduler, cache) for scheduler in SCHEDULERS for cache in ("empty", "full")
    ]


def test_iterations_are_shown_where_the_engine_counts_them(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    totals = Cluster.totals
    monkeypatch.setattr(Cluster, "totals", lambda cluster: {**totals(cluster), "iterations": 7})
    assert all("iterations_per_s" in row for row in check(PARTS["overload"](setup)))
    monkeypatch.setattr(
        Cluster,
        "totals",
        lambda cluster: {name: value for name, value in totals(cluster).items() if name != "iterations"},
    )
    assert not any("iterations_per_s" in row for row in check(PARTS["overload"](setup)))


def test_replaying() -> None:
    trace = Trace([0.0, 1.0, 4.0], [1, 2, 3], [4, 5, 6])
    again = replayed(trace, 8, rate_rps=1.5)
    np.testing.assert_allclose(again.arrival_s, [0.0, 0.5, 2.0, 2.0, 2.5, 4.0, 4.0, 4.5])
    assert again.prompt_tokens.tolist() == [1, 2, 3, 1, 2, 3, 1, 2]
    assert again.output_tokens.tolist() == [4, 5, 6, 4, 5, 6, 4, 5]


def test_a_data_set_that_is_not_here_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESERVE_GYM_DATA", str(tmp_path))
    trace, note = find_trace("azure-2023-conv")
    assert trace.name == FALLBACK_TRACE
    assert "azure-2023-conv" in note
    with pytest.raises(InputError, match="azure-2023-konv"):
        find_trace("azure-2023-konv")
    assert find_trace(FALLBACK_TRACE)[1] == ""


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    command = ["engine", "--quick", "--trace", "synthetic-chat", "--out", str(out)]
    assert main([*command, "--parts", "threads", "--requests", "200", "--repeats", "1"]) == 0
    assert "throughput of two" in capsys.readouterr().out
    document = json.loads(out.read_text())
    assert document["sizes"]["requests"] == 200
    assert document["sizes"]["fleets"] == list(QUICK.fleets)
    assert list(document["parts"]) == ["threads"]
    assert document["machine"]["cores"] >= 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--trace", "no-such-trace"], "no-such-trace"),
        (["--requests", "0"], "--requests"),
        (["--instances", "1", "0"], "--instances"),
        (["--repeats", "-1"], "--repeats"),
        (["--load", "0"], "--load"),
        (["--trace", "synthetic-chat", "--out", "/nowhere/at/all.json"], "/nowhere/at/all.json"),
    ],
)
def test_bad_input(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["engine", *arguments]) == 2
    assert named in capsys.readouterr().err


@pytest.mark.slow
def test_traces_are_read_and_generated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = {name: GENERATED[name] for name in ("synthetic-code", "azure-2024-conv-from-hourly")}
    monkeypatch.setattr("experiments.bench_traces.GENERATED", chosen)
    monkeypatch.setenv("PRESERVE_GYM_DATA", str(tmp_path))
    out = tmp_path / "bench.json"
    sizes = ["--requests", "2000", "--repeats", "1", "--generated-requests", "2000"]
    assert main(["traces", *sizes, "--out", str(out)]) == 0
    document = json.loads(out.read_text())
    stages = {title: [row["stage"] for row in rows] for title, rows in document.items()}
    # Without its data set a generated trace is left out.
    assert stages["Generating"] == ["synthetic-code"]
    assert stages["Reading"] == ["Azure CSV", "Azure CSV, gzip", "own CSV", "own Parquet", "Mooncake JSONL"]
    for rows in document.values():
        check(Part("", rows))
        assert all(1000 < row["requests"] < 4000 for row in rows)
    assert "of pandas.read_csv" in capsys.readouterr().out


def test_sizes_of_the_traces_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["traces", "--repeats", "0"]) == 2
    assert "--repeats: expected at least 1, got 0" in capsys.readouterr().err


def test_overhead_of_policies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    options = ["--minutes", "5", "--repeats", "1", "--instances", "3", "--out", str(out)]
    assert main(["policies", *options, "--policies", "reactive", "preserve-artifact"]) == 0
    rows = check(Part("", json.loads(out.read_text())["rows"]))
    assert [(row["policy"], row["router"]) for row in rows] == [
        ("reactive", "least-requests"),
        ("preserve-artifact", "preserve"),
    ]
    assert [row["decisions"] for row in rows] == [30, 60]
    assert "PreServe reports 0.23%" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--policies", "best"], "policy: expected one of"),
        (["--repeats", "0"], "--repeats"),
        (["--trace", "no-such-trace"], "no-such-trace"),
        (["--start-s", "1e9"], "start_s"),
    ],
)
def test_bad_input_of_policies(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policies", *arguments]) == 2
    assert named in capsys.readouterr().err
