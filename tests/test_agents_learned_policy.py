"""A saved model as a policy: it plays, it is found by name, and another layout is refused."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import yaml

import preserve_gym  # noqa: F401  (registers the ids)
from agents.front import measure_front
from agents.learned_policy import Learned
from agents.network import Network, dense_arrays
from agents.saved_model import MODELS, SavedModel, load_model
from agents.scaling_control import MarginControl
from agents.training import TrainingConfig
from baselines import Corr, make_fitted_policy, make_policy
from experiments import tune
from experiments.run import main
from preserve_gym.config import ClusterConfig, WorkloadConfig
from preserve_gym.envs.scale_observation import ScaleObservation
from preserve_gym.errors import InputError
from preserve_gym.scenarios import load_scenario
from preserve_gym.workload import Workload

CLUSTER = ClusterConfig(max_instances=8)
SCENARIO = """
description: An hour of chat.
workload:
  trace: synthetic-chat
  rate_scale: 0.5
  warmup_s: 60
  horizon_s: 600
  split_gap_s: 60
  split_s: [1500, 2800]
cluster: {max_instances: 8}
"""


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Workload:
    path = tmp_path_factory.mktemp("scenario") / "hour.yaml"
    path.write_text(SCENARIO, encoding="utf-8")
    return load_scenario(path).make_workload("validation")


@pytest.fixture
def still(tmp_path: Path) -> Path:
    """A model that never changes its margin."""
    return save(tmp_path / "still", bias=(0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0), scale=0.0)


@pytest.fixture
def lively(tmp_path: Path) -> Path:
    """A model that does one thing here and another there."""
    return save(tmp_path / "lively", bias=(0.0,) * 7, scale=1.0)


def save(folder: Path, bias: tuple[float, ...], scale: float, scenario: str = "chat-week") -> Path:
    features = (*ScaleObservation("flat", CLUSTER, WorkloadConfig()).feature_names, *MarginControl.EXTRAS)
    rng = np.random.default_rng(0)
    hidden = rng.normal(0.0, 0.3, (16, len(features))), np.zeros(16)
    arrays = dense_arrays([hidden, (scale * rng.normal(0.0, 1.0, (7, 16)), np.array(bias))])
    card = {
        "algorithm": "ppo",
        "scenarios": [scenario],
        "layout": {"env_id": "preserve/Autoscale-v0", "control": "margin", "features": list(features)},
        "network": {"activation": "tanh", "head": "argmax", "actions": 7, "masked": False},
        "router": "preserve",
        "violation_weight": 3.0,
        "validation": {"target": 0.99, "gpu_hours": 10.0, "fronts": {}},
        "training": {"scenarios": [scenario]},
    }
    SavedModel(folder.name, card, Network(arrays, "tanh", "argmax", 7)).save(folder)
    return folder


def make(policy: Any, workload: Workload) -> Any:
    return gym.make(
        "preserve/Autoscale-v0", disable_env_checker=True, workload=workload, **policy.env_options()
    )


def play(policy: Any, workload: Workload, window: int = 0) -> tuple[list[int], dict[str, float]]:
    """Targets of an evaluation window, and its totals."""
    env = make(policy, workload)
    observation, info = env.reset(seed=0, options={"start_s": float(workload.evaluation_windows[window])})
    state, truncated, targets, starts = None, False, [], np.array([True])
    while not truncated:
        action, state = policy.predict(observation, state, episode_start=starts, deterministic=True)
        observation, _, _, truncated, info = env.step(action)
        targets.append(info["target"])
        starts = np.array([False])
    return targets, env.unwrapped.episode_totals()


def test_what_is_saved_is_loaded(lively: Path) -> None:
    model = load_model(lively)
    assert (model.name, model.card["violation_weight"]) == ("lively", 3.0)
    again = save(lively.parent / "again", bias=(0.0,) * 7, scale=1.0)
    for name, values in load_model(again).network.arrays.items():
        np.testing.assert_array_equal(values, model.network.arrays[name])


@pytest.mark.slow
def test_a_policy_plays_as_its_front_says(lively: Path, workload: Workload) -> None:
    policy = make_fitted_policy(str(lively), CLUSTER, workload)
    windows = range(len(workload.evaluation_windows))
    targets, totals = zip(*(play(policy, workload, window) for window in windows), strict=True)
    assert len(set(targets[0])) > 1
    seconds, violations, arrived = (
        sum(total[name] for total in totals) for name in ("instance_s", "violations", "arrived")
    )
    options = {"cluster": CLUSTER, **MarginControl.env_options("preserve")}
    (point,) = measure_front(load_model(lively).network, "margin", options, [workload], [3.0])
    assert point.gpu_hours == pytest.approx(seconds / 3600.0 / len(totals))
    assert point.attainment == pytest.approx(1.0 - violations / arrived)


def test_a_model_that_leaves_its_margin_alone_is_corr(still: Path, workload: Workload) -> None:
    policy = make_fitted_policy(str(still), CLUSTER, workload)
    ours, _ = play(policy, workload)
    corr = Corr(CLUSTER, workload.profile(CLUSTER), headroom=MarginControl.USUAL, router="preserve")
    theirs, _ = play(corr, workload)
    assert len(set(theirs)) > 1
    # They differ only where the next forecast is lower than the present one: CORR takes the higher.
    assert ours == theirs


@pytest.mark.slow
def test_a_command_plays_a_model_by_its_folder(
    lively: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_model(lively)
    points = [(1.0, 0.97, 8.0), (4.0, 0.995, 12.0)]
    names = ("violation_weight", "attainment", "gpu_hours")
    front = [dict(zip(names, point, strict=True)) for point in points]
    model.card["validation"]["fronts"] = {"hour": front}
    model.save(tmp_path / "training" / "model")
    path = tmp_path / "hour.yaml"
    path.write_text(SCENARIO, encoding="utf-8")
    monkeypatch.chdir(tmp_path)  # a relative name is kept as it is meant
    policies = ["training/model", "training/model@99.5", "corr"]
    assert main(["--scenario", "hour.yaml", "--policies", *policies, "--jobs", "1", "--out", "run"]) == 0
    records = {
        name: json.loads((tmp_path / "run" / "cells" / "hour" / name / "seed0.json").read_text())
        for name in ("training", "training@99.5", "corr")
    }
    assert all(record["error"] is None for record in records.values())
    weights = [records[name]["parameters"]["violation_weight"] for name in ("training", "training@99.5")]
    assert weights == [3.0, 4.0]
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    recorded = config["scenarios"]["hour"]["models"]
    assert list(recorded) == ["training", "training@99.5"]
    weights_file = (tmp_path / "training" / "model" / "weights.npz").read_bytes()
    assert recorded["training"]["sha256"] == hashlib.sha256(weights_file).hexdigest()
    options = yaml.safe_load((tmp_path / "run" / "options.yaml").read_text())
    assert options["policies"][0] == str(tmp_path / "training" / "model")
    capsys.readouterr()
    for name, message in (
        ("training/model@99.9", "no violation weight .* attains 99.9 %"),
        ("ppo", "no model in agents/models was trained on synthetic-chat as here"),
        ("pppo", "did you mean ppo"),
    ):
        status = main(["--scenario", "hour.yaml", "--policies", name, "--jobs", "1", "--out", "other"])
        assert status == (1 if "@" in name else 2)
        assert re.search(message, capsys.readouterr().err)


def test_many_environments_are_decided_as_one_by_one(lively: Path, workload: Workload) -> None:
    policy = make_fitted_policy(str(lively), CLUSTER, workload)
    rng = np.random.default_rng(1)
    env = make(policy, workload)
    space = env.observation_space
    observations = rng.uniform(np.zeros_like(space.low), 0.5 * space.high, (20, 3, *space.shape))
    observations = observations.astype(np.float32)
    state, states = None, [None] * 3
    for step, observation in enumerate(observations):
        starts = np.array([False, step == 7, False])
        actions, state = policy.predict(observation, state, episode_start=starts)
        for i in range(3):
            action, states[i] = policy.predict(observation[i], states[i], episode_start=starts[i : i + 1])
            np.testing.assert_array_equal(action, actions[i])
    assert actions.shape == (3, 1)


def test_a_new_episode_begins_with_the_usual_margin(lively: Path, workload: Workload) -> None:
    policy = make_fitted_policy(str(lively), CLUSTER, workload)
    env = make(policy, workload)
    first, _ = env.reset(seed=0)
    action, state = policy.predict(first)
    begun = state.memory.log_margin.copy()
    for _ in range(5):
        _, state = policy.predict(first, state)
    assert (state.memory.log_margin != begun).all()
    again, state = policy.predict(first, state, episode_start=np.array([True]))
    np.testing.assert_array_equal(action, again)
    np.testing.assert_array_equal(state.memory.log_margin, begun)


def test_the_dial_and_the_router_are_options(lively: Path, workload: Workload) -> None:
    policy = make_fitted_policy(str(lively), CLUSTER, workload)
    options = policy.env_options()
    assert (options["obs_mode"], options["action_mode"]) == ("flat", "target")
    assert (options["reward"], options["router"]) == ({"violation_weight": 3.0}, "preserve")
    other = make_fitted_policy(str(lively), CLUSTER, workload, violation_weight=8.0, router="llumnix")
    assert other.env_options()["reward"] == {"violation_weight": 8.0}
    assert other.env_options()["router"] == "llumnix"
    observation, _ = make(other, workload).reset(seed=0)
    assert observation[-1] == pytest.approx(np.log10(8.0))


def test_another_layout_is_refused_with_both_named(lively: Path, workload: Workload) -> None:
    profile = workload.profile(CLUSTER)
    message = (
        r"model 'lively': it was trained for preserve/Autoscale-v0 with 46 features, without "
        r"forecast_load_window_3, but is given preserve/Autoscale-v0 with 47 features, among them "
        r"forecast_load_window_3$"
    )
    with pytest.raises(InputError, match=message):
        Learned(CLUSTER, profile, name="x", model=str(lively), forecast_windows=4)
    change_card(lively, lambda card: card["layout"].update(env_id="preserve/Autoscale-v1"))
    with pytest.raises(InputError, match=r"trained for preserve/Autoscale-v1 .* given preserve/Autoscale-v0"):
        make_policy(str(lively), CLUSTER, profile)


def test_another_order_of_features_is_refused(lively: Path, workload: Workload) -> None:
    def swap(card: dict[str, Any]) -> None:
        features = card["layout"]["features"]
        features[0], features[1] = features[1], features[0]

    change_card(lively, swap)
    with pytest.raises(InputError, match=r"number 0 starting, but is given .*, number 0 ready"):
        make_fitted_policy(str(lively), CLUSTER, workload)


def change_card(folder: Path, change: Any) -> None:
    path = folder / "card.yaml"
    card = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(card)
    path.write_text(yaml.safe_dump(card), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.pop("layout"), r"card.yaml: layout: expected a card with it"),
        (lambda card: card["network"].pop("head"), r"card.yaml: network: expected activation, head"),
        (lambda card: card["network"].update(head="best"), r"head: expected one of argmax"),
        (lambda card: card["network"].update(actions=9), r"expected 9 actions, got 7 outputs"),
        (lambda card: card["layout"]["features"].pop(), r"expected the 45 features of its card, got 46"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(change: Any, message: str, lively: Path) -> None:
    change_card(lively, change)
    with pytest.raises(InputError, match=message):
        load_model(lively)


def test_an_observation_in_physical_units_is_refused(lively: Path, workload: Workload) -> None:
    policy = make_fitted_policy(str(lively), CLUSTER, workload)
    observation, _ = gym.make("preserve/Autoscale-v0", workload=workload, obs_mode="dict").reset(seed=0)
    assert isinstance(observation, Mapping)
    with pytest.raises(InputError, match="expected 41 features of obs_mode='flat', got dict"):
        policy.predict(observation)


@pytest.mark.parametrize("name", ["", "x" * 5000, "a\0b", "nowhere/at-all"])
def test_what_names_no_model_is_refused(name: str, workload: Workload) -> None:
    with pytest.raises(InputError, match="policy: expected one of"):
        make_fitted_policy(name, CLUSTER, workload)


def test_a_model_is_found_by_the_traffic_it_was_trained_on(
    workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.learned_policy.MODELS", tmp_path / "models")
    with pytest.raises(InputError, match=r"no model in agents/models.* python -m agents\.train --algo ppo"):
        make_fitted_policy("ppo", CLUSTER, workload)
    scenario = tmp_path / "hour.yaml"
    scenario.write_text(SCENARIO, encoding="utf-8")
    save(tmp_path / "models" / "ppo-other", (0.0,) * 7, 1.0)
    with pytest.raises(InputError, match=r"no model in agents/models"):
        make_fitted_policy("ppo", CLUSTER, workload)
    save(tmp_path / "models" / "ppo-hour", (0.0,) * 7, 1.0, str(scenario))
    policy = make_fitted_policy("ppo", CLUSTER, workload)
    assert (policy.name, getattr(policy, "model", None)) == ("ppo", "ppo-hour")
    # Of several the cheapest at 99 %, whatever their targets; one whose scenario is gone is none.
    save(tmp_path / "models" / "ppo-gone", (0.0,) * 7, 1.0, str(tmp_path / "gone.yaml"))
    for name, hours in (("ppo-better", (80.0, 90.0)), ("ppo-lax", (70.0, 95.0))):
        path = save(tmp_path / "models" / name, (0.0,) * 7, 1.0, str(scenario)) / "card.yaml"
        card = yaml.safe_load(path.read_text(encoding="utf-8"))
        card["validation"]["fronts"] = {
            "hour": [
                {"violation_weight": weight, "attainment": attainment, "gpu_hours": value}
                for weight, attainment, value in zip((1.0, 2.0), (0.95, 0.99), hours, strict=True)
            ]
        }
        path.write_text(yaml.safe_dump(card), encoding="utf-8")
    assert getattr(make_fitted_policy("ppo", CLUSTER, workload), "model", None) == "ppo-better"
    with pytest.raises(InputError, match=r"'dqn': no model"):
        make_fitted_policy("dqn", CLUSTER, workload)


@pytest.mark.slow
def test_its_dial_is_tuned_as_the_margins_of_heuristics_are(
    tmp_path: Path, workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.learned_policy.MODELS", tmp_path / "models")
    scenario = tmp_path / "hour.yaml"
    scenario.write_text(SCENARIO, encoding="utf-8")
    save(tmp_path / "models" / "ppo-hour", (0.0,) * 7, 1.0, str(scenario))
    command = ["--scenario", str(scenario), "--policies", "ppo", "rate", "ppo-hour"]
    assert tune.main([*command, "--out", str(tmp_path / "out"), "--tables", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "hour.csv")
    assert table["policy"].value_counts().to_dict() == {"rate": 16, "ppo": 16, "ppo-hour": 16}
    assert table["policy"].iloc[0] == "rate"  # the registry's come first
    ppo, hour = (table[table["policy"] == name].drop(columns="policy") for name in ("ppo", "ppo-hour"))
    assert ppo.to_numpy().tolist() == hour.to_numpy().tolist()
    assert ppo["gpu_hours"].nunique() > 1
    # And it plays with what was chosen.
    monkeypatch.setattr("baselines.tuned.FOLDER", tmp_path)
    monkeypatch.setattr("baselines.scenario_of", lambda *_: load_scenario(scenario))
    policy: Any = make_fitted_policy("ppo-tuned", CLUSTER, workload)
    chosen = ppo.loc[ppo["chosen"], "parameters"].item()
    assert (policy.name, policy.model) == ("ppo-tuned", "ppo-hour")
    assert f"violation_weight={policy.violation_weight:.6g}" == chosen


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in MODELS.glob("*/card.yaml")), ids=lambda f: f.name
)
def test_every_model_of_the_repository_loads_and_says_what_it_is(folder: Path) -> None:
    model = load_model(folder)
    validation = model.card["validation"]
    for name in model.card["scenarios"]:
        scenario = load_scenario(name)
        layout = ScaleObservation("flat", scenario.cluster, scenario.workload)
        assert set(layout.feature_names) <= set(model.layout["features"])
        assert len(validation["fronts"][name]) >= 6
    assert validation["gpu_hours"] is not None
    assert model.card["violation_weight"] > 0
    # What --reproduce starts from.
    config = TrainingConfig.from_mapping(model.card["training"], folder.name)
    assert (config.algorithm, list(config.scenarios)) == (model.card["algorithm"], model.card["scenarios"])
