"""``python -m experiments.tune``: what it plays, chooses and writes, going on, and what it refuses."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import baselines.tuned
from baselines import entry_of, make_fitted_policy
from experiments import tune_points
from experiments.evaluate import play_windows
from experiments.totals import Totals, play_totals
from experiments.tune import main, tunable
from experiments.tune_choice import is_default, make_front
from experiments.tune_grid import coarse, fine
from experiments.tune_points import Point
from preserve_gym.errors import InputError
from preserve_gym.scenarios import load_scenario
from preserve_gym.traces import synthetic_trace


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Half an hour of a small service, and a scenario of it."""
    trace = synthetic_trace("chat", duration_s=1800.0, mean_rate_rps=12.0)
    rows = zip(trace.arrival_s, trace.prompt_tokens, trace.output_tokens, strict=True)
    lines = ["arrival_s,prompt_tokens,output_tokens", *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "half-hour.csv").write_text("\n".join(lines) + "\n")
    path = tmp_path / "small.yaml"
    path.write_text(
        f"workload:\n  trace: {tmp_path / 'half-hour.csv'}\n  split_s: [700, 1200]\n  split_gap_s: 0\n"
        "  warmup_s: 30\n  horizon_s: 230\ncluster:\n  max_instances: 6\n"
    )
    return path


def command_for(scenario: Path, folder: Path, *policies: str) -> list[str]:
    words = ["--scenario", str(scenario), "--policies", *policies, "--out", str(folder / "out")]
    return [*words, "--tables", str(folder / "tables")]


