"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".partial"
"""How names of files end that are not whole yet."""


@contextlib.contextmanager
def replacing(place: Path) -> Iterator[Path]:
    """A path beside ``place`` to write to; it takes the place at the end, or is removed after an error.

    Args:
        place: of the file; its folder is made if it is missing.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f".{place.name}.{os.getpid()}{PARTIAL}")
    try:
        yield partial
        partial.replace(place)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
