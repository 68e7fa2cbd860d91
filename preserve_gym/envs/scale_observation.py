"""Observations of the autoscaler: physical quantities in a dict, or scaled features in a flat vector."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from preserve_gym.config import ClusterConfig, WorkloadConfig
from preserve_gym.envs import physical
from preserve_gym.envs.env_state import EnvState
from preserve_gym.envs.physical import (
    HUGE,
    N_PER_INSTANCE,
    RATE_SPANS_S,
    RATES,
    Layout,
    Physical,
    count_targets,
    measure_instances,
    measure_rates,
    total_index,
)
from preserve_gym.errors import InputError
from preserve_gym.sim.jit import kernel
from preserve_gym.sim.routers import LINEAR_FEATURES
from preserve_gym.sim.state import DRAINING, READY, STARTING, State
from preserve_gym.traces.trace import SECONDS_PER_DAY

OBS_MODES = ("flat", "dict")
OVERLOAD_SHARE = 0.1  # PreServe: an instance is overloaded above this share of its look-ahead window
CORRECTION_POWER = 0.7  # of the recent rate over the forecast, in the feature corrected_need

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
    **physical.SCALARS,
    "target": HUGE,
    "window_s": HUGE,
    "window_elapsed": 1.0,
    "mean_ttft_s": HUGE,
    "mean_tpot_s": HUGE,
    "violation_weight": HUGE,
    **dict.fromkeys(INTERVAL_COUNTS, HUGE),
}
FORECASTS = ("forecast_prompt_tokens", "forecast_output_tokens")

_COUNTED = tuple(total_index(name) for name in INTERVAL_COUNTS)
_COMPLETED, _COMPLIANT = total_index("completed"), total_index("compliant")
_OUTPUT_TOKENS, _FIRST_TOKENS = total_index("output_tokens"), total_index("first_tokens")
_TTFT_SUM_S, _DECODE_SUM_S = total_index("ttft_sum_s"), total_index("decode_sum_s")
_ARRIVED, _TTFT_MISSES = total_index("arrived"), total_index("ttft_misses")
_ROLLING = RATE_SPANS_S.index(120.0)  # the span of the recent load


class ScaleObservation:
    """Spaces and names of the observation of one control interval.

    ``dict``: float64 arrays in physical units, one level deep (see ``PER_INSTANCE``, ``SCALARS``,
    ``RATES``, ``FORECASTS``). Scalars have shape (1,), rates (5,) over the last 10, 30, 60, 120 and
    300 s, forecasts (forecast_windows,) with the current window first.

    ``flat``: float32 vector of ``feature_names``, scaled: loads in *instance-equivalents*, that is the
    instances that would serve them at the profiled capacity, over ``max_instances``; bounds are true.

    Args:
        mode: ``flat`` or ``dict``.
        sets_weights: the action sets the weights of the router, so they are observed, too.
    """

    def __init__(
        self, mode: str, cluster: ClusterConfig, workload: WorkloadConfig, sets_weights: bool = False
    ) -> None:
        if mode not in OBS_MODES:
            raise InputError(f"obs_mode: expected one of {', '.join(OBS_MODES)}, got {mode!r}")
        self.mode = mode
        windows = workload.forecast_windows
        weights = {"router_weights": (len(LINEAR_FEATURES), 1.0)} if sets_weights else {}
        self.layout = Layout(
            {
                **physical.quantities_of(cluster.max_instances),
                **physical.scalar(SCALARS),
                **{name: (len(RATE_SPANS_S), HUGE) for name in RATES},
                **dict.fromkeys(FORECASTS, (windows, HUGE)),
                **weights,
            }
        )
        bounds = _feature_bounds(windows, sets_weights)
        self.feature_names: tuple[str, ...] = tuple(bounds)
        self.low, self.high = np.array(list(bounds.values()), np.float32).T.copy()
        flat = spaces.Box(self.low, self.high, dtype=np.float32)
        self.space: spaces.Space[Any] = flat if mode == "flat" else self.layout.space

    def of(self, state: Mapping[str, NDArray[Any]]) -> NDArray[np.float32] | Physical:
        """The observation in arrays ``physical`` and ``flat``, of one environment or many; a copy."""
        return state["flat"].copy() if self.mode == "flat" else self.layout.named(state["physical"])


def _feature_bounds(windows: int, sets_weights: bool) -> dict[str, tuple[float, float]]:
    spans = [f"{span:g}s" for span in RATE_SPANS_S]
    weights = [f"router_weight_{name.replace(' ', '_')}" for name in LINEAR_FEATURES]
    return {
        **dict.fromkeys(("ready", "starting", "draining", "target"), (0.0, 1.0)),
        **{f"starting_ready_in_third_{third}": (0.0, 1.0) for third in (1, 2, 3)},
        "last_change": (-1.0, 1.0),
        **{f"load_{span}": (0.0, 4.0) for span in spans},
        **{f"request_load_{span}": (0.0, 4.0) for span in spans},
        **{f"forecast_load_window_{k}": (0.0, 4.0) for k in range(windows)},
        "forecast_load_after_cold_start": (0.0, 4.0),
        "recent_over_forecast": (0.0, 4.0),
        "corrected_need": (0.0, 4.0),
        "last_window_over_forecast": (0.0, 4.0),
        "window_elapsed": (0.0, 1.0),
        **dict.fromkeys(("running", "waiting", "queued_prefill"), (0.0, 4.0)),
        **dict.fromkeys(("kv_use_mean", "kv_use_max"), (0.0, 1.0)),
        **dict.fromkeys(("anticipated_peak_mean", "anticipated_peak_max"), (0.0, 4.0)),
        "anticipated_overloaded": (0.0, 1.0),
        **dict.fromkeys(("attainment", "ttft_misses"), (0.0, 1.0)),
        **dict.fromkeys(("ttft", "tpot"), (0.0, 4.0)),
        **dict.fromkeys(("day_sin", "day_cos"), (-1.0, 1.0)),
        "log10_violation_weight": (-2.0, 4.0),
        **(dict.fromkeys(weights, (0.0, 1.0)) if sets_weights else {}),
    }


@kernel
def observe(s: State, e: EnvState) -> None:
    """Fill ``e.physical`` and ``e.flat``, from ``e.before`` and ``e.now``."""
    c, now = e.constants[0], s.totals[0].now_s
    measure_instances(s, e)
    scalars = N_PER_INSTANCE * len(s.instances)
    row, elapsed = forecast_row(e, now)
    rates = _measure_scalars(s, e, scalars, elapsed)
    last = e.episode[0].first_row + s.totals[0].next_request
    forecasts = measure_rates(e, rates, now, last)
    for k in range(c.horizon):
        e.physical[forecasts + k] = e.forecast_prompt[row * c.horizon + k]
        e.physical[forecasts + c.horizon + k] = e.forecast_output[row * c.horizon + k]
    if c.sets_weights == 1:
        for k in range(len(e.weights)):
            e.physical[forecasts + 2 * c.horizon + k] = e.weights[k]
    _scale_features(s, e, row, elapsed, scalars, rates)


@kernel
def forecast_row(e: EnvState, time_s: float) -> tuple[int, float]:
    """The row of the forecast in force at a time, and the share of its window that has passed, in [0, 1)."""
    # Decimal fractions of a window must not fall short of its boundary.
    position = (time_s + 1e-9) / e.constants[0].window_s
    row = min(int(position), len(e.needs) // e.constants[0].horizon - 1)
    elapsed = min(max(position - row, 0.0), 1.0)
    return row, 0.0 if elapsed < 1e-8 else elapsed


@kernel
def _measure_scalars(s: State, e: EnvState, at: int, elapsed: float) -> int:
    """Write ``SCALARS`` from position ``at`` on; return the position behind them."""
    c, out, now = e.constants[0], e.physical, s.totals[0].now_s
    first_tokens = e.now[_FIRST_TOKENS] - e.before[_FIRST_TOKENS]
    decoded = e.now[_OUTPUT_TOKENS] - e.before[_OUTPUT_TOKENS] - (e.now[_COMPLETED] - e.before[_COMPLETED])
    out[at] = now
    out[at + 1] = (c.clock_s + now) % SECONDS_PER_DAY
    out[at + 2] = count_targets(s)
    out[at + 3] = c.window_s
    out[at + 4] = elapsed
    out[at + 5] = (e.now[_TTFT_SUM_S] - e.before[_TTFT_SUM_S]) / max(first_tokens, 1.0)
    out[at + 6] = (e.now[_DECODE_SUM_S] - e.before[_DECODE_SUM_S]) / max(decoded, 1.0)
    out[at + 7] = e.episode[0].violation_weight
    for k in range(len(_COUNTED)):
        out[at + 8 + k] = e.now[_COUNTED[k]] - e.before[_COUNTED[k]]
    return at + 8 + len(_COUNTED)


@kernel
def need(e: EnvState, prompt_tokens_per_s: float, output_tokens_per_s: float) -> float:
    """Instances that a load needs, not rounded, as in ``InstanceProfile.need``."""
    c = e.constants[0]
    by_phase = max(prompt_tokens_per_s / c.prompt_tokens_per_s, output_tokens_per_s / c.output_tokens_per_s)
    return max(by_phase, (prompt_tokens_per_s + output_tokens_per_s) / c.total_tokens_per_s)


@kernel
def _scale_features(s: State, e: EnvState, row: int, elapsed: float, scalars: int, rates: int) -> None:
    """Fill ``e.flat`` from ``e.physical``; in the order of ``_feature_bounds``."""
    c, o, out = e.constants[0], e.physical, e.flat
    episode, largest = e.episode[0], float(len(s.instances))
    target = o[scalars + 2]
    at = _fleet_features(s, e, target, 0)
    spans = len(RATE_SPANS_S)
    recent = 0.0
    for k in range(spans):
        load = need(e, o[rates + spans + k], o[rates + 2 * spans + k])
        if k == _ROLLING:
            recent = load
        out[at + k] = load / largest
        out[at + spans + k] = o[rates + k] / c.requests_per_s / largest
    at += 2 * spans
    first = row * c.horizon
    for k in range(c.horizon):
        out[at + k] = e.needs[first + k] / largest
    at += c.horizon
    after = min(int(elapsed + max(c.mean_cold_start_s, 1e-9) / c.window_s), c.horizon - 1)
    ratio = min(recent / max(e.needs[first], 1e-9), 1e6)
    out[at] = e.needs[first + after] / largest
    out[at + 1] = ratio
    out[at + 2] = e.needs[first + after] * ratio**CORRECTION_POWER / largest
    out[at + 3] = _last_window_over_forecast(e, s.totals[0].now_s)
    out[at + 4] = elapsed
    at = _load_features(s, e, at + 5)
    completed, arrived = e.now[_COMPLETED] - e.before[_COMPLETED], e.now[_ARRIVED] - e.before[_ARRIVED]
    out[at] = (e.now[_COMPLIANT] - e.before[_COMPLIANT]) / completed if completed > 0.0 else 1.0
    out[at + 1] = (e.now[_TTFT_MISSES] - e.before[_TTFT_MISSES]) / max(arrived, 1.0)
    out[at + 2] = o[scalars + 5] / c.ttft_scale_s
    out[at + 3] = o[scalars + 6] / c.tpot_scale_s
    angle = 2.0 * math.pi * o[scalars + 1] / SECONDS_PER_DAY
    out[at + 4] = math.sin(angle)
    out[at + 5] = math.cos(angle)
    out[at + 6] = math.log10(max(episode.violation_weight, 1e-2))
    if c.sets_weights == 1:
        for k in range(len(e.weights)):
            out[at + 7 + k] = e.weights[k]
    clip_features(e)


@kernel
def clip_features(e: EnvState) -> None:
    """Bring every feature within its bounds."""
    for k in range(len(e.flat)):
        e.flat[k] = min(max(e.flat[k], e.low[k]), e.high[k])


@kernel
def _fleet_features(s: State, e: EnvState, target: float, at: int) -> int:
    out, largest = e.flat, float(len(s.instances))
    cold_start_s = max(e.constants[0].mean_cold_start_s, 1e-9)
    for k in range(7):
        out[at + k] = 0.0
    for i in range(len(s.instances)):
        state = s.instances[i].state
        if state == READY:
            out[at] += 1.0
        elif state == STARTING:
            out[at + 1] += 1.0
            # One that is overdue counts as about to be ready.
            third = int(math.ceil(3.0 * e.physical[len(s.instances) + i] / cold_start_s))
            out[at + 3 + min(max(third, 1), 3)] += 1.0
        elif state == DRAINING:
            out[at + 2] += 1.0
    out[at + 3] = target
    for k in range(7):
        out[at + k] /= largest
    out[at + 7] = (target - e.episode[0].last_target) / largest
    return at + 8


@kernel
def _load_features(s: State, e: EnvState, at: int) -> int:
    c, o, out, n = e.constants[0], e.physical, e.flat, len(s.instances)
    running, waiting, queued, serving, overloaded = 0.0, 0.0, 0.0, 0, 0
    kv_sum, kv_max, peak_sum, peak_max = 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        running += o[2 * n + i]
        waiting += o[3 * n + i]
        queued += o[4 * n + i]
        overloaded += o[8 * n + i] > OVERLOAD_SHARE
        if s.instances[i].state == READY:
            serving += 1
            kv_sum += o[6 * n + i]
            kv_max = max(kv_max, o[6 * n + i])
            peak_sum += o[7 * n + i]
            peak_max = max(peak_max, o[7 * n + i])
    served_by = max(serving, 1)
    out[at] = running / (served_by * c.profiled_in_flight)
    out[at + 1] = waiting / (served_by * c.profiled_in_flight)
    out[at + 2] = queued / (served_by * c.prompt_tokens_per_s) / c.ttft_scale_s
    out[at + 3] = kv_sum / served_by
    out[at + 4] = kv_max
    out[at + 5] = peak_sum / served_by
    out[at + 6] = peak_max
    out[at + 7] = overloaded / n
    return at + 8


@kernel
def _last_window_over_forecast(e: EnvState, now: float) -> float:
    """Measured over forecast load of the last closed window; 1 before there is one."""
    c, episode = e.constants[0], e.episode[0]
    k = int((now + 1e-9) / c.window_s) - 1
    if k < 0:
        return 1.0
    if k != episode.closed_window:
        n = len(e.arrival_s)
        last = physical.first_since(e.arrival_s, (k + 1) * c.window_s, n)
        first = physical.first_since(e.arrival_s, k * c.window_s, last)
        prompt = (e.prompt_before[last] - e.prompt_before[first]) / c.window_s
        output = (e.predicted_before[last] - e.predicted_before[first]) / c.window_s
        row = min(k, len(e.needs) // c.horizon - 1)
        episode.closed_window = k
        episode.closed_ratio = need(e, prompt, output) / max(e.needs[row * c.horizon], 1e-9)
    return episode.closed_ratio
