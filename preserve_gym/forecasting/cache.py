"""Forecasts kept on disk, each ``refit_period`` under a hash of all that it was made from."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import platformdirs

from preserve_gym.forecasting.forecaster import Forecaster
from preserve_gym.forecasting.walk_forward import ForecastTable, Past, Walker, chunks, join, skipped_rows

ENVIRONMENT_VARIABLE = "PRESERVE_GYM_FORECASTS"
_LIBRARIES = ("numpy", "prophet", "scikit-learn", "sktime", "statsmodels", "torch")


def cache_dir() -> Path:
    """The folder of the forecasts; it need not exist.

    It is the one that the environment variable ``PRESERVE_GYM_FORECASTS`` names, else ``forecasts`` in the
    user's cache folder (``~/.cache/preserve_gym`` on Linux).
    """
    configured = os.environ.get(ENVIRONMENT_VARIABLE)
    if configured:
        return Path(configured).expanduser()
    return platformdirs.user_cache_path("preserve_gym", appauthor=False) / "forecasts"


def cached_walk(
    make: Callable[[], Forecaster],
    configuration: str,
    past: Past,
    horizon: int,
    levels: tuple[float, ...] = (),
    *,
    folder: Path | None = None,
    report: Callable[[int, int], None] | None = None,
    wanted_from: int = 0,
) -> ForecastTable:
    """``walk_forward`` in parts of a ``refit_period``: those on disk are read, others computed and written.

    So a run that was interrupted goes on where it stopped, and a longer recording, or another split of it,
    shares the parts that it has in common. A file that cannot be read is computed again; where nothing can
    be written, nothing is kept.

    Args:
        make: makes the forecaster; called if a part is missing.
        configuration: all that determines the forecaster, beside the code of this package.
        past: the series.
        horizon: windows to forecast, the one that begins included.
        levels: of the quantiles, ascending in (0, 1).
        folder: of the files; None: ``cache_dir()``.
        report: called with the windows done and those to do.
        wanted_from: parts that end before this window are neither computed nor kept (``skipped_rows``).
    """
    folder = cache_dir() if folder is None else folder
    walker: Walker | None = None
    tables = []
    for (first, end), key in zip(chunks(past), _keys(configuration, past, horizon, levels), strict=True):
        if end <= wanted_from:
            tables.append(skipped_rows(past, first, end, horizon, levels))
            continue
        path = folder / key[:2] / f"{key}.npz"
        table = _read(path, end - first, horizon, levels)
        if table is None:
            walker = walker or Walker(make(), past, horizon, levels)
            table = walker.rows(first, end, report)
            _write(path, table)
        elif report is not None:
            report(end, len(past.series))
        tables.append(table)
    return join(tables)


def _keys(configuration: str, past: Past, horizon: int, levels: tuple[float, ...]) -> list[str]:
    """A hash for each chunk, of the code, the configuration and the past that its last row sees."""
    start = hashlib.sha256(_code().encode())
    # 600 and 600.0 must have one name.
    numbers = [float(x) for x in (*levels, past.prior, past.window_s, past.clock_s)]
    start.update(repr((configuration, int(horizon), past.train_windows, numbers)).encode())
    keys = []
    for first, end in chunks(past):
        digest = start.copy()
        digest.update(f"{first} {end} {past.pending.shape[1]}".encode())
        digest.update(past.series[: end - 1].tobytes())
        digest.update(past.pending[:end].tobytes())
        keys.append(digest.hexdigest())
    return keys


@functools.cache
def _code() -> str:
    """A hash of the sources of this package, and the releases of the libraries that it calls."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)} ".encode() + path.read_bytes())
    for library in _LIBRARIES:
        try:
            digest.update(f"{library} {metadata.version(library)} ".encode())
        except metadata.PackageNotFoundError:
            continue
    return digest.hexdigest()


def _read(path: Path, count: int, horizon: int, levels: tuple[float, ...]) -> ForecastTable | None:
    try:
        # NumPy leaves a path open that it cannot read.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            table = ForecastTable(
                file["mean"], file["quantiles"] if levels else None, file["fell_back"], str(file["failure"])
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return table if table.mean.shape == (count, horizon) else None


def _write(path: Path, table: ForecastTable) -> None:
    """Under its name only when it is whole, so that an interruption leaves no half file."""
    quantiles = np.empty(0) if table.quantiles is None else table.quantiles
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            temporary = Path(file.name)
            np.savez(
                file,
                mean=table.mean,
                quantiles=quantiles,
                fell_back=table.fell_back,
                failure=np.array(table.failure),
            )
        temporary.replace(path)
    except OSError:
        return
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
