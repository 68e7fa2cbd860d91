"""What the package can run with, checked before anything else is imported: errors say what is needed."""

from __future__ import annotations

import re
import sys
from importlib import metadata

PYTHON = ((3, 11), (3, 13))
"""The oldest and the newest release."""
OLDEST = {
    "gymnasium": "1.1",
    "matplotlib": "3.9",
    "numba": "0.61",
    "numpy": "2.1",
    "pandas": "2.2.3",
    "pillow": "11",
    "platformdirs": "4.2",
    "pyarrow": "18",
    "pyyaml": "6.0.2",
    "rich": "13.7",
    "scipy": "1.13",
    "tyro": "0.9",
}
"""Of each library of the core, the oldest release."""


def refuse_unsupported() -> None:
    """Refuse a release of Python or of a library that the package cannot run with.

    Libraries that were not installed as packages are left to their own import.

    Raises:
        ImportError: one line that names all that has to change, and how.
    """
    found = sys.version_info[:2]
    if not PYTHON[0] <= found <= PYTHON[1]:
        oldest, newest, running = (".".join(map(str, version)) for version in (*PYTHON, found))
        raise ImportError(
            f"preserve_gym needs Python {oldest} to {newest}, this is {running} ({sys.executable})"
        )
    old = {
        name: release for name in OLDEST if (release := _installed(name)) and _is_older(release, OLDEST[name])
    }
    if old:
        needed = ", ".join(
            f"{name} {OLDEST[name]} or newer, found {release}" for name, release in old.items()
        )
        command = " ".join(f"'{name}>={OLDEST[name]}'" for name in old)
        raise ImportError(f"preserve_gym needs {needed}: pip install {command}")


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _is_older(release: str, oldest: str) -> bool:
    return _numbers(release) < _numbers(oldest)


def _numbers(release: str) -> tuple[int, ...]:
    """The leading numbers: those of a release candidate are those of its release."""
    leading = re.match(r"\d+(\.\d+)*", release)
    return tuple(map(int, leading[0].split("."))) if leading else ()
