"""One cell of an experiment: a policy plays the evaluation windows of one workload."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.metrics import per_interval, summarize
from preserve_gym.config import ClusterConfig, WorkloadConfig
from preserve_gym.scenarios import load_scenario, scenario_names
from preserve_gym.sim.profile import InstanceProfile
from preserve_gym.workload import Workload

OFF, STARTING, READY, DRAINING = range(4)
_PROGRESS_STEPS = 64

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
        if config.split is None or self.scenario not in scenario_names():
            return Workload(config)
        workload = load_scenario(self.scenario).make_workload(config.split, seed)
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
        return self.policy.rpartition(":")[2]


class Policy(Protocol):
    """What can play: the baselines, and learned policies with the signature of Stable-Baselines3.

    It may also have ``initial_instances(start_s)``: how many instances are ready at the start of the window
    that starts then; without it, as many as the forecast says.
    """

    @property
    def name(self) -> str:
        """For tables and files."""

    @property
    def forecaster(self) -> str | None:
        """Of the workload that it plays; None: the workload's own."""

    @property
    def predictor(self) -> str | None:
        """Of output lengths there; None: the workload's own."""

    def env_options(self) -> dict[str, Any]:
        """Options of ``preserve/Autoscale-v0``, but for the workload."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """The action for an observation, and the state for the next call."""


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
        figures: those of ``experiments.metrics.summarize``, and ``forecast_fallbacks``: forecast windows of
            the whole workload whose forecast is not the forecaster's own.
    """

    window: int
    start_s: float
    requests: pd.DataFrame
    intervals: pd.DataFrame
    targets: NDArray[np.int64]
    figures: dict[str, float]


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
    starts_s = workload.evaluation_windows
    chosen = range(len(starts_s)) if windows is None else windows
    for k, window in enumerate(chosen):

        def on_share(share: float, done: int = k) -> None:
            if on_progress is not None:
                on_progress((done + share) / len(chosen))

        start_s = float(starts_s[window])
        options = policy.env_options()
        if hasattr(policy, "initial_instances"):
            options["initial_instances"] = policy.initial_instances(start_s)
        env = gym.make("preserve/Autoscale-v0", disable_env_checker=True, workload=workload, **options)
        try:
            yield _play_window(env, cluster, policy, seed, window, start_s, on_share)
        finally:
            env.close()


def _play_window(
    env: gym.Env[Any, Any],
    cluster: ClusterConfig,
    policy: Policy,
    seed: int,
    window: int,
    start_s: float,
    on_share: OnProgress,
) -> WindowResult:
    base: Any = env.unwrapped
    workload: Workload = base.workload
    profile = workload.profile(cluster)
    horizon_s = workload.episode_at(start_s).horizon_s
    observation, _ = env.reset(seed=seed, options={"start_s": start_s})
    rows: dict[str, list[float]] = {}
    targets: list[int] = []
    state, truncated, physical = None, False, base.physical_observation()
    while not truncated:
        row = _look_ahead(physical, profile)
        starts = np.array([not targets])
        action, state = policy.predict(observation, state, episode_start=starts, deterministic=True)
        targets.append(base.action_to_target(action))
        observation, _, _, truncated, info = env.step(action)
        physical = base.physical_observation()
        for name, value in (row | _look(physical, info)).items():
            rows.setdefault(name, []).append(value)
        if truncated or len(targets) % _PROGRESS_STEPS == 0:
            on_share(min(1.0, (info["time_s"] - start_s) / horizon_s))
    columns = {name: np.array(values) for name, values in rows.items()}
    totals, requests, end_s = base.episode_totals(), base.results(), float(info["time_s"])
    figures = summarize(requests, totals, end_s - float(columns["time_s"][0]), cluster.instance)
    figures["forecast_fallbacks"] = workload.forecast.fallbacks
    return WindowResult(
        window=window,
        start_s=start_s,
        requests=requests,
        intervals=_intervals(columns, requests, profile, end_s),
        targets=np.array(targets, np.int64),
        figures=figures,
    )


def _intervals(
    columns: dict[str, NDArray[Any]], requests: pd.DataFrame, profile: InstanceProfile, end_s: float
) -> pd.DataFrame:
    start_s = columns["time_s"]
    arrivals = per_interval(requests, start_s, end_s)
    seconds = np.diff(np.append(start_s, end_s))
    load = profile.need(arrivals["prompt_tokens"] / seconds, arrivals["output_tokens"] / seconds)
    return pd.DataFrame(columns | arrivals | {"load": load})[list(INTERVAL_COLUMNS)]


def _look_ahead(physical: Mapping[str, NDArray[np.float64]], profile: InstanceProfile) -> dict[str, float]:
    """The row of an interval as far as it is known at its start."""
    window_s = float(physical["window_s"][0])
    return {
        "time_s": float(physical["time_s"][0]),
        "time_of_day_s": float(physical["time_of_day_s"][0]),
        "forecast_load": float(
            profile.need(
                physical["forecast_prompt_tokens"][0] / window_s,
                physical["forecast_output_tokens"][0] / window_s,
            )
        ),
    }


def _look(physical: Mapping[str, NDArray[np.float64]], info: Mapping[str, float]) -> dict[str, float]:
    """The row of an interval as far as what is measured at its end tells it."""
    slots = physical["state"]
    ready = slots == READY
    row: dict[str, float] = {
        "target": int(physical["target"][0]),
        "ready": int(np.count_nonzero(ready)),
        "starting": int(np.count_nonzero(slots == STARTING)),
        "draining": int(np.count_nonzero(slots == DRAINING)),
        "running": int(physical["running"].sum()),
        "waiting": int(physical["waiting"].sum()),
        "completed": int(info["completed"]),
        "instance_s": float(info["instance_s"]),
    }
    for name in ("kv_use", "anticipated_peak"):
        values = physical[name][ready]
        row[f"{name}_mean"] = float(values.mean()) if len(values) else np.nan
        row[f"{name}_max"] = float(values.max()) if len(values) else np.nan
    return row
