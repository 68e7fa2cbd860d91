"""A scene: everything that a picture or a text of a running cluster shows at one moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preserve_gym.sim import Snapshot
from preserve_gym.traces.trace import SECONDS_PER_DAY

MOST_SLOTS = 64
"""Slots that are shown one by one; of a larger fleet, those with the lowest indices."""
SLOT_STATES = ("off", "starting", "ready", "draining")
"""Names of the states in ``Snapshot.state``."""


@dataclass
class Segment:
    """A stretch of the past, as long as a control interval or longer.

    Attributes:
        start_s, end_s: where it lies on the trace's clock, s.
        ready, target: instances at its end.
        compliant: requests that completed in it within all deadlines.
        violations: requests whose first missed deadline passed in it.
        attainment: of all requests decided from the start of the episode to its end; None: of none yet.
    """

    start_s: float
    end_s: float
    ready: int
    target: int
    compliant: float = 0.0
    violations: float = 0.0
    attainment: float | None = None

    @property
    def met(self) -> float | None:
        """Share of the requests decided in it that met the SLO; None: none were."""
        return attainment(self.compliant, self.violations)


@dataclass(frozen=True)
class Window:
    """A forecast window, its load in instance-equivalents.

    Attributes:
        start_s: on the trace's clock.
        forecast: made at its start; of a window to come, the one made last.
        arrived: what came, of the current window so far; None: nothing to tell yet.
        closed: it has ended.
    """

    start_s: float
    forecast: float
    arrived: float | None
    closed: bool


@dataclass(frozen=True)
class Scene:
    """What is shown. Loads are in *instance-equivalents*: instances that would serve them (``need``).

    Attributes:
        title: what is served, on what.
        snapshot: the cluster now.
        chosen: the slot that the last request went to; None: no slot is marked.
        midnight_s: time of day at 0 on the trace's clock, s.
        elapsed_s: since the episode's start, s.
        history_s: how much of the past is drawn, s.
        load_edges_s: bounds of the bins of ``load``, float64[k + 1] on the trace's clock; the last is now or
            shortly before.
        load: arrived in each bin, float64[k].
        load_now: of the last minute.
        segments: of the fleet, the oldest first.
        window_s: length of a forecast window, s.
        windows: past ones, the current one, and those to come.
        attainment: share of the requests decided since the start that met the SLO; None: of none.
        recent_attainment: of those decided in the last minute.
        gpu_hours: billed since the start.
        cost_usd: of these; None: the price is not known.
    """

    title: str
    snapshot: Snapshot
    chosen: int | None
    midnight_s: float
    elapsed_s: float
    history_s: float
    load_edges_s: NDArray[np.float64]
    load: NDArray[np.float64]
    load_now: float
    segments: tuple[Segment, ...]
    window_s: float
    windows: tuple[Window, ...]
    attainment: float | None
    recent_attainment: float | None
    gpu_hours: float
    cost_usd: float | None

    @property
    def counts(self) -> dict[str, int]:
        """Instances by the name of their state."""
        counts = np.bincount(self.snapshot.state, minlength=len(SLOT_STATES))
        return {name: int(n) for name, n in zip(SLOT_STATES, counts, strict=True)}

    @property
    def shown_slots(self) -> int:
        """How many slots are shown one by one."""
        return min(len(self.snapshot.state), MOST_SLOTS)

    def clock(self, time_s: float, seconds: bool = False) -> str:
        """Time of day at ``time_s`` of the trace's clock, such as ``09:30``."""
        whole = int(self.midnight_s + time_s + 1e-6) % int(SECONDS_PER_DAY)
        return duration(whole, seconds, hours=2)

    @property
    def day(self) -> int:
        """The day of the recording, from 1."""
        return int((self.midnight_s + self.snapshot.time_s + 1e-6) // SECONDS_PER_DAY) + 1


def attainment(compliant: float, violations: float) -> float | None:
    """Share of the decided requests that met the SLO; a violation is decided before its request completes."""
    decided = compliant + violations
    return compliant / decided if decided else None


def duration(time_s: float, seconds: bool = True, hours: int = 1) -> str:
    """Hours, minutes and seconds, such as ``1:05:00``; ``hours`` digits of hours at least."""
    whole = int(time_s + 1e-6)
    text = f"{whole // 3600:0{hours}d}:{whole // 60 % 60:02d}"
    return f"{text}:{whole % 60:02d}" if seconds else text


def compact(count: float) -> str:
    """A count in at most four characters up to 999 million: ``7``, ``999``, ``1.2k``, ``12k``, ``1.2M``."""
    count = float(count)
    for unit in ("", "k", "M", "G"):
        if count < 999.5 or unit == "G":
            break
        count /= 1000.0
    return f"{count:.1f}{unit}" if unit and count < 9.95 else f"{count:.0f}{unit}"


def per_cent(value: float | None, digits: int = 1) -> str:
    """A share in per cent, rounded down so that only all is 100 %; ``-`` for None."""
    if value is None:
        return "-"
    scale = 10**digits
    return f"{np.floor(100.0 * value * scale + 1e-6) / scale:.{digits}f} %" if value < 1.0 else "100 %"
