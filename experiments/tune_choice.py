"""What tuning finds: the front of each autoscaler, the configuration chosen, and the files with both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from baselines import POLICIES
from experiments.replacing import replacing
from experiments.tune_grid import defaults_of
from experiments.tune_points import Point

COLUMNS = ("scenario", "policy", "parameters", "attainment", "gpu_hours", "default", "on_front", "chosen")
"""Of a table: one row for each configuration; ``gpu_hours`` is the mean over seeds, ``on_front`` says that no
other of the policy is both cheaper and at least as good."""


@dataclass(frozen=True)
class Configuration:
    """What some parameters of an autoscaler achieve, on all seeds together."""

    parameters: Mapping[str, float]
    attainment: float
    gpu_hours: float


@dataclass(frozen=True)
class Front:
    """All configurations of an autoscaler that can be played on a scenario, at least one.

    Attributes:
        chosen: the cheapest that meets the target; the best attainment if none does.
        meets: it meets the target.
    """

    policy: str
    configurations: tuple[Configuration, ...]
    chosen: Configuration
    meets: bool


def make_front(points: Sequence[Point], target: float) -> Front:
    """The front of what one autoscaler achieved, and what to choose.

    Args:
        points: of every configuration and seed, at least one.
        target: SLO attainment to meet.
    """
    pooled = []
    for parameters in _distinct([point.parameters for point in points]):
        same = [point for point in points if point.parameters == parameters]
        arrived = sum(point.arrived for point in same)
        attainment = 1.0 - sum(point.violations for point in same) / arrived if arrived else 1.0
        gpu_hours = sum(point.gpu_hours for point in same) / len(same)
        pooled.append(Configuration(parameters, attainment, gpu_hours))
    meeting = [one for one in pooled if one.attainment >= target]
    if meeting:
        chosen = min(meeting, key=lambda one: (one.gpu_hours, -one.attainment))
    else:
        chosen = max(pooled, key=lambda one: (one.attainment, -one.gpu_hours))
    return Front(points[0].policy, tuple(pooled), chosen, bool(meeting))


def write_table(path: Path, scenario: str, fronts: Sequence[Front]) -> None:
    """Write all configurations; the rows that the file has of other autoscalers stay."""
    table = pd.DataFrame([row for front in fronts for row in _rows(scenario, front)], columns=list(COLUMNS))
    if path.is_file():
        before = pd.read_csv(path)
        table = pd.concat([before[~before["policy"].isin(table["policy"])], table])
    place = {name: k for k, name in enumerate(POLICIES)}
    last = len(place)  # those that are no part of the registry
    table = table.sort_values(
        "policy", key=lambda names: names.map(lambda name: place.get(name, last)), kind="stable"
    )
    with replacing(path) as partial:
        table.to_csv(partial, index=False, lineterminator="\n")


def text_of(parameters: Mapping[str, float]) -> str:
    """Parameters in a table: ``headroom=1.2 lead_s=0``."""
    return " ".join(f"{name}={value:.6g}" for name, value in parameters.items())


def is_default(policy: str, parameters: Mapping[str, float]) -> bool:
    """Whether these are the defaults of a policy."""
    defaults = defaults_of(policy)
    return all(defaults[name] == value for name, value in parameters.items())


def _distinct(values: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    return [value for k, value in enumerate(values) if value not in values[:k]]


def _rows(scenario: str, front: Front) -> list[dict[str, Any]]:
    rows = []
    for one in front.configurations:
        beaten = any(
            other is not one
            and other.gpu_hours <= one.gpu_hours
            and other.attainment >= one.attainment
            and (other.gpu_hours, other.attainment) != (one.gpu_hours, one.attainment)
            for other in front.configurations
        )
        values = (round(one.attainment, 6), round(one.gpu_hours, 4))
        marks = (is_default(front.policy, one.parameters), not beaten, one is front.chosen)
        row = (scenario, front.policy, text_of(one.parameters), *values, *marks)
        rows.append(dict(zip(COLUMNS, row, strict=True)))
    return rows
