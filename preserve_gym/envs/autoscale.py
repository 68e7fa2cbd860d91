"""``preserve/Autoscale-v0``: how many instances, decided every control interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preserve_gym.config import ClusterConfig, RewardConfig, WorkloadConfig
from preserve_gym.config_fields import changed
from preserve_gym.envs.action import ScaleAction
from preserve_gym.envs.dashboard import RENDER_MODES, Dashboard
from preserve_gym.envs.observation import ScaleObservation
from preserve_gym.envs.reward import reward_parts
from preserve_gym.errors import InputError
from preserve_gym.forecasting import needed_instances
from preserve_gym.scenarios import Scenario, load_scenario
from preserve_gym.sim import Cluster, Snapshot
from preserve_gym.sim.profile import InstanceProfile
from preserve_gym.sim.routers import check_weights, get_router
from preserve_gym.sim.state import READY
from preserve_gym.workload import Episode, Workload


class AutoscaleEnv(gym.Env[Any, Any]):
    """An autoscaler sets how many instances serve a stream of LLM requests.

    Requests arrive as in the workload, a router sends each to a ready instance, every instance runs
    vLLM's continuous batching over its KV cache. New instances are ready after a cold start; surplus
    ones finish what they have and go off.

    **Step.** One control interval (10 s). The action takes effect at its start.

    **Action.** ``action_mode="delta"``: Discrete(5), change of the target (starting + ready instances)
    by -2 to +2, with ``action_masks()``. ``action_mode="target"``: Box(-1, 1, (1,)), from
    ``min_instances`` to ``max_instances``.

    **Observation.** ``obs_mode="flat"``: Box float32 of ``feature_names``. ``obs_mode="dict"``: physical
    units, arrays per instance. Both are documented in ``preserve_gym.envs.observation``.

    **Reward.** Minus the cost of the fleet minus the weighted SLO violations of the interval, less a
    baseline that no action changes; exact formula in ``preserve_gym.envs.reward``.

    **Start.** ``initial_instances`` ready (default: the forecast need at the start, PreServe's Tier 1)
    serve an unscored warm-up.

    **End.** Truncated after ``horizon_s``, to be bootstrapped; never terminated. ``results()`` then
    serves what is left in the queues, with the fleet frozen, so that every request is decided.

    **Info.** ``time_s`` (trace's clock), ``target``, ``ready``; of the interval: ``arrived``,
    ``completed``, ``violations``, ``instance_s``, ``reward_cost``, ``reward_slo``.

    **Versions.** v0: first version; may still change until release 1.0.

    Args:
        cluster: configuration of the cluster, or a mapping of its fields.
        workload: configuration, mapping, or a ``Workload`` to share between environments.
        router: name of a built-in router, or one made by ``@router``.
        interval_s: length of the control interval.
        obs_mode: ``flat`` or ``dict``.
        action_mode: ``delta`` or ``target``.
        reward: weights of the reward, or a mapping.
        initial_instances: ready at the start of the warm-up; None: the forecast need.
        router_weights: of the router ``linear``, or one of your own that reads ``view.weights``.
        render_mode: None, ``ansi`` or ``rgb_array``.
        scenario: name or file of a scenario, or one made before: gives ``cluster`` and ``workload`` where
            they are None, and the fields that a mapping of them leaves out.
        split: ``train``, ``validation`` or ``test``: the part of the recording that episodes use; not for
            a ``Workload``, which has its own.

    Raises:
        InputError: on options that do not fit.
    """

    metadata = {"render_modes": list(RENDER_MODES), "render_fps": 10}  # noqa: RUF012  (as Gymnasium declares it)

    def __init__(
        self,
        cluster: ClusterConfig | Mapping[str, Any] | None = None,
        workload: WorkloadConfig | Mapping[str, Any] | Workload | None = None,
        router: Any = "least-requests",
        interval_s: float = 10.0,
        obs_mode: str = "flat",
        action_mode: str = "delta",
        reward: RewardConfig | Mapping[str, Any] | None = None,
        initial_instances: int | None = None,
        router_weights: Sequence[float] = (),
        render_mode: str | None = None,
        scenario: str | Path | Scenario | None = None,
        split: Literal["train", "validation", "test"] | None = None,
    ) -> None:
        if render_mode is not None and render_mode not in RENDER_MODES:
            raise InputError(
                f"render_mode: expected None or one of {', '.join(RENDER_MODES)}, got {render_mode!r}"
            )
        if not (math.isfinite(interval_s) and interval_s > 0):
            raise InputError(f"interval_s: expected a finite number > 0, got {interval_s!r}")
        self.render_mode = render_mode
        if not isinstance(scenario, Scenario):
            unnamed = Scenario("", "", WorkloadConfig(), ClusterConfig())
            scenario = unnamed if scenario is None else load_scenario(scenario)
        self.cluster_config: ClusterConfig = _config(scenario.cluster, cluster)
        self.reward_config: RewardConfig = _config(RewardConfig(), reward)
        if not isinstance(workload, Workload):
            made = replace(scenario, workload=_config(scenario.workload, workload))
            if split is not None and made.workload.split not in (None, split):
                raise InputError(f"split: expected {made.workload.split!r} as in workload, got {split!r}")
            workload = made.make_workload(split)
        elif split is not None:
            raise InputError(f"split: expected None with a Workload, which has its own, got {split!r}")
        self.workload = workload
        low, high = self.cluster_config.min_instances, self.cluster_config.max_instances
        if initial_instances is not None and not low <= initial_instances <= high:
            raise InputError(
                f"initial_instances: expected an integer in [{low}, {high}], got {initial_instances!r}"
            )
        # Refuse what does not fit here rather than at the first reset.
        check_weights(get_router(router), router_weights)
        self.router = router
        self.router_weights = tuple(router_weights)
        self.interval_s = float(interval_s)
        self.profile: InstanceProfile = self.workload.profile(self.cluster_config)
        self._needs = needed_instances(self.workload.forecast, self.profile)
        self._initial_instances = initial_instances
        self._action = ScaleAction(action_mode, low, high)
        self._observation = ScaleObservation(obs_mode, self.cluster_config, self.workload, self.profile)
        self.action_space = self._action.space
        self.observation_space = self._observation.space
        self.feature_names = self._observation.feature_names
        # None: nothing is remembered for a viewer.
        self.dashboard: Dashboard | None = None
        if render_mode is not None:
            self.dashboard = Dashboard(self.cluster_config, self.workload, self.profile)
        self.cluster: Cluster
        self._episode: Episode
        self._ended = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Draw an episode, serve its warm-up and observe.

        Args:
            seed: of the environment's generator, which draws the episodes.
            options: ``{"start_s": ...}`` picks the episode whose scored part starts there on the trace's
                clock, such as one of ``workload.evaluation_windows``.

        Raises:
            InputError: on another option, or a start that the workload does not allow.
        """
        super().reset(seed=seed)
        self._episode = episode = self._choose_episode(options or {})
        initial = self._initial_instances
        if initial is None:
            low, high = self._action.min_instances, self._action.max_instances
            initial = min(max(math.ceil(self._forecast_need(episode.start_s)), low), high)
        self.cluster = Cluster(
            self.cluster_config,
            episode.trace,
            self.router,
            predicted_tokens=episode.predicted_tokens,
            initial_instances=initial,
            start_s=episode.start_s - episode.warmup_s,
            router_weights=self.router_weights,
            seed=self.workload.config.seed,
        )
        lead_in_s = max(episode.start_s - self.interval_s, episode.start_s - episode.warmup_s)
        self.cluster.run_until(lead_in_s)
        before = self.cluster.totals()
        self.cluster.run_until(episode.start_s)
        self._snapshot = self.cluster.snapshot()
        self._start_totals = dict(self._snapshot.totals)
        if self.dashboard is not None:
            self.dashboard.start(self._snapshot)
        self._step_count = 0
        self._ended = False
        interval = _change(before, self._snapshot)
        return (
            self._observation.build(self._snapshot, interval, self._snapshot.target),
            self._info(interval, 0.0, 0.0),
        )

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Scale, serve one control interval and observe."""
        if self._ended:
            raise gym.error.ResetNeeded("the episode has ended: call reset() first")
        episode, last = self._episode, self._snapshot
        self.cluster.scale_to(self._action.to_target(action, last.target))
        self._step_count += 1
        end_s = episode.start_s + episode.horizon_s
        time_s = episode.start_s + self._step_count * self.interval_s
        # An interval shorter than a microsecond is rounding, not an interval.
        self._ended = time_s >= end_s - 1e-6
        time_s = end_s if self._ended else time_s
        need = self._forecast_need(last.time_s)
        self.cluster.run_until(time_s)
        self._snapshot = self.cluster.snapshot()
        interval = _change(last.totals, self._snapshot)
        if self.dashboard is not None:
            self.dashboard.record(self._snapshot, interval)
        cost, slo = reward_parts(
            self.reward_config,
            instance_s=interval["instance_s"],
            baseline_instances=need,
            violations=int(interval["violations"]),
            requests_per_interval=self.workload.mean_rate_rps * self.interval_s,
            max_instances=self.cluster_config.max_instances,
            interval_s=self.interval_s,
            duration_s=time_s - last.time_s,
        )
        return (
            self._observation.build(self._snapshot, interval, last.target),
            cost + slo,
            False,
            self._ended,
            self._info(interval, cost, slo),
        )

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions stay within the bounds, bool of shape (5,); ``action_mode="delta"`` only."""
        if self._action.mode != "delta":
            raise InputError("action_masks: exist for action_mode='delta' only")
        return self._action.mask(self._snapshot.target)

    def target_to_action(self, target: int) -> NDArray[np.float32]:
        """The action that asks for ``target`` instances; ``action_mode="target"`` only."""
        return self._action.from_target(target)

    def episode_totals(self) -> dict[str, float]:
        """Change of each of ``TOTALS`` since the start of the scored part."""
        return _change(self._start_totals, self._snapshot)

    def results(self) -> pd.DataFrame:
        """Per-request results of the scored part, after the queues are served to the end.

        Columns as in ``Cluster.results``. The episode is over afterwards.
        """
        self._ended = True
        self.cluster.settle()
        results = self.cluster.results()
        return results[results["arrival_s"] >= self._episode.start_s].reset_index(drop=True)

    def render(self) -> str | NDArray[np.uint8] | None:
        """The dashboard: text in mode ``ansi``, uint8 (540, 960, 3) in ``rgb_array``, None without a mode.

        Raises:
            ResetNeeded: before the first reset.
        """
        if self.dashboard is None:
            return None
        if not self.dashboard.started:
            raise gym.error.ResetNeeded("nothing to render yet: call reset() first")
        return self.dashboard.ansi() if self.render_mode == "ansi" else self.dashboard.rgb_array()

    def _choose_episode(self, options: Mapping[str, Any]) -> Episode:
        unknown = [name for name in options if name != "start_s"]
        if unknown:
            raise InputError(f"options: expected start_s or none, got {unknown[0]!r}")
        if options.get("start_s") is None:
            return self.workload.episode(self.np_random)
        return self.workload.episode_at(options["start_s"])

    def _forecast_need(self, time_s: float) -> float:
        return float(self._needs[self.workload.window_at(time_s), 0])

    def _info(self, interval: Mapping[str, float], cost: float, slo: float) -> dict[str, Any]:
        return {
            "time_s": self._snapshot.time_s,
            "target": self._snapshot.target,
            "ready": int(np.count_nonzero(self._snapshot.state == READY)),
            "arrived": int(interval["arrived"]),
            "completed": int(interval["completed"]),
            "violations": int(interval["violations"]),
            "instance_s": float(interval["instance_s"]),
            "reward_cost": cost,
            "reward_slo": slo,
        }


def _change(before: Mapping[str, float], after: Snapshot) -> dict[str, float]:
    return {name: value - before[name] for name, value in after.totals.items()}


def _config(default: Any, value: Any) -> Any:
    """The configuration that was given; a mapping changes fields of the default."""
    cls = type(default)
    if value is None:
        return default
    if isinstance(value, cls):
        return value
    if isinstance(value, Mapping):
        return changed(default, value)
    raise InputError(f"expected a {cls.__name__} or a mapping of its fields, got {value!r}")
