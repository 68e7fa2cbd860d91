"""What a fit came to, as tables and as a picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

from preserve_gym.latency.batch import REGIONS
from preserve_gym.latency.fit import Fit
from preserve_gym.latency.presets import Preset, load_preset, preset_names

PICTURES = (".png", ".svg", ".pdf")
_NAMES = {"decode_only": "decode only", "prefill_only": "prefill only", "mixed": "mixed"}


def show_fit(console: Console, preset: Preset, fitted: Fit) -> None:
    """Print the law, the limits and the errors by region."""
    console.print(f"\n[bold]{preset.model} on {preset.tp} x {preset.gpu}[/bold]", highlight=False)
    if preset.extrapolated:
        console.print(f"extrapolated from a profile of {preset.recipe.measured_on}", highlight=False)
    law = {name: value for name, value in dataclasses.asdict(fitted.law).items() if value}
    limits = ("num_gpu_blocks", "max_num_seqs", "max_num_batched_tokens", "max_model_len", "cold_start_s")
    for values in (law, {name: preset.instance[name] for name in limits}):
        words = [Text(f"{name} {value:g}") for name, value in values.items()]
        console.print(Columns(words, padding=(0, 2)))
    checked = fitted.checked
    console.print("Error over batches that the fit has not seen:")
    table = Table("batches", "number", "MAPE, %", "median, ms", box=None, padding=(0, 2, 0, 0))
    for name in REGIONS:
        rows = checked[checked["region"] == name]
        if len(rows):
            mean = getattr(fitted.error, name)
            median_ms = 1e3 * rows["measured_s"].median()
            table.add_row(_NAMES[name], str(len(rows)), f"{mean:.1f}", f"{median_ms:.1f}")
    error = fitted.error
    table.add_row("all", str(len(checked)), f"{error.overall:.1f}, P95 {error.p95:.1f}", "")
    console.print(table)


def show_check(console: Console, path: Path, checked: pd.DataFrame) -> None:
    """Print how far a law lies from whole iterations, by region: the mean and the median with their signs."""
    console.print(f"Against {path.name}", highlight=False, soft_wrap=True)
    table = Table("batches", "number", "MAPE, %", "median error, %", box=None, padding=(0, 2, 0, 0))
    percent = 100 * (checked["predicted_s"] / checked["measured_s"] - 1)
    for name in REGIONS:
        rows = percent[checked["region"] == name]
        if len(rows):
            table.add_row(_NAMES[name], str(len(rows)), f"{rows.abs().mean():.1f}", f"{rows.median():+.1f}")
    console.print(table)


def show_list(console: Console) -> None:
    """Print the presets."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in ("model", "GPU", "TP"):
        table.add_column(column, no_wrap=True)
    for column in ("all", "decode", "prefill", "mixed", "P95", "KV\ntokens", "start\ns", "$/h"):
        table.add_column(column, justify="right", no_wrap=True)
    for preset in map(load_preset, preset_names()):
        values = [f"{value:.1f}" for value in dataclasses.astuple(preset.fit_error)]
        instance = preset.instance
        tokens = 16 * (instance["num_gpu_blocks"] - 1)
        gpu = f"{preset.gpu} *" if preset.extrapolated else preset.gpu
        table.add_row(
            preset.model,
            gpu,
            str(preset.tp),
            *values,
            f"{tokens:,}",
            f"{instance['cold_start_s']:g}",
            f"{instance['usd_per_gpu_hour']:.2f}",
        )
    console.print(table)
    console.print("Errors of the law against its profile in percent; start is a cold start; $/h of a GPU.")
    console.print("* carried over from another GPU")


def plot(fitted: Fit, title: str, file: BinaryIO, kind: str) -> None:
    """Draw predicted against measured times; ``kind`` is one of ``PICTURES`` without the dot."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    times, errors = figure.subplots(1, 2)
    checked = fitted.checked
    for name, colour in zip(REGIONS, ("tab:blue", "tab:orange", "tab:green"), strict=True):
        rows = checked[checked["region"] == name]
        if rows.empty:
            continue
        measured_ms = 1e3 * rows["measured_s"].to_numpy(float)
        predicted_ms = 1e3 * rows["predicted_s"].to_numpy(float)
        style = {"s": 6, "alpha": 0.5, "color": colour, "linewidths": 0}
        times.scatter(measured_ms, predicted_ms, label=_NAMES[name], **style)
        errors.scatter(rows["tokens"], 100 * (predicted_ms / measured_ms - 1), **style)
    measured = 1e3 * checked["measured_s"].to_numpy(float)
    ends = np.array([measured.min(), measured.max()])
    times.plot(ends, ends, color="black", linewidth=0.8)
    times.set(xscale="log", yscale="log", xlabel="measured, ms", ylabel="predicted, ms")
    times.legend(frameon=False)
    errors.axhline(0.0, color="black", linewidth=0.8)
    errors.set(xscale="log", xlabel="tokens in the batch", ylabel="error, %")
    for axis in (times.xaxis, times.yaxis, errors.xaxis):
        axis.set_major_locator(LogLocator(subs=(1.0,) if axis is errors.xaxis else (1.0, 2.0, 5.0)))
        axis.set_major_formatter("{x:,g}")
        axis.set_minor_formatter(NullFormatter())
    figure.suptitle(f"Iterations of {title}, which the fit has not seen")
    figure.savefig(file, format=kind, dpi=120)
