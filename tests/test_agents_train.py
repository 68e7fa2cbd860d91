"""Training: what is saved, that it goes on, and that a saved model decides as its learner does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml

pytest.importorskip("sb3_contrib")

from sb3_contrib.common.maskable.utils import is_masking_supported

import experiments.run as experiments_run
from agents import train
from agents.algorithms import ALGORITHMS, make_learner, network_of, restore_learner, save_learner
from agents.controlled_vec_env import ControlledVecEnv
from agents.front import FrontPoint, gpu_hours_at, weight_at
from agents.hyperparameters import FOLDER, Hyperparameters, load_hyperparameters
from agents.joined_vec_env import JoinedVecEnv
from agents.saved_model import load_model
from agents.sb3_vec_env import SB3VecEnv
from agents.scaling_control import CONTROLS, make_control, site_of
from agents.train import main
from baselines import make_fitted_policy
from preserve_gym import InputError, Workload, WorkloadConfig
from preserve_gym.scenarios import load_scenario
from tests.pages import DOCS, table_of

ENV_ID = "preserve/Autoscale-v0"
SCENARIO = """
description: An hour of chat on a few instances.
workload:
  trace: synthetic-chat
  rate_scale: 0.3
  warmup_s: 60
  horizon_s: 600
  evaluation_horizon_s: 300
  split_gap_s: 60
