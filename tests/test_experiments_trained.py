"""``python -m experiments.trained``: learned policies beside tuned rivals, at equal attainment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from experiments.equal_attainment import log_gpu_hours_along
from experiments.run_records import RunRecords
from experiments.trained import Played, change_of, main, trained_table
from preserve_gym.errors import InputError
from tests.test_agents_learned_policy import save

TARGET_MISSED = 100  # of 10,000: the target
POINTS = [(1.0, 0.98, 80.0), (2.0, 0.99, 100.0), (4.0, 0.995, 125.0)]
"""A front on which half as many missed cost a quarter more."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A made-up run: two seeds, two windows, two trainings, PreServe, a rival and the feasible bound."""
    folder = tmp_path / "run"
    folder.mkdir()
    names = []
    for seed in (0, 1):
        path = save(tmp_path / f"ppo-x-seed{seed}" / "model", (0.0,) * 7, 1.0)
        card = yaml.safe_load((path / "card.yaml").read_text())
        keys = ("violation_weight", "attainment", "gpu_hours")
        card["validation"]["fronts"] = {"x": [dict(zip(keys, point, strict=True)) for point in POINTS]}
        (path / "card.yaml").write_text(yaml.safe_dump(card))
        names.append(str(path))
    hours = {
        "ppo-x-seed0": 90.0,
        "ppo-x-seed1": 110.0,
        "preserve-tuned": 150.0,
        "corr-tuned": 120.0,
        "feasible-tuned": 100.0,
        "hindsight": 10.0,
    }
    rows = [
        {
            "scenario": "x",
            "policy": policy,
            "seed": seed,
            "window": window,
            "arrived": 10_000,
            "violations": TARGET_MISSED,
            "gpu_hours": value * (1.0 + 0.1 * seed),
        }
        for policy, value in hours.items()
        for seed in (0, 1)
        for window in (0, 1)
    ]
    pd.DataFrame(rows).to_csv(folder / "episodes.csv", index=False)
    tails = [{"scenario": "x", "policy": p, "normalized_latency_p99_s": h / 1000.0} for p, h in hours.items()]
    pd.DataFrame(tails).to_csv(folder / "summary.csv", index=False)
    (folder / "options.yaml").write_text(yaml.safe_dump({"policies": [*names, *list(hours)[2:]]}))
    (folder / "config.yaml").write_text(yaml.safe_dump({"split": "test", "scenarios": {"x": {}}}))
    table = pd.DataFrame(
        [
            ("x", policy, f"headroom={k}", a, h, False, True, k == 2.0)
            for policy in ("preserve", "corr", "feasible")
            for k, a, h in POINTS
        ],
        columns=[
            "scenario",
            "policy",
            "parameters",
            "attainment",
            "gpu_hours",
            "default",
            "on_front",
            "chosen",
        ],
    )
    (tmp_path / "tables").mkdir()
    table.to_csv(tmp_path / "tables" / "x.csv", index=False)
    return folder


def test_trainings_are_one_policy_beside_the_best_rival(run: Path) -> None:
    (row,) = trained_table([RunRecords(run)], run.parent / "tables", run.parent).to_dict("records")
    assert (row["policy"], row["trainings"], row["best"]) == ("ppo-x", 2, "corr-tuned")
    assert row["attainment"] == pytest.approx(99.0)
    # Seeds have 1 and 1.1 times the hours, windows the same: 2.1 of each, per seed of two windows.
    assert row["gpu_hours"] == pytest.approx(2.1 * 100.0)
    mean = (90.0 * 110.0) ** 0.5
    assert row["at_target"] == pytest.approx(2.1 * mean, rel=1e-3)  # the target is what all attain
    assert row["to_preserve"] == pytest.approx(100.0 * (mean / 150.0 - 1.0))
    assert row["to_best"] == pytest.approx(100.0 * (mean / 120.0 - 1.0))
    assert row["gap_share"] == pytest.approx(100.0 * (150.0 - mean) / 50.0, rel=1e-3)
    assert [row[name] for name in ("p99_s", "preserve_p99_s", "best_p99_s")] == [0.1, 0.15, 0.12]
    # Seeds and windows pair exactly, so trainings alone are chance.
    half = stats.t.ppf(0.975, 1) * np.log(110.0 / 90.0) / 2.0
    log_change = np.log(mean / 120.0)
    for end, value in (("low", log_change - half), ("high", log_change + half)):
        assert row[f"to_best_same_days_{end}"] == pytest.approx(100.0 * np.expm1(value))
        assert row[f"to_best_other_days_{end}"] == pytest.approx(100.0 * np.expm1(value))


def test_who_misses_more_is_carried_to_the_target(run: Path) -> None:
    episodes = pd.read_csv(run / "episodes.csv")
    one = episodes["policy"] == "ppo-x-seed0"
    episodes.loc[one, "violations"] = TARGET_MISSED * 1.5
    episodes.to_csv(run / "episodes.csv", index=False)
    (row,) = trained_table([RunRecords(run)], run.parent / "tables", run.parent).to_dict("records")
    slope = np.log(125.0 / 80.0) / np.log(0.5 / 2.0)
    assert row["at_target"] == pytest.approx(2.1 * (90.0 * 1.5**-slope * 110.0) ** 0.5, rel=1e-3)
    assert row["attainment"] == pytest.approx(98.75)


