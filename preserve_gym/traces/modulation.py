"""What moves a request rate inside the hours and windows whose counts are known.

A service's relative rate, of mean 1, is the product of independent parts: log-normal
Ornstein-Uhlenbeck processes (``Modulation``), periods of silence (``Silence``) and gamma noise in bins of
``BIN_S`` (``ArrivalPattern.bin_variance``). Arrivals are Poisson given the rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from preserve_gym.traces.fields import check_number
from preserve_gym.traces.rate_process import Factor, RateProcess, RateStream, by_bin

BIN_S = 0.5
"""Width of the bins in which the rate is constant, seconds."""
# Silence is drawn from this long before the start, so that the start is like any other moment.
_WARM_UP_S = 3600.0
_MAX_TIME_S = 1e9

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Modulation:
    """A log-normal Ornstein-Uhlenbeck process of mean 1.

    Attributes:
        log_std: standard deviation of the log, at most 10.
        correlation_s: time in which the correlation of the log falls to 1/e, seconds.

    Raises:
        InputError: on a number out of range.
    """

    log_std: float
    correlation_s: float

    def __post_init__(self) -> None:
        check_number(self, "log_std", 0.0, 10.0)
        check_number(self, "correlation_s", 0.0, _MAX_TIME_S, above=True)

    def draw(self, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """The process at ``times_s`` (rising), linear between its steps; float64 of that shape."""
        # Steps of a bin hit the bins' centres; longer ones are short against the correlation time.
        step_s = max(self.correlation_s / 20, BIN_S)
        steps = int((times_s[-1] - times_s[0]) / step_s) + 2
        decay = math.exp(-step_s / self.correlation_s)
        noise = rng.standard_normal(steps)
        noise[1:] *= math.sqrt(1 - decay**2)
        level = lfilter([1.0], [1.0, -decay], noise)
        wanted = np.interp(times_s, times_s[0] + np.arange(steps) * step_s, level)
        return np.exp(self.log_std * wanted - self.log_std**2 / 2)

    def averaged(self, users: float) -> Modulation:
        """The process of ``users`` times as many independent users: its variance is that much smaller."""
        return replace(self, log_std=math.sqrt(math.log1p(math.expm1(self.log_std**2) / users)))


@dataclass(frozen=True)
class Silence:
    """A service that alternates between busy and idle periods.

    Busy periods are exponential. An idle one lasts ``idle_min_s`` plus an exponential time whose mean
    is ``idle_short_s`` or ``idle_long_s`` with equal probability.

    Raises:
        InputError: on a number out of range.
    """

    busy_mean_s: float
    idle_min_s: float
    idle_short_s: float
    idle_long_s: float

    def __post_init__(self) -> None:
        check_number(self, "busy_mean_s", 0.0, _MAX_TIME_S, above=True)
        for name in ("idle_min_s", "idle_short_s", "idle_long_s"):
            check_number(self, name, 0.0, _MAX_TIME_S)

    @property
    def idle_mean_s(self) -> float:
        """Mean of the idle periods."""
        return self.idle_min_s + (self.idle_short_s + self.idle_long_s) / 2

    def busy_share(self, edges_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Busy time in each bin between ``edges_s`` over its long-run mean, float64[bins]."""
        cycle_s = self.busy_mean_s + self.idle_mean_s
        span_s = _WARM_UP_S + edges_s[-1]
        durations: list[FloatArray] = []
        total_s = 0.0
        while total_s <= span_s:
            size = int(1.2 * (span_s - total_s) / cycle_s) + 100
            busy = rng.exponential(self.busy_mean_s, size)
            idle_mean_s = np.where(rng.random(size) < 0.5, self.idle_short_s, self.idle_long_s)
            idle = self.idle_min_s + rng.exponential(idle_mean_s)
            durations.append(np.stack((busy, idle), axis=1))
            total_s += float(busy.sum() + idle.sum())
        cycles = np.concatenate(durations)
        ends = np.r_[0.0, np.cumsum(cycles.ravel())] - _WARM_UP_S
        busy_until = np.r_[0.0, np.cumsum((cycles * (1.0, 0.0)).ravel())]
        busy_s = np.diff(np.interp(edges_s, ends, busy_until))
        return busy_s / np.diff(edges_s) * (cycle_s / self.busy_mean_s)


@dataclass(frozen=True)
class ArrivalPattern:
    """How a service's rate moves around its known mean.

    Attributes:
        modulations: the slow and the fast parts.
        bin_variance: variance of the gamma noise in a bin of ``BIN_S``, mean 1; 0: none.
        silence: its busy and idle periods, or None if it never falls silent.

    Raises:
        InputError: on a variance out of range.
    """

    modulations: tuple[Modulation, ...] = ()
    bin_variance: float = 0.0
    silence: Silence | None = None

    def __post_init__(self) -> None:
        check_number(self, "bin_variance", 0.0, 1e9)

    def averaged(self, users: float) -> ArrivalPattern:
        """The pattern of a service with ``users`` times as many users, who act independently of each other.

        The variance of every part of the rate falls with the number of users; silence stays, as it is
        that of the service.
        """
        return replace(
            self,
            modulations=tuple(modulation.averaged(users) for modulation in self.modulations),
            bin_variance=self.bin_variance / users,
        )

    def relative_rate(self, edges_s: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Rate over its mean in each bin between ``edges_s``, float64[bins]."""
        return self.draw(edges_s, rng)[0]

    def draw(
        self, edges_s: FloatArray, rng: np.random.Generator
    ) -> tuple[FloatArray, tuple[FloatArray, ...]]:
        """``relative_rate``, and the part of each of ``modulations`` in it, float64[bins] each."""
        centres_s = (edges_s[:-1] + edges_s[1:]) / 2
        *moving, silent, noise = rng.spawn(len(self.modulations) + 2)
        relative = np.ones(len(centres_s))
        parts = []
        for modulation, stream in zip(self.modulations, moving, strict=True):
            parts.append(modulation.draw(centres_s, stream))
            relative *= parts[-1]
        if self.silence is not None:
            relative *= self.silence.busy_share(edges_s, silent)
        if self.bin_variance > 0:
            # A gamma of mean 1 and the variance wanted.
            relative *= noise.gamma(1 / self.bin_variance, self.bin_variance, len(centres_s))
        return relative, tuple(parts)

    def rate_process(self, base: FloatArray, parts: Sequence[FloatArray]) -> RateProcess | None:
        """The expected rates, of bins of ``BIN_S``.

        Noise in bins is left out: it says nothing about the next one.

        Args:
            base: float64[3, bins], expected requests, prompt and output tokens per second.
            parts: those that ``draw`` gave.

        Returns:
            None for a service with silence: how long that lasts depends on how long it has lasted.
        """
        if self.silence is not None:
            return None
        factors = tuple(
            Factor(by_bin(part, BIN_S)[np.newaxis], modulation.log_std, modulation.correlation_s)
            for part, modulation in zip(parts, self.modulations, strict=True)
        )
        return RateProcess((RateStream(by_bin(base, BIN_S), factors),))
