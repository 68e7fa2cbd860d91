"""Figures of a run: what each policy saw, did and got over time, and how the policies compare."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import yaml
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from experiments.report import describe
from experiments.series import FloatArray, Play, Series, load_play, zoom_span

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#999999"
_POLICY_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, GREY)
_STYLE: Any = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
}
_TITLE: dict[str, Any] = {"x": 0.01, "ha": "left", "fontsize": 14, "fontweight": "bold"}
_CAPTION: dict[str, Any] = {"ha": "left", "va": "bottom", "fontsize": 8, "color": "#555555"}
_MARGINS: dict[str, Any] = {"left": 0.045, "right": 0.985, "bottom": 0.105}
_CAPTION_WIDTH = 215
_SHADE = "#F3F0D8"
_BINS = 240
_ZOOM_BINS = 120


def draw(folder: Path) -> None:
    """Draw ``plots/<policy>.png`` for each policy and ``plots/comparison.png``.

    Args:
        folder: of a run, with all its tables; of several seeds the first is drawn.
    """
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    summary = pd.read_csv(folder / "summary.csv")
    seed = config["seeds"][0]
    shown = summary[summary["seed"] == seed]
    plays = [load_play(folder, row.to_dict()) for _, row in shown.iterrows()]
    about = describe(config | {"seeds": [seed]}, shown)
    zoom = zoom_span(plays)
    (folder / "plots").mkdir()
    with mpl.rc_context(_STYLE):
        limits = _Limits.of(plays, zoom)
        for play in plays:
            _save(_policy_figure(play, zoom, limits, config, about), folder / "plots" / f"{play.policy}.png")
        _save(_comparison_figure(plays, zoom, limits, summary, about), folder / "plots" / "comparison.png")


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    # Without the version of matplotlib, which would make equal figures differ.
    figure.savefig(path, dpi=110, metadata={"Software": None})


@dataclass(frozen=True)
class _Limits:
    """Upper ends of the axes, the same in every figure of a run so that policies can be compared."""

    instances: float
    kv_use: float
    ttft_s: tuple[float, float]
    violations: float

    @classmethod
    def of(cls, plays: Sequence[Play], zoom: tuple[float, float]) -> _Limits:
        every = [
            part
            for play in plays
            for part in (play.series(play.start_s, play.end_s, _BINS), play.series(*zoom, _ZOOM_BINS))
        ]
        fleet = max(np.nanmax(s.ready + s.starting + s.draining) for s in every)
        load = max(np.nanmax(s.load) for s in every)
        ttft = np.concatenate([np.r_[s.ttft_p50_s, s.ttft_p99_s] for s in every])
        ttft = ttft[np.isfinite(ttft) & (ttft > 0.0)]
        low, high = (ttft.min(), ttft.max()) if len(ttft) else (0.1, 10.0)
        return cls(
            # A burst may need more than there will ever be: it may leave the panel.
            instances=1.1 * max(fleet, min(load, 1.6 * fleet)),
            kv_use=1.05
            * max(1.0, min(2.0, max(np.nanmax(s.anticipated_peak_max, initial=0.0) for s in every))),
            ttft_s=(0.7 * low, 1.5 * max(high, 3.0)),
            violations=100.0 * max(0.02, 1.05 * max(s.violations.max() for s in every)),
        )


def _policy_figure(
    play: Play, zoom: tuple[float, float], limits: _Limits, config: Mapping[str, Any], about: str
) -> Figure:
    figure = Figure(figsize=(13.5, 9.2))
    figures = play.figures
    figure.suptitle(
        f"{play.policy}: {figures['slo_attainment']:.2%} within the SLO, "
        f"{figures['gpu_hours']:.1f} GPU-hours, {figures['scaling_actions']:.0f} scaling actions",
        **_TITLE,
    )
    figure.text(0.01, 0.015, textwrap.fill(about, _CAPTION_WIDTH), **_CAPTION)
    # Margins by hand: a layout engine would lay everything out several times over.
    grid = figure.subplots(
        4,
        2,
        sharex="col",
        sharey="row",
        width_ratios=(2.3, 1.0),
        height_ratios=(3.0, 1.6, 1.6, 0.9),
        gridspec_kw=_MARGINS | {"top": 0.92, "hspace": 0.24, "wspace": 0.05},
    )
    whole = play.series(play.start_s, play.end_s, _BINS)
    close = play.series(*zoom, _ZOOM_BINS)
    for axes, series in ((grid[:, 0], whole), (grid[:, 1], close)):
        _instances(axes[0], series, limits)
        _kv_use(axes[1], series, limits)
        _ttft(axes[2], series, limits, config["cluster"]["slo"]["ttft_s"])
        _violations(axes[3], series, limits)
        _clock_axis(axes[3], series.edges_s)
    for axis in grid[:, 0]:
        axis.axvspan(zoom[0] + play.clock_s, zoom[1] + play.clock_s, color=_SHADE, zorder=0, lw=0)
        handles, labels = axis.get_legend_handles_labels()
        axis.legend(
            handles, labels, loc="lower left", bbox_to_anchor=(-0.01, 0.98), ncols=6, borderaxespad=0.0
        )
    for axis in grid[:, 1]:
        axis.set_ylabel("")
    grid[0, 1].set_title(_zoom_title(zoom, play.clock_s))
    return figure


def _instances(axis: Axes, series: Series, limits: _Limits) -> None:
    base = np.zeros(len(series.ready))
    for values, colour, label in (
        (series.ready, SKY, "ready"),
        (series.starting, ORANGE, "starting"),
        (series.draining, "#C8C8C8", "draining"),
    ):
        axis.stairs(
            base + values, series.edges_s, baseline=base, fill=True, color=colour, alpha=0.75, label=label
        )
        base = base + values
    axis.stairs(
        series.load, series.edges_s, baseline=None, color=BLACK, lw=1.1, label="load (arriving tokens)"
    )
    axis.stairs(
        series.forecast_load,
        series.edges_s,
        baseline=None,
        color=VERMILLION,
        lw=1.4,
        ls="--",
        label="forecast",
    )
    axis.set_ylim(0.0, limits.instances)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylabel("instances")


def _kv_use(axis: Axes, series: Series, limits: _Limits) -> None:
    centres = 0.5 * (series.edges_s[1:] + series.edges_s[:-1])
    axis.fill_between(centres, 100.0 * series.kv_use_mean, color=SKY, alpha=0.6, lw=0, label="KV use, mean")
    axis.plot(centres, 100.0 * series.kv_use_max, color=BLUE, lw=1.0, label="fullest instance")
    axis.plot(
        centres, 100.0 * series.anticipated_peak_max, color=PURPLE, lw=1.0, label="highest anticipated peak"
    )
    axis.set_ylim(0.0, 100.0 * limits.kv_use)
    axis.set_ylabel("KV cache, %")


def _ttft(axis: Axes, series: Series, limits: _Limits, deadline_s: float | None) -> None:
    centres = 0.5 * (series.edges_s[1:] + series.edges_s[:-1])
    axis.plot(centres, series.ttft_p50_s, color=BLUE, lw=1.2, label="TTFT P50")
    axis.plot(centres, series.ttft_p99_s, color=BLACK, lw=1.0, label="P99")
    if deadline_s is not None:
        axis.axhline(deadline_s, color=VERMILLION, lw=1.2, ls=":", label=f"deadline {deadline_s:g} s")
    axis.set_yscale("log")
    axis.set_ylim(*limits.ttft_s)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.set_ylabel("TTFT, s")


def _violations(axis: Axes, series: Series, limits: _Limits) -> None:
    axis.stairs(
        100.0 * series.violations,
        series.edges_s,
        fill=True,
        color=VERMILLION,
        label="requests that miss the SLO",
    )
    axis.set_ylim(0.0, limits.violations)
    axis.set_ylabel("missed, %")


def _comparison_figure(
    plays: Sequence[Play], zoom: tuple[float, float], limits: _Limits, summary: pd.DataFrame, about: str
) -> Figure:
    figure = Figure(figsize=(13.5, 8.6))
    figure.suptitle("Instances over load, and what they bought", **_TITLE)
    figure.text(0.01, 0.015, textwrap.fill(about, _CAPTION_WIDTH), **_CAPTION)
    grid = figure.add_gridspec(
        2, 3, width_ratios=(1.25, 1.0, 1.0), **_MARGINS | {"top": 0.905, "hspace": 0.27, "wspace": 0.15}
    )
    top = figure.add_subplot(grid[0, :])
    near, missed, cost = (figure.add_subplot(grid[1, column]) for column in range(3))
    clock_s = plays[0].clock_s
    for axis, span, bins in ((top, (plays[0].start_s, plays[0].end_s), _BINS), (near, zoom, _ZOOM_BINS)):
        for i, play in enumerate(plays):
            series = play.series(*span, bins)
            if i == 0:
                axis.stairs(series.load, series.edges_s, fill=True, color="#DDDDDD", label="load")
            axis.stairs(
                series.ready + series.starting,
                series.edges_s,
                baseline=None,
                color=_colour(i),
                lw=_width(i),
                label=f"{play.policy}, {play.figures['gpu_hours']:.1f} GPU-hours",
            )
        axis.set_ylim(0.0, limits.instances)
        axis.set_ylabel("instances (ready + starting)")
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        _clock_axis(axis, np.array(span) + clock_s)
    top.axvspan(zoom[0] + clock_s, zoom[1] + clock_s, color=_SHADE, zorder=0, lw=0)
    top.legend(loc="lower left", bbox_to_anchor=(-0.005, 1.0), ncols=9, borderaxespad=0.0)
    near.set_title(_zoom_title(zoom, clock_s))
    for i, play in enumerate(plays):
        bad = play.arrival_s[play.violated]
        missed.step(
            np.r_[play.start_s, bad, play.end_s] + clock_s,
            np.r_[0, np.arange(1, len(bad) + 1), len(bad)],
            where="post",
            color=_colour(i),
            lw=_width(i),
        )
    missed.set_title("requests that missed the SLO, cumulative")
    missed.set_ylim(0.0, 1.05 * max(10, *(int(play.violated.sum()) for play in plays)))
    _clock_axis(missed, np.array([plays[0].start_s, plays[0].end_s]) + clock_s)
    _cost(cost, plays, summary)
    return figure


def _cost(axis: Axes, plays: Sequence[Play], summary: pd.DataFrame) -> None:
    """GPU-hours against attainment, a point for each seed."""
    points = []
    for i, play in enumerate(plays):
        rows = summary[summary["policy"] == play.policy]
        x, y = rows["gpu_hours"].to_numpy(), 100.0 * rows["slo_attainment"].to_numpy()
        axis.scatter(x, y, color=_colour(i), s=42, zorder=3, edgecolor="white", lw=0.6)
        points.append((float(x.mean()), float(y.max())))
    axis.margins(0.2, 0.0)
    low, high = axis.get_ylim()
    pad = max(0.12 * (high - low), 0.1)
    axis.set_ylim(low - pad, high + 1.6 * pad)
    axis.yaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
    # A label that would lie on another one goes a line higher.
    taken: list[tuple[float, float, int]] = []
    to_pixels = axis.transData.transform
    for i in sorted(range(len(plays)), key=lambda i: points[i]):
        x_px, y_px = to_pixels(points[i])
        up = 8.0
        length = len(plays[i].policy)
        while any(abs(x_px - x) < 3.5 * (length + n) and abs(y_px + up - y) < 13.0 for x, y, n in taken):
            up += 13.0
        taken.append((x_px, y_px + up, length))
        axis.annotate(
            plays[i].policy,
            points[i],
            (0.0, up),
            textcoords="offset points",
            ha="center",
            color=_colour(i),
            fontweight="bold",
            fontsize=8.5,
        )
    axis.set_xlabel("GPU-hours")
    axis.set_title("SLO attainment in % against cost: up and left is better")


def _colour(i: int) -> str:
    return _POLICY_COLOURS[i % len(_POLICY_COLOURS)]


def _width(i: int) -> float:
    """Later lines are thinner, so that equal ones show below each other."""
    return max(2.6 - 0.35 * i, 1.2)


def _clock_axis(axis: Axes, edges_s: FloatArray) -> None:
    first_s, last_s = float(edges_s[0]), float(edges_s[-1])
    span_s = last_s - first_s
    wanted = span_s / 7.0
    steps = (60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 14_400, 21_600, 43_200, 86_400)
    step = next((s for s in steps if s >= wanted), 86_400 * math.ceil(wanted / 86_400))
    axis.set_xlim(first_s, last_s)
    ticks = step * np.arange(math.ceil(first_s / step), math.floor(last_s / step) + 1)
    axis.set_xticks(ticks, [_clock(float(tick)) for tick in ticks])
    # A label centred on an end of the axis would run into that of the panel beside it.
    for tick, label in zip(ticks, axis.get_xticklabels(), strict=True):
        if tick - first_s < 0.03 * span_s:
            label.set_horizontalalignment("left")
        elif last_s - tick < 0.03 * span_s:
            label.set_horizontalalignment("right")


def _clock(seconds: float) -> str:
    day, second = divmod(round(seconds), 86_400)
    text = f"{second // 3600:02d}:{second % 3600 // 60:02d}"
    return f"day {day + 1}\n{text}" if day else text


def _zoom_title(zoom: tuple[float, float], clock_s: float) -> str:
    return f"the shaded stretch, {_clock(zoom[0] + clock_s)} to {_clock(zoom[1] + clock_s)}".replace(
        "\n", " "
    )
