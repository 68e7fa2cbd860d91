"""The dashboard of an environment: it remembers what a viewer wants to see, and shows it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preserve_gym.config import ClusterConfig
from preserve_gym.envs.scene import Scene, Segment, Window, attainment
from preserve_gym.envs.scene_text import draw_text
from preserve_gym.sim import Snapshot, costs
from preserve_gym.sim.profile import InstanceProfile
from preserve_gym.sim.state import READY
from preserve_gym.workload import Workload

RENDER_MODES = ("ansi", "rgb_array")

_SEGMENT_S = 10.0
_MINUTE_S = 60.0
_SHORTEST_HISTORY_S, _LONGEST_HISTORY_S = 600.0, 3600.0
_LOAD_BINS = 120
_PAST_WINDOWS, _COMING_WINDOWS = 8, 3
_SUMMED = ("compliant", "violations", "instance_s", "busy_s", "prefill_busy_s")


class Dashboard:
    """Remembers an episode as far as it is shown, and renders it as text or as a picture.

    Nothing shown is later than the last snapshot, except for the forecast, which was made before.

    Args:
        cluster: the cluster.
        workload: what it serves.
        profile: what one of its instances can serve, the unit of load.

    Attributes:
        title: first line of what is shown; the workload and the instance unless it is set.
        started: an episode has begun, so that there is something to show.
    """

    def __init__(self, cluster: ClusterConfig, workload: Workload, profile: InstanceProfile) -> None:
        served = workload.trace.name or Path(workload.config.trace).stem
        self.title = f"{served} on {cluster.instance.name}"
        self._cluster = cluster
        self._workload = workload
        self._profile = profile
        episode_s = workload.config.scored_s or _LONGEST_HISTORY_S
        self._history_s = min(max(episode_s, _SHORTEST_HISTORY_S), _LONGEST_HISTORY_S)
        # One more than fit, as the oldest and the latest are cut.
        self._segments: deque[Segment] = deque(maxlen=int(self._history_s / _SEGMENT_S) + 2)
        self._sums = dict.fromkeys(_SUMMED, 0.0)
        self._snapshot: Snapshot
        self._chosen: int | None = None
        self._start_s = 0.0
        self.started = False

    def start(self, snapshot: Snapshot) -> None:
        """Begin an episode: forget the last one."""
        self._segments.clear()
        self._sums = dict.fromkeys(_SUMMED, 0.0)
        self._snapshot, self._chosen, self._start_s = snapshot, None, snapshot.time_s
        self.started = True

    def record(self, snapshot: Snapshot, interval: Mapping[str, float], chosen: int | None = None) -> None:
        """Remember a step. Steps shorter than 10 s are taken together.

        Args:
            snapshot: the cluster after it.
            interval: change of each of ``TOTALS`` over the step.
            chosen: slot to mark, the one that a request was sent to.
        """
        before_s, self._snapshot, self._chosen = self._snapshot.time_s, snapshot, chosen
        for name in _SUMMED:
            self._sums[name] += interval[name]
        segments = self._segments
        if not segments or segments[-1].end_s - segments[-1].start_s >= _SEGMENT_S - 1e-6:
            segments.append(Segment(before_s, before_s, 0, 0))
        last = segments[-1]
        last.end_s = snapshot.time_s
        last.ready, last.target = int(np.count_nonzero(snapshot.state == READY)), snapshot.target
        last.compliant += interval["compliant"]
        last.violations += interval["violations"]
        last.attainment = attainment(self._sums["compliant"], self._sums["violations"])

    def ansi(self) -> str:
        """The scene as text: lines of at most 80 characters, without colours."""
        return draw_text(self.scene())

    def rgb_array(self) -> NDArray[np.uint8]:
        """The scene as a picture, uint8 of shape (540, 960, 3), a fresh array."""
        # Here, so that environments that draw nothing do without fonts and Pillow.
        from preserve_gym.envs.scene_picture import draw_picture

        return draw_picture(self.scene())

    def scene(self) -> Scene:
        """What there is to show now."""
        now = self._snapshot.time_s
        figures = costs(self._cluster.instance, self._sums)
        recent = [s for s in self._segments if s.end_s > now - _MINUTE_S + 1e-6]
        edges_s, load = self._load()
        return Scene(
            title=self.title,
            snapshot=self._snapshot,
            chosen=self._chosen,
            midnight_s=self._workload.trace.clock_s,
            elapsed_s=now - self._start_s,
            history_s=self._history_s,
            load_edges_s=edges_s,
            load=load,
            load_now=self._arrived(now, min(_MINUTE_S, now)) if now > 0.0 else 0.0,
            segments=tuple(self._segments),
            window_s=self._workload.config.window_s,
            windows=tuple(self._windows()),
            attainment=attainment(self._sums["compliant"], self._sums["violations"]),
            recent_attainment=attainment(sum(s.compliant for s in recent), sum(s.violations for s in recent)),
            gpu_hours=figures["gpu_hours"],
            cost_usd=figures.get("cost_usd"),
        )

    def _arrived(self, end_s: float, span_s: float) -> float:
        """Load that arrived in the ``span_s`` before ``end_s``, in instance-equivalents."""
        _, prompt, output = self._workload.arrived(end_s, np.array([span_s]))[:, 0] / span_s
        return float(self._profile.need(prompt, output))

    def _load(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Bins of the past on a fixed grid, so that they stand still while time goes on, and their load."""
        now, bin_s = self._snapshot.time_s, max(_SEGMENT_S, self._history_s / _LOAD_BINS)
        last = int(now / bin_s + 1e-9)
        first = max(last - int(self._history_s / bin_s), 0)
        edges_s = bin_s * np.arange(first, last + 1, dtype=np.float64)
        tokens = self._workload.arrived(now, np.maximum(now - edges_s, 0.0))[1:]
        prompt, output = -np.diff(tokens, axis=1) / bin_s
        return edges_s, np.asarray(self._profile.need(prompt, output), np.float64)

    def _windows(self) -> list[Window]:
        now, window_s = self._snapshot.time_s, self._workload.config.window_s
        current = self._workload.window_at(now)
        windows = []
        for k in range(max(current - _PAST_WINDOWS, 0), current + 1):
            start_s = k * window_s
            closed = k < current
            passed_s = window_s if closed else min(now - start_s, window_s)
            # The load of a few seconds says nothing about a window.
            enough = closed or passed_s >= min(_MINUTE_S, 0.1 * window_s)
            arrived = self._arrived(start_s + passed_s, passed_s) if enough else None
            windows.append(Window(start_s, self._forecast(start_s, 0), arrived, closed))
        for ahead in range(1, min(_COMING_WINDOWS, self._workload.config.forecast_windows)):
            start_s = (current + ahead) * window_s
            windows.append(Window(start_s, self._forecast(now, ahead), None, False))
        return windows

    def _forecast(self, time_s: float, ahead: int) -> float:
        """Forecast load, as seen at ``time_s``, of the window that is ``ahead`` of the one then."""
        prompt, output, _ = self._workload.forecast_at(time_s)
        window_s = self._workload.config.window_s
        return float(self._profile.need(prompt[ahead] / window_s, output[ahead] / window_s))
