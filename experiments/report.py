"""The table of a run's episodes, and in words what a scenario is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from preserve_gym.forecasting.makers import PRESERVE_MAPE
from preserve_gym.prediction.lengths import PRESERVE_SIGMA

_FORECASTS = {
    "noisy": f"noisy, the truth with a set error of {PRESERVE_MAPE:.1%} on average",
    "naive": "naive, the window before",
    "oracle": "oracle, the truth",
    "profile-ar": "profile-ar, from what has passed; where that is short, the window before",
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
    mean = "on average " * (windows > 1)
    return (
        f"{scenario}{scale}, {which}: {mean}{episodes['arrived'].mean():,.0f} requests in "
        f"{_duration(float(episodes['horizon_s'].mean()))}. {cluster['min_instances']} to "
        f"{cluster['max_instances']} instances of {cluster['instance']['name']}, cold start "
        f"{_cold_start(cold_start_s)}. SLO: {slo_words(cluster['slo'])}. "
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


def slo_words(slo: Mapping[str, float | None]) -> str:
    """The deadlines of a request, in words; ``slo`` as in ``config.yaml``."""
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
