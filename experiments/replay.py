"""``--replay RUN``: play recorded decisions again, and compare every figure."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from experiments.backend import Pool
from experiments.cells import Decisions, Piece
from experiments.evaluate import Cell
from experiments.folder import CorruptCellError, RunFolder
from experiments.progress import CellProgress, outcome
from experiments.provenance import changes
from experiments.run_plan import jobs_of, make_plan
from preserve_gym.command_line import complain

Record = dict[str, Any]


def replay(path: Path, pool: Pool) -> int:
    """Play what a run decided, in its environments, and say which cells give other figures.

    Returns:
        0 if all are equal, else 1.

    Raises:
        InputError: if it is no run, or its traces are not what they were.
    """
    console = Console(stderr=True)
    folder = RunFolder.open(path, "--replay")
    with console.status("reading the run"):
        plan = make_plan(folder.options())
        _check_same(folder, plan.config, console)
        records, broken = _records(folder, plan.cells)
    jobs = jobs_of(pool, plan)
    pieces = [
        replace(piece, tables=(), recorded={cell: _decisions(records[cell]) for cell in piece.cells})
        for piece in plan.pieces(records, jobs)
    ]
    differing = _compare(pieces, records, pool, jobs, console)
    for message in (*broken, *differing):
        complain(message)
    print(f"{len(records) - len(differing)} of {len(plan.cells)} cells replayed with equal figures")
    return 1 if broken or differing else 0


def _check_same(folder: RunFolder, config: Mapping[str, Any], console: Console) -> None:
    """Other versions are worth a word, everything else must be the same."""
    recorded = folder.config()
    if words := changes({"versions": recorded.get("versions")}, {"versions": config["versions"]}):
        console.print(f"other versions: {words}", highlight=False, markup=False, soft_wrap=True)
    folder.check_unchanged({name: value for name, value in config.items() if name != "versions"}, "--replay")


def _records(folder: RunFolder, cells: tuple[Cell, ...]) -> tuple[dict[Cell, Record], list[str]]:
    """The records of finished cells, and what is wrong with the others."""
    records, broken = {}, []
    for cell in cells:
        name = f"{cell.scenario}, {cell.label}, seed {cell.seed}"
        try:
            record = folder.read_cell(cell)
        except CorruptCellError as error:
            broken.append(str(error))
            continue
        if record is None:
            broken.append(f"{name}: has not been played")
        elif record["error"] is not None:
            broken.append(f"{name}: failed when it was played, there is nothing to compare")
        else:
            records[cell] = record
    return records, broken


def _decisions(record: Record) -> dict[float, Decisions]:
    found = {}
    for window in record["windows"]:
        weights = window.get("router_weights")
        found[window["start_s"]] = Decisions(
            np.array(window["targets"], np.int64), None if weights is None else np.array(weights, np.float64)
        )
    return found


def _compare(
    pieces: list[Piece], records: Mapping[Cell, Record], pool: Pool, jobs: int, console: Console
) -> list[str]:
    differing = []
    with tempfile.TemporaryDirectory() as place, CellProgress(console, len(records)) as bars:
        again = RunFolder.create(Path(place) / "again", "", {}, {})

        def on_done(cell: Cell) -> None:
            record = again.read_cell(cell)
            assert record is not None
            if found := next(_differences(records[cell], record), None):
                differing.append(f"{cell.scenario}, {cell.label}, seed {cell.seed}{found}")
            bars.done(cell, f"differs{found}" if found else f"equal: {outcome(record)}")

        pool.run_pieces(pieces, again, jobs=jobs, on_share=bars.share, on_done=on_done)
    return differing


def _differences(recorded: Record, played: Record) -> Iterator[str]:
    """In words, beginning with the window: figures first, then histograms."""
    if played["error"] is not None:
        yield f": {played['error']['message']}"
        return
    windows = [window["window"] for window in played["windows"]]
    if [window["window"] for window in recorded["windows"]] != windows:
        yield f": recorded other windows than {windows}"
        return
    for was, now in zip(recorded["windows"], played["windows"], strict=True):
        for name in dict.fromkeys((*was["figures"], *now["figures"])):
            one, other = was["figures"].get(name), now["figures"].get(name)
            if one != other and not (one != one and other != other):  # NaN equals NaN
                yield f", window {now['window']}: {name} recorded {one}, played {other}"
        for name in ("latency", "targets", "router_weights"):
            if was.get(name) != now.get(name):
                yield f", window {now['window']}: {name} differ"
