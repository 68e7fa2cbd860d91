"""The front of a model: attainment and GPU-hours of each violation weight on evaluation windows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from agents.network import Network
from agents.scaling_control import CONTROLS, make_control, site_of
from preserve_gym.envs.vector import TaskVectorEnv
from preserve_gym.workload import Workload


@dataclass(frozen=True)
class FrontPoint:
    """What a model reaches with one violation weight.

    Attributes:
        violation_weight: that it observes.
        attainment: share of the requests of all windows that met the SLO.
        gpu_hours: mean of the windows.
    """

    violation_weight: float
    attainment: float
    gpu_hours: float


Fronts = Mapping[str, Sequence[FrontPoint]]
"""By scenario."""


def measure_front(
    network: Network,
    control_name: str,
    options: Mapping[str, Any],
    workloads: Sequence[Workload],
    weights: Sequence[float],
) -> list[FrontPoint]:
    """Play the evaluation windows of workloads with each weight, deterministically.

    Violations count when they are charged within the window, as in the reward; what is left in the queues at
    its end is not waited for.

    Args:
        network: of the model.
        control_name: its control.
        options: of the environments, ``cluster`` among them, but for workload and violation weight.
        workloads: those whose windows are played.
        weights: violation weights that the model observes.
    """
    figures = np.zeros((len(weights), 3))  # instance-seconds, violations, arrivals
    for workload in workloads:
        figures += _play(network, control_name, options, workload, weights)
    windows = sum(len(workload.evaluation_windows) for workload in workloads)
    hours = options["cluster"].instance.gpus / 3600.0 / windows
    return [
        FrontPoint(float(weight), 1.0 - violations / max(arrived, 1.0), hours * seconds)
        for weight, (seconds, violations, arrived) in zip(weights, figures.tolist(), strict=True)
    ]


def _play(
    network: Network,
    control_name: str,
    options: Mapping[str, Any],
    workload: Workload,
    weights: Sequence[float],
) -> NDArray[np.float64]:
    starts_s = workload.evaluation_windows
    pairs = [(k, float(start_s)) for k in range(len(weights)) for start_s in starts_s]
    envs = gym.make_vec(
        CONTROLS[control_name].env_id,
        num_envs=len(pairs),
        autoreset_mode="SAME_STEP",
        num_threads=1,
        workload=workload,
        **options,
    )
    assert isinstance(envs, TaskVectorEnv)
    control = make_control(control_name, site_of(envs))
    figures, state, memory = np.zeros((len(weights), 3)), None, control.begin(len(pairs))
    begins = [{"start_s": start_s, "violation_weight": float(weights[k])} for k, start_s in pairs]
    observations, _ = envs.reset(seed=0, options=begins)
    playing = np.ones(len(pairs), np.bool_)
    while playing.any():
        seen = control.observe(observations, memory)
        masks = control.masks(seen, memory) if network.masked else None
        actions, state = network.act(seen, state, masks)
        observations, _, _, truncated, _ = envs.step(control.act(actions, memory))
        for i in (truncated & playing).nonzero()[0]:
            totals = envs.ended_totals(int(i))
            figures[pairs[i][0]] += totals["instance_s"], totals["violations"], totals["arrived"]
        playing &= ~truncated
    envs.close()
    return figures


def gpu_hours_at(front: Sequence[FrontPoint], target: float) -> float:
    """GPU-hours at an attainment, between the points of a front; infinite if none reaches it."""
    return _at(front, target)[0]


def weight_at(front: Sequence[FrontPoint], target: float) -> float:
    """The violation weight for an attainment: the one that costs least there, between the points of a front.

    Where no point reaches it, the weight of the point that comes nearest.
    """
    return _at(front, target)[1]


def mean_hours(fronts: Fronts, target: float) -> float:
    """Geometric mean over scenarios of ``gpu_hours_at``; infinite if one does not reach it."""
    hours = [gpu_hours_at(front, target) for front in fronts.values()]
    return math.inf if math.inf in hours else math.exp(sum(map(math.log, hours)) / len(hours))


def weight_for(fronts: Fronts, target: float) -> float:
    """The highest of ``weight_at`` over scenarios, which reaches the target in each if one does."""
    return max(weight_at(front, target) for front in fronts.values())


def _at(front: Sequence[FrontPoint], target: float) -> tuple[float, float]:
    """GPU-hours and weight at the target; between two points along the logarithm of the share missed."""
    points = sorted(front, key=lambda point: point.violation_weight)
    nearest = max(points, key=lambda point: point.attainment)
    best = (math.inf, nearest.violation_weight)
    reaching = [point for point in points if point.attainment >= target]
    if reaching:
        cheapest = min(reaching, key=lambda point: point.gpu_hours)
        best = (cheapest.gpu_hours, cheapest.violation_weight)
    for low, high in pairwise(points):
        if low.attainment < target <= high.attainment:
            missed = [math.log(max(1.0 - a, 1e-6)) for a in (low.attainment, target, high.attainment)]
            share = (missed[0] - missed[1]) / max(missed[0] - missed[2], 1e-12)
            hours = low.gpu_hours + share * (high.gpu_hours - low.gpu_hours)
            if hours < best[0]:
                ratio = high.violation_weight / low.violation_weight
                best = (hours, low.violation_weight * ratio**share)
    return best
