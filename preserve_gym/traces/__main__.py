"""``python -m preserve_gym.traces``: the data sets there are, and getting them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from preserve_gym.command_line import parse, status_of
from preserve_gym.data import data_dir
from preserve_gym.errors import InputError
from preserve_gym.traces.catalog import DATASETS, SYNTHETIC, Dataset, find_dataset, load_trace, path_of
from preserve_gym.traces.fetch import download

PROGRAM = "python -m preserve_gym.traces"


@dataclass(frozen=True)
class ListOptions:
    """Show the traces that can be named."""


@dataclass(frozen=True)
class InfoOptions:
    """Show where a data set comes from, under which licence, and what to cite."""

    name: Annotated[str, tyro.conf.Positional]
    """Data set, as `list` shows it."""


@dataclass(frozen=True)
class FetchOptions:
    """Download data sets into the data folder; what is there already is left alone."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Data sets, as `list` shows them."""


@dataclass(frozen=True)
class VerifyOptions:
    """Compare the files in the data folder with the originals."""


Command = (
    Annotated[ListOptions, tyro.conf.subcommand("list")]
    | Annotated[InfoOptions, tyro.conf.subcommand("info")]
    | Annotated[FetchOptions, tyro.conf.subcommand("fetch")]
    | Annotated[VerifyOptions, tyro.conf.subcommand("verify")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (no way on, or a file is not the original), 2 or 130."""
    return status_of(lambda: _run(arguments), "interrupted; the same command goes on from there")


def _run(arguments: Sequence[str] | None) -> int:
    options = parse(Command, arguments, PROGRAM)
    if isinstance(options, InfoOptions):
        _info(options.name)
    elif isinstance(options, FetchOptions):
        _fetch(options.names)
    elif isinstance(options, VerifyOptions):
        return _verify()
    else:
        _list()
    return 0


def _list() -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("name", "requests", "size", "licence", "here"):
        table.add_column(
            heading, no_wrap=True, justify="right" if heading in ("requests", "size") else "left"
        )
    for name, dataset in DATASETS.items():
        size = f"{dataset.size_bytes / 1e6:.1f} MB"
        table.add_row(name, f"{dataset.rows:,}", size, dataset.licence, "yes" if path_of(dataset) else "no")
    for name in SYNTHETIC:
        table.add_row(name, "generated", "", "", "yes")
    Console().print(table)


def _info(name: str) -> None:
    dataset = find_dataset(name)
    path = path_of(dataset)
    for label, value in (
        ("source", dataset.source),
        ("address", dataset.url),
        ("licence", dataset.licence),
        ("cite", dataset.citation),
        ("requests", f"{dataset.rows:,}"),
        ("size", f"{dataset.size_bytes:,} bytes"),
        ("SHA-256", dataset.sha256),
        ("here", str(path) if path else f"no; {PROGRAM} fetch {name}"),
    ):
        print(f"{label:9} {value}")


def _fetch(names: tuple[str, ...]) -> None:
    if not names:
        raise InputError(f"fetch: expected at least one of {', '.join(DATASETS)}")
    wanted = [(name, find_dataset(name)) for name in names]
    for name, dataset in wanted:
        path = path_of(dataset)
        if path is None:
            path = data_dir() / "traces" / dataset.files[1]
            _download(name, dataset, path)
        print(path)


def _download(name: str, dataset: Dataset, path: Path) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=dataset.size_bytes)
        download(
            dataset.url,
            path,
            dataset.sha256,
            report=lambda done, total: progress.update(task, completed=done),
        )


def _verify() -> int:
    bad = 0
    for name, dataset in DATASETS.items():
        path = path_of(dataset)
        if path is None:
            print(f"{name}: not here")
            continue
        try:
            load_trace(name)
        except InputError as error:
            bad += 1
            print(error)
        else:
            print(f"{name}: {path}: the original")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
