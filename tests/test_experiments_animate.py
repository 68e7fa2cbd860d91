"""The command ``python -m experiments.animate``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.animate import Options, main, play

SCENARIO = """
workload: {trace: synthetic-chat, warmup_s: 60, horizon_s: 300, split_s: [3600, 5000], split_gap_s: 60}
cluster: {max_instances: 4}
"""


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("scenario") / "short.yaml"
    path.write_text(SCENARIO, encoding="utf-8")
    return str(path)


def test_an_animation_shows_the_episode(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.gif"
    options = ["--scenario", scenario, "--policy", "static-2", "--minutes", "5", "--frames", "6"]
    assert main([*options, "--seconds", "3", "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    frames = play(Options(scenario=scenario, policy="static-2", minutes=5.0, frames=6))
    assert len(frames) == 6
    with Image.open(out) as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"]) == (6, (960, 540), 0)
        for k, frame in enumerate(frames):
            gif.seek(k)
            shown = np.asarray(gif.convert("RGB"), np.int64)
            # The colours are those of the frame; only edges of letters are rounded.
            assert (shown == frame).all(axis=2).mean() > 0.95
            assert np.abs(shown - frame).max() < 64
            assert gif.info["duration"] == (2000 if k == 5 else 500)


def test_a_still_is_the_last_frame(scenario: str, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    options = ["--scenario", scenario, "--policy", "static-2", "--minutes", "2", "--frames", "2"]
    assert main([*options, "--out", str(out)]) == 0
    frames = play(Options(scenario=scenario, policy="static-2", minutes=2.0, frames=2))
    with Image.open(out) as picture:
        np.testing.assert_array_equal(np.asarray(picture), frames[-1])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--scenario", "nope"], "scenario 'nope': expected a YAML file or one of"),
        (["--policy", "nope"], "policy: expected one of"),
        (["--minutes", "0"], "--minutes: expected a number > 0, got 0.0"),
        (["--minutes", "nan"], "--minutes: expected a number > 0, got nan"),
        (["--seconds", "-1"], "--seconds: expected a number > 0, got -1.0"),
        (["--frames", "1"], "--frames: expected an integer in [2, 10000], got 1"),
        (["--out", "a.mp4"], "--out: expected a name that ends in .gif or .png, got 'a.mp4'"),
        (["--out", "no/such/a.gif"], "--out: no such folder: no/such"),
        (["--start-s", "1e9"], "start_s: expected"),
        (["--minutes", "100000"], "expected at least warmup_s 60 plus horizon_s 6e+06"),
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
    assert main(["--scenario", scenario, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert complaint in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
