"""How far a run is: bars on a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from experiments.evaluate import Cell
from experiments.pool import CellReport


class CellProgress:
    """Shows cells as they go, on the console given; a context manager.

    On a terminal there is a bar for the whole and one for each cell in progress; finished cells leave a
    line, as they do where there is no terminal.
    """

    def __init__(self, console: Console, cells: Sequence[Cell]) -> None:
        self._console = console
        self._cells = cells
        self._done = 0
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._all = self._bars.add_task("all", total=float(len(cells)))
        self._tasks = [self._bars.add_task(_title(cell), total=1.0, visible=False) for cell in cells]
        self._shares = [0.0] * len(cells)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def share(self, i: int, share: float) -> None:
        """Cell ``i`` is done to ``share``, 0 to 1."""
        if share > self._shares[i]:
            self._shares[i] = share
            self._bars.update(self._tasks[i], completed=share, visible=share < 1.0)
            self._bars.update(self._all, completed=sum(self._shares))

    def done(self, i: int, report: CellReport) -> None:
        """Cell ``i`` has finished."""
        self.share(i, 1.0)
        self._bars.update(self._tasks[i], visible=False)
        self._done += 1
        figures = report.summary
        self._console.print(
            f"[{self._done}/{len(self._cells)}] {_title(self._cells[i])}: "
            f"{figures['slo_attainment']:.2%} within the SLO, {figures['gpu_hours']:.1f} GPU-hours",
            highlight=False,
            markup=False,
        )


def _title(cell: Cell) -> str:
    return f"{cell.label}, seed {cell.seed}"
