"""The table of a run, for a terminal and for a text file."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table

WIDTH = 110
"""Columns of the table where there is no terminal to ask."""

# Heading, column of the summary, factor to the shown unit, format.
_COLUMNS: tuple[tuple[str, str, float, str], ...] = (
    ("SLO\nattainment\n%", "slo_attainment", 100.0, ".2f"),
    ("TTFT\nP50\ns", "ttft_p50_s", 1.0, ".3f"),
    ("\nP99\ns", "ttft_p99_s", 1.0, ".2f"),
    ("TPOT\nP50\nms", "tpot_p50_s", 1000.0, ".1f"),
    ("\nP99\nms", "tpot_p99_s", 1000.0, ".1f"),
    ("Latency\nper token\nP99, s", "normalized_latency_p99_s", 1.0, ".3f"),
    ("GPU-\nhours\n", "gpu_hours", 1.0, ".1f"),
    ("Scaling\nactions\n", "scaling_actions", 1.0, ".0f"),
)


def summary_table(summary: pd.DataFrame) -> Table:
    """One row a policy, in order of appearance: the mean over the seeds, and their standard deviation.

    Args:
        summary: one row per policy and seed: ``policy``, ``seed`` and the columns of
            ``experiments.metrics.summarize``.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("\n\nPolicy", no_wrap=True)
    for heading, *_ in _COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    for policy, rows in summary.groupby("policy", sort=False):
        cells = [_figure(rows[name].to_numpy(np.float64) * factor, form) for _, name, factor, form in _COLUMNS]
        table.add_row(str(policy), *cells)
    return table


def _figure(values: np.ndarray, form: str) -> str:
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return "-"
    mean = format(float(values.mean()), form)
    return mean if len(values) == 1 else f"{mean} ±{format(float(values.std(ddof=1)), form)}"


def describe(config: Mapping[str, Any], summary: pd.DataFrame) -> str:
    """What the table is about, in one or two sentences.

    Args:
        config: as written to ``config.yaml``.
        summary: as for ``summary_table``.
    """
    cluster, workload, seeds = config["cluster"], config["workload"], config["seeds"]
    requests = summary["arrived"].mean()
    scale = f" x{workload['rate_scale']:g}" if workload["rate_scale"] != 1.0 else ""
    many = f"mean ± standard deviation of seeds {seeds[0]}-{seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"
    return (
        f"{config['trace']['name']}{scale}, {many}: {requests:,.0f} requests in "
        f"{_duration(float(summary['horizon_s'].mean()))}. {cluster['min_instances']} to "
        f"{cluster['max_instances']} instances of {cluster['instance']['name']}, cold start "
        f"{cluster['cold_start_s']:g} s. SLO: {_slo(cluster['slo'])}. "
        f"{_prediction(workload['forecaster'], 'workload forecast')}, "
        f"{_prediction(workload['predictor'], 'output-length prediction')}."
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 3600.0:.1f} h" if seconds >= 7200.0 else f"{seconds / 60.0:.1f} min"


def _slo(slo: Mapping[str, float | None]) -> str:
    parts = []
    if slo["ttft_s"] is not None:
        extra = f" + {slo['ttft_per_prompt_token_s']:g} s per prompt token" if slo["ttft_per_prompt_token_s"] else ""
        parts.append(f"first token within {slo['ttft_s']:g} s{extra}")
    if slo["tpot_s"] is not None:
        parts.append(f"{slo['tpot_s']:g} s for each further one")
    if slo["normalized_latency_s"] is not None:
        parts.append(f"{slo['normalized_latency_s']:g} s per output token")
    return ", ".join(parts)


def _prediction(name: str, what: str) -> str:
    return {"noisy": f"noisy {what} (the truth with a set error)", "oracle": f"{what} by an oracle"}.get(
        name, f"{name} {what}"
    )


def as_text(*parts: RenderableType, width: int = WIDTH) -> str:
    """Rich output as plain text without trailing blanks."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=False, color_system=None, highlight=False)
    for part in parts:
        console.print(part)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())
