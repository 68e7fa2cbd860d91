"""A scene as text: a dashboard of lines of at most 80 characters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preserve_gym.envs.scene import SLOT_STATES, Scene, compact, duration, per_cent
from preserve_gym.sim.state import DRAINING, OFF, READY, STARTING

WIDTH = 80
MARKS = "·o#-"
"""One for each of the states off, starting, ready and draining."""

_LEVELS = " ▁▂▃▄▅▆▇█"
_HISTORY = 60
_LINES_OF_ONE_SLOT = 16
_COLUMNS = 4
_BAR, _SHORT_BAR = 30, 6


def draw_text(scene: Scene) -> str:
    """The dashboard, lines joined by newlines."""
    lines = [*_head(scene), *_history(scene), *_slots(scene)]
    return "\n".join(_cut(line.rstrip(), WIDTH) for line in lines)


def _head(scene: Scene) -> list[str]:
    snapshot, counts = scene.snapshot, scene.counts
    now = f"day {scene.day}  {scene.clock(snapshot.time_s, seconds=True)}  +{duration(scene.elapsed_s)}"
    room = WIDTH - len(now) - 2
    money = "" if scene.cost_usd is None else f"   {scene.cost_usd:,.2f} USD"
    recent = per_cent(scene.recent_attainment)
    states = ", ".join(f"{counts[name]} {name}" for name in ("ready", "starting", "draining", "off"))
    return [
        f"{_cut(scene.title, room):<{room}}  {now}",
        f"instances  {states}; target {snapshot.target}",
        f"requests   {compact(snapshot.running.sum())} running, {compact(snapshot.waiting.sum())} waiting",
        f"SLO        {per_cent(scene.attainment, 2)} so far, {recent} in the last minute",
        f"cost       {scene.gpu_hours:,.2f} GPU-hours{money}",
    ]


def _history(scene: Scene) -> list[str]:
    """Load and fleet as rows of little bars, and the forecast."""
    end_s = scene.snapshot.time_s
    edges_s = end_s - scene.history_s * np.arange(_HISTORY, -1, -1) / _HISTORY
    load = _means(scene.load_edges_s, scene.load, edges_s)
    fleet = np.full((2, _HISTORY), np.nan)
    for segment in scene.segments:
        within = (edges_s[1:] > segment.start_s + 1e-6) & (edges_s[:-1] < segment.end_s - 1e-6)
        fleet[:, within] = [[segment.ready], [segment.target]]
    rows = {"load": load, "ready": fleet[0], "target": fleet[1]}
    values = {"load": scene.load_now, "ready": scene.counts["ready"], "target": scene.snapshot.target}
    highest = max(1.0, *(float(np.nan_to_num(row).max()) for row in rows.values()))
    lines = [f"last {scene.history_s / 60:.0f} min, in instances; highest {_load(highest)}"]
    for name, row in rows.items():
        number = _load(values[name]) if name == "load" else compact(values[name])
        lines.append(f"{name:<9}  {_sparkline(row / highest)}  {number:>5}")
    lines.append(f"forecast   {_forecast(scene)}")
    return lines


def _forecast(scene: Scene) -> str:
    """The last closed window, the current one and the next."""
    current = max(k for k, w in enumerate(scene.windows) if k == 0 or w.start_s <= scene.snapshot.time_s)
    words = []
    for window in scene.windows[max(current - 1, 0) : current + 2]:
        so_far = "" if window.closed else " so far"
        came = "" if window.arrived is None else f" ({_load(window.arrived)} came{so_far})"
        words.append(f"{scene.clock(window.start_s)} {_load(window.forecast)}{came}")
    return "   ".join(words)


def _slots(scene: Scene) -> list[str]:
    shown, slots = scene.shown_slots, len(scene.snapshot.state)
    if shown <= _LINES_OF_ONE_SLOT:
        return [f"{'slot  state':<15}KV cache in use{'running':>35}{'waiting':>10}"] + [
            _long_cell(scene, slot) for slot in range(shown)
        ]
    rows = -(-shown // _COLUMNS)
    of = f"{shown} of {compact(slots)}" if shown < slots else f"{slots}"
    lines = [f"{of} slots: · off, o starting, # ready, - draining; KV use, running+waiting"]
    for row in range(rows):
        lines.append("".join(_short_cell(scene, slot) for slot in range(row, shown, rows)))
    return lines


def _long_cell(scene: Scene, slot: int) -> str:
    s = scene.snapshot
    state = s.state[slot]
    mark = ">" if slot == scene.chosen else " "
    head = f"{mark}{slot:>3}  {SLOT_STATES[state]:<9}"
    if state == OFF:
        return head
    if state == STARTING:
        return f"{head}ready in {s.ready_in_s[slot]:.0f} s"
    bar = _bar(s.kv_use[slot], _BAR)
    queue = f"{compact(s.running[slot]):>10}{compact(s.waiting[slot]):>10}"
    return f"{head}[{bar}] {100.0 * s.kv_use[slot]:>3.0f} %{queue:>22}"


def _short_cell(scene: Scene, slot: int) -> str:
    """Exactly ``WIDTH / _COLUMNS`` characters."""
    s = scene.snapshot
    state = s.state[slot]
    mark = ">" if slot == scene.chosen else " "
    head = f"{mark}{slot:>2}{MARKS[state]}"
    if state == STARTING:
        return f"{head}{f'{s.ready_in_s[slot]:.0f} s':<16.16}"
    if state not in (READY, DRAINING):
        return f"{head}{'':16}"
    queue = f"{compact(s.running[slot])}+{compact(s.waiting[slot])}"
    return f"{head}{_bar(s.kv_use[slot], _SHORT_BAR)} {queue:<9}"


def _bar(use: float, width: int) -> str:
    filled = round(min(max(use, 0.0), 1.0) * width)
    return "█" * filled + "·" * (width - filled)


def _sparkline(shares: NDArray[np.float64]) -> str:
    """One character a share of 0 to 1; a blank for NaN."""
    top = len(_LEVELS) - 1
    # Whatever is above 0 shows.
    levels = [0 if np.isnan(x) or x <= 0.0 else min(max(round(x * top), 1), top) for x in shares]
    return "".join(_LEVELS[level] for level in levels)


def _means(
    edges_s: NDArray[np.float64], values: NDArray[np.float64], wanted_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean of a step function between each two of ``wanted_s``; NaN where less than half is known."""
    covered_s = np.diff(np.clip(wanted_s, edges_s[0], edges_s[-1]))
    integral = np.concatenate(([0.0], np.cumsum(values * np.diff(edges_s))))
    means = np.diff(np.interp(wanted_s, edges_s, integral)) / np.maximum(covered_s, 1e-9)
    return np.where(covered_s >= 0.5 * np.diff(wanted_s), means, np.nan)


def _load(instances: float) -> str:
    return f"{instances:.1f}" if instances < 99.95 else compact(instances)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
