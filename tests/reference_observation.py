"""Observations computed slowly and obviously, from a snapshot and the workload: the tests' reference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preserve_gym import Cluster, Workload
from preserve_gym.config import ClusterConfig
from preserve_gym.sim import Snapshot
from preserve_gym.sim.profile import InstanceProfile
from preserve_gym.sim.state import DRAINING, READY, STARTING

DAY_S = 86_400.0
SPANS_S = np.array([10.0, 30.0, 60.0, 120.0, 300.0])
RATES = ("request_rate", "prompt_token_rate", "output_token_rate")
COUNTS = (
    "arrived",
    "prompt_tokens",
    "predicted_tokens",
    "first_tokens",
    "completed",
    "compliant",
    "output_tokens",
    "ttft_misses",
    "preemptions",
)
Physical = dict[str, NDArray[np.float64]]


def per_instance(snapshot: Snapshot, cluster: ClusterConfig, started_s: NDArray[np.float64]) -> Physical:
    """The arrays over the slots; ``started_s``: when each began its cold start."""
    names = (
        "state",
        "running",
        "waiting",
        "queued_prefill_tokens",
        "expected_tokens",
        "kv_use",
        "anticipated_peak",
        "anticipated_overload",
    )
    left_s = np.maximum(cluster.mean_cold_start_s - (snapshot.time_s - started_s), 0.0)
    return {
        **{name: getattr(snapshot, name).astype(np.float64) for name in names},
        "ready_in_s": np.where(snapshot.state == STARTING, left_s, 0.0),
    }


def rates(workload: Workload, now: float) -> Physical:
    """Rates over the spans."""
    counts = workload.arrived(now, SPANS_S) / np.minimum(SPANS_S, max(now, 1.0))
    return dict(zip(RATES, counts, strict=True))


def scale_physical(
    snapshot: Snapshot,
    interval: Mapping[str, float],
    workload: Workload,
    cluster: ClusterConfig,
    started_s: NDArray[np.float64],
    violation_weight: float,
) -> Physical:
    """The dict observation of ``Autoscale``; ``interval``: change of the totals over the last interval."""
    now = snapshot.time_s
    prompt, output, elapsed = workload.forecast_at(now)
    decoded = interval["output_tokens"] - interval["completed"]
    scalars = {
        "time_s": now,
        "time_of_day_s": (workload.trace.clock_s + now) % DAY_S,
        "target": snapshot.target,
        "window_s": workload.config.window_s,
        "window_elapsed": elapsed,
        "mean_ttft_s": interval["ttft_sum_s"] / max(interval["first_tokens"], 1),
        "mean_tpot_s": interval["decode_sum_s"] / max(decoded, 1),
        "violation_weight": violation_weight,
        **{name: interval[name] for name in COUNTS},
    }
    return {
        **per_instance(snapshot, cluster, started_s),
        **{name: np.array([value], np.float64) for name, value in scalars.items()},
        **rates(workload, now),
        "forecast_prompt_tokens": prompt,
        "forecast_output_tokens": output,
    }


def scale_features(
    o: Physical, cluster: ClusterConfig, workload: Workload, profile: InstanceProfile, last_target: int
) -> dict[str, float]:
    """The flat observation of ``Autoscale`` before it is clipped, by name."""
    largest = cluster.max_instances
    slo = cluster.slo
    ttft_scale_s = slo.ttft_s or slo.normalized_latency_s or 1.0
    tpot_scale_s = slo.tpot_s or slo.normalized_latency_s or 1.0
    cold_start_s = max(cluster.mean_cold_start_s, 1e-9)
    ready, starting = o["state"] == READY, o["state"] == STARTING
    serving = max(int(ready.sum()), 1)
    third = np.clip(np.ceil(3.0 * o["ready_in_s"][starting] / cold_start_s), 1, 3)
    window_s = o["window_s"][0]
    load = profile.need(o["prompt_token_rate"], o["output_token_rate"])
    forecast = profile.need(o["forecast_prompt_tokens"] / window_s, o["forecast_output_tokens"] / window_s)
    after = min(int(o["window_elapsed"][0] + cold_start_s / window_s), len(forecast) - 1)
    ratio = min(load[3] / max(forecast[0], 1e-9), 1e6)
    angle = 2.0 * math.pi * o["time_of_day_s"][0] / DAY_S
    kv_use = o["kv_use"][ready] if ready.any() else np.zeros(1)
    peaks = o["anticipated_peak"][ready] if ready.any() else np.zeros(1)
    spans = [f"{span:g}s" for span in SPANS_S]
    return {
        "ready": ready.sum() / largest,
        "starting": starting.sum() / largest,
        "draining": (o["state"] == DRAINING).sum() / largest,
        "target": o["target"][0] / largest,
        **{f"starting_ready_in_third_{k}": (third == k).sum() / largest for k in (1, 2, 3)},
        "last_change": (o["target"][0] - last_target) / largest,
        **{f"load_{span}": value / largest for span, value in zip(spans, load, strict=True)},
        **{
            f"request_load_{span}": value / profile.requests_per_s / largest
            for span, value in zip(spans, o["request_rate"], strict=True)
        },
        **{f"forecast_load_window_{k}": value / largest for k, value in enumerate(forecast)},
        "forecast_load_after_cold_start": forecast[after] / largest,
        "recent_over_forecast": ratio,
        "corrected_need": forecast[after] * ratio**0.7 / largest,
        "last_window_over_forecast": last_window_over_forecast(workload, profile, o["time_s"][0]),
        "window_elapsed": o["window_elapsed"][0],
        "running": o["running"].sum() / (serving * profile.in_flight),
        "waiting": o["waiting"].sum() / (serving * profile.in_flight),
        "queued_prefill": o["queued_prefill_tokens"].sum()
        / (serving * profile.prompt_tokens_per_s)
        / ttft_scale_s,
        "kv_use_mean": kv_use.mean(),
        "kv_use_max": kv_use.max(),
        "anticipated_peak_mean": peaks.mean(),
        "anticipated_peak_max": peaks.max(),
        "anticipated_overloaded": (o["anticipated_overload"] > 0.1).sum() / largest,
        "attainment": o["compliant"][0] / o["completed"][0] if o["completed"][0] else 1.0,
        "ttft_misses": o["ttft_misses"][0] / max(o["arrived"][0], 1.0),
        "ttft": o["mean_ttft_s"][0] / ttft_scale_s,
        "tpot": o["mean_tpot_s"][0] / tpot_scale_s,
        "day_sin": math.sin(angle),
        "day_cos": math.cos(angle),
        "log10_violation_weight": math.log10(max(o["violation_weight"][0], 1e-2)),
    }


def last_window_over_forecast(workload: Workload, profile: InstanceProfile, now: float) -> float:
    """Measured over forecast load of the last closed window; 1 before there is one."""
    window_s = workload.config.window_s
    k = int((now + 1e-9) / window_s) - 1
    if k < 0:
        return 1.0
    measured = workload.arrived((k + 1) * window_s, np.array([window_s]))[1:, 0] / window_s
    prompt, output, _ = workload.forecast_at(k * window_s)
    forecast = float(profile.need(prompt[0] / window_s, output[0] / window_s))
    return float(profile.need(*measured)) / max(forecast, 1e-9)


def route_physical(
    cluster: Cluster, config: ClusterConfig, workload: Workload, request: Any, last_s: float
) -> Physical:
    """The dict observation of ``Route``; ``request``: its prompt and predicted tokens, or None."""
    snapshot = cluster.snapshot()
    now = snapshot.time_s
    prompt, predicted = request or (0, 0)
    slots = config.max_instances
    with_request = np.zeros(slots)
    for i in range(slots):
        if snapshot.state[i]:
            ahead = cluster.look_ahead(i)
            there = np.arange(len(ahead)) < predicted
            with_request[i] = (ahead + there * (prompt + np.arange(len(ahead)))).max()
    scalars = {
        "time_s": now,
        "time_of_day_s": (workload.trace.clock_s + now) % DAY_S,
        "request": float(request is not None),
        "request_prompt_tokens": prompt,
        "request_predicted_tokens": predicted,
        "since_last_s": now - last_s,
    }
    return {
        **per_instance(snapshot, config, np.zeros(slots)),
        "anticipated_peak_with_request": with_request / config.instance.kv_tokens,
        **{name: np.array([value], np.float64) for name, value in scalars.items()},
        **rates(workload, now),
    }


def route_features(
    o: Physical, config: ClusterConfig, profile: InstanceProfile, slo_ttft_s: float
) -> list[float]:
    """The flat observation of ``Route`` before it is clipped."""
    slots, capacity = config.max_instances, config.instance.kv_tokens
    ready = o["state"] == READY
    mean_prompt = profile.prompt_tokens_per_s / profile.requests_per_s
    mean_output = profile.output_tokens_per_s / profile.requests_per_s
    load = profile.need(o["prompt_token_rate"], o["output_token_rate"]) / slots
    prompt, predicted = o["request_prompt_tokens"][0], o["request_predicted_tokens"][0]
    features = [
        o["request"][0],
        prompt / mean_prompt,
        predicted / mean_output,
        (prompt + predicted) / capacity,
        ready.sum() / slots,
        load[0],
        load[2],
    ]
    for i in range(slots):
        values = [
            1.0,
            o["running"][i] / profile.in_flight,
            o["waiting"][i] / profile.in_flight,
            o["queued_prefill_tokens"][i] / profile.prompt_tokens_per_s / slo_ttft_s,
            o["expected_tokens"][i] / capacity,
            o["kv_use"][i],
            o["anticipated_peak"][i],
            o["anticipated_peak_with_request"][i],
        ]
        features += [value if ready[i] else 0.0 for value in values]
    return features
