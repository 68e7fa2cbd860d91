"""One cell of an experiment: a policy plays the evaluation windows of one workload."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from baselines.policy_name import label_of
from experiments.metrics import per_interval, summarize
from experiments.playing import Policy, begin, layout, settled, turns
from preserve_gym.config import ClusterConfig, WorkloadConfig
from preserve_gym.envs.physical import Physical
from preserve_gym.scenarios import scenario_of
from preserve_gym.sim.profile import InstanceProfile
from preserve_gym.sim.totals import named_totals
from preserve_gym.workload import Workload

OFF, STARTING, READY, DRAINING = range(4)
_PROGRESS_STEPS = 64
_FIGURES = ("time_s", "completed", "instance_s")  # of info, that are recorded

OnProgress = Callable[[float], None]
"""Called now and then with the share that is done, 0 to 1."""


@dataclass(frozen=True)
class Setting:
    """What is the same in all cells of a scenario.

    Attributes:
        scenario: its name, or that of a trace that is played without one.
        cluster: the cluster.
        workload: the workload; each cell sets its seed. Either ``split`` or ``start_s`` must be set, so that
            every policy and every user plays the same windows.
    """

    scenario: str
    cluster: ClusterConfig
    workload: WorkloadConfig

    def make_workload(self, seed: int) -> Workload:
        """The workload of a seed; that of a named scenario with the windows fixed for it.

        Raises:
            InputError: if it cannot be read or is too short.
        """
        config = replace(self.workload, seed=seed)
        scenario = None if config.split is None else scenario_of(self.cluster, config)
        if scenario is None:
            return Workload(config)
        workload = scenario.make_workload(config.split, seed)
        return workload.with_predictions(config.forecaster, config.predictor)


@dataclass(frozen=True)
class Cell:
    """A policy, by a name that ``experiments.policies.build_policy`` knows, on a scenario with one seed."""

    scenario: str
    policy: str
    seed: int

    @property
    def label(self) -> str:
        """The policy in tables and names of files; of one's own (``file.py:Class``) the class."""
        return label_of(self.policy)


@dataclass(frozen=True)
class WindowResult:
    """What came of one evaluation window.

    Attributes:
        window: its number among the workload's evaluation windows.
        start_s: start of its scored part on the trace's clock.
        requests: one row per request of the scored part, columns of ``preserve_gym.sim.Cluster.results``;
            every one is decided, as the queues are served to the end.
        intervals: one row per control interval, columns as ``INTERVAL_COLUMNS`` says.
        targets: instances that the policy asked for in each, int64[intervals].
        weights: of the router in each, float64[intervals, 7]; None: the policy does not set them.
        figures: those of ``experiments.metrics.summarize``, and ``forecast_fallbacks``: forecast windows of
            the whole workload whose forecast is not the forecaster's own.
    """

    window: int
    start_s: float
    requests: pd.DataFrame
    intervals: pd.DataFrame
    targets: NDArray[np.int64]
    figures: dict[str, float]
    weights: NDArray[np.float64] | None = None


INTERVAL_COLUMNS: dict[str, str] = {
    "time_s": "start of the interval on the trace's clock",
    "time_of_day_s": "the same as time of day",
    "arrived": "requests that arrived in it",
    "prompt_tokens": "their prompt tokens",
    "output_tokens": "their output tokens, as it turned out",
    "violations": "SLO violations among them, as it turned out, rejections included",
    "ttft_mean_s": "their mean TTFT (NaN: none)",
    "load": "their tokens per second in instances that these need",
    "forecast_load": "the same of the forecast for the current window, as known at the start",
    "target": "instances starting or ready, as all that follows at the end",
    "ready": "instances ready",
    "starting": "instances starting",
    "draining": "instances draining",
    "running": "requests in batches",
    "waiting": "requests in queues",
    "kv_use_mean": "KV use of ready instances, mean (NaN: none ready)",
    "kv_use_max": "KV use of ready instances, maximum (NaN: none ready)",
    "anticipated_peak_mean": "anticipated peak of the KV use of ready instances, mean (NaN: none ready)",
    "anticipated_peak_max": "the same, maximum (NaN: none ready)",
    "completed": "requests completed in the interval",
    "instance_s": "instance-seconds billed in the interval",
}


def play_windows(
    workload: Workload,
    cluster: ClusterConfig,
    policy: Policy,
    seed: int,
    on_progress: OnProgress | None = None,
    windows: Sequence[int] | None = None,
) -> list[WindowResult]:
    """Let a policy play the evaluation windows of a workload, as ``each_window`` says."""
    return list(each_window(workload, cluster, policy, seed, on_progress, windows))


