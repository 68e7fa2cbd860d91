"""The forecast of a trace by a forecaster that learns from the past."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from preserve_gym.errors import InputError
from preserve_gym.forecasting.cache import cached_walk
from preserve_gym.forecasting.forecaster import FloatArray, Forecaster
from preserve_gym.forecasting.registry import INSTANT, make_forecaster
from preserve_gym.forecasting.walk_forward import ForecastTable, Past, walk_past
from preserve_gym.forecasting.workload_forecast import WorkloadForecast
from preserve_gym.traces import Trace


def learnt_forecast(
    forecaster: str | Forecaster,
    trace: Trace,
    window_s: float,
    horizon: int,
    *,
    prior: tuple[float, float] | None,
    train_s: float | None,
    pending: FloatArray | None,
    levels: tuple[float, ...],
    cache_dir: Path | None,
    wanted_from_s: float = 0.0,
) -> WorkloadForecast:
    """Prompt and output tokens, each a series of its own; arguments as for ``make_forecast``.

    What takes time is cached, with its progress on standard error if that is a terminal.

    Raises:
        InputError: on an unknown name, an argument out of range, or a missing library.
    """
    check_horizon(horizon)
    _check_levels(levels)
    # A wrong name must fail before anything is computed or read.
    name = make_forecaster(forecaster, window_s).name if isinstance(forecaster, str) else forecaster.name
    series = trace.window_tokens(window_s)
    count = len(series[0])
    train_windows = count if train_s is None else min(max(int((train_s + 1e-9) // window_s), 1), count)
    if prior is None:
        prior = (float(series[0][:train_windows].mean()), float(series[1][:train_windows].mean()))
    check_prior(name, prior)
    wanted_from = int((wanted_from_s + 1e-9) // window_s)
    nothing = np.zeros((count, 0))
    pasts = [
        Past(tokens, late, train_windows, first, window_s, trace.clock_s)
        for tokens, late, first in zip(
            series, (nothing, nothing if pending is None else pending), prior, strict=True
        )
    ]
    tables = []
    with _progress(name, 2 * count) as advance:
        for past in pasts:
            tables.append(_walk(forecaster, past, horizon, levels, cache_dir, advance, wanted_from))
    prompt, output = tables
    return WorkloadForecast(
        window_s,
        prompt.mean,
        output.mean,
        name,
        uses_future=False,
        levels=levels,
        prompt_quantiles=prompt.quantiles,
        output_quantiles=output.quantiles,
        fallbacks=int((prompt.fell_back | output.fell_back).sum()),
        failure=prompt.failure or output.failure,
    )


def _walk(
    forecaster: str | Forecaster,
    past: Past,
    horizon: int,
    levels: tuple[float, ...],
    cache_dir: Path | None,
    report: Callable[[int, int], None],
    wanted_from: int,
) -> ForecastTable:
    if not isinstance(forecaster, str):
        return walk_past(forecaster, past, horizon, levels, report, wanted_from)
    if forecaster in INSTANT:
        model = make_forecaster(forecaster, past.window_s)
        return walk_past(model, past, horizon, levels, report, wanted_from)
    return cached_walk(
        lambda: make_forecaster(forecaster, past.window_s),
        forecaster,
        past,
        horizon,
        levels,
        folder=cache_dir,
        report=report,
        wanted_from=wanted_from,
    )


@contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, if that is a terminal, for two series one after the other."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} windows"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(f"forecast {name}", total=total)
        before = 0

        def advance(done: int, to_do: int) -> None:
            nonlocal before
            bar.update(task, completed=before + done)
            if done == to_do:
                before += to_do

        yield advance


def check_horizon(horizon: int) -> None:
    """Refuse a horizon out of range.

    Raises:
        InputError: unless it is an integer in [1, 10000].
    """
    if isinstance(horizon, bool) or not isinstance(horizon, Integral) or not 1 <= horizon <= 10_000:
        raise InputError(f"forecast: horizon: expected an integer in [1, 10000] windows, got {horizon!r}")


def check_prior(name: str, prior: tuple[float, float]) -> None:
    """Refuse what is no pair of token counts.

    Raises:
        InputError: unless it is two finite numbers >= 0.
    """
    if len(prior) != 2 or not all(isinstance(p, Real) and math.isfinite(p) and p >= 0 for p in prior):
        raise InputError(f"forecast {name!r}: prior: expected two finite numbers >= 0, got {prior!r}")


def _check_levels(levels: tuple[float, ...]) -> None:
    if not all(isinstance(p, Real) and 0.0 < p < 1.0 for p in levels) or list(levels) != sorted(set(levels)):
        raise InputError(f"forecast: levels: expected ascending numbers in (0, 1), got {levels!r}")
