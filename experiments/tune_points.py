"""Playing one configuration of an autoscaler on the validation windows of a scenario, and keeping it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

from baselines import make_fitted_policy
from experiments.replacing import replacing
from experiments.totals import play_totals
from preserve_gym.config import ClusterConfig
from preserve_gym.errors import InputError
from preserve_gym.scenarios import Scenario, load_scenario
from preserve_gym.workload import Workload


@dataclass(frozen=True)
class Task:
    """What there is to play.

    Attributes:
        source: name or file of the scenario.
        policy: name of the autoscaler.
        parameters: where they differ from its defaults.
        seed: of the workload.
        forecaster: in place of the scenario's; None: the scenario's.
        path: of the file for what comes of it.
        digest: ``scenario_digest``.
    """

    source: str
    policy: str
    parameters: Mapping[str, float]
    seed: int
    forecaster: str | None
    path: Path
    digest: str


@dataclass(frozen=True)
class Point:
    """What came of a task.

    Attributes:
        arrived, violations: requests of all validation windows, and those that violated the SLO.
        gpu_hours: billed in all windows.
        seconds: of processor time that playing took.
        refused: why the autoscaler does not take these parameters here; None: it does.
        error: what it raised while it played; None: nothing.
    """

    policy: str
    parameters: Mapping[str, float]
    seed: int
    arrived: int = 0
    violations: int = 0
    gpu_hours: float = 0.0
    seconds: float = 0.0
    refused: str | None = None
    error: str | None = None

    @property
    def played(self) -> bool:
        """Whether it was played to the end."""
        return self.refused is None and self.error is None


def scenario_digest(scenario: Scenario, forecaster: str | None) -> str:
    """Tells whether a point was played on the same scenario with the same forecasts, hexadecimal."""
    workload = scenario.workload.to_mapping()
    if forecaster is not None:
        workload["forecaster"] = forecaster
    mappings = scenario.cluster.to_mapping(), workload
    return hashlib.sha256(json.dumps(mappings, sort_keys=True).encode()).hexdigest()[:12]


def play_point(task: Task) -> Point:
    """Play a task.

    Raises:
        InputError: if the scenario's workload cannot be made, or its file is not that of the task.
    """
    cluster, workload = _load(task.source, task.seed, task.forecaster, task.digest)
    point = play_parameters(task.policy, task.parameters, cluster, workload)
    if point.error is None:
        return point
    return replace(point, error=f"{point.error} (with {task.parameters})")


def play_parameters(
    name: str, parameters: Mapping[str, float], cluster: ClusterConfig, workload: Workload
) -> Point:
    """What comes of an autoscaler with these parameters on the evaluation windows of a workload."""
    point, started_s = Point(name, parameters, workload.config.seed), time.process_time()
    try:
        policy = make_fitted_policy(name, cluster, workload, **parameters)
    except InputError as error:
        return replace(point, refused=str(error))
    try:
        totals = play_totals(workload, policy)
    except Exception as error:  # of this one; the others are still worth playing
        return replace(point, error=f"{type(error).__name__}: {error}")
    return replace(point, **totals._asdict(), seconds=round(time.process_time() - started_s, 3))


def write_point(task: Task, point: Point) -> None:
    """Keep what came of a task in its file, unless it was refused or failed."""
    if not point.played:
        return
    with replacing(task.path) as partial:
        partial.write_text(json.dumps({"of": task.digest} | asdict(point)) + "\n", encoding="utf-8")


def read_point(task: Task) -> Point | None:
    """What came of a task earlier; None: it has not been played, or with other values or another scenario."""
    try:
        values = json.loads(task.path.read_text(encoding="utf-8"))
        if values.pop("of") != task.digest or values["parameters"] != task.parameters:
            return None
        return Point(**values)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


@lru_cache(maxsize=1)
def _load(source: str, seed: int, forecaster: str | None, digest: str) -> tuple[ClusterConfig, Workload]:
    """Cluster and workload; the last ones are kept, as many points play them."""
    scenario = load_scenario(source)
    if scenario_digest(scenario, forecaster) != digest:
        raise InputError(f"scenario {source!r}: expected what the command has read, got another one")
    return scenario.cluster, scenario.make_workload("validation", seed).with_predictions(forecaster)
