"""The tables and formulas of the pages about environments and configuration are those of the code."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import preserve_gym
from preserve_gym import (
    AnticipatorConfig,
    ClusterConfig,
    InstanceConfig,
    RewardConfig,
    RouteRewardConfig,
    SloConfig,
    Workload,
    WorkloadConfig,
)
from preserve_gym.envs.autoscale import AutoscaleEnv, AutoscaleVectorEnv
from preserve_gym.envs.cluster import ClusterEnv
from preserve_gym.envs.route import RouteEnv
from preserve_gym.envs.scale_action import MAX_DELTA
from preserve_gym.forecasting import FORECASTERS
from preserve_gym.prediction.lengths import PREDICTORS
from preserve_gym.scenarios import scenario_names
from preserve_gym.sim import ROUTERS
from preserve_gym.sim.routers import LINEAR_FEATURES
from preserve_gym.traces import synthetic_trace
from tests.pages import (
    AUTOSCALE,
    CLUSTER,
    CONFIGURATION,
    ENVIRONMENTS,
    GPU,
    PRESERVE,
    ROUTE,
    table_of,
    tables_of,
)

SLOTS = 7
EACH = pytest.mark.parametrize(
    ("name", "page"), [("Autoscale", AUTOSCALE), ("Route", ROUTE), ("Cluster", CLUSTER)]
)


def make(name: str, **options: Any) -> Any:
    trace = synthetic_trace("chat", duration_s=1200.0, start_clock_s=36_000.0, seed=0)
    workload = Workload(WorkloadConfig(horizon_s=60.0), trace=trace)
    options = {"cluster": {"max_instances": SLOTS}, "workload": workload, **options}
    return gym.make(f"preserve/{name}-v0", **options).unwrapped


def flat_rows(name: str) -> list[list[str]]:
    """Number, name and bounds of each feature, as the page has them."""
    if name == "Autoscale":
        return table_of(AUTOSCALE, "Flat")
    if name == "Cluster":
        return [*flat_rows("Autoscale"), *table_of(CLUSTER, "Flat")]
    rows, slot = tables_of(ROUTE, "Flat")
    assert all(feature.endswith("_i") for _, feature, *_ in slot)
    for i in range(SLOTS):
        first = len(rows)
        assert first == 7 + 8 * i  # as the page says
        for number, feature, *rest in slot:
            rows.append([str(first + int(number)), f"{feature.removesuffix('i')}{i}", *rest])
    return rows


@EACH
def test_flat_features(name: str, page: Path) -> None:
    env = make(name)
    rows = flat_rows(name)
    assert [row[:2] for row in rows] == [[str(k), feature] for k, feature in enumerate(env.feature_names)]
    np.testing.assert_array_equal([float(row[2]) for row in rows], env.observation_space.low)
    np.testing.assert_array_equal([float(row[3]) for row in rows], env.observation_space.high)


@EACH
def test_dict_entries(name: str, page: Path) -> None:
    env = make(name, obs_mode="dict")
    observation, _ = env.reset(seed=0)
    rows = table_of(page, "Dict")
    if name == "Cluster":
        rows = [*table_of(AUTOSCALE, "Dict"), *rows]
    assert [row[0] for row in rows] == list(observation)
    sizes = {"I": SLOTS, "W": 3}
    for key, shape, high, *_ in rows:
        box = env.observation_space[key]
        size = shape.strip("(,)")
        assert box.shape == (sizes[size] if size in sizes else int(size),), key
        assert np.all(box.low == 0.0), key
        assert np.all(box.high == float(high)), key


@EACH
def test_summary(name: str, page: Path) -> None:
    env = make(name)
    rows = {row[0]: row[1] for row in table_of(page, f"preserve/{name}-v0")}
    assert f'gymnasium.make("preserve/{name}-v0")' in rows["Import"]
    assert rows["Class"] == f"{type(env).__module__}.{type(env).__qualname__}"
    action = rows["Action space"].replace("max_instances", str(SLOTS))
    assert str(env.action_space).replace("1.0", "1") in action
    features = re.findall(r"`Box` of ([\w +]+) float32", rows["Observation space"])[0]
    counted = eval(features.replace(" x ", " * ").replace("max_instances", str(SLOTS)))
    assert env.observation_space.shape == (counted,)
    assert (page.parent.parent / "images" / f"{name.lower()}.png").is_file()


@EACH
def test_options_of_reset(name: str, page: Path) -> None:
    env = make(name)
    options = table_of(page, "Start and end of an episode")
    with pytest.raises(preserve_gym.InputError) as error:
        env.reset(options={"": 0})
    shown = ", ".join(row[0] for row in options)
    assert str(error.value) == f"options: expected {shown} or none, got ''"


@EACH
def test_info(name: str, page: Path) -> None:
    env = make(name)
    _, first = env.reset(seed=0)
    *_, info = env.step(env.action_space.sample())
    rows = table_of(page, "Info")
    for keys in (first, info):
        assert [(key, type(value).__name__) for key, value in keys.items()] == [(r[0], r[1]) for r in rows]
    for key, _, meaning in rows:
        if "0 after `reset`" in meaning:
            assert first[key] == 0


@EACH
def test_ids(name: str, page: Path) -> None:
    ids = {row[0] for row in table_of(ENVIRONMENTS, "The ids")}
    assert any(f"`preserve/{name}-v0`" in shown for shown in ids)
    section = ENVIRONMENTS.read_text(encoding="utf-8").split("## The ids")[1].split("\n## ")[0]
    listed = section.split("such as ")[1].split("Such an id")[0]
    named = re.findall(r"`([\w-]+)`", listed.split(":\n")[1])
    assert named == list(scenario_names())
    for scenario in named:
        assert gym.spec(f"preserve/{name}-{scenario}-v0").kwargs == {"scenario": scenario}


@pytest.mark.parametrize(
    ("page", "documented"),
    [
        (AUTOSCALE, AutoscaleEnv),
        (ROUTE, RouteEnv),
        (CLUSTER, ClusterEnv),
        (CONFIGURATION, ClusterConfig),
        (CONFIGURATION, SloConfig),
        (CONFIGURATION, WorkloadConfig),
        (CONFIGURATION, RewardConfig),
        (CONFIGURATION, RouteRewardConfig),
        (GPU, InstanceConfig),
        (PRESERVE, AnticipatorConfig),
    ],
)
def test_arguments_and_defaults(page: Path, documented: type) -> None:
    rows = {row[0]: row[1] for row in table_of(page, f"`{documented.__name__}`")}
    parameters = inspect.signature(documented).parameters
    assert list(rows) == list(parameters)
    if dataclasses.is_dataclass(documented):
        factories = {
            f.name: f.default_factory()
            for f in dataclasses.fields(documented)
            if f.default_factory is not dataclasses.MISSING
        }
    else:
        factories = {}
    for name, parameter in parameters.items():
        if rows[name] == "required":
            assert parameter.default is inspect.Parameter.empty, name
        elif name in factories:
            assert eval(rows[name], vars(preserve_gym)) == factories[name], name
        else:
            shown = ast.literal_eval(rows[name])
            assert (shown, type(shown)) == (parameter.default, type(parameter.default)), name


def test_arguments_of_vector_environments() -> None:
    parameters = inspect.signature(AutoscaleVectorEnv).parameters
    rows = {row[0]: row[1] for row in table_of(ENVIRONMENTS, "Vector environments")}
    assert list(rows) == [name for name in parameters if name != "options"]
    for name, shown in rows.items():
        assert eval(shown, {"AutoresetMode": gym.vector.AutoresetMode}) == parameters[name].default, name


def test_names_that_arguments_take() -> None:
    rows = {
        row[0]: row[-1]
        for page, heading in ((AUTOSCALE, "`AutoscaleEnv`"), (CONFIGURATION, "`WorkloadConfig`"))
        for row in table_of(page, heading)
    }
    assert re.findall(r"`([\w-]+)`", rows["router"]) == list(ROUTERS)
    assert sorted(re.findall(r"`([\w-]+)`", rows["forecaster"])) == sorted(FORECASTERS)
    assert sorted(re.findall(r"`([\w-]+)`", rows["predictor"])) == sorted(PREDICTORS)


def test_actions_of_autoscale() -> None:
    env = make("Autoscale", initial_instances=4)
    for action, (shown, change) in enumerate(table_of(AUTOSCALE, "Action space")):
        assert int(shown) == action
        env.reset(seed=0)
        assert env.step(action)[-1]["target"] == 4 + int(change)
    assert env.action_space.n == action + 1


def test_actions_of_cluster() -> None:
    change, *weights = table_of(CLUSTER, "Action space")
    env = make("Cluster", initial_instances=4, obs_mode="dict")
    for action, expected in zip((-1.0, 1.0), re.findall(r"[+-]\d", change[2]), strict=True):
        env.reset(seed=0)
        assert env.step(np.full(8, action))[-1]["target"] == 4 + int(expected)
        assert abs(int(expected)) == MAX_DELTA
    assert len(weights) == len(LINEAR_FEATURES)
    for k, ((number, what, between), feature) in enumerate(zip(weights, LINEAR_FEATURES, strict=True)):
        assert (number, between) == (str(k + 1), "0 to 1")
        assert what.startswith(f"weight of {feature}")
        env.reset(seed=0)
        observation = env.step([0.0, *(1.0 if i == k else -1.0 for i in range(7))])[0]
        np.testing.assert_array_equal(observation["router_weights"], np.eye(7)[k])


def formulas_of(page: Path) -> dict[str, str]:
    section = page.read_text(encoding="utf-8").split("## Reward")[1].split("```")[1]
    return dict(re.findall(r"(\w+) += (.*)", section))


@pytest.mark.parametrize(("name", "page"), [("Autoscale", AUTOSCALE), ("Cluster", CLUSTER)])
def test_reward_of_an_interval(name: str, page: Path) -> None:
    env = make(name, initial_instances=1, cluster={"max_instances": 16, "slo": {"ttft_s": 0.2}})
    _, info = env.reset(seed=0)
    forecast_prompt, forecast_output, _ = env.workload.forecast_at(info["time_s"])
    _, reward, _, _, info = env.step(3 if name == "Autoscale" else np.zeros(8))
    # The formula of the page, by its own names.
    names = {
        **dataclasses.asdict(env.reward_config),
        "instance_s": info["instance_s"],
        "baseline_s": env.reward_config.baseline_headroom
        * env.profile.need(forecast_prompt[0] / 600.0, forecast_output[0] / 600.0)
        * 10.0,
        "max_instances": 16,
        "interval_s": 10.0,
        "violations": info["violations"],
        "n": len(env.workload.trace) / 1200.0 * 10.0,
        "min": min,
    }
    for part, formula in reversed(formulas_of(page).items()):
        names[part] = eval(formula, dict(names))
        assert names[part] == pytest.approx(reward if part == "reward" else info[part]), part
        assert names[part] != 0.0


def test_reward_of_a_request() -> None:
    env = make("Route", fleet=1, cluster={"max_instances": 2, "slo": {"ttft_s": 0.2}})
    env.reset(seed=0)
    names = {**dataclasses.asdict(env.reward_config), "unloaded_e2e_s": env.profile.unloaded_e2e_s}
    before = dict.fromkeys(env.episode_totals(), 0.0)
    charged = 0.0
    for _ in range(100):
        _, reward, _, _, info = env.step(0)
        totals = env.episode_totals()
        for part in ("in_flight_s", "violations"):
            names[part] = totals[part] - before[part]
        before = totals
        for part, formula in reversed(formulas_of(ROUTE).items()):
            names[part] = eval(formula, dict(names))
            assert names[part] == pytest.approx(reward if part == "reward" else info[part]), part
        charged += names["reward_slo"]
    assert charged < 0.0
