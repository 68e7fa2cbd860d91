"""Request counts by window, and traces generated from them: for services that publish no requests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError
from preserve_gym.traces.fields import check_number, field_error
from preserve_gym.traces.length_mix import LengthMix
from preserve_gym.traces.modulation import BIN_S, ArrivalPattern
from preserve_gym.traces.rate_process import RateProcess, by_bin
from preserve_gym.traces.scaling import MAX_REQUESTS
from preserve_gym.traces.trace import SECONDS_PER_DAY, Trace

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class WindowCounts:
    """What arrived in each window [k*window_s, (k+1)*window_s) of a recording.

    Attributes:
        name: of the recording, for tables and messages.
        note: what the figures are and where they were published, one sentence; it goes into the repairs
            of the traces made of them.
        window_s: length of a window, a multiple of 0.5 s.
        clock_s: time of day at the start of window 0, seconds since midnight.
        requests: int64[n], requests that arrive in each window.
        prompt_mean, output_mean: float64[n], mean tokens of the requests of a window, or None where
            nothing is published.

    Raises:
        InputError: on a field that is not like this.
    """

    name: str
    note: str
    window_s: float
    clock_s: float
    requests: NDArray[np.int64]
    prompt_mean: FloatArray | None = None
    output_mean: FloatArray | None = None

    def __post_init__(self) -> None:
        check_number(self, "window_s", BIN_S, SECONDS_PER_DAY)
        if self.window_s % BIN_S:
            raise field_error(self, "window_s", f"a multiple of {BIN_S:g} s", self.window_s)
        check_number(self, "clock_s", 0.0, SECONDS_PER_DAY)
        requests = np.asarray(self.requests)
        if requests.ndim != 1 or not len(requests) or requests.dtype.kind not in "iu" or requests.min() < 0:
            expected = "one or more whole numbers of requests >= 0, one for each window"
            raise field_error(self, "requests", expected, self.requests)
        object.__setattr__(self, "requests", requests.astype(np.int64))
        for name in ("prompt_mean", "output_mean"):
            if getattr(self, name) is not None:
                self._check_means(name)

    def _check_means(self, name: str) -> None:
        means = np.asarray(getattr(self, name), dtype=np.float64)
        if means.shape != self.requests.shape:
            raise field_error(self, name, f"{len(self.requests)} means, one for each window", means)
        # Of a window without requests there is no mean.
        wrong = np.flatnonzero((self.requests > 0) & ~((means > 0) & np.isfinite(means)))
        if len(wrong):
            raise field_error(self, f"{name}[{wrong[0]}]", "a finite number > 0", float(means[wrong[0]]))
        object.__setattr__(self, name, means)

    def generate(
        self, pattern: ArrivalPattern, lengths: LengthMix, *, service_scale: float = 1.0, seed: int = 0
    ) -> Trace:
        """A trace with the counts of the recording.

        Arrivals are a doubly stochastic Poisson process, given the counts: the rate follows the counts
        (linear between the centres of the windows) times ``pattern``, and the requests of a window are
        spread over it in proportion. Each window has exactly its count. Token lengths are drawn from
        ``lengths``, with the means of the window where they are known.

        Args:
            pattern: how the rate moves inside the windows, at ``service_scale`` 1.
            lengths: of the requests.
            service_scale: a service with this many times the users: each request is kept with this
                probability (above 1, counts are multiplied and rounded at random), and since fewer users
                average out less, the variance of every part of ``pattern`` is divided by it. The curve
                over the windows stays.
            seed: of everything that is drawn.

        Raises:
            InputError: on a ``seed`` that is no integer >= 0, on a ``service_scale`` that is not finite and
                positive, or that leaves no request or makes more than 100 million.
        """
        integer: Any = Integral
        if isinstance(seed, bool) or not isinstance(seed, integer) or seed < 0:
            raise InputError(f"{self.name}: seed: expected an integer >= 0, got {seed!r}")
        is_number = isinstance(service_scale, Real) and not isinstance(service_scale, bool)
        if not (is_number and math.isfinite(service_scale) and service_scale > 0):
            raise InputError(
                f"{self.name}: service_scale: expected a finite number > 0, got {service_scale!r}"
            )
        total = int(self.requests.sum())
        if total * service_scale > MAX_REQUESTS:
            raise InputError(
                f"{self.name}: service_scale: expected at most {MAX_REQUESTS / total:.4g} ({MAX_REQUESTS:,} "
                f"of {total:,} requests), got {service_scale!r}"
            )
        # A stream for each part, so that the lengths do not move when the pattern does.
        thinned, moving, placed, sized = np.random.default_rng([seed, 6]).spawn(4)
        count = self._scaled(service_scale, thinned)
        if not count.any():
            raise InputError(
                f"{self.name}: service_scale: {service_scale!r} leaves none of {total:,} requests"
            )
        pattern = pattern.averaged(service_scale)
        arrival_s, parts, base, level = self._arrivals(count, pattern, moving, placed)
        window = np.repeat(np.arange(len(count)), count)
        means = (None if m is None else m[window] for m in (self.prompt_mean, self.output_mean))
        prompt_tokens, output_tokens = lengths.draw(len(arrival_s), sized, *means)
        return Trace(
            arrival_s,
            prompt_tokens,
            output_tokens,
            name=self.name,
            clock_s=self.clock_s,
            span_s=self.span_s,
            repairs=(self.note,),
            rates=self._rate_process(pattern, lengths, parts, base, level),
        )

    @property
    def span_s(self) -> float:
        """Length of the recording, seconds."""
        return self.window_s * len(self.requests)

    def _scaled(self, service_scale: float, rng: np.random.Generator) -> NDArray[np.int64]:
        whole = math.floor(service_scale)
        return self.requests * whole + rng.binomial(self.requests, service_scale - whole)

    def _arrivals(
        self,
        count: NDArray[np.int64],
        pattern: ArrivalPattern,
        moving: np.random.Generator,
        placed: np.random.Generator,
    ) -> tuple[FloatArray, tuple[FloatArray, ...], FloatArray, FloatArray]:
        """Arrivals, the parts of ``ArrivalPattern.draw``, and in bins of ``BIN_S`` two columns.

        These are the rate expected of the counts alone, and what all rates of a window are multiplied by so
        that its count comes out.
        """
        bins = round(self.window_s / BIN_S)
        edges_s: FloatArray = np.arange(len(count) * bins + 1, dtype=np.float64) * BIN_S
        trend: FloatArray = np.interp(
            (edges_s[:-1] + edges_s[1:]) / 2, (np.arange(len(count)) + 0.5) * self.window_s, self.requests
        )
        # A window in which the service would be silent throughout still has its requests.
        relative, parts = pattern.draw(edges_s, moving)
        rate = (trend * relative + 1e-9).reshape(len(count), bins)
        share = np.cumsum(rate, axis=1)
        of_window = (trend + 1e-9).reshape(len(count), bins).sum(axis=1)
        base = (trend + 1e-9) * np.repeat(count / of_window / BIN_S, bins)
        level = np.repeat(of_window / share[:, -1], bins)
        share /= share[:, -1:]
        # Requests 0..n-1 of a window lie at heights in (first, first + n) of a staircase of all counts.
        first = np.cumsum(count) - count
        heights = np.r_[0.0, (first[:, None] + share * count[:, None]).ravel()]
        place = np.repeat(first, count) + placed.random(int(count.sum())) * np.repeat(count, count)
        place.sort()
        arrival_s = np.interp(place, heights, edges_s)
        # Rounding must not carry a request into the next window.
        window_end_s = np.repeat((np.arange(len(count)) + 1) * self.window_s, count)
        return np.minimum(arrival_s, np.nextafter(window_end_s, 0.0)), parts, base, level

    def _rate_process(
        self,
        pattern: ArrivalPattern,
        lengths: LengthMix,
        parts: tuple[FloatArray, ...],
        base: FloatArray,
        level: FloatArray,
    ) -> RateProcess | None:
        """Expected rates: counts and mean lengths of the windows are known in advance, ``parts`` are not.

        How far a window's rates lie above or below what its ``parts`` say, as its count has to come out,
        shows when the window begins.
        """
        means = lengths.reached_means(self.prompt_mean, self.output_mean, len(self.requests))
        means = np.repeat(np.where(self.requests > 0, means, 0.0), len(base) // len(self.requests), axis=1)
        process = pattern.rate_process(np.stack((base, base * means[0], base * means[1])), parts)
        if process is None:
            return None
        begun_s = np.floor(process.middle_s / self.window_s) * self.window_s
        return process.weighted(by_bin(level, BIN_S), begun_s)
