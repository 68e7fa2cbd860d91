"""The command ``python -m experiments.video``."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.film import write_film
from experiments.video import Options, main, picture_count, play

SCENARIO = """
workload: {trace: synthetic-chat, warmup_s: 60, horizon_s: 300, split_s: [3600, 5000], split_gap_s: 60}
cluster: {max_instances: 4}
"""


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("scenario") / "short.yaml"
    path.write_text(SCENARIO, encoding="utf-8")
    return str(path)


def options_of(scenario: str, out: Path, *policies: str) -> Options:
    return Options(out=out, scenario=scenario, policies=policies, minutes=5.0, speed=2.0, fps=2)


def test_a_gif_shows_the_episode(scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.gif"
    arguments = [
        "--scenario",
        scenario,
        "--policy",
        "static-2",
        "--minutes",
        "5",
        "--speed",
        "2",
        "--fps",
        "2",
    ]
    assert main([*arguments, str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: {out.stat().st_size / 1e6:.2f} MB\n"
    frames = list(play(options_of(scenario, out, "static-2")))
    assert len(frames) == picture_count(options_of(scenario, out, "static-2")) == 6
    with Image.open(out) as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"]) == (6, (960, 540), 0)
        for k, frame in enumerate(frames):
            gif.seek(k)
            shown = np.asarray(gif.convert("RGB"), np.int64)
            # The colours are those of the frame; only edges of letters are rounded.
            assert (shown == frame).all(axis=2).mean() > 0.95
            assert np.abs(shown - frame).max() < 64
            assert gif.info["duration"] == (2000 if k == 5 else 500)


@pytest.mark.slow
def test_two_policies_play_the_same_side_by_side(scenario: str, tmp_path: Path) -> None:
    both = list(play(options_of(scenario, tmp_path / "a.gif", "static-2", "hpa")))
    for k, name in enumerate(("static-2", "hpa")):
        alone = list(play(options_of(scenario, tmp_path / "a.gif", name)))
        assert len(alone) == len(both) == 6
        for frame, picture in zip(alone, both, strict=True):
            assert picture.shape == (540, 1920, 3)
            # But for the line between the two.
            np.testing.assert_array_equal(picture[:, 960 * k + 1 : 960 * (k + 1)], frame[:, 1:])


@pytest.mark.slow
def test_the_busiest_ten_minutes_are_filmed(scenario: str, tmp_path: Path) -> None:
    rush = tmp_path / "rush.yaml"
    transform = "{kind: step, at_s: 40000, factor: 5}, {kind: step, at_s: 40600, factor: 0.2}"
    rush.write_text(
        SCENARIO.replace("horizon_s: 300,", f"horizon_s: 300, transforms: [{transform}],"), encoding="utf-8"
    )
    # 40200 begins the ten minutes that have most of the rush; 40 % of five minutes before it begins the film.
    default = replace(options_of(str(rush), tmp_path / "a.png", "hpa"), speed=5.0, fps=1)
    given = replace(default, start_s=40080.0)
    for frame, other in zip(play(given), play(default), strict=True):
        np.testing.assert_array_equal(frame, other)


def test_a_still_is_the_last_frame(scenario: str, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    options = ["--scenario", scenario, "--policy", "static-2", "--minutes", "5", "--speed", "2", "--fps", "2"]
    assert main([str(out), *options]) == 0
    *_, last = play(options_of(scenario, out, "static-2"))
    with Image.open(out) as picture:
        np.testing.assert_array_equal(np.asarray(picture), last)


def test_an_mp4_shows_its_pictures_and_stands_still_at_the_end(tmp_path: Path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    pictures = [np.full((36, 64, 3), 80 * k, np.uint8) for k in range(4)]
    write_film(tmp_path / "a.mp4", pictures, 5)
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(tmp_path / "a.mp4"), *raw]
    decoded = subprocess.run(command, capture_output=True, check=True)
    assert b"64x36" in decoded.stderr
    assert b"5 fps" in decoded.stderr
    frames = np.frombuffer(decoded.stdout, np.uint8).reshape(-1, 36, 64, 3)
    levels = [round(float(frame.mean()) / 80.0) for frame in frames]
    assert levels == [0, 1, 2, 3] + [3] * 10
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_an_mp4_without_an_encoder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert main([str(tmp_path / "a.mp4")]) == 2
    error = capsys.readouterr().err
    assert "an mp4 needs the encoder ffmpeg, which comes with the extra 'video': pip install" in error
    assert error.count("\n") == 1


def test_a_film_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def pictures() -> object:
        yield np.zeros((36, 64, 3), np.uint8)
        raise KeyboardInterrupt

    for name in ("a.gif", "a.png"):
        with pytest.raises(KeyboardInterrupt):
            write_film(tmp_path / name, pictures(), 5)  # type: ignore[arg-type]
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--scenario", "nope"], "scenario 'nope': expected a YAML file or one of"),
        (["--policy", "nope"], "policy: expected one of"),
        (["--policy", "hpa", "hpa", "hpa"], "--policy: expected one policy or two, got 3"),
        (["--minutes", "0"], "--minutes: expected a number > 0, got 0.0"),
        (["--minutes", "nan"], "--minutes: expected a number > 0, got nan"),
        (["--speed", "-1"], "--speed: expected a number > 0, got -1.0"),
        (["--speed", "1e-3"], "--fps: expected at most 20,000 pictures in all, got 600,001; raise --speed"),
        (["--fps", "0"], "--fps: expected an integer in [1, 50], got 0"),
        (["--seed", "-1"], "--seed: expected an integer in [0, 4294967296], got -1"),
        (["--start-s", "1e9"], "start_s: expected"),
        (["--minutes", "100000", "--speed", "1e4"], "expected at least warmup_s 60 plus horizon_s 6e+06"),
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
    assert main(["a.gif", "--scenario", scenario, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert complaint in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_other_kinds_of_files_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["a.avi"]) == 2
    assert "out: expected a name that ends in .gif, .mp4, .png, got 'a.avi'" in capsys.readouterr().err
