"""A workload: a trace made ready for episodes, with everything that is predicted of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preserve_gym.config import ClusterConfig, WorkloadConfig
from preserve_gym.errors import InputError
from preserve_gym.forecasting import Forecaster, WorkloadForecast, make_forecast
from preserve_gym.prediction import predict_lengths
from preserve_gym.sim.profile import InstanceProfile, profile_instance
from preserve_gym.splits import Bounds, change_by_segment, evaluation_windows, split_bounds
from preserve_gym.streams import seed_at
from preserve_gym.traces import Mix, Trace, Transform, load_trace, scale_rate
from preserve_gym.traces.generated import GENERATED

# Streams of the configuration's seed.
_RATE_SCALE, _TRANSFORMS = 1, 16


@dataclass(frozen=True)
class Episode:
    """One stretch of a workload. All times are on the trace's clock.

    Attributes:
        trace: the requests from ``start_s - warmup_s`` to ``start_s + horizon_s``.
        predicted_tokens: their predicted output tokens, int32 of shape (len(trace),).
        start_s: start of the scored part.
        warmup_s: length of the unscored part before it.
        horizon_s: length of the scored part.
        first_row: of the requests, in the whole trace.
        seed: of routers and cold starts that are drawn; no two starts of an episode share one.
    """

    trace: Trace
    predicted_tokens: NDArray[np.int32]
    start_s: float
    warmup_s: float
    horizon_s: float
    first_row: int
    seed: int


class Workload:
    """A recording after its transforms, its forecasts and its length predictions, all computed once.

    With ``config.split`` episodes lie inside that split. Whatever is fitted (the prior of the forecaster,
    the mix of lengths of ``profile``, ``mean_rate_rps``) is fitted on the training part, and no forecast
    reads what comes after the split.

    Args:
        config: what to serve and how to predict it.
        trace: used instead of loading ``config.trace``.
        windows_s: evaluation windows that were fixed before, in place of those that tile the split: starts
            of their scored parts.

    Attributes:
        trace: the whole recording after rate scaling and transforms.
        bounds: start and end of each split in seconds; None without ``config.split``.
        forecast: forecast token totals for every window.
        predicted_tokens: predicted output tokens of every request, int32.

    Raises:
        InputError: if the trace cannot be read, or it or its split is shorter than warm-up and horizon.
    """

    def __init__(
        self, config: WorkloadConfig, trace: Trace | None = None, windows_s: Sequence[float] | None = None
    ) -> None:
        self.config = config
        self.trace, self.bounds = prepared_trace(config, trace)
        self._start_s, self._end_s = self._bounds_of(config.split)
        self._fitted_s = self._bounds_of(None if config.split is None else "train")
        self._check_length()
        self._windows_s = self._make_windows(windows_s)
        self._profiles: dict[object, InstanceProfile] = {}
        self._predict()

    def _predict(self) -> None:
        config = self.config
        train = None if config.split is None else self._rows(*self._fitted_s)
        self.predicted_tokens = predict_lengths(config.predictor, self.trace, train=train, seed=config.seed)
        self.forecast = self.forecast_by(config.forecaster)
        # Tokens before each request, to read off what arrived in any span of time.
        self._before = tuple(
            np.concatenate(([0], np.cumsum(tokens, dtype=np.int64)))
            for tokens in (self.trace.prompt_tokens, self.predicted_tokens)
        )

    def __deepcopy__(self, memo: Any) -> Workload:
        """Itself, as it never changes: a copy of an environment goes on sharing it."""
        return self

    def with_predictions(
        self, forecaster: str | Forecaster | None = None, predictor: str | None = None
    ) -> Workload:
        """The same traffic with other predictions; None: as they are.

        Raises:
            InputError: on an unknown name.
        """
        config = replace(
            self.config,
            forecaster=self.config.forecaster if forecaster is None else forecaster,
            predictor=self.config.predictor if predictor is None else predictor,
        )
        if config == self.config:
            return self
        other = copy.copy(self)
        other.config = config
        other._predict()
        return other

    @property
    def mean_rate_rps(self) -> float:
        """Requests per second over the whole trace, or the training part of one with splits."""
        start_s, end_s = self._fitted_s
        return self._request_count(self._fitted_s) / (end_s - start_s)

    def fitted_window_tokens(self, window_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Prompt and output tokens of each window of what may be fitted to, float64[k] each.

        That is the training part of a workload with splits, else all of the trace. Windows lie on the trace's
        clock; those at the ends of the part may be incomplete.
        """
        return self.trace.take(self._rows(*self._fitted_s)).window_tokens(window_s)

    @property
    def span_s(self) -> tuple[float, float]:
        """Start and end of what episodes may use: the split, or the whole trace."""
        return self._start_s, self._end_s

    @property
    def evaluation_windows(self) -> NDArray[np.float64]:
        """Starts of the scored parts that tile the split, or the whole trace, float64[k], k >= 1.

        Only ``config.start_s`` if that is set.
        """
        return self._windows_s.copy()

    def episode(self, rng: np.random.Generator) -> Episode:
        """The episode at ``config.start_s``, or at a start drawn from ``rng``.

        Drawn from the evaluation windows if the split is ``validation`` or ``test``, else from whole
        seconds after the first possible start.
        """
        config = self.config
        if config.start_s is None and config.split in ("validation", "test"):
            return self.episode_at(float(rng.choice(self.evaluation_windows)))
        first_s, last_s = self._start_bounds()
        if config.start_s is not None:
            return self.episode_at(first_s)
        return self.episode_at(first_s + int(rng.uniform(0.0, last_s - first_s)))

    def episode_at(self, start_s: float) -> Episode:
        """The episode whose scored part starts at ``start_s`` on the trace's clock.

        Raises:
            InputError: if its warm-up or its scored part would lie outside the trace or split.
        """
        config = self.config
        first_s, last_s = self._possible_starts()
        if isinstance(start_s, bool) or not isinstance(start_s, Real) or not first_s <= start_s <= last_s:
            raise self._start_error(start_s)
        start_s = float(start_s)
        horizon_s = self._rest_s(start_s) if config.scored_s is None else config.scored_s
        rows = self.trace.row_range(start_s - config.warmup_s, start_s + horizon_s)
        within = self._rows(self._start_s, self._end_s)
        # Rounding must not reach over the bounds of the split.
        rows = slice(max(rows.start, within.start), min(rows.stop, within.stop))
        return Episode(
            trace=self.trace.take(rows),
            predicted_tokens=self.predicted_tokens[rows],
            start_s=start_s,
            warmup_s=config.warmup_s,
            horizon_s=horizon_s,
            first_row=rows.start,
            seed=seed_at(config.seed, "episode", start_s),
        )

    def _bounds_of(self, split: str | None) -> tuple[float, float]:
        """Start and end of a split, or of the whole trace."""
        return (0.0, self.trace.span_s) if self.bounds is None or split is None else self.bounds[split]

    def _part(self) -> str:
        split = "" if self.config.split is None else f"split {self.config.split!r} of "
        return f"{split}trace {self.trace.name!r}"

    def _rows(self, start_s: float, end_s: float) -> slice:
        """Rows from ``start_s`` on and before ``end_s``; to the last one if the recording ends there."""
        return self.trace.row_range(start_s, math.inf if end_s == self.trace.span_s else end_s)

    def _request_count(self, bounds_s: tuple[float, float]) -> int:
        rows = self._rows(*bounds_s)
        return rows.stop - rows.start

    def _possible_starts(self) -> tuple[float, float]:
        """First and last start of the scored part that the trace or split allows."""
        return self._start_s + self.config.warmup_s, self._end_s - (self.config.scored_s or 1e-3)

    def _start_bounds(self) -> tuple[float, float]:
        """The same, of those that the configuration allows."""
        first_s, last_s = self._possible_starts()
        start_s = self.config.start_s
        return (first_s, last_s) if start_s is None else (start_s, min(start_s, last_s))

    def _check_length(self) -> None:
        config = self.config
        if self._request_count(self._fitted_s) == 0 and config.split is not None:
            start_s, end_s = self._fitted_s
            raise InputError(
                f"trace {self.trace.name!r}: expected requests in its training part, "
                f"{start_s:g} to {end_s:g} s, got none"
            )
        requests = self._request_count((self._start_s, self._end_s))
        first_s, last_s = self._start_bounds()
        if self._possible_starts()[0] <= first_s <= last_s and requests:
            return
        first_s, last_s = self._possible_starts()
        if config.split is not None and first_s <= last_s and requests:
            raise self._start_error(config.start_s)
        if config.scored_s is None:
            expected = f"more than warmup_s {config.warmup_s:g}"
        else:
            name = "horizon_s" if config.scored_s == config.horizon_s else "evaluation_horizon_s"
            expected = f"at least warmup_s {config.warmup_s:g} plus {name} {config.scored_s:g}"
        if config.split is None and config.start_s is not None and config.start_s > config.warmup_s:
            expected += f" with the scored part from start_s {config.start_s:g} on"
        where = "" if config.split is None else f" (from {self._start_s:g} to {self._end_s:g} s)"
        raise InputError(
            f"{self._part()}: has {self._end_s - self._start_s:g} s{where} and "
            f"{requests} requests, expected {expected}"
        )

    def _start_error(self, start_s: object) -> InputError:
        first_s, last_s = self._possible_starts()
        return InputError(
            f"start_s: expected a number in [{first_s:.15g}, {last_s:.15g}], as {self._part()} reaches "
            f"from {self._start_s:g} to {self._end_s:g} s, got {start_s!r}"
        )

    def _make_windows(self, fixed_s: Sequence[float] | None) -> NDArray[np.float64]:
        first_s, last_s = self._start_bounds()
        if fixed_s is None or self.config.start_s is not None:
            return evaluation_windows(first_s, last_s, self.config.scored_s or math.inf)
        starts_s = np.array(fixed_s, np.float64)
        if not len(starts_s) or not (first_s <= starts_s.min() and starts_s.max() <= last_s):
            raise InputError(
                f"windows_s: expected starts in [{first_s:.15g}, {last_s:.15g}] of {self._part()}, "
                f"got {starts_s.tolist()}"
            )
        return starts_s

    def forecast_by(self, forecaster: str | Forecaster) -> WorkloadForecast:
        """The forecast that this workload has with ``forecaster`` in its configuration.

        Raises:
            InputError: on an unknown name, or if a library is missing.
        """
        config = self.config
        start_s, end_s = self._fitted_s
        fitted = self._rows(start_s, end_s)
        # Before any window has closed, all that is known is the service's usual load.
        windows = (end_s - start_s) / config.window_s
        prior = (
            float(self.trace.prompt_tokens[fitted].sum()) / windows,
            float(self.trace.output_tokens[fitted].sum()) / windows,
        )
        # A forecaster that knows the future knows that of its split.
        known = self._rows(0.0, self._end_s)
        return make_forecast(
            forecaster,
            self.trace.take(known, span_s=self._end_s),
            window_s=config.window_s,
            horizon=config.forecast_windows,
            prior=prior,
            train_s=end_s,
            predicted_tokens=self.predicted_tokens[known],
            seed=config.seed,
        )

    def _rest_s(self, start_s: float) -> float:
        """From ``start_s`` to the end; the request that arrives at the trace's very end is included."""
        end_s = self._end_s
        if end_s == self.trace.span_s == self.trace.arrival_s[-1]:
            # Episodes are half-open, and most recordings end with their last arrival.
            end_s = math.nextafter(end_s, math.inf)
        rest_s = end_s - start_s
        while start_s + rest_s < end_s:
            rest_s = math.nextafter(rest_s, math.inf)
        return rest_s

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

    def columns(self) -> dict[str, NDArray[Any]]:
        """What compiled code reads of the requests, for ``arrived``; not to be changed.

        Returns:
            ``arrival_s``, float64[n]; ``prompt_before`` and ``predicted_before``, tokens of the requests
            before each one and of all, int64[n + 1].
        """
        prompt, predicted = self._before
        return {
            "arrival_s": np.ascontiguousarray(self.trace.arrival_s, np.float64),
            "prompt_before": prompt,
            "predicted_before": predicted,
        }

    def profile(self, cluster: ClusterConfig) -> InstanceProfile:
        """What one instance of ``cluster`` serves of this workload's mix of lengths; cached."""
        key = (cluster.instance, cluster.slo, cluster.too_long)
        if key not in self._profiles:
            rows = self._rows(*self._fitted_s)
            self._profiles[key] = profile_instance(
                cluster, self.trace.prompt_tokens[rows], self.trace.output_tokens[rows]
            )
        return self._profiles[key]

    def forecast_at(self, time_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """The forecast in force at ``time_s``.

        Returns:
            Prompt tokens and output tokens, float64 of shape (forecast_windows,), of the current window
            and the next ones, and the share of the current window that has passed, in [0, 1).
        """
        position, k = self._position(time_s)
        elapsed = min(max(position - k, 0.0), 1.0)
        return (
            self.forecast.prompt_tokens[k].copy(),
            self.forecast.output_tokens[k].copy(),
            0.0 if elapsed < 1e-8 else elapsed,
        )

    def window_at(self, time_s: float) -> int:
        """The row of the forecast in force at ``time_s``."""
        return self._position(time_s)[1]

    def _position(self, time_s: float) -> tuple[float, int]:
        """The time in windows, and the row of the forecast."""
        # Decimal fractions of a window must not fall short of its boundary.
        position = (time_s + 1e-9) / self.config.window_s
        return position, min(int(position), len(self.forecast) - 1)


def prepared_trace(config: WorkloadConfig, trace: Trace | None = None) -> tuple[Trace, Bounds | None]:
    """The trace after rate scaling and transforms, and where its splits lie; no forecast, no lengths.

    Args:
        config: what to serve.
        trace: used instead of loading ``config.trace``.

    Raises:
        InputError: if the trace cannot be read or does not allow what ``config`` wants.
    """
    if trace is None:
        trace = load_trace(config.trace, config.seed, config.service_scale)
    numbered = [(k, transform.seeded(config.seed)) for k, transform in enumerate(config.transforms)]
    _check_mixes(config, [transform for _, transform in numbered])

    def generator(position: int, segment: int) -> np.random.Generator:
        return np.random.default_rng([config.seed, _TRANSFORMS, position, segment])

    for position, transform in numbered:
        if transform.whole:
            trace = transform.apply(trace, generator(position, 0))

    def change(piece: Trace, start_s: float, segment: int) -> Trace:
        rng = np.random.default_rng([config.seed, _RATE_SCALE, segment])
        piece = scale_rate(piece, config.rate_scale, rng, may_be_empty=config.split is not None)
        for position, transform in numbered:
            if not transform.whole:
                piece = transform.apply(piece, generator(position, segment), start_s)
        return piece

    if config.split is None:
        return change(trace, 0.0, 0), None
    bounds = split_bounds(trace.span_s, config.split_s, config.split_gap_s)
    if config.rate_scale != 1.0 or any(not transform.whole for transform in config.transforms):
        trace = change_by_segment(trace, bounds, change)
    return trace, bounds


def _check_mixes(config: WorkloadConfig, transforms: Sequence[Transform]) -> None:
    """Refuse one recording twice: at another time of it, requests of the test would get into training."""
    seen = {(config.trace, config.seed if config.trace in GENERATED else None)}
    for transform in transforms:
        if isinstance(transform, Mix):
            recording = (transform.trace, transform.seed if transform.trace in GENERATED else None)
            if recording in seen:
                raise InputError(
                    f"mix: expected each recording once, got {transform.trace!r} again; a transform "
                    "step or rate_scale raises the rate of a service"
                )
            seen.add(recording)
