"""``python -m preserve_gym.traces``: the data sets there are, and getting them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from preserve_gym.command_line import parse, status_of
from preserve_gym.errors import InputError
from preserve_gym.traces.catalog import load_trace
from preserve_gym.traces.dataset import Dataset
from preserve_gym.traces.dataset_files import dataset_path, fetch_path, find_dataset, path_of
from preserve_gym.traces.datasets import DATASETS
from preserve_gym.traces.fetch import download, download_clients
from preserve_gym.traces.generated import GENERATED
from preserve_gym.traces.trace import Trace

PROGRAM = "python -m preserve_gym.traces"


@dataclass(frozen=True)
class ListOptions:
    """Show the data sets and the traces that can be named."""


@dataclass(frozen=True)
class InfoOptions:
    """Show where a data set comes from, under which licence, and what to cite; or what a file holds."""

    name: Annotated[str, tyro.conf.Positional]
    """Data set, as `list` shows it, or a file of your own."""


@dataclass(frozen=True)
class FetchOptions:
    """Download data sets into the data folder; what is there already is left alone."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Data sets or generated traces, as `list` shows them."""


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
    for heading in ("name", "holds", "kind", "rows", "size", "licence", "here"):
        table.add_column(heading, no_wrap=True, justify="right" if heading in ("rows", "size") else "left")
    for name, dataset in DATASETS.items():
        size = decimal(dataset.size_bytes)
        here = "yes" if path_of(dataset) else "no"
        table.add_row(name, dataset.holds, dataset.kind, f"{dataset.rows:,}", size, dataset.licence, here)
    for name, generated in GENERATED.items():
        here = "no" if any(path_of(DATASETS[need]) is None for need in generated.needs) else "yes"
        table.add_row(name, "requests", "generated", "", "", "", here)
    console = Console()
    # A table that is cut off is of no use to what reads it from a pipe.
    console.width = max(console.width, Console(width=1000).measure(table).maximum)
    console.print(table)


def _info(name: str) -> None:
    if name in GENERATED:
        needs = GENERATED[name].needs
        print(f"holds     requests\nkind      generated: {GENERATED[name].about}")
        print(f"needs     {', '.join(needs) or 'nothing'}")
        for need in needs:
            print(f"\n{need}")
            _info(need)
        return
    if name not in DATASETS and Path(name).suffix:
        _info_of_file(load_trace(name))
        return
    dataset = find_dataset(name)
    path = path_of(dataset)
    absent = f"no; {PROGRAM} fetch {name}" if dataset.url else f"no; {dataset.no_url}"
    for label, value in (
        ("holds", dataset.holds),
        ("kind", f"{dataset.kind}: {dataset.made}" if dataset.made else dataset.kind),
        ("source", dataset.source),
        ("address", dataset.url or f"none: {dataset.no_url}"),
        ("licence", dataset.licence),
        ("cite", dataset.citation),
        ("rows", f"{dataset.rows:,}"),
        ("size", f"{dataset.size_bytes:,} bytes"),
        ("SHA-256", dataset.sha256 + " (of what sha256sum prints for the files)" * (dataset.clients > 0)),
        ("here", str(path) if path else absent),
    ):
        print(f"{label:9} {value}")


def _info_of_file(trace: Trace) -> None:
    prompt, output = (f"{tokens.mean():,.0f}" for tokens in (trace.prompt_tokens, trace.output_tokens))
    print(f"holds     requests\nrows      {len(trace):,}")
    rate = f", {len(trace) / trace.span_s:.3g} requests/s" if trace.span_s > 0.0 else ""
    print(f"span      {trace.span_s:,.1f} s{rate}")
    print(f"tokens    {prompt} of prompts, {output} of outputs, on average")
    print(f"repairs   {'; '.join(trace.repairs) or 'none'}")


def _fetch(names: tuple[str, ...]) -> None:
    if not names:
        raise InputError(f"fetch: expected at least one of {', '.join(DATASETS)}")
    needed = [need for name in names for need in (GENERATED[name].needs if name in GENERATED else (name,))]
    wanted = [(name, find_dataset(name)) for name in dict.fromkeys(needed)]
    for name, dataset in wanted:
        if dataset.url is None and path_of(dataset) is None:
            raise InputError(f"{name}: cannot be downloaded: {dataset.no_url}, to {fetch_path(dataset)}")
    for name, dataset in wanted:
        if path_of(dataset) is None:
            _download(name, dataset, fetch_path(dataset))
        print(dataset_path(name))


def _download(name: str, dataset: Dataset, path: Path) -> None:
    assert dataset.url is not None
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(f"{name}: {dataset.contents}", total=dataset.size_bytes)

        def report(done: int, total: int | None) -> None:
            progress.update(task, completed=done)

        if dataset.clients:
            download_clients(dataset.url, dataset.clients, path, dataset.sha256, report=report)
        else:
            download(dataset.url, path, dataset.sha256, report=report)


def _verify() -> int:
    bad = 0
    for name, dataset in DATASETS.items():
        path = path_of(dataset)
        if path is None:
            print(f"{name}: not here")
            continue
        try:
            dataset_path(name)
        except InputError as error:
            bad += 1
            print(error)
        else:
            print(f"{name}: {path}: the {dataset.kind}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
