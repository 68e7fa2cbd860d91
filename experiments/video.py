"""``python -m experiments.video``: policies at work on a scenario, as a GIF or an mp4."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import numpy as np
import tyro
from rich.console import Console

import preserve_gym  # noqa: F401  (registers the ids)
from experiments.film import Picture, check_writable, write_film
from experiments.policies import build_policy
from preserve_gym.command_line import complain, parse, status_of
from preserve_gym.config import ClusterConfig
from preserve_gym.envs.canvas import GREY
from preserve_gym.errors import InputError
from preserve_gym.scenarios import Scenario, load_scenario
from preserve_gym.workload import Workload

PROGRAM = "python -m experiments.video"
_LARGE_GIF = 5e6  # bytes: pages that show a larger one load slowly
_MOST_PICTURES = 20_000
_BUSIEST_S = 600.0
_BEFORE_BUSIEST = 0.4  # of the film


@dataclass(frozen=True)
class Options:
    """Film how a policy scales on a scenario, or two side by side: the dashboard of the environment."""

    out: tyro.conf.Positional[Path]
    """File to write: .gif; .mp4, for which an encoder is needed (extra `video`); .png, the last picture."""
    scenario: str = "flash-crowd"
    """Scenario, a name or a YAML file."""
    policies: Annotated[tuple[str, ...], tyro.conf.arg(name="policy")] = ("preserve",)
    """Policy, or two, as `python -m experiments.run` knows them."""
    split: Literal["train", "validation", "test"] = "test"
    """Part of the recording."""
    start_s: float | None = None
    """Start on the trace's clock. Default: a while before the busiest ten minutes of the split."""
    minutes: float = 60.0
    """How much is played."""
    speed: float = 4.0
    """Minutes of service per second of film."""
    fps: int = 10
    """Pictures per second of film."""
    seed: int | None = None
    """Of the workload and the environment. Default: the scenario's."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (cannot write), 2 (bad input) or 130 (interrupted)."""

    def command() -> int:
        options: Options = parse(Options, arguments, PROGRAM)
        _check(options)
        with Console(stderr=True).status("making the workload") as status:
            pictures = play(options)
            status.update(f"filming {picture_count(options)} pictures")
            write_film(options.out, pictures, options.fps)
        size = options.out.stat().st_size
        print(f"{options.out}: {size / 1e6:.2f} MB")
        if options.out.suffix.lower() == ".gif" and size > _LARGE_GIF:
            complain("so large a GIF loads slowly: raise --speed, lower --fps or --minutes, or write an .mp4")
        return 0

    return status_of(command)


def picture_count(options: Options) -> int:
    """Pictures of the film, the beginning and the end included."""
    return math.ceil(options.minutes / options.speed * options.fps - 1e-9) + 1


def play(options: Options) -> Iterator[Picture]:
    """The pictures, uint8 of shape (540, 960, 3), or (540, 1920, 3) with two policies.

    Raises:
        InputError: on options that do not fit the scenario, before the first picture.
    """
    scenario = load_scenario(options.scenario)
    seed = scenario.workload.seed if options.seed is None else options.seed
    config = replace(
        scenario.workload,
        split=options.split,
        seed=seed,
        start_s=None,
        horizon_s=60.0 * options.minutes,
        evaluation_horizon_s=None,
    )
    workload = Workload(config)
    start_s = _busy_start(workload, scenario.cluster) if options.start_s is None else options.start_s
    films = [_play(scenario, workload, name, seed, start_s, options) for name in options.policies]
    first = [next(film) for film in films]
    return _side_by_side(first, films)


def _side_by_side(first: list[Picture], films: list[Iterator[Picture]]) -> Iterator[Picture]:
    yield _join(first)
    for pictures in zip(*films, strict=True):
        yield _join(pictures)


def _join(pictures: Sequence[Picture]) -> Picture:
    joined = np.concatenate(pictures, axis=1)
    width = pictures[0].shape[1]
    joined[:, width : width * len(pictures) : width] = GREY
    return joined


def _play(
    scenario: Scenario, workload: Workload, name: str, seed: int, start_s: float, options: Options
) -> Iterator[Picture]:
    policy = build_policy(name, scenario.cluster, workload, scenario.name)
    env_options = policy.env_options()
    if hasattr(policy, "initial_instances"):
        env_options["initial_instances"] = policy.initial_instances(start_s)
    env: Any = gym.make(
        getattr(policy, "env_id", "preserve/Autoscale-v0"),
        workload=workload.with_predictions(policy.forecaster, policy.predictor),
        **env_options,
        render_mode="rgb_array",
    ).unwrapped
    env.dashboard.title = f"policy {policy.name}, scenario {scenario.name}, {scenario.cluster.instance.name}"
    observation, info = env.reset(seed=seed, options={"start_s": start_s})
    yield env.render()
    state, ended, count = None, False, picture_count(options)
    for k in range(1, count):
        # The last one is taken at the end, wherever rounding would have it.
        until_s = math.inf if k == count - 1 else start_s + 60.0 * options.speed * k / options.fps
        while not ended and info["time_s"] < until_s - 1e-6:
            action, state = policy.predict(observation, state)
            observation, _, _, ended, info = env.step(action)
        yield env.render()


def _busy_start(workload: Workload, cluster: ClusterConfig) -> float:
    """A start from which the busiest ten minutes of the split are filmed, with what leads to them."""
    config = workload.config
    assert config.horizon_s is not None
    prompt, output = workload.trace.window_tokens(_BUSIEST_S)
    need = workload.profile(cluster).need(prompt / _BUSIEST_S, output / _BUSIEST_S)
    first_s, end_s = workload.span_s
    starts_s = _BUSIEST_S * np.arange(len(need))
    inside = (starts_s >= first_s) & (starts_s + _BUSIEST_S <= end_s)
    busiest_s = float(starts_s[np.where(inside, need, -1.0).argmax()])
    earliest_s, latest_s = first_s + config.warmup_s, end_s - config.horizon_s
    return math.floor(min(max(busiest_s - _BEFORE_BUSIEST * config.horizon_s, earliest_s), latest_s))


def _check(options: Options) -> None:
    check_writable(options.out)
    if not 1 <= len(options.policies) <= 2:
        raise InputError(f"--policy: expected one policy or two, got {len(options.policies)}")
    for option, value in (("--minutes", options.minutes), ("--speed", options.speed)):
        if not 0.0 < value <= 1e6:
            raise InputError(f"{option}: expected a number > 0, got {value!r}")
    if not 1 <= options.fps <= 50:
        raise InputError(f"--fps: expected an integer in [1, 50], got {options.fps!r}")
    if options.seed is not None and not 0 <= options.seed <= 2**32:
        raise InputError(f"--seed: expected an integer in [0, {2**32}], got {options.seed!r}")
    count = picture_count(options)
    if count > _MOST_PICTURES:
        raise InputError(
            f"--fps: expected at most {_MOST_PICTURES:,} pictures in all, got {count:,}; raise --speed"
        )


if __name__ == "__main__":
    sys.exit(main())
