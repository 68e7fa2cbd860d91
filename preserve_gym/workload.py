"""A workload: a trace made ready for episodes, with everything that is predicted of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preserve_gym.config import ClusterConfig, WorkloadConfig
from preserve_gym.errors import InputError
from preserve_gym.forecasting import WorkloadForecast, make_forecast
from preserve_gym.prediction import predict_lengths
from preserve_gym.sim.profile import InstanceProfile, profile_instance
from preserve_gym.traces import Trace, load_trace, scale_rate


@dataclass(frozen=True)
class Episode:
    """One stretch of a workload. All times are on the trace's clock.

    Attributes:
        trace: the requests from ``start_s - warmup_s`` to ``start_s + horizon_s``.
        predicted_tokens: their predicted output tokens, int32 of shape (len(trace),).
        start_s: start of the scored part.
        warmup_s: length of the unscored part before it.
        horizon_s: length of the scored part.
    """

    trace: Trace
    predicted_tokens: NDArray[np.int32]
    start_s: float
    warmup_s: float
    horizon_s: float


class Workload:
    """A scaled trace, its forecasts and its length predictions, all computed once.

    Args:
        config: what to serve and how to predict it.
        trace: used instead of loading ``config.trace``.

    Attributes:
        trace: the trace after rate scaling.
        forecast: forecast token totals for every window.
        predicted_tokens: predicted output tokens of every request, int32.

    Raises:
        InputError: if the trace cannot be read, or is shorter than warm-up and horizon.
    """

    def __init__(self, config: WorkloadConfig, trace: Trace | None = None) -> None:
        self.config = config
        if trace is None:
            trace = load_trace(config.trace, seed=config.seed)
        if config.rate_scale != 1.0:
            trace = scale_rate(trace, config.rate_scale, np.random.default_rng([config.seed, 1]))
        self.trace = trace
        first_s, last_s = self._start_bounds()
        if last_s < first_s or len(trace) == 0:
            if config.horizon_s is None:
                expected = f"more than warmup_s {config.warmup_s:g}"
            else:
                expected = f"at least warmup_s {config.warmup_s:g} plus horizon_s {config.horizon_s:g}"
            if config.start_s is not None and config.start_s > config.warmup_s:
                expected += f" with the scored part from start_s {config.start_s:g} on"
            raise InputError(
                f"trace {trace.name!r}: has {trace.span_s:g} s and {len(trace)} requests, expected {expected}"
            )
        # Before any window has closed, all that is known is the service's usual load.
        windows = trace.span_s / config.window_s
        prior = (float(trace.prompt_tokens.sum()) / windows, float(trace.output_tokens.sum()) / windows)
        self.forecast: WorkloadForecast = make_forecast(
            config.forecaster,
            trace,
            window_s=config.window_s,
            horizon=config.forecast_windows,
            prior=prior,
            seed=config.seed,
        )
        self.predicted_tokens = predict_lengths(config.predictor, trace, seed=config.seed)
        self._profiles: dict[object, InstanceProfile] = {}
        # Tokens before each request, to read off what arrived in any span of time.
        self._before = tuple(
            np.concatenate(([0], np.cumsum(tokens, dtype=np.int64)))
            for tokens in (trace.prompt_tokens, self.predicted_tokens)
        )

    @property
    def mean_rate_rps(self) -> float:
        """Requests per second over the whole trace."""
        return len(self.trace) / self.trace.span_s

    def _start_bounds(self) -> tuple[float, float]:
        """First and last start of the scored part that the trace allows."""
        config = self.config
        last_s = self.trace.span_s - (config.horizon_s or 1e-3)
        if config.start_s is not None:
            return config.start_s, min(config.start_s, last_s)
        return config.warmup_s, last_s

    def _rest_s(self, start_s: float) -> float:
        """From ``start_s`` to the end of the trace, the request that arrives at that very moment included."""
        end_s = self.trace.span_s
        if self.trace.arrival_s[-1] == end_s:
            # Episodes are half-open, and most recordings end with their last arrival.
            end_s = math.nextafter(end_s, math.inf)
        rest_s = end_s - start_s
        while start_s + rest_s < end_s:
            rest_s = math.nextafter(rest_s, math.inf)
        return rest_s

    def episode(self, rng: np.random.Generator) -> Episode:
        """The episode at ``config.start_s``, or at a start drawn from ``rng`` (whole seconds)."""
        config = self.config
        first_s, last_s = self._start_bounds()
        start_s = first_s if config.start_s is not None else first_s + int(rng.uniform(0.0, last_s - first_s))
        horizon_s = self._rest_s(start_s) if config.horizon_s is None else config.horizon_s
        rows = self.trace.row_range(start_s - config.warmup_s, start_s + horizon_s)
        return Episode(
            trace=self.trace.take(rows),
            predicted_tokens=self.predicted_tokens[rows],
            start_s=start_s,
            warmup_s=config.warmup_s,
            horizon_s=horizon_s,
        )

    def arrived(self, end_s: float, spans_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """What arrived in [end_s - span, end_s) for each span.

        Returns:
            float64 of shape (3, len(spans_s)): requests, prompt tokens, predicted output tokens.
        """
        last = np.searchsorted(self.trace.arrival_s, end_s, side="left")
        first = np.searchsorted(self.trace.arrival_s, end_s - spans_s, side="left")
        prompt, output = self._before
        return np.array(
            [last - first, prompt[last] - prompt[first], output[last] - output[first]], np.float64
        )

    def profile(self, cluster: ClusterConfig) -> InstanceProfile:
        """What one instance of ``cluster`` serves of this workload's mix of lengths; cached."""
        key = (cluster.instance, cluster.slo, cluster.too_long)
        if key not in self._profiles:
            self._profiles[key] = profile_instance(
                cluster, self.trace.prompt_tokens, self.trace.output_tokens
            )
        return self._profiles[key]

    def forecast_at(self, time_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """The forecast in force at ``time_s``.

        Returns:
            Prompt tokens and output tokens, float64 of shape (forecast_windows,), of the current window
            and the next ones, and the share of the current window that has passed, in [0, 1).
        """
        # Decimal fractions of a window must not fall short of its boundary.
        position = (time_s + 1e-9) / self.config.window_s
        k = min(int(position), len(self.forecast.prompt_tokens) - 1)
        elapsed = min(max(position - k, 0.0), 1.0)
        return (
            self.forecast.prompt_tokens[k].copy(),
            self.forecast.output_tokens[k].copy(),
            0.0 if elapsed < 1e-8 else elapsed,
        )
