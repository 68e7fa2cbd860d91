"""``python -m experiments.explain``: where a learned policy acts differently from others, in one figure."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from agents.learned_policy import model_of
from agents.saved_model import load_card
from baselines import POLICIES
from baselines.policy_name import check_policy_name, is_learned, label_of
from baselines.tuned import split_tuned
from experiments.evaluate import play_windows
from experiments.palette import BLACK, BLUE, GREEN, ORANGE, PURPLE, VERMILLION
from experiments.policies import build_policy
from experiments.replacing import replacing
from preserve_gym.command_line import parse, status_of
from preserve_gym.errors import InputError
from preserve_gym.scenarios import load_scenario

PROGRAM = "python -m experiments.explain"
_COLOURS = (VERMILLION, BLUE, GREEN, PURPLE, ORANGE)
_FORMATS = (".pdf", ".png", ".svg")
_HOUR_S, _BIN_S = 3600.0, 60.0


@dataclass(frozen=True)
class Options:
    """Draw the instances of policies over the load: on a stretch of a test day, and over the hour.

    The stretch is the one in which the first policy differs most from the second.
    """

    scenario: str = "recurring-surges"
    """Scenario, by name or file."""
    policies: tuple[str, ...] = ("ppo", "preserve-tuned", "corr-tuned")
    """Policies by name, the learned one first; at most 5."""
    seed: int = 0
    """Of the workload."""
    window: int = 0
    """Of the test windows, by number."""
    hours: float = 3.0
    """Length of the stretch."""
    out: Path = Path("explain.svg")
    """File for the figure; the ending says in which format."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (cannot write), 2 (bad input) or 130 (interrupted)."""
    return status_of(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    options: Options = parse(Options, arguments, PROGRAM)
    if not 2 <= len(options.policies) <= len(_COLOURS):
        raise InputError(f"--policies: expected 2 to {len(_COLOURS)}, got {len(options.policies)}")
    if len({label_of(name) for name in options.policies}) < len(options.policies):
        raise InputError(f"--policies: expected policies that differ, got {', '.join(options.policies)}")
    if options.out.suffix not in _FORMATS:
        raise InputError(f"--out: expected a name that ends in {', '.join(_FORMATS)}, got {options.out}")
    if not 0.1 <= options.hours <= 24.0:
        raise InputError(f"--hours: expected a number in [0.1, 24], got {options.hours:g}")
    for name in options.policies:
        check_policy_name(name, POLICIES, "--policies")
    scenario = load_scenario(options.scenario)
    for name in options.policies:
        parts = split_tuned(name)
        plain = parts.policy if parts else name
        if is_learned(plain):
            load_card(model_of(plain, scenario.workload))
    workload = scenario.make_workload("test", options.seed)
    windows = len(workload.evaluation_windows)
    if not 0 <= options.window < windows:
        raise InputError(f"--window: expected an integer in [0, {windows - 1}], got {options.window}")
    played = {}
    for name in options.policies:
        policy = build_policy(name, scenario.cluster, workload, scenario.name)
        (result,) = play_windows(workload, scenario.cluster, policy, options.seed, windows=[options.window])
        played[label_of(name)] = result.intervals
    figure = draw(played, options.hours)
    with replacing(options.out) as partial, mpl.rc_context({"svg.hashsalt": "preserve_gym"}):
        dated = {"Date": None} if options.out.suffix == ".svg" else {}
        figure.savefig(partial, format=options.out.suffix.lstrip("."), dpi=120, metadata=dated)
    print(options.out)
    return 0


def draw(played: Mapping[str, pd.DataFrame], hours: float) -> Figure:
    """The figure: load and instances on the stretch where they differ most, and by the minute of the hour.

    Args:
        played: intervals of the same window by policy, as ``WindowResult`` has them.
        hours: length of the stretch.
    """
    first, second, *_ = played.values()
    start = most_different(first, second, hours)
    begin_s = float(first["time_s"].iloc[start])
    figure = Figure(figsize=(9.0, 6.0), layout="constrained")
    over_day, over_hour = figure.subplots(2, 1)
    part = first[first["time_s"].between(begin_s, begin_s + hours * _HOUR_S)]
    clock = part["time_of_day_s"].iloc[0] / _HOUR_S + (part["time_s"] - begin_s) / _HOUR_S
    smooth = part["load"].rolling(6, min_periods=1, center=True).mean()
    over_day.fill_between(clock, smooth, step="mid", color="#DDDDDD", label="load, mean of a minute")
    over_day.set(xlabel="time of day, h", ylabel="instances", title="Where they differ most")
    by_minute = by_minute_of_hour(first)
    over_hour.fill_between(by_minute.index, by_minute["load"], color="#DDDDDD", label="load")
    over_hour.set(xlabel="minute of the hour", ylabel="instances", title="Mean of the window's hours")
    for (name, intervals), colour in zip(played.items(), _COLOURS, strict=False):
        shown = intervals.loc[part.index]
        over_day.step(clock, shown["ready"], where="post", color=colour, lw=1.3, label=name)
        by_minute = by_minute_of_hour(intervals)
        over_hour.plot(by_minute.index, by_minute["ready"], color=colour, lw=1.5, label=f"{name}, ready")
        over_hour.plot(by_minute.index, by_minute["target"], color=colour, lw=0.8, ls=":")
    over_hour.plot([], [], color=BLACK, lw=0.8, ls=":", label="asked for")
    for axes in (over_day, over_hour):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(bottom=0.0)
        axes.margins(x=0.0)
        axes.legend(frameon=False, fontsize=8, ncols=3)
    return figure


def most_different(first: pd.DataFrame, second: pd.DataFrame, hours: float) -> int:
    """The interval from which on, for so many hours, two policies have the most different instances."""
    interval_s = float(np.median(np.diff(first["time_s"])))
    length = min(max(round(hours * _HOUR_S / interval_s), 1), len(first))
    gaps = np.abs(first["ready"].to_numpy(np.float64) - second["ready"].to_numpy(np.float64))
    sums = np.convolve(gaps, np.ones(length), mode="valid")
    return int(sums.argmax())


def by_minute_of_hour(intervals: pd.DataFrame) -> pd.DataFrame:
    """Means of load, ready instances and target by the minute of the hour."""
    minute = (intervals["time_of_day_s"] % _HOUR_S // _BIN_S).astype(int)
    means: pd.DataFrame = intervals.groupby(minute)[["load", "ready", "target"]].mean()
    return means


if __name__ == "__main__":
    sys.exit(main())
