"""The command ``python -m preserve_gym.forecasting``."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from preserve_gym import Workload, WorkloadConfig
from preserve_gym.forecasting import ForecastTable, WorkloadForecast
from preserve_gym.forecasting import cache as cache_module
from preserve_gym.forecasting.__main__ import main
from preserve_gym.forecasting.profile_ar import ProfileAR

SCENARIO = """
workload:
  trace: synthetic-chat-week
  service_scale: 0.02
  window_s: 3600
"""


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of 168 hours, which are kept in three parts for each column; the cache is empty."""
    monkeypatch.setenv("PRESERVE_GYM_FORECASTS", str(tmp_path / "cache"))
    path = tmp_path / "week.yaml"
    path.write_text(SCENARIO)
    return path


def forecast(split: str | None = None) -> WorkloadForecast:
    """That of an environment with the scenario."""
    config = WorkloadConfig(
        trace="synthetic-chat-week", service_scale=0.02, window_s=3600.0, forecaster="profile-ar", split=split
    )
    return Workload(config).forecast


def kept(tmp_path: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (tmp_path / "cache").rglob("*.npz")}


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    rows = [re.split(r"  +", line.strip()) for line in capsys.readouterr().out.splitlines()]
    assert ["profile-ar", "every 144 windows"] in rows
    assert "naive" not in [row[0] for row in rows]


def test_environments_use_what_was_precomputed(
    scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["precompute", str(scenario), "--splits", "none", "test"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^week, test: profile-ar: 168 windows, \d+ by the fallback, [\d.]+ s$", shown, re.M)
    assert shown.splitlines()[-1] == str(tmp_path / "cache")
    with monkeypatch.context() as patch:

        def never(*_: object) -> ForecastTable:
            raise AssertionError("computed again")

        patch.setattr(cache_module.Walker, "rows", never)
        stored = [forecast(), forecast("test")]
        with pytest.raises(AssertionError, match="computed again"):
            forecast("validation")
    monkeypatch.setenv("PRESERVE_GYM_FORECASTS", str(tmp_path / "another"))
    for one, two in zip(stored, [forecast(), forecast("test")], strict=True):
        assert (one.name, one.fallbacks) == (two.name, two.fallbacks)
        np.testing.assert_array_equal(one.prompt_tokens, two.prompt_tokens)
        np.testing.assert_array_equal(one.output_tokens, two.output_tokens)


def test_an_interrupted_command_goes_on(
    scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["precompute", str(scenario), "--splits", "test"]
    calls, predict = 0, ProfileAR.predict

    def interrupted(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 70:
            raise KeyboardInterrupt
        return predict(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(ProfileAR, "predict", interrupted)
        assert main(command) == 130
    assert "the same command goes on from there" in capsys.readouterr().err
    before = kept(tmp_path)
    assert 0 < len(before) < 6
    assert main(command) == 0
    resumed = kept(tmp_path)
    assert len(resumed) == 6
    assert before.items() <= resumed.items()
    for path in (tmp_path / "cache").rglob("*.npz"):
        path.unlink()
    assert main(command) == 0
    assert kept(tmp_path) == resumed


def test_a_trace_can_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRESERVE_GYM_FORECASTS", str(tmp_path))
    assert main(["precompute", "synthetic-code", "--splits", "none"]) == 0
    assert "synthetic-code, none: profile-ar: 144 windows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["precompute", "chat-weak"], "scenario 'chat-weak': expected .*did you mean chat-week"),
        (["precompute", "chat", "--forecasters", "tree"], "--forecasters: .*'tree' .did you mean trees"),
        (["precompute", "chat", "--forecasters", "naive"], "--forecasters: .*got 'naive'"),
        (["precompute", "chat", "--splits", "exam"], "invalid choice 'exam'"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_folder_that_takes_no_file(
    scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PRESERVE_GYM_FORECASTS", str(tmp_path / "file"))
    assert main(["precompute", str(scenario)]) == 1
    assert "file" in capsys.readouterr().err
