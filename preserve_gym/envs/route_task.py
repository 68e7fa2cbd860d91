"""The task of ``Route``: where each arriving request goes."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from preserve_gym.config import RouteRewardConfig
from preserve_gym.envs.physical import Physical
from preserve_gym.envs.route_observation import RouteObservation
from preserve_gym.envs.route_turn import ROUTE_INFO, compile_route_turns
from preserve_gym.envs.scale_action import integers
from preserve_gym.envs.setting import Setting
from preserve_gym.envs.task import Begin, Schedule, Task, check_options, is_number, make_constants
from preserve_gym.errors import InputError
from preserve_gym.sim import RequestView, RouterView, router
from preserve_gym.sim.routers import check_weights, get_router
from preserve_gym.sim.state import I8, READY

Fleet = int | Sequence[tuple[float, int]] | None
"""What ``fleet`` may be, but for an autoscaler."""


class RouteTask(Task):
    """Send each request to an instance.

    Arguments as those of ``RouteEnv``; ``autoscaled``: the caller pauses and scales, there is no schedule.
    """

    info = ROUTE_INFO

    def __init__(
        self,
        setting: Setting,
        *,
        fleet: Fleet,
        autoscaled: bool,
        warmup_router: Any,
        obs_mode: str,
        reward: RouteRewardConfig,
    ) -> None:
        try:
            check_weights(get_router(warmup_router), ())
        except InputError as error:
            # Each of its messages begins with the name of another argument.
            raise InputError(f"warmup_router: {str(error).partition(': ')[2]}") from None
        super().__init__(setting, follow_decision(), ())
        slots = setting.cluster.max_instances
        self.warmup_router = warmup_router
        self.reward = reward
        self.route_observation = RouteObservation(obs_mode, setting.cluster)
        self.action_space = spaces.Discrete(slots)
        self.observation_space = self.route_observation.space
        self.feature_names = self.route_observation.feature_names
        self.physical_size = self.route_observation.layout.size
        self.low, self.high = self.route_observation.low, self.route_observation.high
        self.schedule = Schedule() if autoscaled else self._make_schedule(fleet)
        self.constants = make_constants(setting, 1.0, self.router, warmup_router)
        self.constants["scale"] = reward.scale

    def turns(self) -> Any:
        """The compiled function ``(turns) -> None``."""
        return compile_route_turns()

    def decode(self, actions: Any, batch: Any) -> tuple[I8, None]:
        """Slots."""
        return integers(actions, batch.n, self.setting.cluster.max_instances), None

    def masks(self, batch: Any) -> NDArray[np.bool_]:
        """Which slots are ready."""
        ready: NDArray[np.bool_] = batch.physical[:, self.route_observation.layout.places["state"]] == READY
        return ready

    def begin(self, rng: np.random.Generator, options: Mapping[str, Any]) -> Begin:
        """Draw the episode."""
        options = check_options(options, ("start_s",))
        episode = self.choose_episode(rng, options)
        warmup_start_s = episode.start_s - episode.warmup_s
        if not len(self.schedule.time_s):  # an autoscaler decides
            initial = self.forecast_instances(episode.start_s)
            return Begin(episode, initial, self.reward.violation_weight, pause_s=episode.start_s)
        row = int(np.searchsorted(self.schedule.time_s, warmup_start_s, side="right"))
        initial = int(self.schedule.instances[max(row - 1, 0)])
        return Begin(episode, initial, self.reward.violation_weight, schedule_row=row)

    def observation(self, state: Mapping[str, NDArray[Any]]) -> NDArray[np.float32] | Physical:
        """The observation in arrays ``physical`` and ``flat``; a copy."""
        return self.route_observation.of(state)

    def _make_schedule(self, fleet: Fleet) -> Schedule:
        if fleet is None:
            windows = np.arange(len(self.needs), dtype=np.float64) * self.setting.workload.config.window_s
            counts = np.array([self.forecast_instances(time_s) for time_s in windows], np.int64)
            changes = np.r_[True, counts[1:] != counts[:-1]]
            return Schedule(windows[changes], counts[changes])
        pairs = [(0.0, fleet)] if isinstance(fleet, int | np.integer) else fleet
        expected = "fleet: expected a number of instances, or pairs of a time in s, ascending, and a number"
        unusable = isinstance(fleet, bool | str | bytes) or not isinstance(pairs, Sequence)
        if unusable or not len(pairs):
            raise InputError(f"{expected}, got {' '.join(repr(fleet).split())}")
        low, high = self.setting.cluster.min_instances, self.setting.cluster.max_instances
        last_s = -np.inf
        for pair in pairs:
            if not isinstance(pair, Sequence) or len(pair) != 2 or not all(map(is_number, pair)):
                raise InputError(f"{expected}, got {pair!r}")
            time_s, count = pair
            if not 0.0 <= time_s < np.inf or time_s <= last_s:
                raise InputError(f"{expected}, got {time_s!r} after {last_s!r}")
            if not isinstance(count, int | np.integer) or not low <= count <= high:
                raise InputError(f"fleet: expected an integer in [{low}, {high}], got {count!r}")
            last_s = time_s
        times, counts_given = zip(*pairs, strict=True)
        return Schedule(np.array(times, np.float64), np.array(counts_given, np.int64))


@functools.cache
def follow_decision() -> Any:
    """The router that asks: it sends each request where the environment was told."""
    return router(_follow_decision)


def _follow_decision(view: RouterView, request: RequestView) -> int:
    return view.decision


# Already here, as an unpickled copy of the router finds the function, but has not called ``follow_decision``.
vars(_follow_decision)["reads"] = 0