def test_the_cheapest_that_meets_the_target_is_chosen_and_kept(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = command_for(small, tmp_path, "rate", "static", "feasible")
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "small, feasible: not here: feasible: trace" in shown
    table = pd.read_csv(tmp_path / "tables" / "small.csv")
    # Sizes above the largest of the cluster cannot be played.
    assert table["policy"].value_counts().to_dict() == {"rate": 16, "static": 6}
    assert table["policy"].is_monotonic_decreasing  # as in the registry
    for policy, rows in table.groupby("policy"):
        best = rows[rows["attainment"] >= 0.99].sort_values("gpu_hours").iloc[0]
        assert best["chosen"], policy
        assert rows["chosen"].sum() == 1
    rate, static = (
        table.loc[(table["policy"] == name) & table["chosen"], "gpu_hours"].item()
        for name in ("rate", "static")
    )
    assert rate < static + 0.1
    assert table[table["default"]]["parameters"].tolist() == ["headroom=1.2"]
    first = (tmp_path / "tables" / "small.csv").read_bytes()

    def play_again(*_: object) -> Totals:
        raise AssertionError("it was there")

    monkeypatch.setattr(tune_points, "play_totals", play_again)
    assert main(command) == 0
    assert (tmp_path / "tables" / "small.csv").read_bytes() == first
    # One is lost, and is played again: here it fails, and is left out.
    (tmp_path / "out" / "small" / "seed0" / "rate" / "headroom=0.95.json").unlink()
    assert main(command) == 1
    assert (
        "small, rate: 1 of 16 failed, the first with AssertionError: it was there" in capsys.readouterr().err
    )
    # Another target is chosen from what was played; others in the files stay.
    monkeypatch.undo()
    assert main([*command_for(small, tmp_path, "static"), "--target", "1.0"]) == 0
    table = pd.read_csv(tmp_path / "tables" / "small.csv")
    assert list(table["policy"].unique()) == ["static", "rate"]
    assert table.loc[(table["policy"] == "static") & table["chosen"], "attainment"].item() == 1.0


def test_processes_and_seeds_make_no_difference(small: Path, tmp_path: Path) -> None:
    for jobs in ("1", "2"):
        folder = tmp_path / jobs
        command = [*command_for(small, folder, "static"), "--jobs", jobs, "--seeds", "2"]
        assert main(command) == 0
    one, two = (tmp_path / jobs / "tables" / "small.csv" for jobs in ("1", "2"))
    assert one.read_bytes() == two.read_bytes()
    point = json.loads(
        (tmp_path / "1" / "out" / "small" / "seed1" / "static" / "instances=1.json").read_text()
    )
    assert point["seed"] == 1
    # Only generated traces and predictions differ between seeds: a constant fleet gets the same.
    assert point["violations"] > 0


def test_a_scenario_that_has_changed_is_played_again(small: Path, tmp_path: Path) -> None:
    assert main(command_for(small, tmp_path, "static")) == 0
    before = (tmp_path / "tables" / "small.csv").read_text()
    # Of other latencies, another number of requests is in time.
    small.write_text(small.read_text().replace("max_instances: 6", "max_instances: 6\n  slo: {ttft_s: 3.0}"))
    assert main(command_for(small, tmp_path, "static")) == 0
    assert (tmp_path / "tables" / "small.csv").read_text() != before


@pytest.mark.parametrize("name", ["corr", "preserve", "preserve-artifact", "knative", "static"])
def test_totals_are_those_of_the_slow_way(name: str, small: Path) -> None:
    scenario = load_scenario(small)
    workload = scenario.make_workload("test")
    policy = make_fitted_policy(name, scenario.cluster, workload)
    totals = play_totals(workload, policy)
    figures = [result.figures for result in play_windows(workload, scenario.cluster, policy, seed=0)]
    assert len(figures) == 2
    assert totals.arrived == sum(one["arrived"] for one in figures)
    assert totals.violations == sum(one["violations"] for one in figures)
    assert totals.gpu_hours == pytest.approx(sum(one["gpu_hours"] for one in figures), rel=1e-12)


def points(*figures: tuple[float, int, float]) -> list[Point]:
    return [Point("corr", {"headroom": h}, 0, 100, violations, hours) for h, violations, hours in figures]


def test_choice() -> None:
    front = make_front(points((1.0, 5, 1.0), (1.1, 1, 3.0), (1.2, 0, 3.0), (1.3, 0, 4.0)), 0.99)
    assert front.meets
    assert front.chosen.parameters == {"headroom": 1.2}  # as cheap, and better
    front = make_front(points((1.0, 5, 1.0), (1.1, 2, 3.0), (1.2, 2, 2.0)), 0.99)
    assert not front.meets
    assert front.chosen.parameters == {"headroom": 1.2}
    two_seeds = [*points((1.0, 3, 1.0), (1.1, 1, 2.0)), *points((1.0, 0, 1.0), (1.1, 1, 4.0))]
    front = make_front(two_seeds, 0.99)
    assert front.chosen.parameters == {"headroom": 1.1}
    assert front.chosen.gpu_hours == 3.0


def test_everyone_has_the_same_budget_and_the_default_is_in_it() -> None:
    names = tunable()
    assert {"corr", "preserve", "preserve-up-only", "preserve-artifact", "hpa", "static", "feasible"} <= set(
        names
    )
    assert not {"hindsight", "best-static", "preserve-oracle"} & set(names)
    for name in names:
        tried = coarse(name)
        count = 16 if name == "static" else 8
        assert len(tried) == count
        assert sum(is_default(name, parameters) for parameters in tried) == (name != "static")
        # Wherever the target is met, the rest is as many others.
        for attained in ([1.0] * count, [0.5] * count, [float(k >= 4) for k in range(count)]):
            more = [] if name == "static" else fine(name, tried, attained, list(range(count)), 0.99)
            assert len(more) == (0 if name == "static" else count)
            assert all(one not in tried for one in more)
    assert is_default("preserve-up-only", {"headroom": 1.0, "lead_s": 0.0})


def test_the_rest_lies_where_the_target_is_met() -> None:
    tried = coarse("corr")
    assert [one["headroom"] for one in tried] == [0.6, 0.75, 0.85, 0.95, 1.05, 1.2, 1.4, 2.0]
    attained = [0.9, 0.9, 0.9, 0.99, 1.0, 1.0, 1.0, 1.0]
    costs = [one["headroom"] for one in tried]
    found = [one["headroom"] for one in fine("corr", tried, attained, costs, 0.99)]
    assert found == sorted(found)
    assert 0.85 < found[0] < 0.865
    assert 0.935 < found[-1] < 0.95
    ratios = [b / a for a, b in itertools.pairwise([0.85, *found, 0.95])]
    assert max(ratios) < 1.002 * min(ratios)
    # Two parameters: the second one as it is in the cheapest that meets the target.
    tried = coarse("preserve-up-only")
    attained = [float(one["headroom"] >= 0.95) for one in tried]
    costs = [one["headroom"] - one["lead_s"] / 1000.0 for one in tried]
    more = fine("preserve-up-only", tried, attained, costs, 0.99)
    assert {one["lead_s"] for one in more} == {90.0}
    assert all(0.8 < one["headroom"] < 1.0 for one in more)
    # A law whose cost rises as its parameter falls.
    tried = coarse("hpa")
    attained = [float(one["target_share"] < 0.6) for one in tried]
    more = fine("hpa", tried, attained, [1.0 / one["target_share"] for one in tried], 0.99)
    assert all(0.5 < one["target_share"] < 0.7 for one in more)
    # All meet it or nothing does, and the best lies at an end: beyond.
    tried, costs = coarse("corr"), list(range(8))
    for attained, low, high in (([1.0] * 8, 0.2, 0.6), ([k / 10.0 for k in range(8)], 2.0, 6.0)):
        found = [one["headroom"] for one in fine("corr", tried, attained, costs, 0.99)]
        assert len(found) == 8
        assert all(low <= value <= high for value in found)
        assert {low, high} & set(found) == {low if low < 0.6 else high}
    # In between: what the grid has besides.
    more = fine("corr", tried, [0.1, 0.2, 0.9, 0.2, 0.2, 0.2, 0.2, 0.2], costs, 0.99)
    assert [one["headroom"] for one in more] == [0.7, 0.8, 0.9, 1.0, 1.1, 1.3, 1.6, 2.5]


def test_tuned_parameters_by_name(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code.csv").write_text(
        "scenario,policy,parameters,attainment,gpu_hours,default,on_front,chosen\n"
        "code,corr,headroom=2.5,0.991,3.0,False,True,True\n"
        "code,corr,headroom=3,0.996,4.0,False,True,False\n"
        "code,corr,headroom=4,0.996,5.0,False,False,False\n"
        "code,preserve-up-only,headroom=1.1 lead_s=90,0.995,4.0,False,True,True\n"
    )
    monkeypatch.setattr(baselines.tuned, "FOLDER", tmp_path)
    scenario = load_scenario("code")
    workload = scenario.make_workload("test")

    def made(name: str) -> Any:
        return make_fitted_policy(name, scenario.cluster, workload)

    assert (made("corr-tuned").name, made("corr-tuned").headroom) == ("corr-tuned", 2.5)
    # Of what was played, the cheapest that attains so much.
    assert (made("corr-tuned@99.5").name, made("corr-tuned@99.5").headroom) == ("corr-tuned@99.5", 3)
    assert made("corr-tuned@50").headroom == 2.5
    assert (made("preserve-up-only-tuned").headroom, made("preserve-up-only-tuned").lead_s) == (1.1, 90)
    with pytest.raises(InputError, match=r"'corr-tuned@99.9': nothing .* attains 99.9 %, at most 99.60 %"):
        made("corr-tuned@99.9")
    with pytest.raises(
        InputError, match=r"'rate-tuned': no tuned parameters for scenario 'code'; .* corr-tuned"
    ):
        made("rate-tuned")
    chat = load_scenario("chat")
    with pytest.raises(
        InputError, match="'corr-tuned': no tuned parameters for a workload without a scenario"
    ):
        make_fitted_policy("corr-tuned", chat.cluster, workload)


def test_committed_parameters_are_taken() -> None:
    """Each is one that the policy is tuned over, with a value near those that are tried."""
    for path in baselines.tuned.FOLDER.glob("*.csv"):
        table = pd.read_csv(path)
        assert table.groupby("policy")["chosen"].sum().eq(1).all()
        for policy in table["policy"].unique():
            entry = entry_of(policy)
            assert entry is not None
            tuned_over = entry.tuned_over
            chosen = baselines.tuned.tuned_parameters(f"{policy}-tuned", path.stem)
            assert set(chosen) == set(tuned_over)
            for parameter, value in chosen.items():
                assert min(tuned_over[parameter]) / 3.1 <= value <= 3.1 * max(tuned_over[parameter]), policy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--scenario: expected some of api-burst"),
        (["--scenario", "chatt"], "scenario 'chatt': expected .*did you mean chat"),
        (["--scenario", "chat", "--policies", "cor"], "--policies: expected some of .*did you mean corr"),
        (
            ["--scenario", "chat", "--policies", "hindsight"],
            "--policies: expected some of .*got 'hindsight'",
        ),
        (["--scenario", "chat", "--target", "99"], r"--target: expected a share in \(0, 1\], got 99"),
        (["--scenario", "chat", "--jobs", "0"], r"--jobs: expected an integer in \[1, 256\], got 0"),
        (["--scenario", "chat", "--seeds", "0"], "--seeds: expected an integer in"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert re.search(message, capsys.readouterr().err)
