"""``python -m experiments.transfer``: what is otherwise, the table, what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from experiments.transfer import CHANGES, changed, main, means
from preserve_gym.scenarios import load_scenario

SCENARIO = """\
description: The last minutes of a day.
workload:
  trace: synthetic-chat
  rate_scale: 0.3
  warmup_s: 60
  horizon_s: 600
  split_s: [83000, 84900]
  split_gap_s: 60
cluster: {max_instances: 4}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SCENARIO)
    return path


def test_what_is_otherwise(small: Path) -> None:
    scenario = load_scenario(str(small))
    of = {change: changed(scenario, change, 0) for change in CHANGES}
    cluster, workload = of["none"]
    assert cluster == scenario.cluster
    assert of["cold-start-x2"][0].cold_starts_s == tuple(2.0 * s for s in cluster.cold_starts_s)
    arrived = {change: len(found[1].trace) for change, found in of.items()}
    assert 0.4 < arrived["load-x0.5"] / arrived["none"] < 0.6
    assert 1.8 < arrived["load-x2"] / arrived["none"] < 2.2
    assert [of[change][0].max_instances for change in ("load-x0.5", "load-x2")] == [4, 8]
    assert of["naive-forecast"][1].config.forecaster == "naive" != workload.config.forecaster


@pytest.mark.slow
def test_it_plays_and_goes_on(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "transfer.csv"
    command = ["--scenario", str(small), "--changes", "none", "load-x2", "--out", str(out), "--policies"]
    assert main([*command, "static-2", "--seeds", "1"]) == 0
    first = out.read_bytes()
    assert main([*command, "static-2", "rate", "--seeds", "1"]) == 0
    assert out.read_bytes().startswith(first)  # what was there is not played again
    rows = pd.read_csv(out)
    assert list(zip(rows["change"], rows["policy"], strict=True)) == [
        *(("none", "static-2"), ("load-x2", "static-2")),
        *(("none", "rate"), ("load-x2", "rate")),
    ]
    assert rows["arrived"][1] > 1.8 * rows["arrived"][0]
    assert (
        rows["gpu_hours"][1] == rows["gpu_hours"][0] == pytest.approx(2.0 * 2.0 * 600.0 / 3600.0)
    )  # two windows
    assert main([*command, "rate", "--seeds", "1", "--changes", "router-random"]) == 0
    last = pd.read_csv(out).iloc[-1]
    assert (last["change"], last["arrived"]) == ("router-random", rows["arrived"][0])
    assert "static-2" in capsys.readouterr().out


def test_means_over_seeds() -> None:
    rows = pd.DataFrame(
        [
            ("x", "none", 0, "a", 1000, 10, 2.0),
            ("x", "none", 1, "a", 1000, 0, 4.0),
            ("x", "load-x2", 0, "a", 1000, 20, 9.0),
            ("x", "none", 0, "b", 1000, 0, 1.0),
            ("x", "load-x2", 0, "b", 1000, 10, 1.0),
        ],
        columns=["scenario", "change", "seed", "policy", "arrived", "violations", "gpu_hours"],
    )
    assert means(rows)["gpu_hours"].tolist() == [3.0, 9.0, 1.0, 1.0]
    assert means(rows)["attainment"].tolist() == [99.5, 98.0, 100.0, 99.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policies", "corrr"], r"got 'corrr' \(did you mean corr\?\)"),
        (["--policies", "rate", "--changes", "load"], "--changes: expected some of none, cold-start-x2"),
        (
            ["--policies", "rate", "--changes", "router-least"],
            r"--changes: router-least: expected one of .*, got 'least' \(did you mean least-kv",
        ),
        (["--policies", "rate", "--seeds", "0"], r"--seeds: expected an integer in \[1, 1000\], got 0"),
        (["--policies", "rate", "--scenario", "chat-weak"], "chat-weak"),
    ],
)
def test_bad_options_are_refused(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--out", str(tmp_path / "x.csv")]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_another_table_is_not_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    assert main(["--policies", "rate", "--out", str(other)]) == 2
    assert "expected the table of python -m experiments.transfer" in capsys.readouterr().err
    assert other.read_text() == "a,b\n1,2\n"
