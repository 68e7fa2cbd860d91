"""Transforms that multiply the request rate by a factor that depends on time."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from preserve_gym.errors import InputError
from preserve_gym.streams import normal_at
from preserve_gym.traces.rate_process import RateProcess, sum_of
from preserve_gym.traces.scaling import MAX_REQUESTS
from preserve_gym.traces.trace import Trace
from preserve_gym.traces.transform import MAX_TIME_S, Transform

MIN_LAG_S, MAX_LAG_S = 60.0, 600.0
"""Shortest and longest shift of a copy."""
MAX_FACTOR = 1000.0

FloatArray = NDArray[np.float64]


def modulate_rate(
    trace: Trace,
    factor_at: Callable[[FloatArray], FloatArray],
    peak: float,
    rng: np.random.Generator,
    begun_at: Callable[[FloatArray], FloatArray] | None = None,
) -> Trace:
    """The trace with its rate multiplied by ``factor_at`` the time, over the same span.

    Below 1, requests are thinned. Above 1, copies are laid over the trace. Each copy is shifted by a lag of
    its own, ``MIN_LAG_S`` to ``MAX_LAG_S`` forwards or backwards (in a trace shorter than twice the longest
    lag, 1/20 to 1/2 of its span), and what passes one end comes in at the other. A request of copy k (the
    trace itself is copy 0) is kept with probability ``factor_at(its new time) - k``, clipped to [0, 1].

    Kept: the span, which prompt comes with which output, the rate curve at the scale of the longest lag and
    above, and where the factor is 1 every request. Altered: the rate where the factor is not 1; above 1 it is
    a mean of the rates nearby, so bursts are not multiplied but stand beside each other. Prefix blocks are
    dropped if ``peak`` is above 1: copies are other users, who would share theirs.

    Args:
        trace: the trace.
        factor_at: maps times on the trace's clock, float64[n] in seconds, to factors >= 0, float64[n].
        peak: the largest factor anywhere, or a bound of it; decides the number of copies.
        rng: draws the lags and the requests that are kept.
        begun_at: maps times to when one who knows the ``rates`` of the trace could first know the factor, s;
            None: always.

    Raises:
        InputError: on a factor that is not a number >= 0, or if more than ``MAX_REQUESTS`` would be made.
    """
    times, rows, total = [], [], 0
    rates: list[RateProcess | None] = []
    for copy in range(max(math.ceil(peak), 1)):
        lag_s = _lag_s(trace, rng) if copy else 0.0
        arrival_s = np.mod(trace.arrival_s + lag_s, trace.span_s) if lag_s else trace.arrival_s
        factor = factor_at(arrival_s)
        good = factor >= 0.0
        if not good.all():
            raise InputError(f"rate factor: expected numbers >= 0, got {float(factor[~good][0])!r}")
        kept = np.flatnonzero(rng.random(len(trace)) < factor - copy)
        total += len(kept)
        if total > MAX_REQUESTS:
            raise InputError(
                f"rate factor: expected at most {MAX_REQUESTS:,} requests, got more of trace {trace.name!r}"
            )
        times.append(arrival_s[kept])
        rows.append(kept)
        if trace.rates is not None:
            middle_s = trace.rates.middle_s
            share = np.clip(factor_at(middle_s) - copy, 0.0, 1.0)
            begun_s = begun_at and begun_at(middle_s)
            rates.append(trace.rates.shifted(lag_s).weighted(share, begun_s))
    time_s, row = np.concatenate(times), np.concatenate(rows)
    # Stable, so that requests of one instant keep the order of the copies and of the trace.
    order = np.argsort(time_s, kind="stable")
    if peak > 1.0 and trace.prefix_blocks is not None:
        trace = replace(trace, prefix_blocks=None)
    return trace.take(row[order], arrival_s=time_s[order], rates=sum_of(rates) if rates else None)


def _lag_s(trace: Trace, rng: np.random.Generator) -> float:
    """By how much the arrivals of a copy are moved round the span."""
    longest_s = min(MAX_LAG_S, trace.span_s / 2.0)
    lag_s = longest_s * rng.uniform(MIN_LAG_S / MAX_LAG_S, 1.0)
    return -lag_s if rng.random() < 0.5 else lag_s


class RateShape(Transform):
    """A factor of the rate over time; ``modulate_rate`` says what applying it keeps and alters."""

    @abstractmethod
    def factor_at(self, time_s: FloatArray) -> FloatArray:
        """The factor at times on the clock of the whole recording, float64[n] in seconds."""

    @property
    @abstractmethod
    def peak(self) -> float:
        """The largest factor at any time, at least 1."""

    @abstractmethod
    def event_s(self, time_s: FloatArray) -> FloatArray:
        """When the event began that gives the factor at each time, on the same clock; -inf: before the first.

        From then on the factor is known to one who knows the service; nothing says so before.
        """

    @property
    def foreseen(self) -> bool:
        """Whether one who knows the service knows the factor at all times in advance."""
        return False

    def apply(self, trace: Trace, rng: np.random.Generator, start_s: float = 0.0) -> Trace:
        """The trace with its rate multiplied by ``factor_at``."""
        return modulate_rate(
            trace,
            lambda arrival_s: self.factor_at(start_s + arrival_s),
            self.peak,
            rng,
            None if self.foreseen else lambda time_s: self.event_s(start_s + time_s) - start_s,
        )


@dataclass(frozen=True)
class Burst(RateShape):
    """A surge: the rate is ``height`` times as high for ``width_s``, once or again and again.

    Keeps the span and, outside the surges, every request at its time. Alters the rate inside; the requests
    added there are copies from at most ten minutes away, so prompt and output lengths go together as before.

    Attributes:
        onset_s: when the (first) surge begins, on the clock of the whole recording.
        width_s: its length, rise and decay included.
        height: factor of the rate, 0 to 1000; below 1 it is a lull.
        ramp_s: length of the linear rise and of the linear decay, at most half of ``width_s``.
        period_s: from one onset to the next; None: there is one surge.
        jitter_s: each onset is earlier or later by up to this much, uniformly.
        seed: decides the jitter of each surge, so that it does not depend on the slice; None: that of the
            workload (outside of one, 0).
    """

    onset_s: float
    width_s: float
    height: float
    ramp_s: float = 0.0
    period_s: float | None = None
    jitter_s: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        self._check("onset_s", 0.0, MAX_TIME_S)
        self._check("width_s", 0.0, MAX_TIME_S, above=True)
        self._check("height", 0.0, MAX_FACTOR)
        self._check("ramp_s", 0.0, self.width_s / 2.0)
        self._check("jitter_s", 0.0, MAX_TIME_S)
        if self.period_s is not None:
            # Surges that never overlap: at any time at most one of them matters.
            self._check("period_s", self.width_s + 2.0 * self.jitter_s, MAX_TIME_S)
        if self.seed is not None:
            self._check_seed("seed")

    def seeded(self, seed: int) -> Burst:
        """Every seed of a workload has its surges at other times."""
        return self if self.seed is not None else replace(self, seed=seed)

    @property
    def peak(self) -> float:
        """The largest factor at any time, at least 1."""
        return max(self.height, 1.0)

    @property
    def foreseen(self) -> bool:
        """A surge that comes again and again, by its jitter no further off than it is long.

        Then the jitter counts as known, too. Any other surge is a flash crowd.
        """
        return self.period_s is not None and self.jitter_s <= self.width_s

    def factor_at(self, time_s: FloatArray) -> FloatArray:
        """The factor at times on the clock of the whole recording, float64[n] in seconds."""
        since_s = self._since_s(time_s)
        inside = (since_s >= 0.0) & (since_s < self.width_s)
        if self.ramp_s:
            share = np.clip(np.minimum(since_s, self.width_s - since_s) / self.ramp_s, 0.0, 1.0)
        else:
            share = np.ones_like(since_s)
        return np.where(inside, 1.0 + (self.height - 1.0) * share, 1.0)

    def event_s(self, time_s: FloatArray) -> FloatArray:
        """The onset of the last surge; while the next one's time has come and its jitter holds it back, none.

        Nothing is known then that was not before: the factor is 1.
        """
        since_s = self._since_s(time_s)
        return np.where(since_s >= 0.0, time_s - since_s, -math.inf)

    def _since_s(self, time_s: FloatArray) -> FloatArray:
        """Seconds since the onset of the surge whose turn it is, below 0 before it."""
        since_s = np.asarray(time_s, np.float64) - self.onset_s
        if self.period_s is not None:
            number = np.maximum(np.floor((since_s + self.jitter_s) / self.period_s), 0.0)
            since_s = since_s - number * self.period_s
        else:
            number = np.zeros_like(since_s)
        if self.jitter_s:
            uniform = ndtr(normal_at(self.seed or 0, "burst jitter", number.astype(np.int64)))
            since_s = since_s - self.jitter_s * (2.0 * uniform - 1.0)
        return since_s


@dataclass(frozen=True)
class Step(RateShape):
    """From one moment on the rate is ``factor`` times as high, up to the end.

    Keeps the span and every request before the step. Alters the rate from then on; see ``modulate_rate``.

    Attributes:
        at_s: when, on the clock of the whole recording.
        factor: of the rate, 0 to 1000.
    """

    at_s: float
    factor: float

    def __post_init__(self) -> None:
        self._check("at_s", 0.0, MAX_TIME_S)
        self._check("factor", 0.0, MAX_FACTOR)

    @property
    def peak(self) -> float:
        """The largest factor at any time, at least 1."""
        return max(self.factor, 1.0)

    def factor_at(self, time_s: FloatArray) -> FloatArray:
        """The factor at times on the clock of the whole recording, float64[n] in seconds."""
        return np.where(np.asarray(time_s) >= self.at_s, self.factor, 1.0)

    def event_s(self, time_s: FloatArray) -> FloatArray:
        """``at_s`` from then on."""
        return np.where(np.asarray(time_s) >= self.at_s, self.at_s, -math.inf)


@dataclass(frozen=True)
class Ramp(RateShape):
    """The rate rises or falls linearly to ``factor`` times what it was, and stays there.

    Keeps the span and every request before the ramp. Alters the rate from then on; see ``modulate_rate``.

    Attributes:
        from_s: when the factor leaves 1, on the clock of the whole recording.
        to_s: when it reaches ``factor``, later than ``from_s``.
        factor: of the rate from ``to_s`` on, 0 to 1000.
    """

    from_s: float
    to_s: float
    factor: float

    def __post_init__(self) -> None:
        self._check("from_s", 0.0, MAX_TIME_S)
        self._check("to_s", self.from_s, MAX_TIME_S, above=True)
        self._check("factor", 0.0, MAX_FACTOR)

    @property
    def peak(self) -> float:
        """The largest factor at any time, at least 1."""
        return max(self.factor, 1.0)

    def factor_at(self, time_s: FloatArray) -> FloatArray:
        """The factor at times on the clock of the whole recording, float64[n] in seconds."""
        return np.interp(time_s, (self.from_s, self.to_s), (1.0, self.factor))

    def event_s(self, time_s: FloatArray) -> FloatArray:
        """``from_s`` from then on: a ramp that has begun is known to its end."""
        return np.where(np.asarray(time_s) >= self.from_s, self.from_s, -math.inf)
