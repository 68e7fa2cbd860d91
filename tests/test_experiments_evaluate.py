"""A cell of an experiment: the windows, the environment and the predictions that a policy plays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest

from baselines import Static, make_policy
from baselines.bounds import Problem, play
from experiments.evaluate import INTERVAL_COLUMNS, Cell, Setting, WindowResult, play_windows
from experiments.policies import build_policy, policy_parameters
from preserve_gym import ClusterConfig, Workload, WorkloadConfig
from preserve_gym.scenarios import load_scenario

DAY = Setting(
    "synthetic-chat", ClusterConfig(max_instances=4), WorkloadConfig(start_s=3600.0, horizon_s=600.0)
)


def played(setting: Setting, policy: str, seed: int = 0) -> list[WindowResult]:
    workload = setting.make_workload(seed)
    return play_windows(workload, setting.cluster, build_policy(policy, setting.cluster, workload), seed)


@pytest.fixture(scope="module")
def windows() -> tuple[Setting, Workload]:
    """Two test windows of ten minutes of a synthetic day, with its splits."""
    config = WorkloadConfig(split="test", horizon_s=600.0, split_s=(40_000.0, 50_000.0), warmup_s=60.0)
    setting = Setting("short", ClusterConfig(max_instances=8), config)
    workload = Workload(config, windows_s=(51_000.0, 60_000.0))
    return setting, workload


def test_forecasts_that_fell_back_are_counted() -> None:
    setting = replace(DAY, workload=replace(DAY.workload, forecaster="seasonal-naive-week"))
    (window,) = played(setting, "preserve")
    assert window.figures["forecast_fallbacks"] == setting.make_workload(0).forecast.fallbacks > 0
    assert played(setting, "preserve-oracle")[0].figures["forecast_fallbacks"] == 0


def test_a_policy_gets_its_interval_and_its_map() -> None:
    workload = DAY.make_workload(0)
    policy = build_policy("preserve-artifact-no-predictions", DAY.cluster, workload)
    (window,) = play_windows(workload, DAY.cluster, policy, 0)
    assert len(window.intervals) == len(window.targets) == 120
    parameters = policy_parameters(policy)
    assert parameters["anticipator"] == {"variant": "artifact", "look_ahead": 200, "overload_use": 0.95}
    assert (parameters["forecaster"], parameters["predictor"]) == ("naive", "mean")
    # Before the first decision, too, nothing but the last window is known.
    (plain,) = played(DAY, "preserve-artifact")
    assert (window.intervals["forecast_load"] != plain.intervals["forecast_load"]).any()
    assert (window.requests["arrival_s"] == plain.requests["arrival_s"]).all()


def test_each_window_is_scored_as_the_bounds_score_it(windows: tuple[Setting, Workload]) -> None:
    setting, workload = windows
    policy = make_policy("hpa", setting.cluster, workload.profile(setting.cluster))
    results = play_windows(workload, setting.cluster, policy, 0)
    assert [result.start_s for result in results] == [51_000.0, 60_000.0]
    assert [result.window for result in results] == [0, 1]
    assert all(list(result.intervals.columns) == list(INTERVAL_COLUMNS) for result in results)
    for result in results:
        requests = result.requests
        assert requests["arrival_s"].between(result.start_s, result.start_s + 600.0).all()
        # Every one is decided, the last ones after the end.
        assert (requests["completed_s"].notna() | requests["rejected"]).all()
        assert (requests["completed_s"] > result.start_s + 600.0).any()
    static = make_policy("static-2", setting.cluster, workload.profile(setting.cluster))
    episodes = tuple(workload.episode_at(start_s) for start_s in workload.evaluation_windows)
    problem = Problem(setting.cluster, episodes)
    outcome = play(problem, problem.constant(2))
    scored = play_windows(workload, setting.cluster, static, 0)
    assert sum(result.figures["violations"] for result in scored) == outcome.violations > 0
    assert sum(result.figures["gpu_hours"] for result in scored) == pytest.approx(outcome.gpu_hours)


def test_windows_can_be_chosen_and_do_not_depend_on_each_other(windows: tuple[Setting, Workload]) -> None:
    setting, workload = windows
    policy = make_policy("reactive", setting.cluster, workload.profile(setting.cluster))
    shares: list[float] = []
    both = play_windows(workload, setting.cluster, policy, 0, shares.append)
    (second,) = play_windows(workload, setting.cluster, policy, 0, windows=[1])
    assert second.window == 1
    pd.testing.assert_frame_equal(second.requests, both[1].requests)
    np.testing.assert_array_equal(second.targets, both[1].targets)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert 0.5 in shares


class Flat:
    """A policy with the signature of Stable-Baselines3: features in, changes out; it counts its steps."""

    name, forecaster, predictor = "flat", None, None

    def env_options(self) -> dict[str, Any]:
        return {"cluster": {"max_instances": 8}}

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        assert observation.dtype == np.float32
        assert deterministic
        assert episode_start.shape == (1,)
        assert bool(episode_start[0]) == (state is None)
        state = 0 if state is None else state + 1
        return np.int64({0: 3, 1: 3, 2: 1}.get(state, 2)), state


def test_a_policy_may_see_features_and_give_changes(windows: tuple[Setting, Workload]) -> None:
    setting, workload = windows
    results = play_windows(workload, setting.cluster, Flat(), 0)
    for result in results:
        first = result.intervals["target"].iloc[0]
        assert result.targets[:4].tolist() == [first, first + 1, first, first]
        np.testing.assert_array_equal(result.targets, result.intervals["target"])
        assert result.intervals["kv_use_mean"].notna().all()


def test_a_fleet_may_say_what_it_starts_with(windows: tuple[Setting, Workload]) -> None:
    setting, workload = windows
    policy = Static(setting.cluster, workload.profile(setting.cluster), instances=7)
    for result in play_windows(workload, setting.cluster, policy, 0):
        assert (result.targets == 7).all()
        assert (result.intervals["ready"] == 7).all()


def test_a_named_scenario_has_its_own_windows_and_the_seed_its_traffic() -> None:
    scenario = load_scenario("flash-crowd")
    setting = Setting("flash-crowd", scenario.cluster, replace(scenario.workload, split="validation"))
    workload = setting.make_workload(3)
    assert workload.config == replace(setting.workload, seed=3)
    frozen = scenario.make_workload("validation")
    np.testing.assert_array_equal(workload.evaluation_windows, frozen.evaluation_windows)
    assert len(workload.trace) != len(frozen.trace)


def test_a_scenario_of_ones_own_is_not_that_of_its_name() -> None:
    scenario = load_scenario("chat-week")
    workload = replace(DAY.workload, start_s=None, split="test", split_s=(4000.0, 6000.0), seed=0)
    own = Setting("chat-week", scenario.cluster, workload).make_workload(1)
    assert own.trace.name == "synthetic-chat"


def test_a_cell_of_ones_own_policy_is_called_by_its_class() -> None:
    assert Cell("chat", "folder/file.py:Mine", 0).label == "Mine"
    assert Cell("chat", "static-4", 0).label == "static-4"


class Asked:
    """A law that is asked as a model is, by its ``predict``."""

    def __init__(self, law: Any) -> None:
        self.name, self.forecaster, self.predictor = law.name, law.forecaster, law.predictor
        self.env_options, self.predict = law.env_options, law.predict


@pytest.mark.parametrize("name", ["preserve", "hpa", "corr"])
def test_what_is_played_is_the_environment(windows: tuple[Setting, Workload], name: str) -> None:
    setting, workload = windows
    policy = make_policy(name, setting.cluster, workload.profile(setting.cluster))
    options = policy.env_options() | {"workload": workload}
    env: Any = gym.make("preserve/Autoscale-v0", **options)
    for result in play_windows(workload, setting.cluster, policy, 0):
        observation, info = env.reset(seed=0, options={"start_s": result.start_s})
        state, truncated, infos = None, False, []
        while not truncated:
            action, state = policy.predict(observation, state, episode_start=np.array([not infos]))
            observation, _, _, truncated, info = env.step(action)
            infos.append(info)
        pd.testing.assert_frame_equal(result.requests, env.unwrapped.results())
        for column in ("completed", "instance_s", "target"):
            assert result.intervals[column].tolist() == [info[column] for info in infos]
    asked = play_windows(workload, setting.cluster, Asked(policy), 0)
    for mine, its in zip(play_windows(workload, setting.cluster, policy, 0), asked, strict=True):
        assert mine.figures == its.figures
        assert mine.targets.tolist() == its.targets.tolist()
