"""The benchmark's page and tables: from its results to Markdown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from baselines.bounds.kept import file_name
from experiments import leaderboard
from experiments.forecast_worth import mean_ratio, read_worth
from experiments.leaderboard import BEGIN, END, ROOT, main
from experiments.rank_flips import duels
from experiments.sanity import against_bounds


def episodes_of(hours: dict[tuple[str, str], list[float]], missed: float = 0.0) -> pd.DataFrame:
    """One row per scenario, policy and seed, of one window."""
    return pd.DataFrame(
        [
            {
                "scenario": scenario,
                "policy": policy,
                "seed": seed,
                "window": 0,
                "arrived": 1000,
                "violations": missed,
                "gpu_hours": value,
            }
            for (scenario, policy), values in hours.items()
            for seed, value in enumerate(values)
        ]
    )


def test_a_duel_counts_what_is_beyond_chance() -> None:
    rng = np.random.default_rng(0)
    service = rng.uniform(50.0, 200.0, 8)  # each seed has its own traffic, which both meet

    def of(factor: float, noise: float) -> list[float]:
        return list(service * factor * np.exp(noise * rng.standard_normal(8)))

    hours = {
        ("less", "a"): of(0.9, 0.01),
        ("less", "b"): of(1.0, 0.01),
        ("more", "a"): of(1.1, 0.01),
        ("more", "b"): of(1.0, 0.01),
        ("even", "a"): of(1.0, 0.05),
        ("even", "b"): of(1.0, 0.05),
        ("alone", "a"): of(2.0, 0.0),
        ("alone", "b"): of(1.0, 0.0),
        ("neither", "a"): of(2.0, 0.0),
        ("neither", "b"): of(1.0, 0.0),
        ("absent", "a"): of(1.0, 0.0),
    }
    meets = dict.fromkeys(hours, True)
    meets["alone", "b"] = meets["neither", "a"] = meets["neither", "b"] = False
    (duel,) = duels(episodes_of(hours), meets, ["a", "b"])
    assert (duel.won, duel.lost, duel.even) == (["less", "alone"], ["more"], ["even", "neither"])
    assert duel.flips
    (back,) = duels(episodes_of(hours), meets, ["b", "a"])
    assert (back.won, back.lost) == (duel.lost, duel.won)


def test_seeds_that_only_one_has_played_are_left_out() -> None:
    hours = {("x", "a"): [1.0, 1.01, 50.0, 60.0], ("x", "b"): [2.0, 2.02]}
    (duel,) = duels(episodes_of(hours), dict.fromkeys(hours, True), ["a", "b"])
    assert duel.won == ["x"]


def test_the_cheapest_that_meets_the_target_stands_beside_the_bounds(tmp_path: Path) -> None:
    played = pd.concat(
        [
            episodes_of({("x", "a"): [90.0, 10.0], ("x", "oracle"): [50.0, 50.0]}),
            episodes_of({("x", "b"): [40.0, 40.0]}, missed=11),  # 98.9 %
            episodes_of({("x", "c"): [95.0, 95.0]}, missed=10),
            episodes_of({("y", "a"): [1.0]}),
        ]
    )
    row = {
        "scenario": "x",
        "target": 0.99,
        "windows": 1,
        "hindsight_gpu_hours": 80.0,
        "lower_gpu_hours": 30.0,
    }
    kept = {"row": row, "trace_sha256": "", "starts_s": [0.0], "interval_s": 10.0, "targets": []}
    (tmp_path / file_name("x", "test", 0)).write_text(json.dumps(kept))
    (found,) = against_bounds(played, tmp_path, "test", frozenset({"oracle"})).to_dict("records")
    assert (found["policy"], found["gpu_hours"]) == ("a", 90.0)  # of seed 0
    assert (found["hindsight_gpu_hours"], found["lower_gpu_hours"]) == (80.0, 30.0)
    row["windows"] = 2
    (tmp_path / file_name("x", "test", 0)).write_text(json.dumps(kept))
    (found,) = against_bounds(played, tmp_path, "test", frozenset()).to_dict("records")
    assert found["policy"] is None  # none has played them all


def test_a_run_that_has_not_ended_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--results", str(tmp_path / "results"), "--root", str(tmp_path)]) == 2
    assert "finished run" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_pages_without_marks_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "docs" / "environments").mkdir(parents=True)
    (tmp_path / "README.md").write_text("nothing")
    assert main(["--results", str(leaderboard.ROOT / "results" / "benchmark"), "--root", str(tmp_path)]) == 2
    assert "README.md: expected the lines" in capsys.readouterr().err


def test_the_pages_are_those_of_the_results() -> None:
    for path, text in leaderboard.pages(ROOT / "results" / "benchmark", ROOT).items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: python -m experiments.leaderboard"
        assert path.name == "benchmark.md" or text.count(BEGIN) == text.count(END) == 1


def test_what_a_forecast_is_worth(tmp_path: Path) -> None:
    hours = {"": (120.0, 200.0, 0.99), "oracle": (100.0, 180.0, 0.99), "naive": (150.0, 190.0, 0.98)}
    for name, (x, y, attained) in hours.items():
        rows = [
            ("x", "rate", 0.5, 10.0, False),
            ("x", "rate", 0.995, x, True),
            ("y", "rate", attained, y, True),
        ]
        table = pd.DataFrame(rows, columns=["scenario", "policy", "attainment", "gpu_hours", "chosen"])
        (tmp_path / name).mkdir(exist_ok=True)
        for scenario, part in table.groupby("scenario"):
            part.to_csv(tmp_path / name / f"{scenario}.csv", index=False)
    (tmp_path / "z.csv").write_text(
        "scenario,policy,attainment,gpu_hours,chosen\nz,rate,1,1,True\n"
    )  # not tuned with the others
    worth = read_worth(tmp_path, "profile-ar", 0.99)
    assert set(worth["scenario"]) == {"x", "y"}
    assert mean_ratio(worth, "oracle", "profile-ar") == pytest.approx((100 / 120 * 180 / 200) ** 0.5)
    assert mean_ratio(worth, "naive", "profile-ar") == pytest.approx(150 / 120)  # misses the target on y
