"""The tables of a run: of episodes, their means, and what a terminal shows."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
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

KEYS = ("scenario", "policy", "seed", "window", "start_s")
"""Columns of ``episodes.csv`` that say which episode a row is; the others are figures."""

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


def episodes_table(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per scenario, policy, seed and window, in the order of the records; failed cells have none.

    Args:
        records: of cells, as ``experiments.folder.RunFolder.read_cell`` gives them.
    """
    rows = [
        {name: record[name] for name in ("scenario", "policy", "seed")}
        | {"window": window["window"], "start_s": window["start_s"]}
        | window["figures"]
        for record in records
        for window in record["windows"]
    ]
    return pd.DataFrame(rows)


def summary_of(episodes: pd.DataFrame) -> pd.DataFrame:
    """One row per scenario and policy, in order of appearance: means over seeds and windows."""
    if episodes.empty:
        return pd.DataFrame(columns=["scenario", "policy"])
    by = episodes.groupby(["scenario", "policy"], sort=False)
    means = by[[name for name in episodes if name not in KEYS]].mean()
    counts = by.agg(seeds=("seed", "nunique"), windows=("window", "nunique"))
    return counts.join(means).reset_index()


def policy_table(episodes: pd.DataFrame) -> Table:
    """One row a policy, in order of appearance: the mean over seeds and windows; with several seeds also the
    standard deviation of the seeds' means.

    Args:
        episodes: of one scenario, columns of ``episodes_table``; cost is shown if it is there.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, show_edge=False)
    table.add_column("\n\nPolicy", no_wrap=True)
    columns = [column for column in _COLUMNS if column[1] in episodes]
    for heading, *_ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for policy, rows in episodes.groupby("policy", sort=False):
        means = rows.groupby("seed")[[name for _, name, _, _ in columns]].mean()
        cells = [
            _figure(means[name].to_numpy(np.float64) * factor, form) for _, name, factor, form in columns
        ]
        table.add_row(str(policy), *cells)
    return table


def _figure(values: np.ndarray, form: str) -> str:
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return "-"
    mean = format(float(values.mean()), form)
    return mean if len(values) == 1 else f"{mean}\n±{format(float(values.std(ddof=1)), form)}"


def describe(scenario: str, config: Mapping[str, Any], episodes: pd.DataFrame) -> str:
    """What the table of a scenario is about, in a few sentences.

    Args:
        scenario: its name.
        config: as written to ``config.yaml``.
        episodes: those of the scenario.
    """
    about, seeds = config["scenarios"][scenario], config["seeds"]
    cluster, workload = about["cluster"], about["workload"]
    service, rate = workload["service_scale"], workload["rate_scale"]
    scale = f" (service scale {service:g})" * (service != 1.0) + f" x{rate:g}" * (rate != 1.0)
    cold_start_s = cluster["cold_start_s"]
    if cold_start_s is None:
        cold_start_s = cluster["instance"]["cold_start_s"]
    which = f"seed {seeds[0]}"
    if len(seeds) > 1:
        which = f"seeds {seeds[0]} to {seeds[-1]}"
    windows = episodes["window"].nunique()
    if config["split"] is not None:
        which = f"{config['split']}, {windows} window{'s' * (windows > 1)}, {which}"
    each = " each" * (windows > 1)
    return (
        f"{scenario}{scale}, {which}: {episodes['arrived'].mean():,.0f} requests in "
        f"{_duration(float(episodes['horizon_s'].mean()))}{each}. {cluster['min_instances']} to "
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


def show(console: Console, config: Mapping[str, Any], episodes: pd.DataFrame) -> None:
    """Print the table of each scenario, at full width even on a narrower console, and what it is about."""
    for k, (scenario, rows) in enumerate(episodes.groupby("scenario", sort=False) if len(episodes) else ()):
        table = policy_table(rows)
        width = console.width
        console.width = max(width, Console(width=1000).measure(table).maximum)
        if k:
            console.print()
        console.print(table)
        console.width = width
        console.print()
        console.print(describe(str(scenario), config, rows), highlight=False, markup=False)


def as_text(config: Mapping[str, Any], episodes: pd.DataFrame) -> str:
    """What ``show`` prints, as plain text without trailing blanks."""
    stream = io.StringIO()
    show(Console(file=stream, width=WIDTH, force_terminal=False, color_system=None), config, episodes)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())
