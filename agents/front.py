"""The front of a model: attainment and GPU-hours of each violation weight on evaluation windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import gymnasium as gym
import numpy as np

from agents.network import Network
from agents.scaling_control import CONTROLS, Site, make_control
from preserve_gym.config import ClusterConfig
from preserve_gym.envs.autoscale import AutoscaleVectorEnv
from preserve_gym.workload import Workload

WEIGHTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Violation weights that are tried."""


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


def measure_front(
    network: Network,
    control_name: str,
    cluster: ClusterConfig,
    workloads: Sequence[Workload],
    weights: Sequence[float] = WEIGHTS,
    on_share: Callable[[float], None] | None = None,
) -> list[FrontPoint]:
    """Play the evaluation windows of workloads with each weight, deterministically.

    Violations count when they are charged within the window, as in the reward; what is left in the queues at
    its end is not waited for.
    """
    figures = np.zeros((len(weights), 3))  # instance-seconds, violations, arrivals
    for k, workload in enumerate(workloads):

        def on_part(share: float, done: int = k) -> None:
            if on_share is not None:
                on_share((done + share) / len(workloads))

        figures += _play(network, control_name, cluster, workload, weights, on_part)
    windows = sum(len(workload.evaluation_windows) for workload in workloads)
    hours = cluster.instance.gpus / 3600.0 / windows
    return [
        FrontPoint(float(weight), 1.0 - violations / max(arrived, 1.0), hours * seconds)
        for weight, (seconds, violations, arrived) in zip(weights, figures.tolist(), strict=True)
    ]


def _play(
    network: Network,
    control_name: str,
    cluster: ClusterConfig,
    workload: Workload,
    weights: Sequence[float],
    on_share: Callable[[float], None],
) -> np.ndarray:
    starts_s = workload.evaluation_windows
    pairs = [(k, float(start_s)) for k in range(len(weights)) for start_s in starts_s]
    envs = gym.make_vec(
        "preserve/Autoscale-v0",
        num_envs=len(pairs),
        autoreset_mode="SAME_STEP",
        num_threads=1,
        cluster=cluster,
        workload=workload,
        action_mode=CONTROLS[control_name].action_mode,
    )
    assert isinstance(envs, AutoscaleVectorEnv)
    site = Site(
        envs.feature_names, envs.task.low, envs.task.high, cluster.min_instances, cluster.max_instances
    )
    control = make_control(control_name, site)
    figures, state, memory = np.zeros((len(weights), 3)), None, control.begin(len(pairs))
    options = [{"start_s": start_s, "violation_weight": float(weights[k])} for k, start_s in pairs]
    observations, infos = envs.reset(seed=0, options=options)
    playing, steps = np.ones(len(pairs), np.bool_), 0
    horizon_s = workload.episode_at(float(starts_s[0])).horizon_s
    while playing.any():
        seen = control.observe(observations, memory)
        masks = control.masks(seen, memory) if network.masked else None
        actions, state = network.act(seen, state, masks)
        observations, _, _, truncated, infos = envs.step(control.act(actions, memory))
        for i in (truncated & playing).nonzero()[0]:
            totals = envs.ended_totals(int(i))
            figures[pairs[i][0]] += totals["instance_s"], totals["violations"], totals["arrived"]
        playing &= ~truncated
        steps += 1
        if steps % 256 == 0:
            on_share(min(1.0, (float(infos["time_s"][0]) - pairs[0][1]) / horizon_s))
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
