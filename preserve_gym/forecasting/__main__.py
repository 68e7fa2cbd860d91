"""``python -m preserve_gym.forecasting``: the forecasters there are, and forecasts made ahead of time."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from preserve_gym.command_line import parse, status_of
from preserve_gym.config import ClusterConfig, WorkloadConfig
from preserve_gym.errors import InputError, did_you_mean
from preserve_gym.forecasting.cache import cache_dir
from preserve_gym.forecasting.registry import INSTANT, LEARNERS, SKTIME, make_forecaster
from preserve_gym.scenarios import Scenario, load_scenario
from preserve_gym.traces import trace_names

PROGRAM = "python -m preserve_gym.forecasting"
_KEPT = tuple(name for name in LEARNERS if name not in INSTANT)

_POLICY: dict[int | None, str] = {None: "once, on the training part", 1: "every window"}


@dataclass(frozen=True)
class ListOptions:
    """Show the forecasters whose forecasts are kept, and how often each is fitted."""


@dataclass(frozen=True)
class PrecomputeOptions:
    """Compute forecasts, and keep them for the environments that will ask for the same.

    What is there already is not computed again; after Ctrl-C the same command goes on.
    """

    workload: Annotated[str, tyro.conf.Positional]
    """Scenario (a name, or a YAML file for settings of your own), or a trace with default settings."""
    forecasters: tuple[str, ...] = ("profile-ar",)
    """Forecasters, as `list` shows them, or sktime: and the name of a class of sktime."""
    splits: tuple[Literal["none", "train", "validation", "test"], ...] = ("train", "validation", "test")
    """Parts of the recording for which there will be episodes; none: for those without a split."""


Command = (
    Annotated[ListOptions, tyro.conf.subcommand("list")]
    | Annotated[PrecomputeOptions, tyro.conf.subcommand("precompute")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (the machine refused), 2 (bad input) or 130 (Ctrl-C)."""
    return status_of(lambda: _run(arguments), "interrupted; the same command goes on from there")


def _run(arguments: Sequence[str] | None) -> int:
    options = parse(Command, arguments, PROGRAM)
    if isinstance(options, PrecomputeOptions):
        _precompute(options)
    else:
        _list()
    return 0


def _list() -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("name", no_wrap=True)
    table.add_column("fitted, with windows of 10 minutes", no_wrap=True)
    for name in _KEPT:
        try:
            every = make_forecaster(name, 600.0).refit_windows
        except InputError as error:
            table.add_row(name, str(error))
            continue
        table.add_row(name, _POLICY.get(every, f"every {every} windows"))
    console = Console()
    # A table that is cut off is of no use to what reads it from a pipe.
    console.width = max(console.width, Console(width=1000).measure(table).maximum)
    console.print(table)


def _precompute(options: PrecomputeOptions) -> None:
    for name in options.forecasters:
        if name not in _KEPT and not name.startswith(SKTIME):
            hint = did_you_mean(name, _KEPT)
            raise InputError(f"--forecasters: expected some of {', '.join(_KEPT)}, got {name!r}{hint}")
    scenario = _scenario(options.workload)
    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    # A folder that takes no file must be told now: later, what cannot be kept is passed over.
    with tempfile.TemporaryFile(dir=folder):
        pass
    for split in options.splits:
        workload = scenario.make_workload(None if split == "none" else split)
        for name in options.forecasters:
            start_s = time.perf_counter()
            made = workload.forecast_by(name)
            seconds = time.perf_counter() - start_s
            failure = f", {made.failure}" if made.failure else ""
            print(
                f"{scenario.name}, {split}: {name}: {len(made)} windows, "
                f"{made.fallbacks} by the fallback{failure}, {seconds:.1f} s",
                flush=True,
            )
    print(folder)


def _scenario(name: str) -> Scenario:
    """The scenario, or an unnamed one that has the trace; its own forecaster takes no time."""
    if name in trace_names():
        scenario = Scenario(name, "", WorkloadConfig(trace=name, horizon_s=None), ClusterConfig())
    else:
        scenario = load_scenario(name)
    return replace(scenario, workload=replace(scenario.workload, forecaster="naive"))


if __name__ == "__main__":
    sys.exit(main())
