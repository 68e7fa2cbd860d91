"""``python -m experiments.predict``: its tables, its files, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import predict
from experiments.predict import Series, main
from preserve_gym.splits import split_bounds
from preserve_gym.traces import synthetic_trace


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Four synthetic days in place of a scenario."""
    trace = synthetic_trace("chat", duration_s=4 * 86_400.0, mean_rate_rps=0.5)
    bounds = split_bounds(trace.span_s, (2 * 86_400.0, 3 * 86_400.0), 3600.0)
    monkeypatch.setattr(predict, "load_series", lambda name: Series(name, trace, bounds, 3600.0))
    monkeypatch.setenv("PRESERVE_GYM_FORECASTS", str(tmp_path / "cache"))


def test_tables_and_plot(
    short: None, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["--workloads", "chat-week", "--forecasters", "profile-ar", "oracle", "--horizon", "3"]
    command += ["--length-scenarios", "chat", "--predictors", "noisy", "oracle", "--out", str(out)]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "profile-ar" in shown
    assert "kendall_tau" in shown
    forecasts = pd.read_csv(out / "forecasts.csv").set_index(["forecaster", "tokens"])
    assert set(forecasts.index.get_level_values(0)) == {"naive", "seasonal-naive", "profile-ar", "oracle"}
    # The last, broken window of a recording is continued.
    assert (forecasts.loc["oracle", "mase"] < 0.05).all()
    references = forecasts.loc[["naive", "seasonal-naive"]]["of_reference"].groupby("tokens").min()
    np.testing.assert_allclose(references, 1.0)
    assert (forecasts.loc["profile-ar", "of_reference"] < 1.2).all()
    assert forecasts.loc["profile-ar", "coverage"].between(0.3, 1.0).all()
    lengths = pd.read_csv(out / "lengths.csv").set_index("predictor")
    assert lengths.loc["oracle", "mae"] == 0.0
    assert lengths.loc["noisy", "mae"] > 10.0
    assert (out / "forecasts.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workloads", "chat-weak"], "--workloads: expected some of .*did you mean chat-week"),
        (["--forecasters", "naif"], "--forecasters: expected some of .*did you mean naive"),
        (["--predictors", "oracl"], "--predictors: expected some of .*did you mean oracle"),
        (["--length-scenarios", "x"], "--length-scenarios: expected some of"),
        (["--horizon", "0"], r"--horizon: expected an integer in \[1, 1000\]"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert re.search(message, capsys.readouterr().err)
