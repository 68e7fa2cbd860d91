"""A synthetic workload fitted to Azure's LLM services: real-looking traffic without a download.

Arrivals are a doubly stochastic Poisson process. Its rate is the product of independent parts:

* the mean rate, and its profile over a weekday (hourly means, linear between the hours' centres,
  periodic);
* a *swell* over hours and a *ripple* over seconds to minutes: log-normal Ornstein-Uhlenbeck processes
  with unit mean;
* for the code service, *silence*: the service alternates between exponential busy periods and idle
  periods drawn from two exponentials, independent of the rate and of the hour;
* gamma noise, independent in each bin of 0.5 s.

Arrivals are Poisson within each bin and uniform inside it. Lengths are independent from request to
request: prompt and output follow quantile tables, log-linear between the quantiles, and are coupled
by a Farlie-Gumbel-Morgenstern copula, which has the measured rank correlation exactly. Mean lengths
of the real hours drift from window to window; these do not.

Everything random scales with the rate, as if the service had the same users who ask more often; a
service with more users would be smoother.
"""

from __future__ import annotations

import math
from itertools import accumulate
from numbers import Integral, Real
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError
from preserve_gym.traces.synthetic_fits import QUANTILE_LEVELS, SERVICES, Modulation, ServiceFit, Silence
from preserve_gym.traces.trace import SECONDS_PER_DAY, Trace

BIN_S = 0.5
"""Width of the bins in which the rate is constant."""
MAX_DURATION_S = 31 * SECONDS_PER_DAY
MAX_REQUESTS = 100_000_000
# Silence is drawn from this long before the start, so that the start is like any other moment.
_WARM_UP_S = 3600.0

FloatArray = NDArray[np.float64]


def synthetic_trace(
    kind: str,
    *,
    duration_s: float = SECONDS_PER_DAY,
    start_clock_s: float = 0.0,
    mean_rate_rps: float | None = None,
    seed: int = 0,
) -> Trace:
    """Generate the ``chat`` or ``code`` service.

    Args:
        kind: ``chat`` (long answers, a smooth rate) or ``code`` (short answers, bursts and silence).
        duration_s: span of the trace in seconds, at most 31 days.
        start_clock_s: time of day at which it starts, seconds since midnight UTC.
        mean_rate_rps: expected requests per second over a whole weekday, 8 (chat) and 4 (code) by
            default; a part of the day has its own mean.
        seed: non-negative; equal arguments give equal traces.

    Raises:
        InputError: on an unknown kind or a number out of range.
    """
    if kind not in SERVICES:
        raise InputError(f"synthetic trace: expected one of {', '.join(SERVICES)}, got {kind!r}")
    fit = SERVICES[kind]
    rate = fit.default_rate_rps if mean_rate_rps is None else mean_rate_rps
    _check("duration_s", duration_s, 0.0, MAX_DURATION_S)
    _check("mean_rate_rps", rate, 0.0, MAX_REQUESTS / duration_s)
    if not (_is_number(start_clock_s) and 0.0 <= start_clock_s < SECONDS_PER_DAY):
        raise InputError(
            f"synthetic trace: start_clock_s: expected seconds in [0, 86400), got {start_clock_s!r}"
        )
    if not (isinstance(seed, Integral) and seed >= 0):
        raise InputError(f"synthetic trace: seed: expected an integer >= 0, got {seed!r}")
    # A stream for each part, so that the lengths do not move when the rate does.
    root = np.random.SeedSequence((seed, list(SERVICES).index(kind)))
    process, counts, lengths = (np.random.default_rng(child) for child in root.spawn(3))

    edges = np.append(np.arange(0.0, duration_s, BIN_S), duration_s)
    expected = rate * np.diff(edges) * _relative_rate(fit, edges, start_clock_s, process)
    count = counts.poisson(expected)
    first, width = np.repeat(edges[:-1], count), np.repeat(np.diff(edges), count)
    arrival_s = np.sort(first + width * counts.random(len(first)))
    prompt_tokens, output_tokens = _lengths(fit, len(arrival_s), lengths)
    return Trace(
        arrival_s=np.minimum(arrival_s, duration_s),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        name=f"synthetic-{kind}",
        clock_s=start_clock_s,
        span_s=duration_s,
    )


