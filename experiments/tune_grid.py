"""Which configurations of an autoscaler are tried: first wide apart, then where the target is met."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np

from baselines import Entry, entry_of

Parameters = Mapping[str, float]

_DIGITS = 4  # of values that are not of a grid
_BEYOND = 3.0  # times the last value that was tried


def defaults_of(policy: str) -> dict[str, float]:
    """The defaults of what an autoscaler is tuned over, where it has some."""
    entry = _entry(policy)
    defaults = {f.name: f.default for f in fields(entry.policy)} | getattr(entry.make, "keywords", {})
    return {name: defaults[name] for name in entry.tuned_over}


def coarse(policy: str) -> list[Parameters]:
    """The first half of the budget: every second value of the first parameter, its default among them.

    All values of it if they are integers, between which there is nothing to find.
    """
    tuned_over = _entry(policy).tuned_over
    first, *_ = tuned_over
    values = tuned_over[first]
    if not _whole(values):
        default = defaults_of(policy)[first]
        values = values[values.index(default) % 2 if default in values else 0 :: 2]
    return all_of({**tuned_over, first: values})


def fine(
    policy: str,
    tried: Sequence[Parameters],
    attainments: Sequence[float],
    costs: Sequence[float],
    target: float,
) -> list[Parameters]:
    """The rest of the budget, once the first half has been played.

    As many values of the first parameter as there were configurations, the other parameters as in the one
    that was best so far: the cheapest that meets the target; if none does, the best attainment. They lie
    evenly between it and its cheaper neighbour that misses the target; without such a neighbour beyond the
    end of what was tried, if it lies there; else they are the values of the grid that were left out.

    Args:
        tried: configurations of ``coarse`` that could be played.
        attainments: of each.
        costs: of each, GPU-hours.
        target: attainment to meet.
    """
    tuned_over = _entry(policy).tuned_over
    first, *others = tuned_over
    if _whole(tuned_over[first]):
        return []
    met = [attainment >= target for attainment in attainments]
    if any(met):
        best = min((k for k in range(len(tried)) if met[k]), key=costs.__getitem__)
    else:
        best = max(range(len(tried)), key=attainments.__getitem__)
    line = [k for k, one in enumerate(tried) if all(one[name] == tried[best][name] for name in others)]
    line.sort(key=lambda k: tried[k][first])
    place, value, count = line.index(best), tried[best][first], len(coarse(policy))
    missing = [k for k in (line[max(place - 1, 0)], line[min(place + 1, len(line) - 1)]) if not met[k]]
    if met[best] and missing:
        other = tried[min(missing, key=costs.__getitem__)][first]
        values = np.geomspace(other, value, count + 2)[1:-1]
    elif value > 0.0 and place in (0, len(line) - 1):
        values = np.geomspace(value, value * (_BEYOND if place else 1.0 / _BEYOND), count + 1)[1:]
    else:
        played = coarse(policy)
        return [one for one in all_of(tuned_over) if one not in played]
    return [{**tried[best], first: float(f"{x:.{_DIGITS}g}")} for x in values]


def _entry(policy: str) -> Entry:
    entry = entry_of(policy)
    assert entry is not None
    return entry


def _whole(values: Sequence[float]) -> bool:
    return all(isinstance(value, int) for value in values)


def all_of(values: Mapping[str, Sequence[float]]) -> list[Parameters]:
    """Every combination of the values; one without parameters if there are none."""
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]
