"""One cell of an experiment: a policy plays one workload from beginning to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from baselines import Autoscaler, Static, make_fitted_policy
from experiments.metrics import per_interval, summarize
from preserve_gym.config import ClusterConfig, WorkloadConfig
from preserve_gym.sim.profile import InstanceProfile
from preserve_gym.workload import Workload

OFF, STARTING, READY, DRAINING = range(4)
_PROGRESS_STEPS = 64


@dataclass(frozen=True)
class Setting:
    """What is the same in all cells of an experiment.

    Attributes:
        cluster: the cluster.
        workload: the workload; each cell sets its seed. ``start_s`` must be set, so that every policy
            and every user plays the same stretch.
    """

    cluster: ClusterConfig
    workload: WorkloadConfig


@dataclass(frozen=True)
class Cell:
    """A policy, by a name that ``baselines.make_fitted_policy`` knows, on the workload of one seed."""

    policy: str
    seed: int

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.label}-seed{self.seed}"

    @property
    def label(self) -> str:
        """The policy in tables; of one's own (``file.py:Class``) the class."""
        return self.policy.rpartition(":")[2]


@dataclass(frozen=True)
class CellResult:
    """What came of a cell.

    Attributes:
        requests: one row per request of the scored part, columns of ``preserve_gym.sim.Cluster.results``.
        intervals: one row per control interval, columns as ``INTERVAL_COLUMNS`` says.
        summary: the figures of ``experiments.metrics.summarize``, and ``forecast_fallbacks``: windows of the
            whole workload whose forecast is not the forecaster's own.
        profile: what policies believe that one instance can serve; also the unit of load.
        parameters: of the policy, router and control interval included.
    """

    requests: pd.DataFrame
    intervals: pd.DataFrame
    summary: dict[str, float]
    profile: InstanceProfile
    parameters: dict[str, Any]


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


@lru_cache(maxsize=1)
def load_workload(config: WorkloadConfig) -> Workload:
    """The workload of a config; the last one is kept, as several policies play it."""
    return Workload(config)


def build_policy(name: str, cluster: ClusterConfig, workload: Workload) -> Autoscaler:
    """The policy of that name, with what it must know in advance fitted, to training if there are splits.

    Raises:
        InputError: if there is none, or it does not fit the cluster.
    """
    return make_fitted_policy(name, cluster, workload)


def policy_parameters(policy: Autoscaler) -> dict[str, Any]:
    """The fields of a policy that are its own, for ``config.yaml``."""
    values = {f.name: getattr(policy, f.name) for f in fields(policy) if f.name not in ("cluster", "profile")}
    if not isinstance(policy.router, str):  # one of the user's own
        values["router"] = policy.router.__name__
    return values | {"anticipator": asdict(policy.anticipator)}


def run_cell(setting: Setting, cell: Cell, on_progress: Callable[[float], None] | None = None) -> CellResult:
    """Play a cell from the start of its workload to the end.

    The seed decides the trace where it is synthetic, rate scaling and the errors of predictions.

    Args:
        on_progress: called now and then with the share done, 0 to 1.

    Raises:
        InputError: if the workload cannot be read or is too short.
    """
    workload = load_workload(replace(setting.workload, seed=cell.seed))
    policy = build_policy(cell.policy, setting.cluster, workload)
    workload = workload.with_predictions(policy.forecaster, policy.predictor)
    profile = policy.profile
    env = gym.make(
        "preserve/Autoscale-v0",
        disable_env_checker=True,
        workload=workload,
        **policy.env_options(),
        # A static fleet was never smaller; the others start with what the forecast says.
        initial_instances=policy.instances if isinstance(policy, Static) else None,
    )
    try:
        rows, end_s = _play(env, policy, cell.seed, profile, on_progress)
        base: Any = env.unwrapped
        totals = base.episode_totals()
        requests = base.results()
    finally:
        env.close()
    start_s = rows["time_s"]
    arrivals = per_interval(requests, start_s, end_s)
    seconds = np.diff(np.append(start_s, end_s))
    load = profile.need(arrivals["prompt_tokens"] / seconds, arrivals["output_tokens"] / seconds)
    intervals = pd.DataFrame(rows | arrivals | {"load": load})[list(INTERVAL_COLUMNS)]
    summary = summarize(requests, totals, end_s - float(start_s[0]), setting.cluster.instance)
    summary["forecast_fallbacks"] = workload.forecast.fallbacks
    return CellResult(requests, intervals, summary, profile, policy_parameters(policy))


def _play(
    env: gym.Env[Any, Any],
    policy: Autoscaler,
    seed: int,
    profile: InstanceProfile,
    on_progress: Callable[[float], None] | None,
) -> tuple[dict[str, NDArray[Any]], float]:
    """Play an episode: the columns that must be read off on the way, and the end of the scored part."""
    base: Any = env.unwrapped
    observation, _ = env.reset(seed=seed)
    first_s = float(observation["time_s"][0])
    span_s = base.workload.config.scored_s or base.workload.trace.span_s - first_s
    rows: dict[str, list[float]] = {}
    state, truncated, steps = None, False, 0
    while not truncated:
        row: dict[str, float] = {
            "time_s": float(observation["time_s"][0]),
            "time_of_day_s": float(observation["time_of_day_s"][0]),
            "forecast_load": float(
                profile.need(
                    observation["forecast_prompt_tokens"][0] / float(observation["window_s"][0]),
                    observation["forecast_output_tokens"][0] / float(observation["window_s"][0]),
                )
            ),
        }
        action, state = policy.predict(observation, state)
        observation, _, _, truncated, info = env.step(action)
        row |= _look(observation, info)
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
        steps += 1
        if on_progress is not None and (truncated or steps % _PROGRESS_STEPS == 0):
            on_progress(min(1.0, (float(observation["time_s"][0]) - first_s) / span_s))
    return {name: np.array(values) for name, values in rows.items()}, float(observation["time_s"][0])


def _look(observation: Mapping[str, NDArray[np.float64]], info: Mapping[str, float]) -> dict[str, float]:
    """The row of an interval as far as its last observation tells it."""
    slots = observation["state"]
    ready = slots == READY
    row: dict[str, float] = {
        "target": int(observation["target"][0]),
        "ready": int(np.count_nonzero(ready)),
        "starting": int(np.count_nonzero(slots == STARTING)),
        "draining": int(np.count_nonzero(slots == DRAINING)),
        "running": int(observation["running"].sum()),
        "waiting": int(observation["waiting"].sum()),
        "completed": int(info["completed"]),
        "instance_s": float(info["instance_s"]),
    }
    for name, key in (("kv_use", "kv_use"), ("anticipated_peak", "anticipated_peak")):
        values = observation[key][ready]
        row[f"{name}_mean"] = float(values.mean()) if len(values) else np.nan
        row[f"{name}_max"] = float(values.max()) if len(values) else np.nan
    return row