def each_window(
    workload: Workload,
    cluster: ClusterConfig,
    policy: Policy,
    seed: int,
    on_progress: OnProgress | None = None,
    windows: Sequence[int] | None = None,
) -> Iterator[WindowResult]:
    """Play one evaluation window after another, each from a fresh cluster and a fresh state of the policy.

    Args:
        workload: its ``evaluation_windows`` are played, with the predictions that the policy wants.
        cluster: that of the policy.
        policy: plays deterministically.
        seed: of the environment.
        on_progress: called with the share of all windows.
        windows: which ones, by number; None: all.
    """
    workload = workload.with_predictions(policy.forecaster, policy.predictor)
    chosen = range(len(workload.evaluation_windows)) if windows is None else windows
    for k, window in enumerate(chosen):

        def on_share(share: float, done: int = k) -> None:
            if on_progress is not None:
                on_progress((done + share) / len(chosen))

        yield _play_window(workload, cluster, policy, seed, window, on_share)


def _play_window(
    workload: Workload, cluster: ClusterConfig, policy: Policy, seed: int, window: int, on_share: OnProgress
) -> WindowResult:
    profile = workload.profile(cluster)
    start_s = float(workload.evaluation_windows[window])
    horizon_s = workload.episode_at(start_s).horizon_s
    batch = begin(workload, policy, start_s, seed)
    time_s, completed, instance_s = (list(batch.task.info).index(name) for name in _FIGURES)
    targets: list[int] = []
    sets_weights = bool(batch.task.constants["sets_weights"])
    weights: list[NDArray[np.float64]] = []
    vectors, infos = [batch.physical[0].copy()], []
    for target in turns(batch, policy):
        targets.append(target)
        if sets_weights:
            weights.append(batch.weights[0].copy())
        vectors.append(batch.physical[0].copy())
        infos.append(batch.info[0].copy())
        if batch.ended[0] or len(targets) % _PROGRESS_STEPS == 0:
            on_share(min(1.0, (batch.info[0, time_s] - start_s) / horizon_s))
    end_s = float(batch.info[0, time_s])
    physical = layout(batch).named(np.array(vectors))
    figures_of_intervals = np.array(infos)
    columns = {
        **_known_at_start({name: values[:-1] for name, values in physical.items()}, profile),
        **_measured_at_end({name: values[1:] for name, values in physical.items()}),
        "completed": figures_of_intervals[:, completed].astype(np.int64),
        "instance_s": figures_of_intervals[:, instance_s],
    }
    totals = named_totals(batch.now[0] - batch.start[0])
    requests = settled(batch).results()
    requests = requests[requests["arrival_s"] >= start_s].reset_index(drop=True)
    figures = summarize(requests, totals, end_s - float(columns["time_s"][0]), cluster.instance)
    figures["forecast_fallbacks"] = workload.forecast.fallbacks
    return WindowResult(
        window=window,
        start_s=start_s,
        requests=requests,
        intervals=_intervals(columns, requests, profile, end_s),
        targets=np.array(targets, np.int64),
        figures=figures,
        weights=np.array(weights) if sets_weights else None,
    )


def _intervals(
    columns: dict[str, NDArray[Any]], requests: pd.DataFrame, profile: InstanceProfile, end_s: float
) -> pd.DataFrame:
    start_s = columns["time_s"]
    arrivals = per_interval(requests, start_s, end_s)
    seconds = np.diff(np.append(start_s, end_s))
    load = profile.need(arrivals["prompt_tokens"] / seconds, arrivals["output_tokens"] / seconds)
    return pd.DataFrame(columns | arrivals | {"load": load})[list(INTERVAL_COLUMNS)]


def _known_at_start(physical: Physical, profile: InstanceProfile) -> dict[str, NDArray[Any]]:
    """Columns of intervals from what is observed at their starts, entries of shape (intervals, size)."""
    window_s = physical["window_s"][:, 0]
    prompt, output = (physical[f"forecast_{kind}_tokens"][:, 0] / window_s for kind in ("prompt", "output"))
    return {
        "time_s": physical["time_s"][:, 0],
        "time_of_day_s": physical["time_of_day_s"][:, 0],
        "forecast_load": profile.need(prompt, output),
    }


def _measured_at_end(physical: Physical) -> dict[str, NDArray[Any]]:
    """Columns of intervals from what is observed at their ends, entries of shape (intervals, size)."""
    slots = physical["state"]
    ready = slots == READY
    count = ready.sum(axis=1)
    columns: dict[str, NDArray[Any]] = {
        "target": physical["target"][:, 0].astype(np.int64),
        "ready": count,
        "starting": (slots == STARTING).sum(axis=1),
        "draining": (slots == DRAINING).sum(axis=1),
        "running": physical["running"].sum(axis=1).astype(np.int64),
        "waiting": physical["waiting"].sum(axis=1).astype(np.int64),
    }
    for name in ("kv_use", "anticipated_peak"):
        values = np.where(ready, physical[name], 0.0)
        mean = np.divide(values.sum(axis=1), count, out=np.full(len(count), np.nan), where=count > 0)
        columns[f"{name}_mean"] = mean
        columns[f"{name}_max"] = np.where(count > 0, values.max(axis=1), np.nan)
    return columns