def _check(name: str, value: object, above: float, most: float) -> None:
    if not (_is_number(value) and above < value <= most):
        raise InputError(
            f"synthetic trace: {name}: expected a number in ({above:g}, {most:g}], got {value!r}"
        )


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)


def _relative_rate(
    fit: ServiceFit, edges: FloatArray, start_clock_s: float, rng: np.random.Generator
) -> FloatArray:
    """Rate over mean rate in each bin, float64[bins]."""
    streams = rng.spawn(4)
    centres = (edges[:-1] + edges[1:]) / 2
    profile = np.asarray(fit.hourly_rate)
    relative = np.interp(
        (start_clock_s + centres) / 3600 % 24, np.arange(-0.5, 25), np.r_[profile[-1], profile, profile[0]]
    )
    relative /= profile.mean()
    for modulation, stream in ((fit.swell, streams[0]), (fit.ripple, streams[1])):
        relative *= _modulate(modulation, centres, stream)
    if fit.silence is not None:
        relative *= _busy_share(fit.silence, edges, streams[2])
    # A gamma of mean 1 and the variance wanted.
    return relative * streams[3].gamma(1 / fit.bin_variance, fit.bin_variance, len(centres))


def _modulate(modulation: Modulation, times_s: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A log-normal Ornstein-Uhlenbeck process of unit mean at ``times_s``, linear between its steps."""
    # Steps of a bin hit the bins' centres; longer ones are short against the correlation time.
    step_s = max(modulation.correlation_s / 20, BIN_S)
    steps = int((times_s[-1] - times_s[0]) / step_s) + 2
    decay = math.exp(-step_s / modulation.correlation_s)
    noise = rng.standard_normal(steps)
    noise[1:] *= math.sqrt(1 - decay**2)
    level = np.fromiter(accumulate(noise.tolist(), lambda last, shock: decay * last + shock), float, steps)
    std = modulation.log_std
    return np.exp(std * np.interp(times_s, times_s[0] + np.arange(steps) * step_s, level) - std**2 / 2)


def _busy_share(silence: Silence, edges: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Busy time in each bin over its long-run mean, float64[bins]."""
    cycle_s = silence.busy_mean_s + silence.idle_mean_s
    span_s = _WARM_UP_S + edges[-1]
    durations: list[FloatArray] = []
    total_s = 0.0
    while total_s <= span_s:
        size = int(1.2 * (span_s - total_s) / cycle_s) + 100
        busy = rng.exponential(silence.busy_mean_s, size)
        idle_mean_s = np.where(rng.random(size) < 0.5, silence.idle_short_s, silence.idle_long_s)
        idle = silence.idle_min_s + rng.exponential(idle_mean_s)
        durations.append(np.stack((busy, idle), axis=1))
        total_s += float(busy.sum() + idle.sum())
    cycles = np.concatenate(durations)
    ends = np.r_[0.0, np.cumsum(cycles.ravel())] - _WARM_UP_S
    busy_until = np.r_[0.0, np.cumsum((cycles * (1.0, 0.0)).ravel())]
    busy_s = np.diff(np.interp(edges, ends, busy_until))
    return busy_s / np.diff(edges) * (cycle_s / silence.busy_mean_s)


def _lengths(
    fit: ServiceFit, size: int, rng: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Prompt and output tokens of ``size`` requests, int32[size] each."""
    u, w = rng.random((2, size))
    # Farlie-Gumbel-Morgenstern, theta = 3 * Spearman's correlation: the conditional distribution of
    # v given u is v + a*v*(1 - v); w is its value, v the root in [0, 1].
    a = 3 * fit.length_correlation * (1 - 2 * u)
    v = 2 * w / (1 + a + np.sqrt((1 + a) ** 2 - 4 * a * w))
    return _from_quantiles(fit.prompt_quantiles, u), _from_quantiles(fit.output_quantiles, v)


def _from_quantiles(quantiles: tuple[int, ...], u: FloatArray) -> NDArray[np.int32]:
    return np.rint(np.exp(np.interp(u, QUANTILE_LEVELS, np.log(quantiles)))).astype(np.int32)
