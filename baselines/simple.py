"""Simple autoscalers that are hard to beat: forecast, schedule, measured rate, and their combination."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from baselines.base import HEADROOMS, Autoscaler, Observation, ceil_instances
from baselines.load import forecast_needs, measured_need, reached_need
from baselines.recent import Recent
from preserve_gym.errors import InputError
from preserve_gym.traces.trace import SECONDS_PER_DAY


@dataclass(frozen=True, kw_only=True)
class WithHeadroom(Autoscaler):
    """Base of laws that are a need times one headroom, which takes in what is not known.

    Attributes:
        headroom: factor on the need.
    """

    TUNING: ClassVar[Mapping[str, tuple[float, ...]]] = {"headroom": HEADROOMS}

    headroom: float = 1.2

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("headroom", "a number > 0", lambda value: value > 0)


@dataclass(frozen=True, kw_only=True)
class ForecastHeadroom(WithHeadroom):
    """``n = ceil(headroom * forecast need over the cold start)``.

    The highest of the windows from now until an instance started now would be ready: PreServe's Tier 1 with
    one cold start of lead, and a headroom in place of Tier 2. Every 10 s.
    """

    name: str = "forecast-headroom"

    def decide(self, obs: Observation, state: Any) -> int:
        """The forecast with its headroom."""
        need = reached_need(obs, self.profile, self.cluster.mean_cold_start_s)
        return ceil_instances(self.headroom * need)


@dataclass(frozen=True, kw_only=True)
class TimeOfDay(WithHeadroom):
    """``n = ceil(headroom * usual need at this time of day)``, a cold start ahead.

    As scheduled scaling does, of a cron job or of KEDA's cron scaler. It neither forecasts nor measures.

    Attributes:
        schedule: usual need in instances, not rounded, of equal parts of the day from midnight on; at least
            one. ``daily_schedule`` makes it.
    """

    name: str = "time-of-day"
    schedule: tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.schedule, tuple) and self.schedule and min(self.schedule) >= 0.0):
            raise InputError(
                f"TimeOfDay.schedule: expected a tuple of numbers >= 0, at least one, got {self.schedule!r}"
            )

    def decide(self, obs: Observation, state: Any) -> int:
        """The highest of the schedule between now and a cold start later."""
        part_s = SECONDS_PER_DAY / len(self.schedule)
        first = int(obs["time_of_day_s"] / part_s + 1e-9)
        last = int((obs["time_of_day_s"] + self.cluster.mean_cold_start_s) / part_s + 1e-9)
        reached = [self.schedule[k % len(self.schedule)] for k in range(first, last + 1)]
        return ceil_instances(self.headroom * max(reached))


@dataclass(frozen=True, kw_only=True)
class Rate(WithHeadroom):
    """``n = ceil(headroom * need of the last 60 s)``; down to the highest of the last 180 s. Every 10 s.

    Tokens count when their request arrives, output tokens as predicted, so the law does not wait for
    requests to end.

    Attributes:
        scale_down_window_s: of the highest number.
    """

    name: str = "rate"
    scale_down_window_s: float = 180.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("scale_down_window_s", "a number of seconds > 0", lambda value: value > 0)

    def initial_state(self) -> Recent:
        """Nothing wanted yet."""
        return Recent(self.scale_down_window_s)

    def decide(self, obs: Observation, state: Recent) -> int:
        """The highest number of the window."""
        state.add(float(obs["time_s"]), ceil_instances(self.headroom * self._need(obs)))
        return int(state.highest())

    def _need(self, obs: Observation) -> float:
        return measured_need(obs, self.profile, 60.0)


@dataclass(frozen=True, kw_only=True)
class Corr(Rate):
    """The forecast over the cold start, corrected by how the recent rate compares with it.

    ``n = ceil(headroom * F * (R / F0)^power)``, with F the forecast need over the cold start, F0 that of the
    current window and R the need of the last 120 s; down to the highest of the last 60 s. Every 10 s.

    A forecast of windows does not know how this one turns out; a measured rate does not know what comes. A
    power of 0 is the forecast alone; with 1, and F equal to F0, it is the measured rate alone.

    Settled: a forecast of nothing is corrected to the measured need.

    Attributes:
        power: of the correction.
    """

    name: str = "corr"
    scale_down_window_s: float = 60.0
    power: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("power", "a number in [0, 1]", lambda value: 0 <= value <= 1)

    def _need(self, obs: Observation) -> float:
        recent = measured_need(obs, self.profile, 120.0)
        current = float(forecast_needs(obs, self.profile)[0])
        if current <= 0.0:
            return recent
        ahead = reached_need(obs, self.profile, self.cluster.mean_cold_start_s)
        return float(ahead * (recent / current) ** self.power)


def daily_schedule(needs: NDArray[Any], window_s: float, clock_s: float) -> tuple[float, ...]:
    """Usual need over the day: the mean of the windows at each time of day.

    A part of the day that no window covers, as in a recording of hours, is given the mean of all windows.

    Args:
        needs: instances that each whole window needs, not rounded, shape (windows,), at least one.
        window_s: length of a window, s.
        clock_s: time of day at which the first window begins, s.

    Returns:
        Needs of equal parts of the day from midnight on, about ``window_s`` long.
    """
    parts = max(1, round(SECONDS_PER_DAY / window_s))
    middle_s = (clock_s + (np.arange(len(needs)) + 0.5) * window_s) % SECONDS_PER_DAY
    part = np.minimum((middle_s / SECONDS_PER_DAY * parts).astype(int), parts - 1)
    sums, counts = np.bincount(part, weights=needs, minlength=parts), np.bincount(part, minlength=parts)
    usual = np.where(counts > 0, sums / np.maximum(counts, 1), np.mean(needs))
    return tuple(round(float(need), 4) for need in usual)
