"""A synthetic workload fitted to Azure's LLM services: real-looking traffic without a download.

Arrivals are a doubly stochastic Poisson process. Its rate is the product of independent parts:

* the mean rate, and its profile over a weekday and over a day of the weekend (hourly means, linear between
  the hours' centres);
* a *swell* over hours, a *slow* part over tens of minutes and a *ripple* over seconds to minutes: log-normal
  Ornstein-Uhlenbeck processes with unit mean;
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

from numbers import Integral, Real
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError
from preserve_gym.traces.modulation import BIN_S
from preserve_gym.traces.synthetic_fits import SERVICES, ServiceFit
from preserve_gym.traces.trace import SECONDS_PER_DAY, Trace

MAX_DURATION_S = 31 * SECONDS_PER_DAY
MAX_REQUESTS = 100_000_000

FloatArray = NDArray[np.float64]


def synthetic_trace(
    kind: str,
    *,
    duration_s: float = SECONDS_PER_DAY,
    start_day: int = 1,
    start_clock_s: float = 0.0,
    mean_rate_rps: float | None = None,
    seed: int = 0,
) -> Trace:
    """Generate the ``chat`` or ``code`` service.

    Args:
        kind: ``chat`` (long answers, a smooth rate) or ``code`` (short answers, bursts and silence).
        duration_s: span of the trace in seconds, at most 31 days.
        start_day: weekday on which it starts, 0 for Monday to 6; Tuesday by default.
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
    if not (isinstance(start_day, Integral) and 0 <= start_day <= 6):
        raise InputError(f"synthetic trace: start_day: expected a weekday from 0 to 6, got {start_day!r}")
    if not (isinstance(seed, Integral) and seed >= 0):
        raise InputError(f"synthetic trace: seed: expected an integer >= 0, got {seed!r}")
    # A stream for each part, so that the lengths do not move when the rate does.
    root = np.random.SeedSequence((seed, list(SERVICES).index(kind)))
    process, counts, lengths = (np.random.default_rng(child) for child in root.spawn(3))

    edges = np.append(np.arange(0.0, duration_s, BIN_S), duration_s)
    start_s = start_day * SECONDS_PER_DAY + start_clock_s
    profile = _profile(fit, edges, start_s)
    moving, parts = fit.pattern.draw(edges, process)
    relative = profile * moving
    expected = rate * np.diff(edges) * relative
    count = counts.poisson(expected)
    first, width = np.repeat(edges[:-1], count), np.repeat(np.diff(edges), count)
    arrival_s = np.sort(first + width * counts.random(len(first)))
    prompt_tokens, output_tokens = fit.lengths.draw(len(arrival_s), lengths)
    return Trace(
        arrival_s=np.minimum(arrival_s, duration_s),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        name=f"synthetic-{kind}",
        clock_s=start_clock_s,
        span_s=duration_s,
        rates=fit.pattern.rate_process(rate * profile * fit.lengths.means_of_requests[:, np.newaxis], parts),
    )


def _check(name: str, value: object, above: float, most: float) -> None:
    if not (_is_number(value) and above < value <= most):
        raise InputError(
            f"synthetic trace: {name}: expected a number in ({above:g}, {most:g}], got {value!r}"
        )


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)


def _profile(fit: ServiceFit, edges_s: FloatArray, start_s: float) -> FloatArray:
    """Rate over that of a mean weekday in each bin, float64[bins]; ``start_s`` counts from Monday 0:00."""
    hours = np.r_[np.tile(fit.hourly_rate, 5), np.tile(fit.weekend_rate, 2)]
    centres_h = (start_s + (edges_s[:-1] + edges_s[1:]) / 2) / 3600 % len(hours)
    relative = np.interp(centres_h, np.arange(-0.5, len(hours) + 1), np.r_[hours[-1], hours, hours[0]])
    return relative / np.mean(fit.hourly_rate)
