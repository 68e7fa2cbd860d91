"""Observations of the autoscaler: physical quantities in a dict, or scaled features in a flat vector.

Both hold only what a controller could know at that time: nothing depends on true output lengths of
unfinished requests or on future arrivals (forecasts know what their forecaster knows).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from preserve_gym.config import ClusterConfig
from preserve_gym.errors import InputError
from preserve_gym.sim import Snapshot
from preserve_gym.sim.profile import InstanceProfile
from preserve_gym.sim.state import DRAINING, READY, STARTING
from preserve_gym.traces.trace import SECONDS_PER_DAY
from preserve_gym.workload import Workload

OBS_MODES = ("flat", "dict")
RATE_SPANS_S = np.array([10.0, 30.0, 60.0, 120.0, 300.0])
OVERLOAD_SHARE = 0.1  # PreServe: an instance is overloaded above this share of its look-ahead window

_HUGE = 1e15

PER_INSTANCE = {
    "state": 3.0,
    "ready_in_s": _HUGE,
    "running": _HUGE,
    "waiting": _HUGE,
    "queued_prefill_tokens": _HUGE,
    "expected_tokens": _HUGE,
    "kv_use": 1.0,
    "anticipated_peak": _HUGE,
    "anticipated_overload": 1.0,
}
"""Arrays over the slots, with their upper bounds; ``Snapshot`` says what they are."""

INTERVAL_COUNTS = (
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
"""Totals whose change over the last control interval is observed; ``TOTALS`` says what they are."""

SCALARS = {
    "time_s": _HUGE,
    "time_of_day_s": SECONDS_PER_DAY,
    "target": _HUGE,
    "window_s": _HUGE,
    "window_elapsed": 1.0,
    "mean_ttft_s": _HUGE,
    "mean_tpot_s": _HUGE,
    **dict.fromkeys(INTERVAL_COUNTS, _HUGE),
}
RATES = ("request_rate", "prompt_token_rate", "output_token_rate")
FORECASTS = ("forecast_prompt_tokens", "forecast_output_tokens")

Physical = dict[str, NDArray[np.float64]]


class ScaleObservation:
    """Builds observations in one of two modes.

    ``dict``: float64 arrays in physical units, one level deep (see ``PER_INSTANCE``, ``SCALARS``,
    ``RATES``, ``FORECASTS``). Scalars have shape (1,), rates (5,) over the last 10, 30, 60, 120 and
    300 s, forecasts (forecast_windows,) with the current window first.

    ``flat``: float32 vector of ``feature_names``, scaled: loads in *instance-equivalents*, that is the
    instances that would serve them at the profiled capacity, over ``max_instances``; bounds are true.
    """

    def __init__(
        self, mode: str, cluster: ClusterConfig, workload: Workload, profile: InstanceProfile
    ) -> None:
        if mode not in OBS_MODES:
            raise InputError(f"obs_mode: expected one of {', '.join(OBS_MODES)}, got {mode!r}")
        self.mode = mode
        self._cluster = cluster
        self._workload = workload
        self._profile = profile
        slo = cluster.slo
        self._ttft_scale_s = slo.ttft_s or slo.normalized_latency_s or 1.0
        self._tpot_scale_s = slo.tpot_s or slo.normalized_latency_s or 1.0
        self._bounds = self._feature_bounds()
        self.feature_names: tuple[str, ...] = tuple(self._bounds)
        self.space: spaces.Space[Any] = self._flat_space() if mode == "flat" else self._dict_space()

    def build(
        self, snapshot: Snapshot, interval: Mapping[str, float], last_target: int
    ) -> NDArray[np.float32] | Physical:
        """The observation at a snapshot.

        Args:
            snapshot: the cluster now.
            interval: change of each of ``TOTALS`` over the last control interval.
            last_target: the target before the last action.
        """
        physical = self._physical(snapshot, interval)
        return physical if self.mode == "dict" else self._flat(physical, last_target)

    def _dict_space(self) -> spaces.Dict:
        n, windows = self._cluster.max_instances, self._workload.config.forecast_windows

        def box(size: int, high: float) -> spaces.Box:
            return spaces.Box(0.0, high, (size,), np.float64)

        return spaces.Dict(
            {
                **{name: box(n, high) for name, high in PER_INSTANCE.items()},
                **{name: box(1, high) for name, high in SCALARS.items()},
                **{name: box(len(RATE_SPANS_S), _HUGE) for name in RATES},
                **{name: box(windows, _HUGE) for name in FORECASTS},
            }
        )

    def _physical(self, snapshot: Snapshot, interval: Mapping[str, float]) -> Physical:
        now = snapshot.time_s
        prompt, output, elapsed = self._workload.forecast_at(now)
        rates = self._workload.arrived(now, RATE_SPANS_S) / np.minimum(RATE_SPANS_S, max(now, 1e-9))
        decoded = interval["output_tokens"] - interval["completed"]
        scalars = {
            "time_s": now,
            "time_of_day_s": (self._workload.trace.clock_s + now) % SECONDS_PER_DAY,
            "target": snapshot.target,
            "window_s": self._workload.config.window_s,
            "window_elapsed": elapsed,
            "mean_ttft_s": interval["ttft_sum_s"] / max(interval["first_tokens"], 1),
            "mean_tpot_s": interval["decode_sum_s"] / max(decoded, 1),
            **{name: interval[name] for name in INTERVAL_COUNTS},
        }
        return {
            **{name: getattr(snapshot, name).astype(np.float64) for name in PER_INSTANCE},
            **{name: np.array([value], np.float64) for name, value in scalars.items()},
            **dict(zip(RATES, rates, strict=True)),
            "forecast_prompt_tokens": prompt,
            "forecast_output_tokens": output,
        }

    def _feature_bounds(self) -> dict[str, tuple[float, float]]:
        spans = [f"{span:g}s" for span in RATE_SPANS_S]
        windows = range(self._workload.config.forecast_windows)
        return {
            **dict.fromkeys(("ready", "starting", "draining", "target"), (0.0, 1.0)),
            **{f"starting_ready_in_third_{third}": (0.0, 1.0) for third in (1, 2, 3)},
            "last_change": (-1.0, 1.0),
            **{f"load_{span}": (0.0, 4.0) for span in spans},
            **{f"request_load_{span}": (0.0, 4.0) for span in spans},
            **{f"forecast_load_window_{k}": (0.0, 4.0) for k in windows},
            "forecast_load_after_cold_start": (0.0, 4.0),
            "recent_over_forecast": (0.0, 4.0),
            "last_window_over_forecast": (0.0, 4.0),
            "window_elapsed": (0.0, 1.0),
            **dict.fromkeys(("running", "waiting", "queued_prefill"), (0.0, 4.0)),
            **dict.fromkeys(("kv_use_mean", "kv_use_max"), (0.0, 1.0)),
            **dict.fromkeys(("anticipated_peak_mean", "anticipated_peak_max"), (0.0, 4.0)),
            "anticipated_overloaded": (0.0, 1.0),
            **dict.fromkeys(("attainment", "ttft_misses"), (0.0, 1.0)),
            **dict.fromkeys(("ttft", "tpot"), (0.0, 4.0)),
            **dict.fromkeys(("day_sin", "day_cos"), (-1.0, 1.0)),
        }

    def _flat_space(self) -> spaces.Box:
        low, high = np.array(list(self._bounds.values()), np.float32).T
        return spaces.Box(low, high, dtype=np.float32)

    def _flat(self, o: Physical, last_target: int) -> NDArray[np.float32]:
        profile, largest = self._profile, self._cluster.max_instances
        longest_cold_start_s = max(*self._cluster.cold_starts_s, 1e-9)
        mean_cold_start_s = max(self._cluster.mean_cold_start_s, 1e-9)
        ready = o["state"] == READY
        starting = o["state"] == STARTING
        serving = max(int(ready.sum()), 1)
        third = np.ceil(3.0 * o["ready_in_s"][starting] / longest_cold_start_s)
        now, window_s = o["time_s"][0], o["window_s"][0]
        load = profile.need(o["prompt_token_rate"], o["output_token_rate"])
        forecast = profile.need(
            o["forecast_prompt_tokens"] / window_s, o["forecast_output_tokens"] / window_s
        )
        after = min(int(o["window_elapsed"][0] + mean_cold_start_s / window_s), len(forecast) - 1)
        angle = 2.0 * math.pi * o["time_of_day_s"][0] / SECONDS_PER_DAY
        queued = o["queued_prefill_tokens"].sum() / (serving * profile.prompt_tokens_per_s)
        kv_use = o["kv_use"][ready] if ready.any() else np.zeros(1)
        peaks = o["anticipated_peak"][ready] if ready.any() else np.zeros(1)
        values = [
            ready.sum() / largest,
            starting.sum() / largest,
            (o["state"] == DRAINING).sum() / largest,
            o["target"][0] / largest,
            *((third == k).sum() / largest for k in (1, 2, 3)),
            (o["target"][0] - last_target) / largest,
            *(load / largest),
            *(o["request_rate"] / profile.requests_per_s / largest),
            *(forecast / largest),
            forecast[after] / largest,
            load[3] / max(forecast[0], 1e-9),
            self._last_window_over_forecast(now),
            o["window_elapsed"][0],
            o["running"].sum() / (serving * profile.in_flight),
            o["waiting"].sum() / (serving * profile.in_flight),
            queued / self._ttft_scale_s,
            kv_use.mean(),
            kv_use.max(),
            peaks.mean(),
            peaks.max(),
            (o["anticipated_overload"] > OVERLOAD_SHARE).sum() / largest,
            o["compliant"][0] / o["completed"][0] if o["completed"][0] else 1.0,
            o["ttft_misses"][0] / max(o["arrived"][0], 1.0),
            o["mean_ttft_s"][0] / self._ttft_scale_s,
            o["mean_tpot_s"][0] / self._tpot_scale_s,
            math.sin(angle),
            math.cos(angle),
        ]
        space = self._bounds.values()
        clipped = [min(max(float(v), low), high) for v, (low, high) in zip(values, space, strict=True)]
        return np.array(clipped, np.float32)

    def _last_window_over_forecast(self, now: float) -> float:
        """Measured over forecast load of the last closed window; 1 before there is one."""
        window_s = self._workload.config.window_s
        k = int((now + 1e-9) / window_s) - 1
        if k < 0:
            return 1.0
        measured = self._workload.arrived((k + 1) * window_s, np.array([window_s]))[1:, 0] / window_s
        prompt, output, _ = self._workload.forecast_at(k * window_s)
        forecast = float(self._profile.need(prompt[0] / window_s, output[0] / window_s))
        return float(self._profile.need(*measured)) / max(forecast, 1e-9)
