"""The table of a run, for a terminal and for a text file."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from preserve_gym.forecasting.makers import PRESERVE_MAPE
from preserve_gym.prediction.lengths import PRESERVE_SIGMA

WIDTH = 110
"""Columns of the table where there is no terminal to ask."""

# Heading, column of the summary, factor to the shown unit, format.
_COLUMNS: tuple[tuple[str, str, float, str], ...] = (
    ("SLO\nmet\n%", "slo_attainment", 100.0, ".2f"),
    ("TTFT\nP50\ns", "ttft_p50_s", 1.0, ".3f"),
    ("\nP99\ns", "ttft_p99_s", 1.0, ".2f"),
    ("TPOT\nP50\nms", "tpot_p50_s", 1000.0, ".1f"),
    ("\nP99\nms", "tpot_p99_s", 1000.0, ".1f"),
    ("E2E/\ntoken\nP99 s", "normalized_latency_p99_s", 1.0, ".3f"),
    ("GPU-\nhours\n", "gpu_hours", 1.0, ".1f"),
    ("\n\nUSD", "cost_usd", 1.0, ".1f"),
    ("Times\nscaled\n", "scaling_actions", 1.0, ".0f"),
)


_FORECASTS = {
    "noisy": f"noisy, the truth with a set error of {PRESERVE_MAPE:.1%} on average",
    "naive": "naive, the window before",
    "oracle": "oracle, the truth",
}
_LENGTHS = {
    "noisy": f"noisy, the truth with a set log-normal error (sigma {PRESERVE_SIGMA:g})",
    "oracle": "oracle, the truth",
    "bucket": "bucket, the right or a neighbouring bucket",
    "empirical": "empirical, the truth with the errors of a real predictor",
    "learned": "learned without the text",
    "mean": "mean, the same for every request",
    "ssjf": "ssjf, the truth seen through the confusion of SSJF's classifier",
}


def summary_table(summary: pd.DataFrame) -> Table:
    """One row a policy, in order of appearance: the mean over the seeds, and their standard deviation.

    Args:
        summary: one row per policy and seed: ``policy``, ``seed`` and the columns of
            ``experiments.metrics.summarize``; cost is shown if it is there.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, show_edge=False)
    table.add_column("\n\nPolicy", no_wrap=True)
    columns = [column for column in _COLUMNS if column[1] in summary]
    for heading, *_ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for policy, rows in summary.groupby("policy", sort=False):
        cells = [_figure(rows[name].to_numpy(np.float64) * factor, form) for _, name, factor, form in columns]
        table.add_row(str(policy), *cells)
    return table


def _figure(values: np.ndarray, form: str) -> str:
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return "-"
    mean = format(float(values.mean()), form)
    return mean if len(values) == 1 else f"{mean}\n±{format(float(values.std(ddof=1)), form)}"


def describe(config: Mapping[str, Any], summary: pd.DataFrame) -> str:
    """What the table is about, in one or two sentences.

    Args:
        config: as written to ``config.yaml``.
        summary: as for ``summary_table``.
    """
    cluster, workload, seeds = config["cluster"], config["workload"], config["seeds"]
    service, rate = workload["service_scale"], workload["rate_scale"]
    scale = f" (service scale {service:g})" * (service != 1.0) + f" x{rate:g}" * (rate != 1.0)
    cold_start_s = cluster["cold_start_s"]
    if cold_start_s is None:
        cold_start_s = cluster["instance"]["cold_start_s"]
    which = f"seed {seeds[0]}"
    if len(seeds) > 1:
        which = f"mean ± standard deviation of seeds {seeds[0]} to {seeds[-1]}"
    return (
        f"{config['trace']['name']}{scale}, {which}: {summary['arrived'].mean():,.0f} requests in "
        f"{_duration(float(summary['horizon_s'].mean()))}. {cluster['min_instances']} to "
        f"{cluster['max_instances']} instances of {cluster['instance']['name']}, cold start "
        f"{_cold_start(cold_start_s)}. SLO: {_slo(cluster['slo'])}. "
        f"Forecast: {_FORECASTS.get(workload['forecaster'], workload['forecaster'])}. "
        f"Output lengths: {_LENGTHS.get(workload['predictor'], workload['predictor'])}."
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 3600.0:.1f} h" if seconds >= 7200.0 else f"{seconds / 60.0:.1f} min"


def _cold_start(cold_start_s: float | Sequence[float]) -> str:
    if not isinstance(cold_start_s, Sequence):
        return f"{cold_start_s:g} s"
    mean_s = math.fsum(cold_start_s) / len(cold_start_s)
    return f"drawn from {len(cold_start_s):,} of mean {mean_s:.4g} s"


def _slo(slo: Mapping[str, float | None]) -> str:
    parts = []
    if slo["ttft_s"] is not None:
        per_token_s = slo["ttft_per_prompt_token_s"]
        extra = f" + {per_token_s:g} s per prompt token" if per_token_s else ""
        parts.append(f"first token within {slo['ttft_s']:g} s{extra}")
    if slo["tpot_s"] is not None:
        parts.append(f"then {slo['tpot_s']:g} s per token")
    if slo["normalized_latency_s"] is not None:
        parts.append(f"{slo['normalized_latency_s']:g} s per output token from arrival to end")
    return ", ".join(parts)


def show(console: Console, table: Table, about: str) -> None:
    """Print both; the table at its full width even where that is more than the console's."""
    width = console.width
    console.width = max(width, Console(width=1000).measure(table).maximum)
    console.print(table)
    console.width = width
    console.print()
    console.print(about, highlight=False, markup=False)


def as_text(table: Table, about: str) -> str:
    """What ``show`` prints, as plain text without trailing blanks."""
    stream = io.StringIO()
    show(Console(file=stream, width=WIDTH, force_terminal=False, color_system=None), table, about)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())
