"""A scene as a picture: figures on top, the instances on the left, the past and the forecast on the right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preserve_gym.envs.canvas import (
    BLUE,
    GREY,
    INK,
    LINE,
    ORANGE,
    PALE,
    PALE_BLUE,
    PALE_ORANGE,
    PURPLE,
    VERMILLION,
    YELLOW,
    Box,
    Canvas,
    Chart,
    round_ticks,
)
from preserve_gym.envs.scene import Scene, compact, duration, per_cent
from preserve_gym.sim.state import DRAINING, OFF, READY, STARTING

WIDTH, HEIGHT = 960, 540

_HEAD = Box(0, 0, WIDTH - 1, 88)
_SLOTS = Box(16, 104, 440, 532)
_RIGHT = 944
_LOAD = Box(496, 130, _RIGHT, 262)
_WINDOWS = Box(496, 316, _RIGHT, 400)
_SLO = Box(496, 454, _RIGHT, 510)
_ONE_COLUMN, _TWO_COLUMNS = 16, 32
_CLOCK_STEPS_S = (60, 120, 300, 600, 900, 1800, 3600)
_FLOORS = (0.95, 0.9, 0.8, 0.5)
# Above twice the largest fleet it does not matter how much load there is; the fleet must stay readable.
_HIGHEST_LOAD = 2.0


def draw_picture(scene: Scene) -> NDArray[np.uint8]:
    """The picture, uint8 of shape (540, 960, 3), a fresh array."""
    canvas = Canvas(WIDTH, HEIGHT)
    _draw_head(canvas, scene)
    _draw_slots(canvas, scene)
    _draw_load(canvas, scene)
    _draw_windows(canvas, scene)
    _draw_slo(canvas, scene)
    return canvas.pixels()


def _draw_head(canvas: Canvas, scene: Scene) -> None:
    canvas.fill(_HEAD, PALE)
    s = scene.snapshot
    running, waiting = int(s.running.sum()), int(s.waiting.sum())
    money = "" if scene.cost_usd is None else f", {scene.cost_usd:,.2f} USD"
    tiles = (
        (
            16,
            f"{scene.clock(s.time_s, seconds=True)}",
            f"day {scene.day}, {duration(scene.elapsed_s)} played",
            INK,
        ),
        (186, f"{scene.load_now:.1f}", "load, in instances", INK),
        (318, f"{scene.counts['ready']} of {s.target}", "ready of target", BLUE),
        (
            446,
            f"{compact(running)} + {compact(waiting)}",
            "running + waiting",
            VERMILLION if waiting else INK,
        ),
        (606, per_cent(scene.attainment, 2), f"in SLO; last minute {per_cent(scene.recent_attainment)}", INK),
        (790, f"{scene.gpu_hours:,.2f}", f"GPU-hours{money}", INK),
    )
    canvas.text((16, 18), scene.title, GREY, size=13, room=WIDTH - 32)
    for x, figure, meaning, colour in tiles:
        canvas.text((x, 49), figure, colour, size=22 if len(figure) <= 9 else 15, bold=True)
        canvas.text((x, 74), meaning, GREY, size=11)


def _draw_slots(canvas: Canvas, scene: Scene) -> None:
    shown, slots = scene.shown_slots, len(scene.snapshot.state)
    left, top, right, bottom = _SLOTS
    title = "Instances" if shown == slots else f"Instances, {shown} of {slots}"
    canvas.text((left, top), title, bold=True, size=13)
    counts = {name: compact(n) for name, n in scene.counts.items()}
    canvas.legend(
        (left, top + 22),
        (
            (BLUE, "area", f"{counts['ready']} ready"),
            (ORANGE, "area", f"{counts['starting']} starting"),
            (PURPLE, "area", f"{counts['draining']} draining"),
            (LINE, "frame", f"{counts['off']} off"),
            (INK, "tick", "anticipated peak"),
        ),
    )
    columns = 1 if shown <= _ONE_COLUMN else 2 if shown <= _TWO_COLUMNS else 4
    rows = -(-shown // columns)
    gap = 12 if columns < 4 else 6
    width = (right - left - gap * (columns - 1)) / columns
    body = int(top) + 56
    pitch = min((bottom - body) // rows, 40)
    for column in range(columns):
        x = left + column * (width + gap)
        if columns < 4:
            _head_columns(canvas, x, x + width, body - 14)
    if columns == 4:
        used = canvas.text((left, body - 14), "slot, KV cache in use, running", GREY, size=10)
        canvas.text((left + used, body - 14), " + waiting", VERMILLION, size=10)
    for slot in range(shown):
        x, y = left + slot // rows * (width + gap), body + slot % rows * pitch
        _draw_slot(canvas, scene, slot, Box(x, y, x + width, y + pitch), columns)


def _head_columns(canvas: Canvas, left: float, right: float, y: float) -> None:
    canvas.text((left + 26, y), "KV cache in use", GREY, size=10)
    canvas.text((right - 48, y), "running", GREY, size=10, align="right")
    canvas.text((right, y), "waiting", VERMILLION, size=10, align="right")


def _draw_slot(canvas: Canvas, scene: Scene, slot: int, box: Box, columns: int) -> None:
    s = scene.snapshot
    state = s.state[slot]
    left, right = box.left, box.right
    thick = min(int(box.bottom - box.top) - 6, 22) // 2 * 2
    middle = int(box.top + box.bottom) // 2
    if slot == scene.chosen:
        marked = Box(left - 3, middle - thick // 2 - 3, right + 3, middle + thick // 2 + 3)
        canvas.fill(marked, YELLOW)
        canvas.frame(marked, INK)
    canvas.text((left + 18, middle), str(slot), GREY, size=11, align="right")
    numbers = {1: 132.0, 2: 94.0, 4: 54.0}[columns]
    bar = Box(left + (24 if columns < 4 else 21), middle - thick // 2, right - numbers, middle + thick // 2)
    _draw_use(canvas, scene, slot, bar)
    if state == OFF:
        return
    if state == STARTING:
        ready_in = f"{'' if columns == 4 else 'ready in '}{s.ready_in_s[slot]:.0f} s"
        canvas.text((right, middle), ready_in, GREY, size=11, align="right")
        return
    running, waiting = compact(s.running[slot]), compact(s.waiting[slot])
    hot = VERMILLION if s.waiting[slot] else GREY
    if columns == 4:
        canvas.text((right - 30, middle), running, size=10, align="right")
        canvas.text((right - 30, middle), f"+{waiting}", hot, size=10)
        return
    if columns == 1:
        canvas.text((bar.right + 40, middle), f"{100.0 * s.kv_use[slot]:.0f} %", size=11, align="right")
    canvas.text((right - 48, middle), running, size=11, align="right")
    canvas.text((right, middle), waiting, hot, size=11, bold=bool(s.waiting[slot]), align="right")


def _draw_use(canvas: Canvas, scene: Scene, slot: int, bar: Box) -> None:
    """KV use and the share of requests that wait; a starting or switched-off instance has neither."""
    s = scene.snapshot
    state = s.state[slot]
    inside = bar.right - bar.left

    def part(share: float) -> Box:
        return Box(bar.left, bar.top, bar.left + round(min(max(share, 0.0), 1.0) * inside), bar.bottom)

    if state == OFF:
        canvas.frame(bar, LINE)
        return
    if state == STARTING:
        canvas.fill(bar, PALE_ORANGE)
        canvas.frame(bar, ORANGE)
        return
    colour = BLUE if state == READY else PURPLE
    canvas.fill(bar, PALE)
    canvas.fill(part(s.kv_use[slot]), colour)
    if s.waiting[slot]:
        strip = part(s.waiting[slot] / (s.running[slot] + s.waiting[slot]))
        canvas.fill(strip._replace(top=bar.bottom - (bar.bottom - bar.top) // 4), VERMILLION)
    if state != DRAINING:
        x = part(s.anticipated_peak[slot]).right
        canvas.fill(Box(x - 1, bar.top - 2, x, bar.bottom + 2), INK)


def _draw_load(canvas: Canvas, scene: Scene) -> None:
    title = "Load and fleet, in instances"
    canvas.text((_LOAD.left - 30, _SLOTS.top), title, bold=True, size=13)
    fleet = [n for segment in scene.segments for n in (segment.ready, segment.target)]
    cap = _HIGHEST_LOAD * len(scene.snapshot.state)
    highest = max(1.0, min(float(max(scene.load, default=0.0)), cap), *fleet, scene.snapshot.target)
    ticks = round_ticks(highest, 4)
    chart = _timeline(canvas, scene, _LOAD, (0.0, ticks[-1]))
    chart.y_axis(ticks)
    legend = [(PALE_BLUE, "area", "load"), (ORANGE, "line", "target"), (BLUE, "line", "ready")]
    if len(scene.load) and scene.load.max() > ticks[-1]:
        legend.insert(1, (VERMILLION, "line", "more"))
    canvas.legend((_RIGHT, _SLOTS.top), legend, right=True)
    for left, right, load in zip(scene.load_edges_s, scene.load_edges_s[1:], scene.load, strict=False):
        chart.bar(left, right, 0.0, load, PALE_BLUE)
        if load > ticks[-1]:
            chart.bar(left, right, 0.98 * ticks[-1], load, VERMILLION)
    spans = [(segment.start_s, segment.end_s) for segment in scene.segments]
    chart.steps(spans, [segment.target for segment in scene.segments], ORANGE)
    chart.steps(spans, [segment.ready for segment in scene.segments], BLUE)
    _mark_start(chart, scene)


def _draw_windows(canvas: Canvas, scene: Scene) -> None:
    title = f"Load of each {_length(scene.window_s)} window, in instances"
    canvas.text((_WINDOWS.left - 30, _WINDOWS.top - 26), title, bold=True, size=13)
    legend = ((PALE_BLUE, "area", "came"), (INK, "line", "forecast"))
    canvas.legend((_RIGHT, _WINDOWS.top - 26), legend, right=True)
    windows = scene.windows
    ticks = round_ticks(max(1.0, *(max(w.forecast, w.arrived or 0.0) for w in windows)), 3)
    chart = Chart(canvas, _WINDOWS, (0.0, float(len(windows))), (0.0, ticks[-1]))
    chart.y_axis(ticks)
    now = scene.snapshot.time_s
    for k, window in enumerate(windows):
        if window.arrived is not None:
            passed = 1.0 if window.closed else min((now - window.start_s) / scene.window_s, 1.0)
            chart.bar(k + 0.12, k + 0.12 + 0.76 * passed, 0.0, window.arrived, PALE_BLUE)
        chart.steps([(k + 0.06, k + 0.94)], [window.forecast], INK, 3)
        if window.start_s <= now:
            position = k + 0.12 + 0.76 * min((now - window.start_s) / scene.window_s, 1.0)
        chart.x_label(chart.at_x(k + 0.5), scene.clock(window.start_s))
    x = round(chart.at_x(position))
    canvas.fill(Box(x, _WINDOWS.top - 4, x, _WINDOWS.bottom), GREY)


def _draw_slo(canvas: Canvas, scene: Scene) -> None:
    canvas.text((_SLO.left - 30, _SLO.top - 26), "Requests in SLO", bold=True, size=13)
    legend = ((PALE_BLUE, "area", "met"), (VERMILLION, "area", "missed"), (INK, "line", "met so far"))
    canvas.legend((_RIGHT, _SLO.top - 26), legend, right=True)
    decided = [(s, s.met, s.attainment) for s in scene.segments if s.attainment is not None]
    shares = [share for _, met, so_far in decided for share in (met, so_far) if share is not None]
    lowest = min(shares, default=1.0)
    floor = next((floor for floor in _FLOORS if lowest >= floor), 0.0)
    chart = _timeline(canvas, scene, _SLO, (floor, 1.0))
    for segment, met, _ in decided:
        if met is not None:
            chart.bar(segment.start_s, segment.end_s, floor, met, PALE_BLUE)
            chart.bar(segment.start_s, segment.end_s, met, 1.0, VERMILLION)
    for value in (floor, 0.5 * (floor + 1.0), 1.0):
        y = chart.at_y(value)
        canvas.text((_SLO.left - 6, y), f"{100.0 * value:.3g} %", GREY, size=10, align="right")
    canvas.line([(_SLO.left, _SLO.bottom), (_RIGHT, _SLO.bottom)], LINE)
    spans = [(segment.start_s, segment.end_s) for segment, *_ in decided]
    chart.steps(spans, [so_far for *_, so_far in decided], INK)
    _mark_start(chart, scene)


def _timeline(canvas: Canvas, scene: Scene, box: Box, y: tuple[float, float]) -> Chart:
    """A chart over the past, with the time of day below."""
    now = scene.snapshot.time_s
    chart = Chart(canvas, box, (now - scene.history_s, now), y)
    step = next((s for s in _CLOCK_STEPS_S if scene.history_s / s <= 7.0), _CLOCK_STEPS_S[-1])
    first = scene.midnight_s + now - scene.history_s
    for k in range(int(np.ceil(first / step)), int((scene.midnight_s + now) // step) + 1):
        time_s = k * step - scene.midnight_s
        x = chart.at_x(time_s)
        if time_s >= 0.0 and box.left + 12 <= x <= box.right - 12:
            chart.x_label(x, scene.clock(time_s))
    return chart


def _mark_start(chart: Chart, scene: Scene) -> None:
    """A dotted line where the episode starts."""
    start_s = scene.snapshot.time_s - scene.elapsed_s
    if scene.elapsed_s < scene.history_s:
        x, box = round(chart.at_x(start_s)), chart.box
        for y in range(round(box.top), round(box.bottom), 5):
            chart.canvas.fill(Box(x, y, x, y + 1), GREY)


def _length(window_s: float) -> str:
    if window_s % 60.0 == 0.0:
        return f"{window_s / 60.0:g}-minute"
    return f"{window_s:g}-second"
