"""What a run is measured by, from its per-request results and its totals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preserve_gym.config import InstanceConfig
from preserve_gym.sim.costs import costs

FloatArray = NDArray[np.float64]


def ttft_s(requests: pd.DataFrame) -> FloatArray:
    """Time to first token of each request, s, shape (n,); NaN where none came."""
    return (requests["first_token_s"] - requests["arrival_s"]).to_numpy(np.float64)


def tpot_s(requests: pd.DataFrame) -> FloatArray:
    """Mean time per output token after the first, s, shape (n,); NaN for one token, or not completed."""
    intervals = requests["output_tokens"].to_numpy(np.float64) - 1.0
    decode_s = (requests["completed_s"] - requests["first_token_s"]).to_numpy(np.float64)
    return np.divide(decode_s, intervals, out=np.full(len(requests), np.nan), where=intervals > 0.0)


def normalized_latency_s(requests: pd.DataFrame) -> FloatArray:
    """End-to-end latency per output token, s, shape (n,); NaN where not completed."""
    latency_s = (requests["completed_s"] - requests["arrival_s"]).to_numpy(np.float64)
    return latency_s / requests["output_tokens"].to_numpy(np.float64)


def violated(requests: pd.DataFrame) -> NDArray[np.bool_]:
    """Which requests missed a deadline or were rejected, shape (n,)."""
    return (requests["violated_s"].notna() | requests["rejected"]).to_numpy(np.bool_)


def percentile(values: FloatArray, q: float) -> float:
    """The ``q``-th percentile of the values that are not NaN; NaN if there are none."""
    present = values[~np.isnan(values)]
    return float(np.percentile(present, q)) if len(present) else np.nan


def _mean(values: FloatArray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else np.nan


def summarize(
    requests: pd.DataFrame, totals: Mapping[str, float], horizon_s: float, instance: InstanceConfig
) -> dict[str, float]:
    """The figures of one run.

    Args:
        requests: settled results of the requests that arrived in the scored part, columns as in
            ``preserve_gym.sim.Cluster.results``.
        totals: ``preserve_gym.sim.TOTALS`` over the scored part.
        horizon_s: length of the scored part.
        instance: what each instance of the cluster is.

    Returns:
        Figures by name, the unit in the name. ``slo_attainment`` is the share of all arrivals that met
        every deadline; rejected requests count as violations and have no latency. What nothing can be
        said about (TPOT where every answer is one token) is NaN. ``energy_kwh`` and ``cost_usd`` are there
        if power and price of the instance are known.
    """
    arrived = len(requests)
    ttft, tpot, normalized = ttft_s(requests), tpot_s(requests), normalized_latency_s(requests)
    violations = int(violated(requests).sum())
    instance_s = float(totals["instance_s"])
    return {
        "arrived": arrived,
        "completed": int(requests["completed_s"].notna().sum()),
        "rejected": int(requests["rejected"].sum()),
        "violations": violations,
        "slo_attainment": 1.0 - violations / arrived if arrived else np.nan,
        "ttft_mean_s": _mean(ttft),
        "ttft_p50_s": percentile(ttft, 50.0),
        "ttft_p99_s": percentile(ttft, 99.0),
        "tpot_mean_s": _mean(tpot),
        "tpot_p50_s": percentile(tpot, 50.0),
        "tpot_p99_s": percentile(tpot, 99.0),
        "normalized_latency_p50_s": percentile(normalized, 50.0),
        "normalized_latency_p99_s": percentile(normalized, 99.0),
        **costs(instance, totals),
        "mean_instances": instance_s / horizon_s,
        "busy_share": float(totals["busy_s"]) / instance_s,
        "scaling_actions": int(totals["scale_ups"] + totals["scale_downs"]),
        "scale_ups": int(totals["scale_ups"]),
        "scale_downs": int(totals["scale_downs"]),
        "preemptions": int(requests["preemptions"].sum()),
        "prompt_tokens": int(requests["prompt_tokens"].sum()),
        "output_tokens": int(requests["output_tokens"].sum()),
        "horizon_s": float(horizon_s),
    }


def per_interval(requests: pd.DataFrame, start_s: FloatArray, end_s: float) -> dict[str, NDArray]:
    """What arrived in each control interval and how it fared, by interval of arrival.

    Args:
        requests: as for ``summarize``.
        start_s: starts of the intervals, ascending, shape (k,).
        end_s: end of the last one.

    Returns:
        Columns of shape (k,): ``arrived``, ``prompt_tokens``, ``output_tokens`` (the true ones) and
        ``violations``, int64; ``ttft_mean_s``, NaN where no request with a first token arrived.
    """
    arrival_s = requests["arrival_s"].to_numpy(np.float64)
    edges = np.append(start_s, end_s)
    first = np.searchsorted(arrival_s, edges, side="left")
    columns: dict[str, NDArray] = {"arrived": np.diff(first)}
    for name, values in (
        ("prompt_tokens", requests["prompt_tokens"].to_numpy()),
        ("output_tokens", requests["output_tokens"].to_numpy()),
        ("violations", violated(requests)),
    ):
        before = np.concatenate(([0], np.cumsum(values, dtype=np.int64)))
        columns[name] = np.diff(before[first])
    ttft = ttft_s(requests)
    present = ~np.isnan(ttft)
    count = np.diff(np.concatenate(([0], np.cumsum(present)))[first])
    total = np.diff(np.concatenate(([0.0], np.cumsum(np.where(present, ttft, 0.0))))[first])
    columns["ttft_mean_s"] = np.divide(total, count, out=np.full(len(start_s), np.nan), where=count > 0)
    return columns
