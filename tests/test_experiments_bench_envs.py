"""The benchmark of the environments runs, and compares like with like; no speed is tested."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.bench import main
from experiments.bench_env_parts import NAMES, EnvSetup, EnvSizes, episodes_of, play_episodes, serve
from experiments.bench_envs import PARTS
from preserve_gym import InputError
from tests.test_experiments_bench import check

TINY = EnvSizes(
    environments=(1, 8),
    horizon_s=100.0,
    steps=(40, 200, 40),
    longest=20,
    repeats=2,
    share_environments=(1, 3),
    learner_environments=3,
    learner_steps=8,
    updates=1,
)


@pytest.fixture(scope="module")
def setup() -> EnvSetup:
    return EnvSetup(TINY)


def test_steps(setup: EnvSetup) -> None:
    rows = check(PARTS["steps"](setup))
    cases = [(row["environment"], row["environments"], row["threads"]) for row in rows]
    assert cases == [
        case
        for name in NAMES
        for case in ((f"{name}, single", 1, 1), (name, 1, 1), (name, 8, 1), (name, 8, 2))
    ]
    assert [row["threads"] for row in rows if "of_one_thread" in row] == [2, 2, 2]
    for row in rows:
        # A step of 10 s holds many requests, one of Route is a request.
        if "Route" in row["environment"]:
            assert row["requests_per_s"] == pytest.approx(row["steps_per_s"])
        else:
            assert row["simulated_s_per_s"] == pytest.approx(10.0 * row["steps_per_s"])
            assert row["requests_per_s"] > row["steps_per_s"]


def test_a_plan_plays_the_same_episodes_again(setup: EnvSetup) -> None:
    plan = setup.plan("Route", 8)
    assert plan.actions.shape == (20, 8)
    assert (plan.requests, plan.actions.max() > 0) == (160, True)
    envs = setup.make_vec("Route", 8)
    _, infos = envs.reset(seed=0)
    simulated_s = -infos["time_s"].sum()
    for action in plan.actions:
        assert envs.action_masks()[np.arange(8), action].all()
        _, _, _, truncated, infos = envs.step(action)
        assert not truncated.any()
    assert plan.simulated_s == pytest.approx(simulated_s + infos["time_s"].sum())


def test_overhead(setup: EnvSetup) -> None:
    rows = check(PARTS["overhead"](setup))
    assert [(row["environment"], row["environments"]) for row in rows] == [
        case for name in NAMES for case in ((f"{name}, single", 1), (name, 1), (name, 8))
    ]


def test_the_engine_serves_the_episodes_of_the_environments(setup: EnvSetup) -> None:
    rows = check(PARTS["engine"](setup))
    assert [(row["environment"], row["environments"], row["threads"]) for row in rows] == [
        (name, n, threads) for name in ("Autoscale", "Cluster") for n, threads in ((1, 1), (3, 1), (3, 2))
    ]
    envs = setup.make_vec("Autoscale", 3, mode="NEXT_STEP")
    play_episodes(envs)
    clusters = episodes_of(envs)
    assert serve(clusters, 2) > 0.0
    played = [cluster.totals() for cluster in envs._batch.clusters if cluster is not None]
    assert played == [pytest.approx(cluster.totals()) for cluster, _ in clusters]
    assert all(cluster.totals()["completed"] > 100 for cluster, _ in clusters)


def test_ppo(setup: EnvSetup) -> None:
    pytest.importorskip("stable_baselines3")
    rows = check(PARTS["ppo"](setup))
    assert [row["environment"] for row in rows] == list(NAMES)


def test_without_a_learner_its_part_is_left_out(
    setup: EnvSetup, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "stable_baselines3.common.vec_env", None)
    monkeypatch.delitem(sys.modules, "agents.sb3_vec_env", raising=False)
    with pytest.raises(InputError, match="stable_baselines3 is missing"):
        PARTS["ppo"](setup)
    assert main(["envs", "--quick", "--parts", "ppo"]) == 2
    assert "stable_baselines3 is missing" in capsys.readouterr().err


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    options = ["--parts", "engine", "--threads", "1", "--repeats", "1", "--out", str(out)]
    assert main(["envs", "--quick", *options]) == 0
    assert "of the engine" in capsys.readouterr().out
    document: dict[str, Any] = json.loads(out.read_text())
    assert list(document["parts"]) == ["engine"]
    assert document["sizes"]["threads"] == [1]
    assert document["machine"]["cores"] >= 1


@pytest.mark.parametrize("option", ["--environments", "--threads", "--repeats"])
def test_bad_input(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", option, "0"]) == 2
    assert f"{option}: expected at least 1" in capsys.readouterr().err
