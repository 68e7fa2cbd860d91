"""The folder of a run: there from the beginning, complete when ``summary.csv`` is."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from experiments.cells import PlayedCell
from experiments.evaluate import Cell
from experiments.options import Options, read_options
from experiments.provenance import changes
from experiments.replacing import PARTIAL, replacing
from preserve_gym.errors import InputError

CONFIG, OPTIONS, SUMMARY, TIMINGS = "config.yaml", "options.yaml", "summary.csv", "timings.csv"
DEFAULT_ROOT = Path("runs")
_RECORD = ("scenario", "policy", "seed", "router", "parameters", "profile", "error", "windows")
_WIDTH = 110


class CorruptCellError(ValueError):
    """A cell's file that is not what a run wrote."""


class RunFolder:
    """The files of a run; each appears whole or not at all.

    Attributes:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(
        cls, out: Path | None, name: str, options: Mapping[str, Any], config: Mapping[str, Any]
    ) -> RunFolder:
        """A new folder.

        Args:
            out: where: a path that does not exist, or an empty folder. None: ``runs/<name>-<n>``, n the first
                number that is free.
            name: of the run, for the default place.
            options: for ``options.yaml``.
            config: for ``config.yaml``.

        Raises:
            InputError: if ``out`` holds anything, or cannot be written.
        """
        try:
            folder = cls(new_folder(out, name))
            folder.write(OPTIONS, _yaml(options))
            folder.write(CONFIG, _yaml(config))
            folder.write(TIMINGS, "scenario,policy,seed,seconds\n")
        except OSError as error:
            raise InputError(f"--out: {error.filename or out}: {error.strerror}") from None
        return folder

    @classmethod
    def open(cls, path: Path, option: str) -> RunFolder:
        """The folder of a run that was begun.

        Raises:
            InputError: if it is none.
        """
        for name in (OPTIONS, CONFIG):
            if not (path / name).is_file():
                raise InputError(f"{option}: {path}: expected the folder of a run, found no {name} in it")
        return cls(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """While one process writes into it; what a killed one left half written is removed before and after.

        Raises:
            InputError: if another one does.
        """
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{self.path}: another process is writing into this run") from None
            self._tidy()
            try:
                yield
            finally:
                self._tidy()
        finally:
            os.close(descriptor)

    def _tidy(self) -> None:
        for path in self.path.rglob(f"*{PARTIAL}"):
            path.unlink(missing_ok=True)

    def options(self) -> Options:
        """Those that the run was begun with."""
        return read_options(self.path / OPTIONS)

    def config(self) -> dict[str, Any]:
        """What ``config.yaml`` says.

        Raises:
            InputError: if it cannot be read.
        """
        path = self.path / CONFIG
        try:
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"{path}: expected YAML: {' '.join(str(error).split())}") from None
        if not isinstance(config, dict):
            raise InputError(f"{path}: expected the configuration of a run, got {config!r}")
        return config

    def check_unchanged(self, config: Mapping[str, Any], option: str = "--resume") -> None:
        """Refuse to go on where traces, versions, scenarios or options are not what they were.

        Raises:
            InputError: naming what has changed.
        """
        recorded = self.config()
        present = yaml.safe_load(_yaml(config))
        changed = changes({name: recorded.get(name) for name in present}, present)
        if changed:
            raise InputError(f"{option}: {self.path}: changed since the run began: {changed}")

    def write_cell(self, played: PlayedCell) -> None:
        """Write tables, then the record, whose presence says that the cell is done, then how long it took."""
        cell = played.cell
        for kind, table in played.tables.items():
            with replacing(self.path / self._place(kind, cell, "parquet")) as partial:
                _write_table(table, partial)
        self.write(self._place("cells", cell, "json"), record_text(played.record) + "\n")
        with (self.path / TIMINGS).open("a", encoding="utf-8") as file:
            file.write(f"{cell.scenario},{cell.label},{cell.seed},{played.seconds:.3f}\n")

    def read_cell(self, cell: Cell) -> dict[str, Any] | None:
        """The record of a cell; None if it has not been played.

        Raises:
            CorruptCellError: if its file is not a record; the message names it.
        """
        path = self.path / self._place("cells", cell, "json")
        try:
            record = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise CorruptCellError(f"{path}: expected the record of a cell: {error}") from None
        whole = isinstance(record, dict) and set(record) == set(_RECORD)
        if not whole or [record[name] for name in _RECORD[:3]] != [cell.scenario, cell.label, cell.seed]:
            raise CorruptCellError(f"{path}: expected the record of {cell.label}, seed {cell.seed}")
        try:
            for window in record["windows"]:
                window["figures"] = {
                    name: math.nan if value is None else value for name, value in window["figures"].items()
                }
                window["targets"] = [[int(k), int(target)] for k, target in window["targets"]]
        except (TypeError, KeyError, ValueError, AttributeError):
            raise CorruptCellError(f"{path}: expected windows with figures and targets") from None
        return record

    def write(self, name: str | Path, text: str) -> None:
        """Write a text file of the folder; it appears whole or not at all."""
        with replacing(self.path / name) as partial:
            partial.write_text(text, encoding="utf-8")

    def begin(self, config: Mapping[str, Any]) -> None:
        """There are cells to play: the run is not complete, whatever it was."""
        (self.path / SUMMARY).unlink(missing_ok=True)
        self.write_config(config)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write ``config.yaml`` anew."""
        self.write(CONFIG, _yaml(config))

    def _place(self, kind: str, cell: Cell, suffix: str) -> Path:
        return Path(kind, cell.scenario, cell.label, f"seed{cell.seed}.{suffix}")


def new_folder(out: Path | None, name: str) -> Path:
    """Make ``out``, or ``runs/<name>-<n>`` with the first number that is free.

    Raises:
        InputError: if ``out`` holds anything.
        OSError: if it cannot be made.
    """
    return _make_numbered(name) if out is None else _make_empty(out)


def _make_numbered(name: str) -> Path:
    DEFAULT_ROOT.mkdir(exist_ok=True)
    n = 1
    while True:
        try:
            (path := DEFAULT_ROOT / f"{name}-{n}").mkdir()
        except FileExistsError:
            n += 1
        else:
            return path


def _make_empty(out: Path) -> Path:
    if (out / CONFIG).is_file():
        raise InputError(f"--out: {out}: holds a run; expected a new folder (--resume goes on with one)")
    if out.is_dir() and any(out.iterdir()):
        found = sorted(path.name for path in out.iterdir())[0]
        raise InputError(f"--out: {out}: expected a new or an empty folder, found {found}")
    out.mkdir(parents=True, exist_ok=True)
    return out


def _write_table(table: pd.DataFrame, path: Path) -> None:
    floats = [column for column in table if table[column].dtype == np.float64]
    table.to_parquet(
        path,
        index=False,
        compression="zstd",
        # Times hardly repeat: a dictionary of them is a waste, their leading bytes compress.
        use_byte_stream_split=floats,
        use_dictionary=[column for column in table if column not in floats],
    )


def _yaml(values: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=_WIDTH)


def record_text(record: Mapping[str, Any]) -> str:
    """The record of a cell as its file has it."""
    return json.dumps(_without_nan(record), separators=(",", ":"), default=_plain, allow_nan=False)


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: null."""
    if isinstance(value, dict):
        return {name: _without_nan(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Any) -> Any:
    """What JSON does not know, such as arrays among a policy's parameters."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return f"{type(value).__module__}.{type(value).__qualname__}"
