"""The rates that a generated trace was drawn from: what could be known of it at best, at any time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]

RATE_BIN_S = 5.0
"""Width of the bins in which rates are kept, seconds."""


@dataclass(frozen=True, eq=False)
class Factor:
    """A part of a rate that nobody can foresee: known up to now, guessed from there on.

    Attributes:
        values: float32[1, bins], or float32[3, bins] if it is another for requests, prompt and output tokens.
        log_std: of a log-normal Ornstein-Uhlenbeck process of mean 1, the standard deviation of the log.
        correlation_s: of that process, seconds; infinite: what follows is expected to be as it is now.
        age: int16[1, bins], how many bins before each the event began that gives its value; from then on the
            value is known. None: there are no such events.
    """

    values: FloatArray
    log_std: float = 0.0
    correlation_s: float = math.inf
    age: NDArray[np.int16] | None = None

    def expected(self, known: NDArray[np.intp], wanted: NDArray[np.intp], ahead_s: float) -> FloatArray:
        """What is expected of the bins ``wanted`` by one who knows it up to the bins ``known``.

        They are ``ahead_s`` apart; float32[1 or 3, bins].
        """
        now = self.values[:, known]
        if self.age is not None:
            return np.where(self.age[:, wanted] >= wanted - known, self.values[:, wanted], now)
        kept = math.exp(-ahead_s / self.correlation_s)
        if kept == 1.0:
            return now
        return now**kept * math.exp(0.5 * kept * (1.0 - kept) * self.log_std**2)

    def rearranged(self, change: Callable[[Any], Any]) -> Factor:
        """With ``change`` applied to the bins, the last axis."""
        return replace(self, values=change(self.values), age=None if self.age is None else change(self.age))


@dataclass(frozen=True, eq=False)
class RateStream:
    """Requests whose rate is known in advance but for factors.

    Attributes:
        base: float32[3, bins]: requests, prompt tokens and output tokens per second that are expected in
            each bin by one who does not know the factors.
        factors: of all three rates, independent of each other.
    """

    base: FloatArray
    factors: tuple[Factor, ...] = ()

    def weighted(self, weight: FloatArray | float, age: NDArray[np.int16] | None = None) -> RateStream:
        """Each request is there ``weight`` times in the mean; the arguments are those of the process."""
        weights = np.full((1, self.base.shape[1]), weight, np.float32)
        if age is None:
            return replace(self, base=self.base * weights)
        if self.factors and (before := self.factors[-1]).age is not None:
            # What both give is known when the later of them has begun.
            both = Factor(before.values * weights, age=np.minimum(before.age, age))
            return replace(self, factors=(*self.factors[:-1], both))
        return replace(self, factors=(*self.factors, Factor(weights, age=age[np.newaxis])))

    def rearranged(self, change: Callable[[Any], Any]) -> RateStream:
        """With ``change`` applied to the bins, the last axis, of base and factors."""
        return RateStream(change(self.base), tuple(factor.rearranged(change) for factor in self.factors))


@dataclass(frozen=True, eq=False)
class RateProcess:
    """Expected rates of a generated trace, in bins of its clock.

    Bin k covers [k*bin_s, (k+1)*bin_s). What is shifted or cut moves by whole bins.

    Attributes:
        streams: their sum is the rate.
        bin_s: width of a bin, seconds.
    """

    streams: tuple[RateStream, ...]
    bin_s: float = RATE_BIN_S

    def __len__(self) -> int:
        return self.streams[0].base.shape[1]

    @property
    def middle_s(self) -> NDArray[np.float64]:
        """Middle of each bin, float64[bins]."""
        middle_s: NDArray[np.float64] = (np.arange(len(self), dtype=np.float64) + 0.5) * self.bin_s
        return middle_s

    @property
    def true(self) -> NDArray[np.float64]:
        """Requests, prompt tokens and output tokens per second, by the true rate; float64[3, bins]."""
        bins = np.arange(len(self))
        return self._sum(bins, bins, 0.0)

    def expected(self, ahead: int) -> NDArray[np.float64]:
        """What one who knows the rates up to a bin's start expects of the bin that is ``ahead`` later.

        Args:
            ahead: bins, >= 0; past the end the last bin counts.

        Returns:
            float64[3, bins]: requests, prompt tokens and output tokens per second, by the bin at whose start
            they are expected.
        """
        bins = np.arange(len(self))
        # The newest that is known lies in the bin before.
        known, wanted = np.maximum(bins - 1, 0), np.minimum(bins + ahead, len(self) - 1)
        return self._sum(known, wanted, (ahead + 1) * self.bin_s)

    def _sum(self, known: NDArray[np.intp], wanted: NDArray[np.intp], ahead_s: float) -> NDArray[np.float64]:
        total = np.zeros((3, len(self)))
        for stream in self.streams:
            rate = stream.base[:, wanted]
            for factor in stream.factors:
                rate = rate * factor.expected(known, wanted, ahead_s)
            total += rate
        return total

    def shifted(self, lag_s: float) -> RateProcess:
        """Later by ``lag_s``; what passes one end comes in at the other."""
        bins = round(lag_s / self.bin_s)
        return self._map(lambda stream: stream.rearranged(lambda values: np.roll(values, bins, axis=-1)))

    def weighted(self, weight: FloatArray | float, begun_s: FloatArray | None = None) -> RateProcess:
        """The rate times a weight.

        Args:
            weight: a number, or float[bins].
            begun_s: float64[bins], since when the weight of each bin is known; until then it is expected to
                stay as it is. None: it always was.
        """
        if begun_s is None:
            return self._map(lambda stream: stream.weighted(weight))
        age = np.clip((self.middle_s - begun_s) / self.bin_s, 0.0, np.iinfo(np.int16).max).astype(np.int16)
        return self._map(lambda stream: stream.weighted(weight, age))

    def part(self, start_s: float, end_s: float) -> RateProcess:
        """The bins from ``start_s`` to ``end_s``, at least one."""
        first = min(round(start_s / self.bin_s), len(self) - 1)
        last = len(self) if math.isinf(end_s) else max(round(end_s / self.bin_s), first + 1)
        return self._map(lambda stream: stream.rearranged(lambda values: values[:, first:last]))

    def squeezed(self, factor: float) -> RateProcess:
        """In ``1 / factor`` of the time."""
        squeezed = self._map(
            lambda stream: RateStream(
                stream.base * factor,
                tuple(replace(one, correlation_s=one.correlation_s / factor) for one in stream.factors),
            )
        )
        return replace(squeezed, bin_s=self.bin_s / factor)

    def with_means(self, prompt_tokens: FloatArray, output_tokens: FloatArray) -> RateProcess:
        """With other mean tokens of a request in each bin, float64[bins] each, known in advance."""

        def change(stream: RateStream) -> RateStream:
            requests = stream.base[0]
            base = np.stack((requests, requests * prompt_tokens, requests * output_tokens))
            return RateStream(
                base, tuple(one.rearranged(lambda values: values[:1]) for one in stream.factors)
            )

        return self._map(change)

    def _map(self, change: Callable[[RateStream], RateStream]) -> RateProcess:
        return replace(self, streams=tuple(change(stream) for stream in self.streams))


def rates_of_windows(
    sums: FloatArray, window_s: float, start_s: float, end_s: float, day_s: float
) -> RateProcess:
    """The process of a recording of which each window has its own, even rate.

    What is known in advance of a window is the mean over the same time of the other days (and one day of
    even rates, for where there is no other); how the rates differ from that is not known in advance, and
    is expected to stay.

    Args:
        sums: float64[3, windows], requests, prompt and output tokens that came in each window.
        window_s: length of a window; window 0 begins at or before ``start_s`` on the recording's clock.
        start_s, end_s: the part that the process is of; ``start_s`` lies in window 0.
        day_s: length of a day.
    """
    first = math.floor(start_s / window_s)
    begins_s = (first + np.arange(sums.shape[1])) * window_s
    seconds = np.minimum(begins_s + window_s, end_s) - np.maximum(begins_s, start_s)
    rates = sums / seconds
    clock = np.floor(begins_s % day_s / window_s).astype(int)
    days = np.bincount(clock)[clock]
    same = np.stack([np.bincount(clock, weights=row)[clock] for row in rates])
    usual = (same - rates + rates.mean(axis=1, keepdims=True)) / days
    middle_s = start_s + (np.arange(math.ceil((end_s - start_s) / RATE_BIN_S - 1e-9)) + 0.5) * RATE_BIN_S
    window = np.minimum((middle_s / window_s).astype(int) - first, sums.shape[1] - 1)
    base = usual[:, window].astype(np.float32)
    factor = np.divide(rates[:, window], base, out=np.zeros_like(base), where=base > 0.0)
    return RateProcess((RateStream(base, (Factor(factor),)),))


def sum_of(processes: Sequence[RateProcess | None]) -> RateProcess | None:
    """The sum of independent processes in the same time; None if the rate of one is not known.

    It is not kept either where the widths of their bins differ.
    """
    known = [process for process in processes if process is not None]
    if len(known) < len(processes) or len({process.bin_s for process in known}) != 1:
        return None
    bins = min(len(process) for process in known)
    streams = [stream for process in known for stream in process.streams]
    return RateProcess(
        tuple(stream.rearranged(lambda values: values[:, :bins]) for stream in streams), known[0].bin_s
    )


def joined(pieces: Sequence[RateProcess | None]) -> RateProcess | None:
    """One process after the other, which have the same streams; None if the rate of one is not known."""
    known = [piece for piece in pieces if piece is not None]
    if len(known) < len(pieces):
        return None
    streams = []
    for parts in zip(*(piece.streams for piece in known), strict=True):
        factors = [
            replace(
                same[0],
                values=np.concatenate([factor.values for factor in same], axis=1),
                age=_joined_ages([factor.age for factor in same]),
            )
            for same in zip(*(part.factors for part in parts), strict=True)
        ]
        streams.append(RateStream(np.concatenate([part.base for part in parts], axis=1), tuple(factors)))
    return RateProcess(tuple(streams), known[0].bin_s)


def _joined_ages(ages: Sequence[NDArray[np.int16] | None]) -> NDArray[np.int16] | None:
    known = [age for age in ages if age is not None]
    return np.concatenate(known, axis=1) if len(known) == len(ages) else None


def by_bin(values: FloatArray, fine_s: float) -> FloatArray:
    """Means over bins of ``RATE_BIN_S`` of values in bins of ``fine_s``, over the last axis.

    The last bin is filled with the last value.
    """
    each = round(RATE_BIN_S / fine_s)
    missing = -values.shape[-1] % each
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)], mode="edge")
    means: FloatArray = padded.reshape(*values.shape[:-1], -1, each).mean(axis=-1)
    return means.astype(np.float32)
