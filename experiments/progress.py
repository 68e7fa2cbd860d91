"""How far a run is: bars on a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from experiments.evaluate import Cell


class CellProgress:
    """Shows cells as they go, on the console given; a context manager.

    On a terminal there is a bar for the whole, with the time that remains, and one for each cell in progress;
    finished cells leave a line, as they do where there is no terminal.

    Args:
        console: where.
        count: cells that are to be played.
    """

    def __init__(self, console: Console, count: int) -> None:
        self._console = console
        self._count = count
        self._done = 0
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            speed_estimate_period=600.0,
        )
        self._all = self._bars.add_task("all", total=float(count))
        self._cells: dict[Cell, TaskID] = {}
        self._shares: dict[Cell, float] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def share(self, cell: Cell, share: float) -> None:
        """A cell is done to ``share``, 0 to 1."""
        if cell not in self._cells:
            self._cells[cell] = self._bars.add_task(_title(cell), total=1.0)
        self._shares[cell] = share
        self._bars.update(self._cells[cell], completed=share)
        self._bars.update(self._all, completed=self._done + sum(self._shares.values()))

    def done(self, cell: Cell, said: str) -> None:
        """A cell has finished, and there is something to say about it."""
        self._done += 1
        self._shares.pop(cell, None)
        if cell in self._cells:
            self._bars.remove_task(self._cells.pop(cell))
        self._bars.update(self._all, completed=self._done + sum(self._shares.values()))
        self._console.print(
            f"[{self._done}/{self._count}] {_title(cell)}: {said}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def outcome(record: Mapping[str, Any]) -> str:
    """What to say about a finished cell, in a line."""
    if record["error"] is not None:
        return f"failed: {record['error']['message']}"
    figures = [window["figures"] for window in record["windows"]]
    arrived = sum(one["arrived"] for one in figures)
    met = arrived - sum(one["violations"] for one in figures)
    attainment = f"{met / arrived:.2%} within the SLO" if arrived else "no requests"
    return f"{attainment}, {sum(one['gpu_hours'] for one in figures):.1f} GPU-hours"


def _title(cell: Cell) -> str:
    return f"{cell.scenario}, {cell.label}, seed {cell.seed}"
