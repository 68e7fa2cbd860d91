"""Tables of figures in a terminal."""

from __future__ import annotations

import pandas as pd
from rich.console import Console
from rich.table import Table


def plain_console(width: int = 150) -> Console:
    """The terminal; in a pipe or a file, lines of a fixed width."""
    console = Console()
    return console if console.is_terminal else Console(width=width)


def show(title: str, frame: pd.DataFrame, console: Console) -> None:
    """Print a frame, numbers to four digits."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for name in frame.columns:
        number = pd.api.types.is_numeric_dtype(frame[name])
        table.add_column(name.replace("_", "\n"), justify="right" if number else "left")
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    console.print(table)
    console.print()
