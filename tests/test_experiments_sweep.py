"""Several trainings with one command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("sb3_contrib")

from agents.saved_model import load_model
from agents.train import main as train_main
from experiments import sweep
from experiments.sweep import main
from tests.test_agents_train import scenario  # noqa: F401

pytestmark = pytest.mark.usefixtures("one_thread_of_torch")

SMALL = ["--steps", "512", "--validation-seeds", "0"]


@pytest.mark.slow
def test_each_seed_is_the_training_of_its_own_and_is_done_once(
    scenario: str,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "sweep"
    command = ["--scenario", scenario, "--seeds", "2", "--out", str(out), *SMALL]
    assert main(command) == 0
    assert "small: " in capsys.readouterr().out
    table = pd.read_csv(out / "sweep.csv")
    assert table["seed"].tolist() == [0, 1]
    for seed in (0, 1):
        card = load_model(out / f"ppo-small-seed{seed}" / "model").card
        assert card["training"]["seed"] == seed
        assert (out / f"ppo-small-seed{seed}" / "log.txt").read_text()
    alone = tmp_path / "alone"
    options = ["--scenario", scenario, "--seed", "1", "--out", str(alone), *SMALL]
    assert train_main(options) == 0
    one, other = (load_model(folder / "model") for folder in (alone, out / "ppo-small-seed1"))
    assert all((one.network.arrays[name] == value).all() for name, value in other.network.arrays.items())
    monkeypatch.setattr(sweep, "train", lambda task: pytest.fail("trained again"))
    assert main(command) == 0
    other_steps = [*command[:-4], "--steps", "1024", *command[-2:]]
    assert main(other_steps) == 2
    assert "holds a training with other settings" in capsys.readouterr().err
    # As one that was trained on another machine.
    (out / "ppo-small-seed0" / "checkpoint.pt").unlink()
    assert main(other_steps) == 2
    assert "holds a training with other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "0"], "--seeds: expected an integer in"),
        (["--backend", "rey"], "--backend: expected one of local, ray"),
        (["--scenario", "chatt"], "did you mean chat"),
        (["--algo", "pppo"], "pppo"),
        (["--violation-weights", "0", "3"], "--violation-weights: expected two numbers"),
        (["--target", "99"], "--target: expected a share"),
    ],
)
def test_bad_options_are_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*options, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_ray_trains_the_same(scenario: str, tmp_path: Path) -> None:  # noqa: F811
    pytest.importorskip("ray")
    found: list[dict[str, Any]] = []
    for name, more in (("local", []), ("ray", ["--backend", "ray", "--jobs", "2"])):
        out = tmp_path / name
        command = ["--scenario", scenario, "--seeds", "2", "--out", str(out), *SMALL, *more]
        assert main(command) == 0
        found.append(load_model(out / "ppo-small-seed1" / "model").network.arrays)
    local, ray = found
    assert all((ray[name] == value).all() for name, value in local.items())
