"""Which configurations of an autoscaler are tried: first wide apart, then where the target is met."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np

from baselines import POLICIES

Parameters = Mapping[str, float]

_DIGITS = 4  # of values between those of a grid


def defaults_of(policy: str) -> dict[str, float]:
    """The defaults of what an autoscaler is tuned over, where it has some."""
    entry = POLICIES[policy]
    defaults = {f.name: f.default for f in fields(entry.policy)} | getattr(entry.make, "keywords", {})
    return {name: defaults[name] for name in entry.tuned_over}


def coarse(policy: str) -> list[Parameters]:
    """The first half of the budget: every second value of the first parameter, its default among them.

    All values of it if they are integers, between which there is nothing to find.
    """
    tuned_over = POLICIES[policy].tuned_over
    first, *_ = tuned_over
    values = tuned_over[first]
    if not _whole(values):
        default = defaults_of(policy)[first]
        values = values[values.index(default) % 2 if default in values else 0 :: 2]
    return all_of({**tuned_over, first: values})


def fine(
    policy: str, tried: Sequence[Parameters], met: Sequence[bool], costs: Sequence[float]
) -> list[Parameters]:
    """The rest of the budget, once the first half has been played.

    As many values of the first parameter as there were configurations, evenly between that of the cheapest
    configuration that meets the target and its cheaper neighbour that does not, the other parameters as they
    are there. Without such a neighbour: the values of the grid that were left out.

    Args:
        tried: configurations of ``coarse`` that could be played.
        met: whether each meets the target.
        costs: of each, GPU-hours.
    """
    tuned_over = POLICIES[policy].tuned_over
    first, *others = tuned_over
    if _whole(tuned_over[first]):
        return []
    chosen = min((k for k in range(len(tried)) if met[k]), key=costs.__getitem__, default=None)
    if chosen is not None:
        line = [k for k, one in enumerate(tried) if all(one[name] == tried[chosen][name] for name in others)]
        line.sort(key=lambda k: tried[k][first])
        place = line.index(chosen)
        beside = [k for k in (line[max(place - 1, 0)], line[min(place + 1, len(line) - 1)]) if not met[k]]
        if beside:
            other = min(beside, key=costs.__getitem__)
            ends = tried[other][first], tried[chosen][first]
            between = np.geomspace(*ends, len(coarse(policy)) + 2)[1:-1]
            return [{**tried[chosen], first: float(f"{value:.{_DIGITS}g}")} for value in between]
    played = coarse(policy)
    return [one for one in all_of(tuned_over) if one not in played]


def _whole(values: Sequence[float]) -> bool:
    return all(isinstance(value, int) for value in values)


def all_of(values: Mapping[str, Sequence[float]]) -> list[Parameters]:
    """Every combination of the values; one without parameters if there are none."""
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]
