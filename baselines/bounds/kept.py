"""Bounds that were computed before, one JSON file for each scenario, split and seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preserve_gym.config import ClusterConfig
from preserve_gym.errors import InputError
from preserve_gym.scenarios import scenario_of, trace_digest
from preserve_gym.workload import Workload

FOLDER = Path(__file__).parents[2] / "results" / "bounds"
"""Those of the named scenarios that come with the code."""


@dataclass(frozen=True)
class KeptBounds:
    """Bounds of the evaluation windows of a workload, and the hindsight schedule.

    Attributes:
        row: figures by name, as ``python -m experiments.bounds`` has them in its table.
        trace_sha256: ``trace_digest`` of the trace that they are of.
        starts_s: start of each window.
        interval_s: length of a control interval.
        targets: for each window, the hindsight schedule as (interval, target from then on); empty: no
            constant fleet meets the target attainment, so none was looked for.
    """

    row: dict[str, Any]
    trace_sha256: str
    starts_s: Sequence[float]
    interval_s: float
    targets: Sequence[Sequence[tuple[int, int]]]

    def write(self, path: Path) -> None:
        """Write a file, at once."""
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), separators=(",", ":")) + "\n", encoding="utf-8")
        partial.rename(path)


def read_bounds(path: Path) -> KeptBounds:
    """Read a file that ``KeptBounds.write`` has written.

    Raises:
        InputError: if it is none.
    """
    try:
        return KeptBounds(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: expected bounds of python -m experiments.bounds: {error}") from None


def file_name(scenario: str, split: str, seed: int) -> str:
    """Name of the file for the windows of a scenario."""
    return f"{scenario}-{split}-seed{seed}.json"


def run_lengths(targets: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Of a schedule of one window, the intervals in which it changes, with the target from then on."""
    changes = np.flatnonzero(np.diff(targets, prepend=targets[0] - 1))
    return [(int(k), int(targets[k])) for k in changes]


def bounds_for(policy: str, cluster: ClusterConfig, workload: Workload) -> KeptBounds:
    """The bounds in ``FOLDER`` of the evaluation windows of a workload.

    Args:
        policy: that wants them, for messages.

    Raises:
        InputError: if there are none.
    """
    config = workload.config
    scenario = scenario_of(cluster, config)
    if scenario is None or config.split is None:
        raise InputError(
            f"{policy}: expected the split validation or test of a named scenario, for which bounds were "
            f"computed, got {'another workload' if scenario is None else 'no split'}"
        )
    path = FOLDER / file_name(scenario.name, config.split, config.seed)
    again = f"python -m experiments.bounds --scenario {scenario.name} --split {config.split}"
    again += f" --seed {config.seed}"
    if not path.is_file():
        raise InputError(f"{policy}: {path}: no such file; {again} makes it")
    kept = read_bounds(path)
    if kept.trace_sha256 != trace_digest(workload.trace):
        raise InputError(f"{policy}: {path}: expected bounds of this trace, got those of another; {again}")
    return kept


def fitted_hindsight(cluster: ClusterConfig, workload: Workload) -> dict[str, Any]:
    """``hindsight``: the schedule that was found for the evaluation windows."""
    kept = bounds_for("hindsight", cluster, workload)
    if not kept.targets:
        raise InputError(
            f"hindsight: expected a scenario that its largest fleet serves at the target; that of "
            f"{kept.row['scenario']} reaches {100 * kept.row['static_attainment']:.2f} %"
        )
    return {
        "starts_s": tuple(kept.starts_s),
        "targets": tuple(_each_interval(window) for window in kept.targets),
        "interval_s": kept.interval_s,
        "router": kept.row["router"],
    }


def _each_interval(changes: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """The target of each interval up to the last change, from which on it stays."""
    starts, targets = zip(*changes, strict=True)
    return tuple(np.repeat(targets, np.append(np.diff(starts), 1)).tolist())


def fitted_best_static(cluster: ClusterConfig, workload: Workload) -> dict[str, Any]:
    """``best-static``: the smallest constant fleet that meets the target, or the largest if none does."""
    kept = bounds_for("best-static", cluster, workload)
    return {"instances": int(kept.row["static_instances"]), "router": kept.row["router"]}
