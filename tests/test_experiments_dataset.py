"""The command ``python -m experiments.dataset``: its datasets are read back and played again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from experiments.dataset import main
from preserve_gym.envs.scale_action import MAX_DELTA

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")

SCENARIO = """
workload: {trace: synthetic-chat, warmup_s: 60, horizon_s: 305, split_s: [36000, 50000], split_gap_s: 60}
cluster: {max_instances: 8}
"""
OWN = """
from dataclasses import dataclass
from typing import Any

from baselines import Autoscaler
from preserve_gym.sim import router


@dataclass(frozen=True)
class Greedy(Autoscaler):
    name: str = "greedy"

    def decide(self, obs, state):
        return 8


@router
def first(view, k):
    return 0


@dataclass(frozen=True)
class Mine(Greedy):
    name: str = "mine"
    router: Any = first
"""


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    path = tmp_path / "short.yaml"
    path.write_text(SCENARIO, encoding="utf-8")
    return str(path)


def assert_plays_again(dataset: Any) -> None:
    """The environment of the dataset, told the seeds and actions that it holds, gives all the rest."""
    env = dataset.recover_environment()
    episodes = list(dataset.iterate_episodes())
    assert len(episodes) == dataset.total_episodes > 0
    for episode in episodes:
        (about,) = dataset.storage.get_episode_metadata([episode.id])
        observation, info = env.reset(seed=about["seed"], options=about["options"])
        assert info["time_s"] == about["options"]["start_s"]
        observations, rewards, infos, truncated = [observation], [], [info], []
        for action in episode.actions:
            observation, reward, terminated, ended, info = env.step(action)
            assert not terminated
            observations.append(observation)
            rewards.append(reward)
            infos.append(info)
            truncated.append(ended)
        np.testing.assert_array_equal(episode.observations, observations)
        np.testing.assert_array_equal(episode.rewards, rewards)
        np.testing.assert_array_equal(episode.truncations, truncated)
        assert truncated == [False] * (len(truncated) - 1) + [True]
        assert not episode.terminations.any()
        assert episode.infos.keys() == infos[0].keys()
        for name, values in episode.infos.items():
            np.testing.assert_array_equal(values, [info[name] for info in infos])
            assert values.dtype == np.array([infos[0][name]]).dtype


@pytest.mark.slow
def test_datasets_play_again_to_the_bit(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    policies = ["corr", "preserve", "hpa", "static-3", "preserve-no-predictions"]
    assert main(["--scenario", scenario, "--policies", *policies, "--episodes", "2", "--seed", "5"]) == 0
    assert gym.spec("preserve/Autoscale-v0").kwargs == {}
    ids = capsys.readouterr().out.split()
    assert ids == [f"preserve-gym/short/{policy}-v0" for policy in policies]
    datasets = dict(zip(policies, map(minari.load_dataset, ids), strict=True))
    for policy, dataset in datasets.items():
        assert dataset.storage.metadata["algorithm_name"] == policy
        assert dataset.action_space.shape == (1,)
        assert_plays_again(dataset)
    # A last interval of 5 s, of 5 s and of 300 s.
    steps = {policy: [len(e.rewards) for e in d.iterate_episodes()] for policy, d in datasets.items()}
    assert steps["corr"] == steps["preserve"] == [31, 31]
    assert steps["hpa"] == [21, 21]
    envs = {policy: dataset.recover_environment().unwrapped for policy, dataset in datasets.items()}
    assert [envs[policy].router for policy in ("corr", "preserve")] == ["least-requests", "preserve"]
    assert envs["preserve-no-predictions"].workload.config.forecaster == "naive"
    for episode in datasets["static-3"].iterate_episodes():
        assert set(episode.infos["target"]) == {3}
    (about, _) = datasets["corr"].storage.get_episode_metadata([0, 1])
    assert about["seed"] == 5
    watched = datasets["corr"].recover_environment(eval_env=True)
    assert watched.unwrapped.workload.config.split == "validation"


@pytest.mark.slow
def test_changes_of_the_fleet_play_again_and_can_be_combined(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own_of_combined.py"  # no other test's, as modules stay
    own.write_text(OWN, encoding="utf-8")
    options = ["--router", "least-kv", "--action-mode", "delta", "--split", "validation", "--out", "a/b"]
    policies = [f"{own}:Greedy", f"{own}:Mine"]
    assert main(["--scenario", scenario, "--policies", *policies, "--episodes", "2", *options]) == 0
    ids = capsys.readouterr().out.split()
    assert ids == ["a/b/Greedy-v0", "a/b/Mine-v0"]
    datasets = [minari.load_dataset(dataset_id) for dataset_id in ids]
    for dataset in datasets:
        assert dataset.action_space == gym.spaces.Discrete(2 * MAX_DELTA + 1)
        assert_plays_again(dataset)
        for episode in dataset.iterate_episodes():
            target = episode.infos["target"]
            np.testing.assert_array_equal(target[1:], np.minimum(target[:-1] + MAX_DELTA, 8))
            assert target[0] < 8 - MAX_DELTA
        starts_s = [about["options"]["start_s"] for about in dataset.storage.get_episode_metadata([0, 1])]
        windows_s = dataset.recover_environment().unwrapped.workload.evaluation_windows
        np.testing.assert_array_equal(starts_s, windows_s[:2])
    assert minari.combine_datasets(datasets, "a/b/mixed-v0").total_episodes == 4


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--scenario", "nope"], "scenario 'nope': expected a YAML file or one of"),
        (["--policies", "nope"], "policy: expected one of"),
        (["--policies", "corr", "corr"], "--policies: expected policies of different names, got corr corr"),
        (["--policies"], "--policies: expected policies of different names, got none"),
        (["--episodes", "0"], "--episodes: expected an integer in [1, 100000], got 0"),
        (["--seed", "-1"], "--seed: expected an integer in [0, 4294967296], got -1"),
        (
            ["--out", "a b"],
            "letters, digits, '-', '_' and '/', got the dataset id 'a b/preserve-v0'",
        ),
        (
            ["--policies", "corr", "own_refused.py:Mine"],
            "policy mine: expected a built-in router, got another",
        ),
        (["--out", "there"], "--out: dataset there/preserve-v0 exists; choose another namespace, or"),
    ],
)
def test_bad_options_are_refused(
    scenario: str,
    options: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own_refused.py").write_text(OWN, encoding="utf-8")
    (tmp_path / "datasets" / "there" / "preserve-v0").mkdir(parents=True)
    assert main(["--scenario", scenario, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert complaint in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "datasets").rglob("*.hdf5"))


def test_the_extra_is_named(
    scenario: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert main(["--scenario", scenario]) == 2
    assert "the extra 'offline': pip install 'preserve-gym[offline]'" in capsys.readouterr().err
