"""``python -m experiments.animate``: a policy at work on a scenario, as an animated GIF."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import preserve_gym  # noqa: F401  (registers the ids)
from experiments.policies import build_policy
from preserve_gym.command_line import parse, status_of
from preserve_gym.envs.canvas import BLUE, GREY, INK, PALETTE, VERMILLION, WHITE
from preserve_gym.errors import InputError
from preserve_gym.scenarios import load_scenario
from preserve_gym.workload import Workload

PROGRAM = "python -m experiments.animate"
_BLENDS = (0.25, 0.5, 0.75)
_LAST_FRAME_S = 2.0


@dataclass(frozen=True)
class Options:
    """Draw how a policy scales on a scenario: an animated GIF of the environment's dashboard."""

    scenario: str = "chat"
    """Scenario, a name or a YAML file."""
    policy: str = "preserve"
    """Policy, as `python -m experiments.run` knows it."""
    split: Literal["train", "validation", "test"] = "test"
    """Part of the recording."""
    start_s: float | None = None
    """Start on the trace's clock. Default: that of the first evaluation window."""
    minutes: float = 60.0
    """How much is played."""
    frames: int = 60
    """Frames at most, evenly over the time."""
    seconds: float = 12.0
    """How long the animation takes."""
    out: Path = Path("animation.gif")
    """File to write: a GIF, or a PNG of the last frame."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (cannot write), 2 (bad input) or 130 (interrupted)."""

    def command() -> int:
        options = parse(Options, arguments, PROGRAM)
        save(play(options), options)
        print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB")
        return 0

    return status_of(command)


def play(options: Options) -> list[NDArray[np.uint8]]:
    """The frames, the beginning and the end included; uint8 of shape (540, 960, 3) each.

    Raises:
        InputError: on options that do not fit each other or the scenario.
    """
    _check(options)
    scenario = load_scenario(options.scenario)
    horizon_s = 60.0 * options.minutes
    config = replace(
        scenario.workload,
        split=options.split,
        start_s=options.start_s,
        horizon_s=horizon_s,
        evaluation_horizon_s=None,
    )
    workload = Workload(config)
    policy = build_policy(options.policy, scenario.cluster, workload)
    workload = workload.with_predictions(policy.forecaster, policy.predictor)
    env = gym.make(
        "preserve/Autoscale-v0",
        workload=workload,
        **policy.env_options(),
        render_mode="rgb_array",
    )
    base: Any = env.unwrapped
    instance = scenario.cluster.instance.name
    base.dashboard.title = f"policy {policy.name}, scenario {scenario.name}, {instance}"
    observation, _ = env.reset(options={"start_s": float(workload.evaluation_windows[0])})
    first: Any = env.render()
    frames, state, ended = [first], None, False
    spacing_s = horizon_s / max(options.frames - 1, 1)
    while not ended:
        action, state = policy.predict(observation, state)
        observation, _, _, ended, info = env.step(action)
        passed_s = info["time_s"] - workload.evaluation_windows[0]
        if ended or passed_s >= spacing_s * len(frames) - 1e-6:
            frame: Any = env.render()
            frames.append(frame)
    env.close()
    return frames


def save(frames: Sequence[NDArray[np.uint8]], options: Options) -> None:
    """Write the animation, or the last frame."""
    if options.out.suffix.lower() == ".png":
        Image.fromarray(frames[-1]).save(options.out, optimize=True)
        return
    palette = _palette()
    pictures = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames
    ]
    shown_ms = round(1000.0 * options.seconds / len(frames))
    durations_ms = [shown_ms] * (len(frames) - 1) + [round(1000.0 * _LAST_FRAME_S)]
    pictures[0].save(options.out, save_all=True, append_images=pictures[1:], duration=durations_ms, loop=0)


def _palette() -> Image.Image:
    """The colours of frames and of the edges of letters; one for all, so that what stands still is free."""
    letters = np.array([INK, GREY, BLUE, VERMILLION], np.float64)
    blends = [WHITE + share * (letters - WHITE) for share in _BLENDS]
    image = Image.new("P", (1, 1))
    image.putpalette(np.vstack([PALETTE, *blends]).astype(np.uint8).tobytes())
    return image


def _check(options: Options) -> None:
    for option, value in (("--minutes", options.minutes), ("--seconds", options.seconds)):
        if not 0.0 < value <= 1e6:
            raise InputError(f"{option}: expected a number > 0, got {value!r}")
    if not 2 <= options.frames <= 10_000:
        raise InputError(f"--frames: expected an integer in [2, 10000], got {options.frames!r}")
    if options.out.suffix.lower() not in (".gif", ".png"):
        raise InputError(f"--out: expected a name that ends in .gif or .png, got {str(options.out)!r}")
    if not options.out.resolve().parent.is_dir():
        raise InputError(f"--out: no such folder: {options.out.parent}")


if __name__ == "__main__":
    sys.exit(main())
