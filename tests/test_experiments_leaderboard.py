"""The benchmark's page and tables: from its results to Markdown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from baselines.bounds.kept import file_name
from experiments.compare import compare, write
from experiments.equal_attainment import elasticity, log_gpu_hours, read_elasticities
from experiments.forecast_worth import mean_ratio, read_worth
from experiments.leaderboard import BEGIN, END, ROOT, main, pages
from experiments.rank_flips import duels
from experiments.run_records import RunRecords
from experiments.sanity import against_bounds
from tests import synthetic_run


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
    table = episodes_of(hours, missed=10)
    far = (table["scenario"] == "neither") | ((table["scenario"] == "alone") & (table["policy"] == "b"))
    table.loc[far, "violations"] = 40
    none = dict.fromkeys(hours, 0.0)
    (duel,) = duels(table, none, ["a", "b"], 0.99)
    assert (duel.won, duel.lost, duel.even) == (["less", "alone"], ["more"], ["even", "neither"])
    assert duel.flips
    (back,) = duels(table, none, ["b", "a"], 0.99)
    assert (back.won, back.lost) == (duel.lost, duel.won)
    # Who misses more is cheaper by that alone.
    table.loc[(table["scenario"] == "less") & (table["policy"] == "a"), "violations"] = 16
    (duel,) = duels(table, none | {("less", "a"): -0.5}, ["a", "b"], 0.99)
    assert duel.lost == ["less", "more"]


def test_seeds_that_only_one_has_played_are_left_out() -> None:
    hours = {("x", "a"): [1.0, 1.01, 50.0, 60.0], ("x", "b"): [2.0, 2.02]}
    (duel,) = duels(episodes_of(hours, missed=10), dict.fromkeys(hours, 0.0), ["a", "b"], 0.99)
    assert duel.won == ["x"]


def test_the_elasticity_is_the_slope_of_the_front_near_the_target() -> None:
    missed = np.array([0.2, 0.04, 0.02, 0.01, 0.004, 1e-5])
    hours = 100.0 * (missed / 0.01) ** -0.1
    hours[[0, -1]] = 500.0, 1.0  # far away
    assert elasticity(1.0 - missed, hours, 0.99) == pytest.approx(-0.1)
    assert np.isnan(elasticity(1.0 - missed[:3], hours[:3], 0.99))
    assert np.isnan(elasticity(1.0 - missed, hours**7, 0.99))
    assert elasticity(1.0 - missed, 1.0 / hours, 0.99) == 0.0


def test_costs_are_carried_to_the_target_over_a_factor_of_two() -> None:
    missed = np.array([1000.0, 1900.0, 600.0, 100.0, 0.0, 2100.0])
    totals = np.stack([missed, np.full(6, 1e5), np.full(6, 50.0)], axis=1)
    hours = np.exp(log_gpu_hours(totals, np.full(6, -0.1), 0.99))
    wanted = [50.0, 50.0 * 1.9**0.1, 50.0 * 0.6**0.1, 50.0 * 0.5**0.1, 50.0 * 0.5**0.1, np.nan]
    np.testing.assert_allclose(hours, wanted, rtol=1e-4)


def test_elasticities_are_read_from_the_tables_of_tuning(tmp_path: Path) -> None:
    def rows(policy: str, power: float, missed: list[float]) -> list[tuple[str, str, float, float, bool]]:
        front = [("x", policy, 1.0 - m, 100.0 * m**power, True) for m in missed]
        return [*front, ("x", policy, 0.99, 900.0, False)]

    near = [0.02, 0.015, 0.01, 0.005]
    table = [
        *rows("a", -0.1, near),
        *rows("b", -0.3, near),
        *rows("c", -0.4, near),
        *rows("few", -0.2, [0.3]),
    ]
    columns = ["scenario", "policy", "attainment", "gpu_hours", "on_front"]
    pd.DataFrame(table, columns=columns).to_csv(tmp_path / "x.csv", index=False)
    found = read_elasticities(tmp_path, 0.99)
    wanted = {("x", "a"): -0.1, ("x", "b"): -0.3, ("x", "c"): -0.4, ("x", "few"): -0.3}
    assert found == pytest.approx(wanted)


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


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up run of the benchmark, finished, and a folder with the pages that it goes into."""
    monkeypatch.setattr(
        synthetic_run, "CORE", ("preserve-tuned", "hpa-tuned", "feasible-tuned", "preserve", "hpa")
    )
    run = synthetic_run.write_run(tmp_path / "run", scenarios=3, policies=5, seeds=2)
    records = RunRecords(run)
    write(records, compare(records, "preserve-tuned"))
    (run / "options.yaml").write_text("suite: benchmark\n")
    pages = {
        "README.md": ("leaderboard",),
        "docs/environments/autoscale.md": ("leaderboard",),
        "docs/environments/route.md": ("leaderboard",),
        "docs/environments/cluster.md": ("leaderboard",),
        "docs/learned-policies.md": ("trained", "models", "transfer", "joint", "routers"),
        "docs/bounds.md": ("bounds", "feasible"),
    }
    for name, marks in pages.items():
        page = tmp_path / "root" / name
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(
            "before\n\n"
            + "\n".join(f"{BEGIN.format(m)}\nold\n{END.format(m)}\n" for m in marks)
            + "\nafter\n"
        )
    return tmp_path


def test_a_run_becomes_results_and_pages(made: Path) -> None:
    command = ["--results", str(made / "results"), "--root", str(made / "root")]
    assert main([str(made / "run"), *command]) == 0
    readme = (made / "root" / "README.md").read_text()
    assert readme.startswith(f"before\n\n{BEGIN.format('leaderboard')}\n\n| # | policy |")
    assert readme.endswith(f"|\n\n{END.format('leaderboard')}\n\nafter\n")
    assert "old" not in readme
    assert {line.split("|")[2].strip() for line in readme.splitlines() if line.startswith("| ")} == {
        "policy", "---", "`hpa`", "`preserve`",
    }  # fmt: skip
    page = (made / "root" / "docs" / "benchmark.md").read_text()
    assert all(f"\n## {name}\n" in page for name in ("api-burst", "chat", "chat-week"))
    assert "`feasible-tuned`" in page
    assert "nan" not in page
    (made / "root" / "docs" / "benchmark.md").unlink()
    assert main(command) == 0  # from what was kept
    assert (made / "root" / "docs" / "benchmark.md").read_text() == page


def test_the_pages_show_the_results_that_are_kept() -> None:
    for path, text in pages(ROOT / "results" / "benchmark", ROOT).items():
        assert path.read_text(encoding="utf-8") == text, path


def test_pages_without_marks_are_refused(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (made / "root" / "README.md").write_text("nothing")
    command = ["--results", str(made / "results"), "--root", str(made / "root")]
    assert main([str(made / "run"), *command]) == 2
    assert "README.md: expected the lines" in capsys.readouterr().err


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
