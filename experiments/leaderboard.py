"""``python -m experiments.leaderboard``: results that are kept, and the pages that show them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import tyro

from agents.saved_model import MODELS
from baselines.bounds.kept import FOLDER
from baselines.tuned import FOLDER as TABLES
from experiments.bounds_page import bounds_table, feasible_table
from experiments.compare import bounds_of
from experiments.equal_attainment import read_elasticities, with_tuned
from experiments.forecast_worth import read_worth
from experiments.leaderboard_page import OWN, at_target, page, score_table, short_table
from experiments.learned_page import (
    JOINT,
    PAIRS,
    TRANSFER,
    models_table,
    pairs_table,
    routers_table,
    trained_table,
    transfer_table,
)
from experiments.learned_page import RESULTS as LEARNED
from experiments.paper_calibration import RATE_RPS
from experiments.replacing import replacing
from experiments.routers import RESULTS as ROUTER_RUNS
from experiments.routers import page_table
from experiments.run_records import RunRecords
from experiments.summary import TARGET
from preserve_gym.command_line import parse, status_of
from preserve_gym.errors import InputError

PROGRAM = "python -m experiments.leaderboard"
ROOT = Path(__file__).parents[1]
KEPT = ("options.yaml", "config.yaml", "summary.csv", "table.txt")
"""Files of a run that are kept, beside ``EPISODES``."""
EPISODES = ("scenario", "policy", "seed", "window", "arrived", "violations", "gpu_hours")
"""Columns of its ``episodes.csv`` that are."""
BEGIN, END = "<!-- {}: written by python -m experiments.leaderboard -->", "<!-- {} ends -->"
"""Of a table by its name, between which it is written."""


@dataclass(frozen=True)
class Options:
    """Keep the results of a run of the suite benchmark, and write the pages that show them."""

    run: tyro.conf.Positional[Path | None] = None
    """Folder of a finished run; none: pages are written from the results kept before."""
    results: Path = ROOT / "results" / "benchmark"
    """Folder for what is kept."""
    root: Path = ROOT
    """Folder with README.md and docs/."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (cannot write), 2 (bad input) or 130 (interrupted)."""

    def command() -> int:
        options: Options = parse(Options, arguments, PROGRAM)
        if options.run is not None:
            keep(options.run, options.results)
        for path, text in pages(options.results, options.root).items():
            with replacing(path) as partial:
                partial.write_text(text, encoding="utf-8")
            print(path)
        return 0

    return status_of(command)


def keep(run: Path, results: Path) -> None:
    """Copy what is kept of a finished run.

    Raises:
        InputError: if it is not finished.
    """
    missing = [name for name in KEPT if not (run / name).is_file()]
    if missing:
        raise InputError(f"run: expected the folder of a finished run, {run} has no {missing[0]}")
    results.mkdir(parents=True, exist_ok=True)
    slim = RunRecords(run).episodes[list(EPISODES)]
    with replacing(results / "episodes.csv") as partial:
        slim.to_csv(partial, index=False, lineterminator="\n")
    for name in KEPT:
        with replacing(results / name) as partial:
            shutil.copyfile(run / name, partial)


def pages(results: Path, root: Path) -> dict[Path, str]:
    """Text of each page that shows the results, by its file.

    Raises:
        InputError: if the results or a page's marks are missing.
    """
    records = RunRecords(results)
    elasticities = with_tuned(read_elasticities(TABLES, TARGET))
    rows = {name: row for name in records.scenarios if (row := bounds_of(records, name, FOLDER))}
    columns = ["static_gpu_hours", "hindsight_gpu_hours"]
    bounds = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns)
    summary = at_target(records.summary, elasticities, bounds)
    worth = read_worth(TABLES, OWN, TARGET)
    docs = root / "docs"
    tables = {
        root / "README.md": {"leaderboard": short_table(summary)},
        docs / "environments" / "autoscale.md": {"leaderboard": score_table(summary)},
        docs / "environments" / "route.md": {"leaderboard": page_table(pd.read_csv(ROUTER_RUNS), RATE_RPS)},
        docs / "environments" / "cluster.md": {"leaderboard": pairs_table(PAIRS, elasticities)},
        docs / "learned-policies.md": {
            "trained": trained_table(LEARNED),
            "models": models_table(MODELS),
            "transfer": transfer_table(TRANSFER, elasticities),
            "joint": pairs_table(JOINT, elasticities),
            "routers": routers_table(ROUTER_RUNS),
        },
        docs / "bounds.md": {"bounds": bounds_table(FOLDER), "feasible": feasible_table(TABLES)},
    }
    text = page(summary, records.episodes, records.config, FOLDER, elasticities, worth)
    return {
        docs / "benchmark.md": text + "\n",
        **{path: _between(path, shown) for path, shown in tables.items()},
    }


def _between(path: Path, tables: Mapping[str, str]) -> str:
    text = path.read_text(encoding="utf-8")
    for name, table in tables.items():
        begin, end = BEGIN.format(name), END.format(name)
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise InputError(f"{path}: expected the lines {begin!r} and {end!r}, between which a table goes")
        text = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    return text


if __name__ == "__main__":
    sys.exit(main())
