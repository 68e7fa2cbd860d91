"""Local improvement of a schedule, many places at a time in one simulation."""

from __future__ import annotations

import itertools
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
_HIGH_PRICE, _LOW_PRICE = 10.0, 0.02
"""Of a violation, in what one of those allowed costs if all of the bill is shared among them."""
_ATTEMPTS = 3
_SKIPPED = 0.3
"""Share of the stretches that are passed over, so that each round tries others."""


@dataclass(frozen=True)
class Place:
    """A stretch of a window: changed in [first, last), blamed in [first, until), in control intervals."""

    window: int
    first: int
    last: int
    until: int


@dataclass(frozen=True)
class Change:
    """What a change at a place saves, in instance-seconds (negative: costs), and the violations it adds."""

    place: Place
    saved_s: float
    added: int


def improve(problem: Problem, best: Outcome, simulate: Callable[[Schedule], Outcome], effort: int) -> Outcome:
    """The cheapest schedule that meets the target among those met on the way from ``best``.

    A violation has a price in instance-seconds that falls from round to round. In each, one instance is
    taken away, or added, on stretches wherever that is worth it: on stretches of one length anywhere, or
    before or after a step of the schedule, or from a step up to where the schedule is below it again. A
    simulation tries all stretches of a round, so far apart that their violations can be told from each
    other; those worth it are kept as long as a simulation of them together says so and meets the target.

    Args:
        best: a schedule that meets the target.
        simulate: plays a schedule.
        effort: simulations that it may take.
    """
    rng = np.random.default_rng(0)
    current, plays = best, 0
    unit_s = best.instance_s / (problem.allowed + 1)
    rounds = [
        (sign, chunk_s, at_steps)
        for chunk_s in (*CHUNKS_S, None)
        for at_steps in (False, True)
        for sign in (-1, 1)
    ]
    for sign, chunk_s, at_steps in itertools.cycle(rounds):
        if plays + 1 + _ATTEMPTS > effort:
            return best
        price_s = unit_s * _HIGH_PRICE * (_LOW_PRICE / _HIGH_PRICE) ** (plays / effort)
        places = _places(problem, current.schedule, sign, chunk_s, at_steps, rng)
        plays += 1
        if not places:
            continue
        trial = simulate(_changed(problem, current.schedule, places, sign))
        changes = _worth_it(problem, current, trial, places, price_s)
        current, more = accept(problem, current, changes, sign, price_s, simulate)
        plays += more
        if current.instance_s < best.instance_s:
            best = current
    return best


def _places(
    problem: Problem,
    schedule: Schedule,
    sign: int,
    chunk_s: float | None,
    at_steps: bool,
    rng: np.random.Generator,
) -> list[Place]:
    """Stretches far enough apart, in all windows: ``chunk_s`` long, or with None those above a step up."""
    after = problem.lead + math.ceil(_RECOVERY_S / problem.interval_s)
    places = []
    for window, targets in enumerate(schedule):
        count = len(targets)
        if chunk_s is None:
            stretches = _humps(targets, sign)
        else:
            chunk = max(1, round(chunk_s / problem.interval_s))
            stretches = _beside_steps(targets, sign, chunk)
            if not at_steps:
                starts = range(int(rng.integers(chunk + after)) - chunk + 1, count, chunk + after)
                stretches = [(first, first + chunk) for first in starts]
        free = 0
        skipped = rng.random(len(stretches)) < (_SKIPPED if at_steps else 0.0)
        for (first, last), skip in zip(stretches, skipped, strict=True):
            first, last = max(first, 0), min(last, count)
            if first >= free and last > first and not skip:
                free = min(last + after, count)
                places.append(Place(window, first, last, free))
    return places


def _beside_steps(targets: NDArray[np.int64], sign: int, chunk: int) -> list[tuple[int, int]]:
    """Stretches just above the steps of a schedule, to take away; just below, to add."""
    stretches = []
    steps = np.diff(targets)
    for k in (np.flatnonzero(steps) + 1).tolist():
        above_is_ahead = steps[k - 1] > 0
        stretches.append((k, k + chunk) if above_is_ahead == (sign < 0) else (k - chunk, k))
    return sorted(stretches)


def _humps(targets: NDArray[np.int64], sign: int) -> list[tuple[int, int]]:
    """From each step up to where the schedule is below it again; to add, from each step down likewise."""
    level = -sign * targets
    stretches = []
    for k in (np.flatnonzero(np.diff(level) > 0) + 1).tolist():
        below = np.flatnonzero(level[k:] < level[k])
        stretches.append((k, k + int(below[0]) if len(below) else len(level)))
    return stretches


def _changed(problem: Problem, schedule: Schedule, places: list[Place], sign: int) -> Schedule:
    """With one instance more or less at the places, within the bounds of the cluster."""
    cluster = problem.cluster
    changed = [targets.copy() for targets in schedule]
    for place in places:
        changed[place.window][place.first : place.last] += sign
    return tuple(np.clip(targets, cluster.min_instances, cluster.max_instances) for targets in changed)


def _worth_it(
    problem: Problem, current: Outcome, trial: Outcome, places: list[Place], price_s: float
) -> list[Change]:
    """The changes that save more than the violations they add are worth, the best first."""
    before, after = _violations_before(problem, current), _violations_before(problem, trial)
    worth = []
    for place in places:
        k, first, until = place.window, place.first, place.until
        added = int((after[k][until] - after[k][first]) - (before[k][until] - before[k][first]))
        removed = current.schedule[k][first : place.last] - trial.schedule[k][first : place.last]
        change = Change(place, float(removed.sum()) * problem.interval_s, added)
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


def accept(
    problem: Problem,
    current: Outcome,
    changes: list[Change],
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
