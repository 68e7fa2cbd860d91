"""Local improvement of a schedule, many places at a time in one simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baselines.bounds.problem import Outcome, Problem, Schedule, scored_arrivals

CHUNKS_S = (600.0, 300.0, 120.0, 60.0, 30.0, 10.0)
"""Lengths of the stretches on which one instance is taken away or added."""
_RECOVERY_S = 60.0
"""A stretch is blamed for violations up to a cold start and this long after it."""
_PRICE_FALL = 0.7
_PRICES = 16
_ATTEMPTS = 3


@dataclass(frozen=True)
class _Place:
    """A stretch of a window: changed in [first, last), blamed in [first, until), in control intervals."""

    window: int
    first: int
    last: int
    until: int


@dataclass(frozen=True)
class _Change:
    """What a change at a place saves, in instance-seconds (negative: costs), and the violations it adds."""

    place: _Place
    saved_s: float
    added: int


def improve(
    problem: Problem, best: Outcome, simulate: Callable[[Schedule], Outcome], effort: int
) -> Outcome:
    """The cheapest schedule that meets the target among those met on the way from ``best``.

    A violation has a price in instance-seconds, high at first and then lower and lower. At each price one
    instance is taken away, or added, on stretches of many lengths, wherever that is worth it. A simulation
    tries all stretches of one length that are so far apart that their violations can be told from each
    other; those worth it are kept as long as a simulation of them together says so and meets the target.

    Args:
        best: a schedule that meets the target.
        simulate: plays a schedule.
        effort: simulations that it may take.
    """
    rng = np.random.default_rng(0)
    current, plays = best, 0
    price_s = 10.0 * best.instance_s / (problem.allowed + 1)
    for _ in range(_PRICES):
        for sign in (-1, 1):
            for chunk_s in CHUNKS_S:
                if plays + 1 + _ATTEMPTS > effort:
                    return best
                chunk = max(1, round(chunk_s / problem.interval_s))
                places = _places(problem, chunk, rng)
                trial = simulate(_changed(problem, current.schedule, places, sign))
                plays += 1
                changes = _worth_it(problem, current, trial, places, price_s)
                current, more = _accept(problem, current, changes, sign, price_s, simulate)
                plays += more
                if current.instance_s < best.instance_s:
                    best = current
        price_s *= _PRICE_FALL
    return best


def _places(problem: Problem, chunk: int, rng: np.random.Generator) -> list[_Place]:
    """Stretches of ``chunk`` intervals in all windows, the first somewhere near the start."""
    after = problem.lead + math.ceil(_RECOVERY_S / problem.interval_s)
    period = chunk + after
    places = []
    for window, episode in enumerate(problem.episodes):
        count = problem.intervals(episode)
        for first in range(int(rng.integers(period)) - chunk + 1, count, period):
            last, until = min(first + chunk, count), min(first + period, count)
            places.append(_Place(window, max(first, 0), last, until))
    return places


def _changed(problem: Problem, schedule: Schedule, places: list[_Place], sign: int) -> Schedule:
    """With one instance more or less at the places, within the bounds of the cluster."""
    cluster = problem.cluster
    changed = [targets.copy() for targets in schedule]
    for place in places:
        changed[place.window][place.first : place.last] += sign
    return tuple(np.clip(targets, cluster.min_instances, cluster.max_instances) for targets in changed)


def _worth_it(
    problem: Problem, current: Outcome, trial: Outcome, places: list[_Place], price_s: float
) -> list[_Change]:
    """The changes that save more than the violations they add are worth, the best first."""
    before, after = _violations_before(problem, current), _violations_before(problem, trial)
    worth = []
    for place in places:
        k, first, until = place.window, place.first, place.until
        added = int((after[k][until] - after[k][first]) - (before[k][until] - before[k][first]))
        removed = current.schedule[k][first : place.last] - trial.schedule[k][first : place.last]
        change = _Change(place, float(removed.sum()) * problem.interval_s, added)
        if change.saved_s - price_s * added > 0.0:
            worth.append(change)
    return sorted(worth, key=lambda change: price_s * change.added - change.saved_s)


def _violations_before(problem: Problem, outcome: Outcome) -> list[NDArray[np.int64]]:
    """Violations of the requests that arrive before each interval and in all, int64[intervals + 1]."""
    sums = []
    for episode, violated in zip(problem.episodes, outcome.violated, strict=True):
        count = problem.intervals(episode)
        row = ((scored_arrivals(episode) - episode.start_s) / problem.interval_s).astype(np.int64)
        of_each = np.bincount(np.minimum(row, count - 1)[violated], minlength=count)
        sums.append(np.concatenate(([0], np.cumsum(of_each))))
    return sums


def _accept(
    problem: Problem,
    current: Outcome,
    changes: list[_Change],
    sign: int,
    price_s: float,
    simulate: Callable[[Schedule], Outcome],
) -> tuple[Outcome, int]:
    """The schedule with as many of the changes as are good together, and the simulations that it took."""
    spare = problem.allowed - current.violations
    within = np.cumsum([change.added for change in changes], dtype=np.int64) <= spare
    chosen = [change for change, fits in zip(changes, within, strict=True) if fits]
    for attempt in range(_ATTEMPTS):
        if not chosen:
            return current, attempt
        places = [change.place for change in chosen]
        outcome = simulate(_changed(problem, current.schedule, places, sign))
        gain_s = current.instance_s - outcome.instance_s
        gain_s -= price_s * (outcome.violations - current.violations)
        if outcome.violations <= problem.allowed and gain_s > 0.0:
            return outcome, attempt + 1
        chosen = chosen[: len(chosen) // 2]
    return current, _ATTEMPTS
