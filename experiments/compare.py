"""``python -m experiments.compare``: statistics, figures and the report of a run, against any baseline."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from rich.console import Console

from baselines.bounds.kept import FOLDER, file_name, read_bounds
from experiments.policy_table import WIDTH, explain, policy_table
from experiments.replacing import replacing
from experiments.report import describe
from experiments.run_records import RunRecords
from experiments.summary import BASELINE, summary
from preserve_gym.command_line import parse, status_of
from preserve_gym.errors import InputError

PROGRAM = "python -m experiments.compare"


@dataclass(frozen=True)
class Options:
    """Work out a run's statistics again and write its summary.csv, table.txt, figures and report.html."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    baseline: str | None = None
    """Policy that the others are compared with. Default: preserve, if it is in the run."""
    bounds: Path = FOLDER
    """Folder of bounds, as python -m experiments.bounds keeps them, for target attainments and scores."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (cannot write), 2 (bad input) or 130 (interrupted)."""

    def command() -> int:
        options = parse(Options, arguments, PROGRAM)
        if not options.run.is_dir():
            raise InputError(f"run: expected the folder of a run, got {str(options.run)!r}")
        records = RunRecords(options.run)
        table = compare(records, options.baseline, options.bounds)
        write(records, table)
        write_report(records, table)
        print(as_text(records, table), end="")
        print(f"Report: {options.run / 'report.html'}")
        return 0

    return status_of(command)


def compare(records: RunRecords, baseline: str | None = None, bounds: Path = FOLDER) -> pd.DataFrame:
    """The summary of a run; ``experiments.summary.summary`` says which columns it has.

    Args:
        records: of the run.
        baseline: None: ``preserve`` if it played, or no comparison.
        bounds: folder with bounds.

    Raises:
        InputError: if the baseline is none of the run's policies, or a file cannot be read.
    """
    if baseline is None and len(records.episodes) and BASELINE in set(records.episodes["policy"]):
        baseline = BASELINE
    rows = [row for scenario in records.scenarios if (row := bounds_of(records, scenario, bounds))]
    return summary(records.episodes, records.histograms, baseline=baseline, bounds=pd.DataFrame(rows))


def bounds_of(records: RunRecords, scenario: str, folder: Path) -> dict[str, Any] | None:
    """Bounds of the scenario's windows, of the first seed; None if there are none."""
    path = folder / file_name(scenario, str(records.config.get("split")), 0)
    if not path.is_file():
        return None
    row = {"scenario": scenario} | read_bounds(path).row
    windows = records.episodes.loc[records.episodes["scenario"] == scenario, "window"].nunique()
    if row["windows"] != windows:  # bounds are totals of all
        row |= {"static_gpu_hours": np.nan, "hindsight_gpu_hours": np.nan}
    return row


def write(records: RunRecords, table: pd.DataFrame) -> None:
    """Write ``table.txt`` and, last, ``summary.csv``."""
    _write(records.folder / "table.txt", as_text(records, table))
    _write(records.folder / "summary.csv", table.to_csv(index=False, lineterminator="\n"))


def write_report(records: RunRecords, table: pd.DataFrame) -> None:
    """Write ``figures/*.svg`` and ``report.html``.

    Raises:
        InputError: after the figures, if the extra ``report``, which the page needs, is not installed.
    """
    # Here, so that workers, which import the module of the command too, do without matplotlib.
    from experiments.report_data import scenario_data
    from experiments.report_figures import draw
    from experiments.report_page import page

    folder = records.folder / "figures"
    folder.mkdir(exist_ok=True)
    data = {str(name): scenario_data(records, table, str(name)) for name in dict.fromkeys(table["scenario"])}
    for name, of_scenario in data.items():
        draw(of_scenario, name, folder)
    _write(records.folder / "report.html", page(records, table, data))


def show(console: Console, records: RunRecords, table: pd.DataFrame) -> None:
    """Print the table of each scenario, at full width even on a narrower console, and what it is about."""
    for k, (scenario, rows) in enumerate(_scenarios(table)):
        shown = policy_table(rows)
        width = console.width
        console.width = max(width, Console(width=1000).measure(shown).maximum)
        if k:
            console.print()
        console.print(shown)
        console.width = width
        console.print()
        episodes = records.episodes[records.episodes["scenario"] == scenario]
        about = f"{describe(scenario, records.config, episodes)} {explain(rows)}"
        console.print(about, highlight=False, markup=False)


def as_text(records: RunRecords, table: pd.DataFrame) -> str:
    """What ``show`` prints, as plain text without trailing blanks."""
    stream = io.StringIO()
    show(Console(file=stream, width=WIDTH, force_terminal=False, color_system=None), records, table)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def _scenarios(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for name in dict.fromkeys(table["scenario"]):
        yield str(name), table[table["scenario"] == name]


def _write(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