def test_several_settings_are_read_off_between_them(run: Path) -> None:
    episodes = pd.read_csv(run / "episodes.csv")
    own = episodes["policy"] == "corr-tuned"
    more = episodes[own].assign(policy="corr-tuned@99.5", gpu_hours=episodes.loc[own, "gpu_hours"] * 1.21)
    more["violations"] = TARGET_MISSED / 2
    episodes.loc[own, "violations"] = TARGET_MISSED * 2
    pd.concat([episodes, more]).to_csv(run / "episodes.csv", index=False)
    options = yaml.safe_load((run / "options.yaml").read_text())
    options["policies"].append(options["policies"][0] + "@99.5")  # has not played: of no effect
    (run / "options.yaml").write_text(yaml.safe_dump(options))
    (row,) = trained_table([RunRecords(run)], run.parent / "tables", run.parent).to_dict("records")
    # The target is half way along the logarithm of what is missed.
    assert row["best"] == "corr-tuned"
    assert row["to_best"] == pytest.approx(100.0 * ((90.0 * 110.0) ** 0.5 / (120.0 * 1.1) - 1.0), rel=1e-3)
    assert row["trainings"] == 2


def test_who_has_not_played_all_is_not_left_out_silently(run: Path) -> None:
    episodes = pd.read_csv(run / "episodes.csv")
    missing = (episodes["policy"] == "ppo-x-seed1") & (episodes["seed"] == 1)
    episodes[~missing].to_csv(run / "episodes.csv", index=False)
    with pytest.raises(InputError, match="x: expected ppo-x-seed1 to have played all seeds and windows"):
        trained_table([RunRecords(run)], run.parent / "tables", run.parent)


def test_rivals_may_have_played_in_another_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = trained_table([RunRecords(run)], run.parent / "tables", run.parent)
    episodes, other = pd.read_csv(run / "episodes.csv"), tmp_path / "other"
    rivals = ~episodes["policy"].str.startswith("ppo")
    other.mkdir()
    for name in ("options.yaml", "config.yaml", "summary.csv"):
        (other / name).write_bytes((run / name).read_bytes())
    (other / "options.yaml").write_text("suite: benchmark\npolicies: null\n")
    episodes[rivals].to_csv(other / "episodes.csv", index=False)
    episodes[~rivals].to_csv(run / "episodes.csv", index=False)
    runs = [RunRecords(run), RunRecords(other)]
    parted = trained_table(runs, run.parent / "tables", run.parent)
    pd.testing.assert_frame_equal(parted, whole)
    episodes.assign(arrived=10_001)[rivals].to_csv(other / "episodes.csv", index=False)
    assert main([str(run), str(other)]) == 2
    assert "expected the same arrivals in each, those of x, seed 0 differ" in capsys.readouterr().err


def test_along_a_front() -> None:
    def along(*points: tuple[float, float]) -> float:
        totals = np.array([(missed, 10_000.0, hours) for missed, hours in points])
        return float(np.exp(log_gpu_hours_along(totals, -0.5, 0.99)))

    assert along((200.0, 100.0), (50.0, 400.0)) == pytest.approx(200.0, rel=1e-2)
    # The two around the target count, whatever their order.
    assert along((9.0, 1.0), (50.0, 400.0), (900.0, 1.0), (200.0, 100.0)) == pytest.approx(200.0, rel=1e-2)
    # None below: from the nearest.
    assert along((180.0, 100.0), (150.0, 100.0)) == pytest.approx(100.0 * 1.5**0.5, rel=1e-2)
    assert np.isnan(along((400.0, 100.0), (300.0, 100.0)))


def test_intervals_grow_with_seeds_and_windows_that_differ() -> None:
    rng = np.random.default_rng(0)

    def cells(seed_noise: float, window_noise: float) -> np.ndarray:
        noise = seed_noise * rng.standard_normal((8, 1)) + window_noise * rng.standard_normal((1, 4))
        hours = 100.0 * np.exp(noise)
        return np.stack([np.full_like(hours, 100.0), np.full_like(hours, 10_000.0), hours], axis=2)

    def played(seed_noise: float, window_noise: float) -> Played:
        return Played(cells(seed_noise, window_noise)[None], 0.0)

    rival, one, other = played(0.0, 0.0), played(0.05, 0.0), played(0.0, 0.05)
    of_seeds = change_of([one] * 8, rival)
    assert of_seeds.other_days == pytest.approx(of_seeds.same_days)
    assert 0.02 < of_seeds.same_days < 0.08  # t of 7 degrees times 0.05 over the root of 8
    of_windows = change_of([other] * 8, rival)
    assert np.isnan(of_windows.same_days)  # no chance at all: nothing differs but the windows
    assert of_windows.other_days > 0.02
    of_trainings = change_of([played(0.05, 0.0) for _ in range(8)], rival)
    assert of_trainings.same_days > 0.01


def test_a_run_without_learned_policies_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "options.yaml").write_text(yaml.safe_dump({"policies": ["corr-tuned"]}))
    assert main([str(run)]) == 2
    assert "expected a run that trained models have played" in capsys.readouterr().err
    assert main([]) == 2
    assert "expected the folder of at least one run" in capsys.readouterr().err
    (run / "options.yaml").unlink()
    assert main([str(run)]) == 2
    assert "options.yaml: expected the options of a run" in capsys.readouterr().err
