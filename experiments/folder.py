"""The folder of a run: written aside, and moved into place when it is complete."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from preserve_gym.errors import InputError

CONFIG = "config.yaml"
ENTRIES = frozenset({CONFIG, "summary.csv", "table.txt", "requests", "intervals", "plots"})
DEFAULT_ROOT = Path("runs")


class RunFolder:
    """A folder that appears whole or not at all, used as a context manager.

    Inside, ``path`` is a hidden folder beside the final one; ``publish`` moves it into place. Leaving
    without having published removes it, and the parents made for it.

    Args:
        out: where the run shall be: a path that does not exist, an empty folder, or an earlier run's
            folder, which is replaced. None: ``runs/<name>-<n>``, n the first number that is free.
        name: of the run, for the default place.

    Raises:
        InputError: if ``out`` holds anything else, or cannot be written.
    """

    def __init__(self, out: Path | None, name: str) -> None:
        self._out = None if out is None else Path(out).absolute()
        self._name = name
        self._root = DEFAULT_ROOT.absolute() if self._out is None else self._out.parent
        if self._out is not None:
            _check_out(self._out)
        existing = self._root
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        if not existing.is_dir():
            raise InputError(f"--out: {existing}: expected a folder, got a file")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise InputError(f"--out: {existing}: not writable")
        self._made: list[Path] = []
        self.path = self._root / f".{name}-{secrets.token_hex(4)}.partial"

    def __enter__(self) -> Self:
        missing = self.path
        while not missing.exists():
            self._made.append(missing)
            missing = missing.parent
        self.path.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        for folder in self._made[1:]:
            try:
                folder.rmdir()
            except OSError:
                break

    def publish(self) -> Path:
        """Move what was written into place and return that place."""
        if self._out is not None:
            _check_out(self._out)
            return self._replace(self._out)
        n = 1
        while True:
            place = self._root / f"{self._name}-{n}"
            if not place.exists():
                try:
                    return self.path.rename(place)
                except OSError:
                    # Another run took the number in the meantime.
                    if not place.exists():
                        raise
            n += 1

    def _replace(self, out: Path) -> Path:
        if not out.exists():
            return self.path.rename(out)
        aside = self.path.with_suffix(".old")
        out.rename(aside)
        try:
            self.path.rename(out)
        except BaseException:
            aside.rename(out)
            raise
        shutil.rmtree(aside, ignore_errors=True)
        return out


def _check_out(out: Path) -> None:
    """Refuse to replace anything that is not a run's folder."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"--out: {out}: expected a folder, got a file")
    names = {entry.name for entry in out.iterdir()}
    if not names:
        return
    foreign = sorted(names - ENTRIES)
    if foreign or not _is_config(out / CONFIG):
        found = foreign[0] if foreign else f"no {CONFIG} of a run"
        raise InputError(
            f"--out: {out}: expected a new folder, an empty one or an earlier run's; found {found}"
        )


def _is_config(path: Path) -> bool:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(config, dict) and {"options", "cluster", "workload", "policies"} <= set(config)
