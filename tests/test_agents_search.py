"""``python -m agents.search``: trials, that a study goes on, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

pytest.importorskip("optuna")

from agents.hyperparameters import FOLDER, Hyperparameters, load_hyperparameters
from agents.search import SPACE, _of, main, with_drawn
from tests.test_agents_train import ENV_ID, QUICK, SCENARIO

pytestmark = pytest.mark.usefixtures("one_thread_of_torch")


def test_the_present_hyper_parameters_are_in_the_space_that_is_searched() -> None:
    for env_id in yaml.safe_load((FOLDER / "ppo.yaml").read_text(encoding="utf-8")):
        base = load_hyperparameters("ppo", env_id)
        drawn = _of(base)
        assert set(drawn) == set(SPACE)
        for name, (kind, *values) in SPACE.items():
            assert values[0] <= drawn[name] <= values[1] if kind == "float" else drawn[name] in values
        again = with_drawn(base, drawn)
        assert (again.hidden, again.control) == (base.hidden, base.control)
        for name, value in base.settings.items():
            if name != "ent_coef":  # 0 lies below the space
                assert again.settings[name] == value


@pytest.mark.slow
def test_a_study_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "hyperparameters"
    folder.mkdir()
    values = yaml.safe_load((FOLDER / "ppo.yaml").read_text(encoding="utf-8"))
    values[ENV_ID] |= {"environments": 8, "settings": values[ENV_ID]["settings"] | QUICK["ppo"]}
    (folder / "ppo.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    monkeypatch.setattr("agents.hyperparameters.FOLDER", folder)
    monkeypatch.setattr(
        "agents.search.SPACE", {"gamma": ("choice", 0.95, 0.98), "hidden": ("choice", 32, 64)}
    )
    scenario = tmp_path / "small.yaml"
    scenario.write_text(SCENARIO, encoding="utf-8")
    out = tmp_path / "search"
    options = ["--scenario", str(scenario), "--steps", "512", "--out", str(out)]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("agents.training.Training._evaluate", interrupted)
        assert main([*options, "--trials", "1"]) == 130
    # What was interrupted does not count.
    assert main([*options, "--trials", "1"]) == 0
    first = pd.read_csv(out / "trials.csv").query("state == 'complete'")
    # The first trial has the present hyper-parameters.
    assert first[["gamma", "hidden"]].to_numpy().tolist() == [[0.98, 64]]
    assert first["gpu_hours"].item() > 0.0
    assert main([*options, "--trials", "3"]) == 0
    trials = pd.read_csv(out / "trials.csv").query("state in ('complete', 'pruned')").reset_index()
    assert len(trials) == 3
    assert trials.iloc[0]["gpu_hours"] == first["gpu_hours"].item()
    ((env_id, best),) = yaml.safe_load((out / "best.yaml").read_text()).items()
    found = Hyperparameters.from_mapping(best, "best.yaml")
    winner = trials.loc[trials["gpu_hours"].idxmin()]
    assert (env_id, found.settings["gamma"], found.hidden[0]) == (ENV_ID, winner["gamma"], winner["hidden"])
    assert main([*options, "--trials", "3", "--target", "0.5"]) == 2
    assert "holds a study of another kind: target 0.99" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trials", "0"], "--trials: expected an integer >= 1, got 0"),
        (["--target", "1"], "--target: expected a share in (0, 1), got 1"),
        (["--scenario", "chat-weak"], "did you mean chat-week?"),
        (["--env", "preserve/Nothing-v0"], "--env: expected one of preserve/Autoscale-v0"),
    ],
)
def test_bad_options_are_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*options, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
