"""The hindsight schedule: what an autoscaler could do that knew every arrival and length beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines.base import Autoscaler, Observation
from baselines.bounds.improve import improve
from baselines.bounds.problem import Outcome, Problem, Schedule, play, scored_arrivals
from baselines.bounds.static import BestStatic
from preserve_gym.errors import InputError
from preserve_gym.sim.profile import InstanceProfile
from preserve_gym.workload import Episode

SPANS_S = (20.0, 60.0, 120.0, 300.0, 600.0)
"""Lengths of the centred windows over which rates are taken."""
_MARGIN_PRECISION = 0.02
_LARGEST_MARGIN = 32.0


@dataclass(frozen=True, kw_only=True)
class Hindsight(Autoscaler):
    """Plays a schedule that was made in the knowledge of all arrivals and true lengths: an oracle, a bound.

    Only for the windows that it was made for, in an environment that begins with ``initial_instances``.

    Attributes:
        starts_s: start of each window on the trace's clock.
        targets: for each window, the target of each control interval; the last one stays.
    """

    name: str = "hindsight"
    starts_s: tuple[float, ...] = field(repr=False)
    targets: tuple[tuple[int, ...], ...] = field(repr=False)

    def initial_instances(self, start_s: float) -> int:
        """What has to be ready at the start of the window that starts then."""
        return self.targets[self._window(start_s)][0]

    def decide(self, obs: Observation, state: Any) -> int:
        """The target of the interval that begins."""
        time_s = float(obs["time_s"])
        targets = self.targets[window := self._window(time_s)]
        return targets[min(round((time_s - self.starts_s[window]) / self.interval_s), len(targets) - 1)]

    def _window(self, time_s: float) -> int:
        begun = [k for k, start_s in enumerate(self.starts_s) if start_s <= time_s + 1e-6]
        if not begun:
            raise InputError(
                f"Hindsight.starts_s: expected a window that has begun by {time_s:g} s, got {self.starts_s}"
            )
        return max(begun, key=lambda k: self.starts_s[k])


def as_policy(problem: Problem, profile: InstanceProfile, schedule: Schedule) -> Hindsight:
    """The policy that plays a schedule."""
    return Hindsight(
        problem.cluster,
        profile,
        router=problem.router,
        interval_s=problem.interval_s,
        starts_s=tuple(episode.start_s for episode in problem.episodes),
        targets=tuple(tuple(targets.tolist()) for targets in schedule),
    )


def find_hindsight(
    problem: Problem,
    profile: InstanceProfile,
    static: BestStatic,
    *,
    effort: int = 300,
    on_play: Callable[[Outcome], None] | None = None,
) -> Outcome:
    """The cheapest schedule found that meets the target; every candidate is simulated.

    1. The need of each control interval from what arrives in a window centred on it, times a margin,
       rounded up; each interval asks for the largest need up to a cold start ahead, so that instances are
       ready in time and gaps shorter than a cold start are bridged. For each length of the window, the
       least margin that meets the target is found by bisection, if any cheaper than the best so far does.
    2. The cheapest of these and of the constant fleet is improved by ``improve``.

    It is the best that was found, not proven to be the best there is.

    Args:
        profile: what one instance serves.
        static: the best constant fleet; the answer costs at most as much.
        effort: simulations of the second step.
        on_play: told of each schedule that was simulated.

    Raises:
        InputError: if no constant fleet meets the target, so that there is nothing to begin with.
    """
    if not static.meets:
        raise InputError(
            f"target: expected one that {problem.cluster.max_instances} instances reach, "
            f"got {problem.target:g}; they reach {static.outcome.attainment:.4f}"
        )

    def simulate(schedule: Schedule) -> Outcome:
        outcome = play(problem, schedule)
        if on_play is not None:
            on_play(outcome)
        return outcome

    best = _by_need(problem, profile, static.outcome, simulate)
    return improve(problem, best, simulate, effort)


def _by_need(
    problem: Problem, profile: InstanceProfile, best: Outcome, simulate: Callable[[Schedule], Outcome]
) -> Outcome:
    """The cheapest schedule by need that meets the target, or ``best`` if that is cheaper."""
    for span_s in SPANS_S:
        needs = [_need(problem, profile, episode, span_s) for episode in problem.episodes]
        # The largest margin that can still be cheaper; no simulation says more than what it asks for.
        low, high = 0.0, _LARGEST_MARGIN
        while high - low > _MARGIN_PRECISION * high:
            middle = 0.5 * (low + high)
            if problem.asked_s(_schedule(problem, needs, middle)) < best.instance_s:
                low = middle
            else:
                high = middle
        low, high = 0.0, low
        outcome = simulate(_schedule(problem, needs, high))
        while outcome.violations <= problem.allowed or low > 0.0:
            if outcome.violations <= problem.allowed and outcome.instance_s < best.instance_s:
                best = outcome
            if high - low <= _MARGIN_PRECISION * high:
                break
            middle = 0.5 * (low + high)
            outcome = simulate(_schedule(problem, needs, middle))
            if outcome.violations <= problem.allowed:
                high = middle
            else:
                low = middle
    return best


def _need(problem: Problem, profile: InstanceProfile, episode: Episode, span_s: float) -> NDArray[np.float64]:
    """Instances that the arrivals of ``span_s`` around each control interval need, float64[intervals]."""
    middle_s = episode.start_s + (np.arange(problem.intervals(episode)) + 0.5) * problem.interval_s
    # At the ends of the window there is less to see.
    first_s = np.maximum(middle_s - 0.5 * span_s, episode.start_s)
    last_s = np.minimum(middle_s + 0.5 * span_s, episode.start_s + episode.horizon_s)
    length_s = np.maximum(last_s - first_s, 0.5 * problem.interval_s)
    arrival_s = scored_arrivals(episode)
    rows = slice(len(episode.trace) - len(arrival_s), None)
    first, last = (np.searchsorted(arrival_s, edge_s, side="left") for edge_s in (first_s, last_s))
    rates = []
    for tokens in (episode.trace.prompt_tokens[rows], episode.trace.output_tokens[rows]):
        before = np.concatenate(([0], np.cumsum(tokens, dtype=np.int64)))
        rates.append((before[last] - before[first]) / length_s)
    need: NDArray[np.float64] = profile.need(*rates)
    return need


def _schedule(problem: Problem, needs: list[NDArray[np.float64]], margin: float) -> Schedule:
    """The targets that have ``margin`` times the need ready when it comes."""
    cluster = problem.cluster
    lead = problem.lead
    schedule = []
    for need in needs:
        ready = np.ceil(margin * need - 1e-9).astype(np.int64)
        ahead = np.pad(ready, (0, lead), mode="edge")
        targets = np.lib.stride_tricks.sliding_window_view(ahead, lead + 1).max(axis=1)
        schedule.append(np.clip(targets, cluster.min_instances, cluster.max_instances))
    return tuple(schedule)