cluster: {max_instances: 4}
"""
QUICK: dict[str, dict[str, Any]] = {
    "ppo": {"n_steps": 32, "batch_size": 128, "n_epochs": 2},
    "maskable-ppo": {"n_steps": 32, "batch_size": 128, "n_epochs": 2},
    "recurrent-ppo": {"n_steps": 32, "batch_size": 128, "n_epochs": 1},
    "dqn": {"learning_starts": 200, "buffer_size": 2000, "gradient_steps": 1},
    "qr-dqn": {"learning_starts": 200, "buffer_size": 2000, "gradient_steps": 1},
    "sac": {"learning_starts": 200, "buffer_size": 2000},
}

pytestmark = pytest.mark.usefixtures("one_thread_of_torch")


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small one; trainings on it are small, too."""
    folder = tmp_path / "hyperparameters"
    folder.mkdir()
    for name, settings in QUICK.items():
        values = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
        values[ENV_ID] |= {
            "environments": 8,
            "workload_seeds": [0, 1],
            "settings": values[ENV_ID]["settings"] | settings,
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    monkeypatch.setattr("agents.hyperparameters.FOLDER", folder)
    path = tmp_path / "small.yaml"
    path.write_text(SCENARIO, encoding="utf-8")
    return str(path)


def run(scenario: str, out: Path, *more: str) -> int:
    options = ["--scenario", scenario, "--steps", "1024", "--evaluations", "2", "--validation-seeds", "0"]
    return main([*options, "--out", str(out), *more])


def parameters_of(folder: Path) -> dict[str, Any]:
    import torch

    return torch.load(folder / "checkpoint.pt", weights_only=True)["parameters"]["policy"]


def test_a_training_saves_everything(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run(scenario, out, "--violation-weights", "2", "18") == 0
    assert {path.name for path in out.iterdir()} == {
        "checkpoint.pt", "config.yaml", "evaluations.csv", "logs", "model",
    }  # fmt: skip
    model = load_model(out / "model")
    card = model.card
    assert (card["algorithm"], card["scenarios"], card["training"]["seed"]) == ("ppo", ["small"], 0)
    assert card["layout"]["features"][-1] == "hour_cos"
    weights = [point["violation_weight"] for point in card["validation"]["fronts"]["small"]]
    assert (len(weights), weights[0], weights[-1]) == (9, 2.0, 18.0)
    assert np.diff(np.log(weights)) == pytest.approx(np.log(9.0) / 8.0, rel=1e-3)
    assert card["steps"] in (512, 1024)
    assert card["wall_s"] > 0
    assert "chosen for 99.00%" in capsys.readouterr().out
    assert len((out / "evaluations.csv").read_text(encoding="utf-8").splitlines()) == 1 + 2 * 4


@pytest.mark.slow
def test_trainings_and_what_goes_on_meet_other_episodes(
    scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[dict[int, tuple[float, ...]]] = []
    reset = JoinedVecEnv.reset

    def watch(envs: JoinedVecEnv) -> Any:
        observations = reset(envs)
        begun[-1] |= {i: tuple(row.tolist()) for i, row in enumerate(observations)}
        return observations

    monkeypatch.setattr(JoinedVecEnv, "reset", watch)
    for options in (["--seed", "0"], ["--seed", "1"], ["--seed", "0"]):
        begun.append({})
        assert run(scenario, tmp_path / f"run{len(begun)}", "--evaluations", "1", *options) == 0
    begun.append({})
    config = tmp_path / "run1" / "config.yaml"
    config.write_text(
        config.read_text(encoding="utf-8").replace("steps: 1024", "steps: 1600"), encoding="utf-8"
    )
    assert main(["--resume", str(tmp_path / "run1")]) == 0
    one, other, again, resumed = (set(found.values()) for found in begun)
    assert len(one) == 8
    assert one == again
    assert one.isdisjoint(other)
    assert one.isdisjoint(resumed)


def test_of_models_that_miss_the_target_the_latest_is_kept(
    scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missed = [FrontPoint(1.0, 0.5, 1.0)]
    monkeypatch.setattr("agents.training.measure_front", lambda *_: missed)
    assert run(scenario, tmp_path / "run") == 0
    assert load_model(tmp_path / "run" / "model").card["steps"] == 1024


@pytest.mark.slow
def test_one_model_learns_several_scenarios_and_variants(
    scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "large.yaml"
    other.write_text(SCENARIO.replace("max_instances: 4", "max_instances: 9, min_instances: 2"))
    made: list[Any] = []
    make_vec = gym.make_vec
    monkeypatch.setattr(
        gym, "make_vec", lambda *given, **options: made.append(options) or make_vec(*given, **options)
    )
    variants = [
        "--cold-start-scales",
        "0.5",
        "2",
        "--rate-scales",
        "1",
        "2",
        "--forecasters",
        "naive",
        "oracle",
    ]
    options = ["--scenario", scenario, str(other), "--steps", "1024", "--validation-seeds", "0", *variants]
    out = tmp_path / "out"
    single = yaml.safe_load((tmp_path / "hyperparameters" / "ppo.yaml").read_text(encoding="utf-8"))
    # Fewer than there are variants: each has one.
    single[ENV_ID] |= {"environments": 4, "workload_seeds": [0]}
    (tmp_path / "hyperparameters" / "ppo.yaml").write_text(yaml.safe_dump(single), encoding="utf-8")
    assert main([*options, "--out", str(out), "--evaluations", "1"]) == 0
    training = [options for options in made if "num_envs" in options and "reward" in options]
    found = [
        (
            options["cluster"].max_instances,
            options["workload"].config.rate_scale,
            options["cluster"].mean_cold_start_s,
            options["workload"].config.forecaster,
            options["workload"].config.split,
            options["num_envs"],
        )
        for options in training
    ]
    assert found == [
        (4, 0.3, 23.5, "naive", "train", 1),
        (4, 0.3, 94.0, "oracle", "train", 1),
        (4, 0.6, 23.5, "oracle", "train", 1),
        (4, 0.6, 94.0, "naive", "train", 1),
        (9, 0.3, 23.5, "naive", "train", 1),
        (9, 0.3, 94.0, "oracle", "train", 1),
        (9, 0.6, 23.5, "oracle", "train", 1),
        (9, 0.6, 94.0, "naive", "train", 1),
    ]
    card = load_model(out / "model").card
    assert card["scenarios"] == ["small", "large"]
    fronts = card["validation"]["fronts"]
    assert {name: len(front) for name, front in fronts.items()} == {"small": 9, "large": 9}
    # The larger one keeps two instances at least; and none is left out of what is chosen by.
    assert min(point["gpu_hours"] for point in fronts["large"]) >= 2 * 300 / 3600
    points = {name: [FrontPoint(**point) for point in front] for name, front in fronts.items()}
    hours = [gpu_hours_at(front, 0.99) for front in points.values()]
    assert card["validation"]["gpu_hours"] == pytest.approx(np.prod(hours) ** 0.5, abs=2e-3)
    for path in (scenario, str(other)):
        made_of = load_scenario(path)
        policy = make_fitted_policy(str(out / "model"), made_of.cluster, made_of.make_workload("validation"))
        assert policy.name == "out"


@pytest.mark.slow
def test_the_same_seed_gives_the_same_model_and_another_another(scenario: str, tmp_path: Path) -> None:
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert run(scenario, tmp_path / name, "--seed", seed) == 0
    one, same, other = (parameters_of(tmp_path / name) for name in "abc")
    for name, values in one.items():
        np.testing.assert_array_equal(values.numpy(), same[name].numpy())
    assert any((values.numpy() != other[name].numpy()).any() for name, values in one.items())


@pytest.mark.slow
def test_ctrl_c_saves_and_resume_goes_on(
    scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, steps = tmp_path / "run", [0]
    original = ControlledVecEnv.step_wait

    def step_wait(self: ControlledVecEnv) -> Any:
        steps[0] += 1
        if steps[0] == 80:  # of 128
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(ControlledVecEnv, "step_wait", step_wait)
    assert run(scenario, out) == 130
    assert "--resume goes on" in capsys.readouterr().err
    assert load_model(out / "model").card["algorithm"] == "ppo"
    before = parameters_of(out)
    assert main(["--resume", str(out)]) == 0
    after = parameters_of(out)
    assert any((values.numpy() != after[name].numpy()).any() for name, values in before.items())
    # 79 vector steps before, and the rest of 1024 after, in whole rollouts of 256.
    lines = (out / "evaluations.csv").read_text(encoding="utf-8").splitlines()
    assert lines[-1].startswith(f"small,{79 * 8 + 2 * 256},")


def test_a_checkpoint_restores_weights_optimiser_counts_and_random_numbers(tmp_path: Path) -> None:
    import torch

    algorithm = ALGORITHMS["ppo"]
    parameters = quick("ppo")
    envs = small_envs("margin")
    one, other = (make_learner(algorithm, parameters, envs, seed) for seed in (0, 1))
    one.learn(8 * 32)
    save_learner(one, tmp_path / "checkpoint.pt", wall_s=3.0)
    drawn = torch.rand(3), np.random.random(3)  # noqa: NPY002
    assert restore_learner(other, tmp_path / "checkpoint.pt") == {"wall_s": 3.0}
    assert torch.equal(torch.rand(3), drawn[0])
    np.testing.assert_array_equal(np.random.random(3), drawn[1])  # noqa: NPY002
    assert (other.num_timesteps, other._n_updates) == (one.num_timesteps, one._n_updates)
    for ours, theirs in zip(one.policy.parameters(), other.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    states = [model.policy.optimizer.state_dict()["state"] for model in (one, other)]
    assert torch.equal(states[0][0]["exp_avg"], states[1][0]["exp_avg"])


def quick(name: str) -> Hyperparameters:
    parameters = load_hyperparameters(name, ENV_ID)
    return replace(parameters, settings=parameters.settings | QUICK[name])


def small_envs(control: str) -> ControlledVecEnv:
    workload = Workload(WorkloadConfig(horizon_s=300.0, warmup_s=60.0, rate_scale=0.3))
    vector: Any = gym.make_vec(
        CONTROLS[control].env_id,
        num_envs=8,
        autoreset_mode="SAME_STEP",
        workload=workload,
        cluster={"max_instances": 4},
        **CONTROLS[control].env_options("least-requests"),
    )
    envs = ControlledVecEnv(SB3VecEnv(vector), make_control(control, site_of(vector)), seed=0)
    envs.seed(0)
    return envs


def test_joint_control_moves_the_target_and_weighs_the_router() -> None:
    envs = small_envs("joint")
    control = envs.control
    assert control.feature_names[41:48] == tuple(
        f"router_weight_{name}"
        for name in (
            *("queued_prefill_tokens", "KV_use", "expected_tokens"),
            *("requests_in_flight", "requests_waiting", "anticipated_tokens", "unlike_prompts"),
        )
    )
    memory = control.begin(2)
    seen = np.zeros((2, len(control.site.feature_names)), np.float32)
    need, target = (control.site.feature_names.index(name) for name in ("corrected_need", "target"))
    seen[:, need], seen[:, target] = (0.9, 0.4), (0.25, 0.75)  # of 4 instances
    control.observe(seen, memory)
    actions = np.zeros((2, 8))
    actions[0, 1:] = (1.0, -1.0, 0.0, 0.1, -0.95, 2.0, -0.75)
    actions[1, 0] = -1.0  # two steps of 5 % down: from 1.2
    given = control.act(actions, memory)
    # 1.2 x 3.6 is more than 4; from 1 to 4 it takes two decisions. ceil(1.2 x e^-0.1 x 1.6) = 2, from 3.
    assert given[:, 0].tolist() == [1.0, -0.5]
    assert given[0, 1:].tolist() == [1.0, -1.0, 0.0, 0.0, -1.0, 1.0, -0.75]
    envs.close()


@pytest.mark.parametrize(
    ("control", "needed"),
    [
        # 3.2 of 4 instances by rates, of two ready ones.
        ("margin", 3.2),
        ("queue-margin", 3.6),  # two ready ones with 1.8 times the profiled requests in flight
        ("kv-margin", (3.2 * 2 * 0.35 / 0.7) ** 0.5),  # what two hold at 35 % one holds at 70 %
    ],
)
def test_the_needs_of_the_margins(control: str, needed: float) -> None:
    envs = small_envs(control)
    site = envs.control.site
    seen = np.zeros((1, len(site.feature_names)), np.float32)
    for name, value in {
        "corrected_need": 0.8, "ready": 0.5, "running": 1.0, "waiting": 0.8, "kv_use_mean": 0.35,
    }.items():  # fmt: skip
        seen[0, site.feature_names.index(name)] = value
    memory = envs.control.begin(1)
    envs.control.observe(seen, memory)
    assert memory.needs[0, -1] == pytest.approx(needed / 4.0)
    seen[:] = 0.0  # nothing has come, nobody is ready
    envs.control.observe(seen, memory)
    assert memory.needs[0, -1] == 0.0
    envs.close()


@pytest.mark.slow
def test_a_joint_model_plays_and_is_replayed(
    scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = yaml.safe_load((FOLDER / "ppo.yaml").read_text(encoding="utf-8"))
    cluster_id = "preserve/Cluster-v0"
    values[cluster_id] |= {"environments": 8, "settings": values[cluster_id]["settings"] | QUICK["ppo"]}
    (tmp_path / "hyperparameters" / "ppo.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    out = tmp_path / "joint"
    assert run(scenario, out, "--env", cluster_id, "--evaluations", "1") == 0
    model = str(out / "model")
    with np.load(out / "model" / "weights.npz") as file:
        arrays = dict(file)
    arrays["weight_2"] *= 20.0  # so short a training changes little
    np.savez(out / "model" / "weights.npz", **arrays)
    monkeypatch.chdir(tmp_path)
    options = ["--scenario", scenario, "--policies", model, "corr", "--jobs", "1"]
    assert experiments_run.main([*options, "--out", "run"]) == 0
    path = tmp_path / "run" / "cells" / "small" / "joint" / "seed0.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["error"] is None
    assert record["router"] == "linear"
    rows = record["windows"][0]["router_weights"]
    assert all(len(row) == 8 and all(8 * weight == round(8 * weight) for weight in row[1:]) for row in rows)
    assert len({tuple(row[1:]) for row in rows}) > 1
    capsys.readouterr()
    assert experiments_run.main(["--replay", "run"]) == 0
    assert "2 of 2 cells replayed with equal figures" in capsys.readouterr().out
    # The weights matter: with others the figures are others.
    for window in record["windows"]:
        window["router_weights"] = [[0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]]
    path.write_text(json.dumps(record), encoding="utf-8")
    assert experiments_run.main(["--replay", "run"]) == 1
    assert "small, joint, seed 0" in capsys.readouterr().err
    # It is its own router.
    assert experiments_run.main([*options, "--router", "llumnix", "--out", "other"]) == 1
    assert "expected None, as the model routes itself, got 'llumnix'" in capsys.readouterr().err


def test_where_steps_may_be_fractions_the_mean_of_ppo_is_taken() -> None:
    import torch

    envs = small_envs("margin")
    model = make_learner(ALGORITHMS["ppo"], quick("ppo"), envs, 0)
    perturb(model)
    seen = envs.reset()
    actions, _ = network_of(ALGORITHMS["ppo"], model, envs.control.gradual).act(seen)
    with torch.no_grad():
        shares = model.policy.get_distribution(torch.as_tensor(seen)).distribution.probs.numpy()
    np.testing.assert_allclose(actions, shares, atol=1e-5)
    memory = envs.control.begin(len(seen))
    before = memory.log_margin.copy()
    envs.control.act(actions, memory)
    steps = shares @ [-8.0, -2.0, -1.0, 0.0, 1.0, 2.0, 8.0]
    np.testing.assert_allclose(memory.log_margin - before, 0.05 * steps, atol=1e-5)
    assert (np.abs(steps - np.rint(steps)) > 0.01).any()


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_the_saved_network_decides_as_its_learner(name: str) -> None:
    algorithm = ALGORITHMS[name]
    envs = small_envs("smooth-margin" if name == "sac" else "delta")
    model = make_learner(algorithm, quick(name), envs, 0)
    perturb(model)
    network = network_of(algorithm, model, envs.control.gradual)
    seen, theirs, ours, starts = envs.reset(), None, None, np.ones(8, np.bool_)
    chosen = set()
    for _ in range(40):
        masks = np.stack(envs.env_method("action_masks")) if algorithm.masked else None
        more = {"action_masks": masks} if algorithm.masked else {}
        if algorithm.learner == "RecurrentPPO":
            more = {"episode_start": starts}
        expected, theirs = model.predict(seen, state=theirs, deterministic=True, **more)
        ours = network.restart(ours, starts.nonzero()[0])
        actions, ours = network.act(seen, ours, masks)
        np.testing.assert_allclose(actions, expected, atol=1e-5)
        chosen |= set(np.ravel(actions).tolist())
        seen, _, starts, _ = envs.step(expected)
    assert len(chosen) > 1


def perturb(model: Any) -> None:
    """So that all actions come about."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for values in model.policy.parameters():
            values += 0.5 * torch.randn(values.shape, generator=generator)


@pytest.mark.parametrize(("control", "actions"), [("delta", 5), ("margin", 7)])
def test_the_masks_of_a_control_are_the_moves_that_change_something(control: str, actions: int) -> None:
    envs = small_envs(control)
    assert is_masking_supported(envs)
    assert not is_masking_supported(small_envs("target"))
    envs.reset()
    for _ in range(15):  # to the lowest
        envs.step(np.zeros(8, np.int64))
    for _ in range(2):
        masks = np.stack(envs.env_method("action_masks"))
        assert masks.shape == (8, actions)
        assert masks[:, actions // 2].all()
        envs.step(np.zeros(8, np.int64))
    assert not np.stack(envs.env_method("action_masks"))[0, : actions // 2].any()


def test_the_weight_is_chosen_between_the_points_of_a_front() -> None:
    front = [FrontPoint(1.0, 0.96, 100.0), FrontPoint(4.0, 0.98, 110.0), FrontPoint(16.0, 0.995, 130.0)]
    # Half of the way from 2 % missed to 0.5 % along the logarithm is 1 %.
    assert gpu_hours_at(front, 0.99) == pytest.approx(120.0)
    assert weight_at(front, 0.99) == pytest.approx(8.0)
    assert gpu_hours_at(front, 0.999) == float("inf")
    assert weight_at(front, 0.999) == 16.0
    assert (gpu_hours_at(front, 0.9), weight_at(front, 0.9)) == (100.0, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--algo", "pp"], "ppo"),
        (["--env", "preserve/Autoscale-v9"], "--env: expected one of preserve/Autoscale-v0"),
        (["--scenario", "chat-weak"], "did you mean chat-week?"),
        (["--steps", "0"], "--steps: expected an integer >= 1, got 0"),
        (["--env", "preserve/Cluster-v0", "--control", "margin"], "it acts in preserve/Autoscale-v0, not in"),
        (["--rate-scales", "0"], "--rate-scales: expected numbers in [0.01, 100], at least one, got (0.0,)"),
        (["--forecasters", "naiv"], "did you mean naive?"),
        (["--violation-weights", "3", "3"], "--violation-weights: expected two numbers in [0.01, 10,000],"),
        (["--target", "1.5"], "--target: expected a share in (0, 1), got 1.5"),
        (["--control", "margn"], "control: expected one of delta, joint, kv-margin, margin"),
        (["--algo", "sac", "--control", "margin"], "SAC expects actions that are numbers"),
        (["--algo", "dqn", "--control", "target"], "DQN expects actions that are discrete ones"),
        (
            ["--resume", "nowhere"],
            "--resume: expected the folder of a training, with config.yaml and checkpoint.pt: nowhere",
        ),
        (["--reproduce", "nothing"], "--reproduce: expected a model of agents/models"),
    ],
)
def test_bad_options_are_refused_on_one_line(
    options: list[str], message: str, scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [] if "--scenario" in options else ["--scenario", scenario]
    assert main([*given, "--out", str(tmp_path / "run"), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "run").exists()


def test_a_folder_in_use_is_not_overwritten(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine", encoding="utf-8")
    assert run(scenario, tmp_path / "run") == 2
    assert "--out" in capsys.readouterr().err


def test_a_model_is_kept_and_reproduced(
    scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "MODELS", tmp_path / "models")
    assert run(scenario, tmp_path / "run", "--save-as", "mine") == 0
    with pytest.raises(AssertionError):
        assert run(scenario, tmp_path / "other", "--save-as", "mine") == 0
    assert main(["--reproduce", "mine", "--out", str(tmp_path / "again")]) == 0
    one, again = (
        load_model(folder).network for folder in (tmp_path / "models/mine", tmp_path / "again/model")
    )
    for name, values in one.arrays.items():
        np.testing.assert_array_equal(values, again.arrays[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_every_algorithm_trains_and_resumes(name: str, scenario: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(scenario, out, "--algo", name) == 0
    config = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))
    config["parameters"]["steps"] = 1600
    (out / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    before = parameters_of(out)
    assert main(["--resume", str(out)]) == 0
    after = parameters_of(out)
    assert any((values.numpy() != after[key].numpy()).any() for key, values in before.items())
    assert load_model(out / "model").card["algorithm"] == name


@pytest.mark.slow
def test_a_signal_saves(scenario: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "agents.train", "--scenario", scenario, "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    while not (out / "logs").is_dir() and process.poll() is None:
        time.sleep(0.2)
    time.sleep(2.0)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert (out / "checkpoint.pt").is_file()


def test_weights_that_are_no_arrays_are_refused_and_not_run(scenario: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(scenario, out) == 0
    np.savez(out / "model" / "weights.npz", weight_0=np.array([print], object))
    with pytest.raises(InputError, match=r"weights\.npz: expected arrays"):
        load_model(out / "model")


def test_the_page_names_the_controls_and_the_hyper_parameters() -> None:
    page = DOCS / "training-agents.md"
    assert {row[0] for row in table_of(page, "What is learned")} == set(CONTROLS)
    assert {row[0] for row in table_of(page, "Algorithms")} == {f.name for f in fields(Hyperparameters)}
    for name in ALGORITHMS:
        for env_id in yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")):
            assert CONTROLS[load_hyperparameters(name, env_id).control].env_id == env_id


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"hidden": 64}, "hidden: expected a list of numbers, got 64"),
        (
            {"violation_weights": [30, 0.3]},
            "violation_weights: expected two numbers in [0.01, 10,000], the lower",
        ),
        ({"episode_s": "1h"}, "episode_s: expected a number of seconds > 0, got '1h'"),
        ({"learning_rate_falls": "no"}, "learning_rate_falls: expected true or false, got 'no'"),
        ({"settings": [1]}, "settings: expected a mapping, got [1]"),
        ({"step": 3}, "step: no such field (did you mean steps?)"),
    ],
)
def test_hyper_parameters_that_mean_nothing_are_refused(changed: dict[str, Any], message: str) -> None:
    values = load_hyperparameters("ppo", ENV_ID).to_mapping() | changed
    with pytest.raises(InputError, match=re.escape(f"ppo.yaml: {message}")):
        Hyperparameters.from_mapping(values, "ppo.yaml")
