"""The figures of a report as SVG, for papers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from experiments.palette import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION
from experiments.report_data import LATENCIES, SHARES
from experiments.statistics import FloatArray

_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
_FIRST = ("best-static", "hindsight")
DRAWN = 4
"""Policies in figures that have a line for each: the baseline, the bounds, then by rank."""
_LEAST_MISSED = 0.001  # %: where none missed, on a logarithmic axis
_ATTAINMENTS = (99.999, 99.99, 99.9, 99.8, 99.5, 99.0, 98.0, 95.0, 90.0, 80.0, 50.0)
_STYLE: Any = {
    "font.size": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    # Letters stay text, and equal figures are equal files.
    "svg.fonttype": "none",
    "svg.hashsalt": "preserve_gym",
}

Data = Mapping[str, Any]


def draw(data: Data, scenario: str, folder: Path) -> None:
    """Write ``<scenario>-<figure>.svg`` of each figure.

    Args:
        data: of the scenario, as ``experiments.report_data.scenario_data`` gives it.
        scenario: its name.
        folder: to write into; it exists.
    """
    figures = {"front": _front, "latencies": _latencies}
    if data["windows"]:
        figures |= {"time": _time_lines, "instances": _heat_map, "forecasts": _forecasts}
    with mpl.rc_context(_STYLE):
        for name, make in figures.items():
            figure = make(data)
            FigureCanvasSVG(figure)
            figure.savefig(folder / f"{scenario}-{name}.svg", metadata={"Date": None, "Creator": None})


def chosen(data: Data) -> list[int]:
    """Rows of the policies that have lines of their own."""
    policies = data["rows"]["policy"]
    baseline = next((name for name in data["rows"].get("baseline", ()) if name), None)
    wanted = dict.fromkeys([baseline, *_FIRST, *policies])
    return [policies.index(name) for name in wanted if name in policies][:DRAWN]


def _floats(values: Any) -> FloatArray:
    return np.array(values, np.float64)  # None becomes NaN


def _missed(attainment: Any) -> FloatArray:
    return np.maximum(100.0 * (1.0 - _floats(attainment)), _LEAST_MISSED)


def _front(data: Data) -> Figure:
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axis, rows = figure.subplots(), data["rows"]
    x, y = _floats(rows["gpu_hours"]), _missed(rows["slo_attainment"])
    x_ends = np.array([_floats(rows[f"gpu_hours_{end}"]) for end in ("low", "high")])
    y_ends = np.array([_missed(rows[f"slo_attainment_{end}"]) for end in ("high", "low")])
    x_arms = np.nan_to_num(np.abs(x_ends - x))
    y_arms = np.nan_to_num(np.maximum([y - y_ends[0], y_ends[1] - y], 0.0))
    for sweep in data["sweeps"]:
        axis.plot(x[sweep], y[sweep], color=GREY, lw=0.8)
    drawn = chosen(data)
    for k in range(len(x)):
        colour = _COLOURS[drawn.index(k)] if k in drawn else GREY
        axis.errorbar(
            x[k],
            y[k],
            xerr=x_arms[:, [k]],
            yerr=y_arms[:, [k]],
            fmt="o",
            color=colour,
            mfc=colour if rows["meets_target"][k] else "white",
            ms=5 if k in drawn else 3.5,
            elinewidth=0.7,
        )
        if k in drawn:
            axis.annotate(
                rows["policy"][k], (x[k], y[k]), (0, 6), textcoords="offset points", ha="center", color=colour
            )
    target = float(_missed(rows["target"][0]))
    axis.axhline(target, color=VERMILLION, lw=0.8, ls="--", label=f"target {100.0 - target:.4g} %")
    axis.set_yscale("log")
    axis.margins(x=0.12)
    ticks = [a for a in _ATTAINMENTS if 100.0 - a >= 0.6 * min(y.min(), target)]
    axis.set_yticks([100.0 - a for a in ticks], [f"{a:g}" for a in ticks])
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_ylim(1.4 * max(y.max(), target), 0.6 * min(y.min(), target))
    axis.set_xlabel("GPU-hours")
    axis.set_ylabel("requests that met the SLO, %")
    axis.legend(loc="lower right")
    return figure


def _time_lines(data: Data) -> Figure:
    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    axes = figure.subplots(4, 1, sharex=True, height_ratios=(3.0, 1.0, 1.0, 1.0))
    window = data["windows"][0]
    hours = _hours(window)
    load = _floats(window["load"])
    axes[0].fill_between(hours, load, step="post", color="#DDDDDD", lw=0, label="load")
    for i, k in enumerate(chosen(data)):
        lines = window["policies"][k]
        if lines is None:
            continue
        if i == 0:
            forecast = _floats(data["forecasts"][window["forecast"][k]]["forecast"])
            if len(forecast) == len(hours):
                axes[0].step(hours, forecast, where="post", color=BLACK, lw=0.8, ls=":", label="forecast")
        for axis, name in zip(axes, ("instances", "waiting", "ttft_ms", "missed"), strict=True):
            values = _floats(lines[name])
            axis.step(hours, values, where="post", color=_COLOURS[i], lw=0.9, label=data["rows"]["policy"][k])
    for axis, label in zip(axes, ("instances", "queue", "TTFT, ms", "missed, %"), strict=True):
        axis.set_ylabel(label)
    axes[2].set_yscale("log")
    _plain_log(axes[2].yaxis)
    axes[0].legend(ncols=6, loc="lower left", bbox_to_anchor=(0.0, 1.0))
    _clock(axes[3], hours)
    return figure


def _latencies(data: Data) -> Figure:
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    labels = ("time to first token, ms", "time per output token, ms", "end to end per output token, ms")
    for axis, name, label in zip(axes, LATENCIES, labels, strict=True):
        for i, k in enumerate(chosen(data)):
            values = _floats(data["latencies"][name][k])
            axis.plot(values, SHARES, color=_COLOURS[i], lw=1.0, label=data["rows"]["policy"][k])
        axis.set_xscale("log")
        _plain_log(axis.xaxis)
        axis.set_xlabel(label)
    axes[0].set_ylabel("requests, %")
    axes[0].legend(loc="upper left")
    return figure


def _heat_map(data: Data) -> Figure:
    window = data["windows"][0]
    shown = [(k, lines) for k, lines in enumerate(window["policies"]) if lines is not None]
    figure = Figure(figsize=(7.2, 0.8 + 0.14 * len(shown)), layout="constrained")
    axis, hours = figure.subplots(), _hours(window)
    end = 2.0 * hours[-1] - hours[-2]
    image = axis.imshow(
        [_floats(lines["instances"]) for _, lines in shown],
        aspect="auto",
        cmap="cividis",
        interpolation="nearest",
        extent=(hours[0], end, len(shown) - 0.5, -0.5),
    )
    axis.grid(visible=False)
    axis.set_yticks(range(len(shown)), [data["rows"]["policy"][k] for k, _ in shown])
    figure.colorbar(image, label="instances", pad=0.01)
    _clock(axis, hours)
    return figure


def _forecasts(data: Data) -> Figure:
    number = data["windows"][0]["number"]
    figure = Figure(figsize=(3.6, 3.6), layout="constrained")
    axis = figure.subplots()
    top = 0.0
    for i, entry in enumerate(entry for entry in data["forecasts"] if entry["window"] == number):
        load, forecast = _floats(entry["load"]), _floats(entry["forecast"])
        label = f"of {entry['policy']}, error {100.0 * (entry['error'] or 0.0):.1f} %"
        axis.plot(load, forecast, ".", ms=3, color=_COLOURS[i % len(_COLOURS)], label=label)
        top = max([top, *load, *forecast])
    axis.plot([0.0, top], [0.0, top], color=GREY, lw=0.8, ls=":")
    axis.set_xlabel("load, instances")
    axis.set_ylabel("forecast, instances")
    axis.legend(loc="upper left")
    return figure


def _hours(window: Data) -> FloatArray:
    n = len(window["load"])
    return (window["clock_s"] + window["seconds"] * np.arange(n) / n) / 3600.0


def _plain_log(axis: Axis) -> None:
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _clock(axis: Axes, hours: FloatArray) -> None:
    axis.set_xlim(hours[0], 2.0 * hours[-1] - hours[-2])
    axis.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 1.5, 2, 3, 5, 6, 10]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda h, _: f"{int(h) % 24:02d}:{round(h % 1.0 * 60):02d}"))
    axis.set_xlabel("time of day")
