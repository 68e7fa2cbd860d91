"""Where traces, measured profiles and golden cases lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

ENVIRONMENT_VARIABLE = "PRESERVE_GYM_DATA"


def data_dir() -> Path:
    """Return the folder that holds ``traces/``, ``profiles/`` and ``golden/``; it need not exist.

    It is the one that the environment variable ``PRESERVE_GYM_DATA`` names, else the user's cache
    folder (``~/.cache/preserve_gym`` on Linux).
    """
    configured = os.environ.get(ENVIRONMENT_VARIABLE)
    if configured:
        return Path(configured).expanduser()
    return platformdirs.user_cache_path("preserve_gym", appauthor=False)


def find_data(relative: str) -> Path | None:
    """Return the path of a data file, or None where this machine does not have it.

    Args:
        relative: path inside the data folder, with forward slashes, such as ``traces/week.csv.gz``.
    """
    path = data_dir() / relative
    return path if path.is_file() else None
