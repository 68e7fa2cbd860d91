"""Figures of a run: what each policy saw, did and got over time, and how the policies compare."""

from __future__ import annotations

import math
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
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
from numpy.typing import NDArray

from experiments.metrics import interval_percentiles, ttft_s, violated
from experiments.report import describe

FloatArray = NDArray[np.float64]

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#999999"
_POLICY_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, GREY)
_STYLE = {
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
_BINS = 240
_ZOOM_BINS = 120
_LEAST_BIN_S = 10.0


@dataclass(frozen=True)
class Series:
    """A policy's run in bins of time.

    Attributes:
        edges_s: of the bins, as time of day of the first one and on, float64[n + 1].
        load, forecast_load: instances needed, means over each bin, float64[n].
        ready, starting, draining, kv_use_mean, kv_use_max, anticipated_peak_max: the same.
        ttft_p50_s, ttft_p99_s: of the requests that arrived in a bin, NaN where none, float64[n].
        violations: share of them that violated the SLO, float64[n].
    """

    edges_s: FloatArray
    load: FloatArray
    forecast_load: FloatArray
    ready: FloatArray
    starting: FloatArray
    draining: FloatArray
    kv_use_mean: FloatArray
    kv_use_max: FloatArray
    anticipated_peak_max: FloatArray
    ttft_p50_s: FloatArray
    ttft_p99_s: FloatArray
    violations: FloatArray


@dataclass(frozen=True)
class Play:
    """What a policy's figure needs of its files, for one seed.

    Attributes:
        policy: its name.
        figures: its row of ``summary.csv``.
        intervals: its ``intervals`` file.
        arrival_s, ttft_s, violated: of every request.
        clock_s: time of day at time 0 of the trace.
    """

    policy: str
    figures: Mapping[str, Any]
    intervals: pd.DataFrame
    arrival_s: FloatArray
    ttft_s: FloatArray
    violated: NDArray[np.bool_]
    clock_s: float

    @property
    def start_s(self) -> float:
        """Start of the scored part on the trace's clock."""
        return float(self.intervals["time_s"].iloc[0])

    @property
    def end_s(self) -> float:
        """Its end."""
        return self.start_s + float(self.figures["horizon_s"])

    def series(self, start_s: float, end_s: float, bins: int) -> Series:
        """The run from ``start_s`` to ``end_s`` in at most ``bins`` bins of equal length."""
        bins = max(1, min(bins, int((end_s - start_s) / _LEAST_BIN_S)))
        edges = np.linspace(start_s, end_s, bins + 1)
        time_s = self.intervals["time_s"].to_numpy()
        # Each bin is the mean of the intervals that it touches; arrivals fall exactly into theirs.
        first = np.clip(np.searchsorted(time_s, edges[:-1], side="right") - 1, 0, None)
        last = np.maximum(np.searchsorted(time_s, edges[1:], side="left"), first + 1)

        def mean(name: str) -> FloatArray:
            values = self.intervals[name].to_numpy(np.float64)
            present = ~np.isnan(values)
            total = np.concatenate(([0.0], np.cumsum(np.where(present, values, 0.0))))
            count = np.concatenate(([0], np.cumsum(present)))
            n = count[last] - count[first]
            return np.divide(total[last] - total[first], n, out=np.full(bins, np.nan), where=n > 0)

        rows = np.searchsorted(self.arrival_s, edges, side="left")
        p50, p99 = interval_percentiles(self.ttft_s, rows, (50.0, 99.0))
        bad = np.diff(np.concatenate(([0], np.cumsum(self.violated)))[rows])
        arrived = np.diff(rows)
        names = ("load", "forecast_load", "ready", "starting", "draining")
        uses = ("kv_use_mean", "kv_use_max", "anticipated_peak_max")
        return Series(
            edges_s=edges + self.clock_s,
            **{name: mean(name) for name in names + uses},
            ttft_p50_s=p50,
            ttft_p99_s=p99,
            violations=np.divide(bad, arrived, out=np.zeros(bins), where=arrived > 0),
        )


def draw(folder: Path) -> None:
    """Draw ``plots/<policy>.png`` for each policy and ``plots/comparison.png``.

    Args:
        folder: of a run, with all its tables; of several seeds the first is drawn.
    """
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    summary = pd.read_csv(folder / "summary.csv")
    seed = config["seeds"][0]
    plays = [
        _load(folder, row.to_dict())
        for _, row in summary[summary["seed"] == seed].iterrows()
    ]
    about = describe(config, summary)
    zoom = _zoom(plays)
    (folder / "plots").mkdir()
    with mpl.rc_context(_STYLE):
        limits = _Limits.of(plays, zoom)
        for play in plays:
            _save(_policy_figure(play, zoom, limits, config, about), folder / "plots" / f"{play.policy}.png")
        _save(_comparison_figure(plays, zoom, limits, summary, about), folder / "plots" / "comparison.png")


def _load(folder: Path, figures: Mapping[str, Any]) -> Play:
    name = f"{figures['policy']}-seed{figures['seed']}.parquet"
    columns = ["arrival_s", "first_token_s", "violated_s", "rejected"]
    requests = pd.read_parquet(folder / "requests" / name, columns=columns)
    intervals = pd.read_parquet(folder / "intervals" / name)
    return Play(
        policy=str(figures["policy"]),
        figures=figures,
        intervals=intervals,
        arrival_s=requests["arrival_s"].to_numpy(),
        ttft_s=ttft_s(requests),
        violated=violated(requests),
        clock_s=float((intervals["time_of_day_s"].iloc[0] - intervals["time_s"].iloc[0]) % 86_400.0),
    )


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    # Without the version of matplotlib, which would make equal figures differ.
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _zoom(plays: Sequence[Play]) -> tuple[float, float]:
    """The stretch in which the policies differ most in violations; if in none, where the load peaks."""
    start_s, end_s = plays[0].start_s, plays[0].end_s
    span_s = min(end_s - start_s, max(600.0, min(3600.0, (end_s - start_s) / 6.0)))
    starts = np.arange(start_s, end_s - span_s + 1e-6, span_s / 8.0)
    counts = []
    for play in plays:
        before = np.concatenate(([0], np.cumsum(play.violated)))
        rows = np.searchsorted(play.arrival_s, [starts, starts + span_s])
        counts.append(before[rows[1]] - before[rows[0]])
    difference = np.ptp(counts, axis=0)
    if not difference.any():
        loads = plays[0].intervals
        difference = np.array(
            [loads["load"][loads["time_s"].between(s, s + span_s)].mean() for s in starts]
        )
    s = float(starts[int(np.argmax(np.nan_to_num(difference)))])
    return s, s + span_s


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
            kv_use=1.05 * max(1.0, min(2.0, max(np.nanmax(s.anticipated_peak_max, initial=0.0) for s in every))),
            ttft_s=(0.7 * low, 1.5 * max(high, 3.0)),
            violations=100.0 * max(0.02, 1.05 * max(s.violations.max() for s in every)),
        )


def _policy_figure(
    play: Play, zoom: tuple[float, float], limits: _Limits, config: Mapping[str, Any], about: str
) -> Figure:
    figure = Figure(figsize=(13.5, 9.2), layout="constrained")
    figures = play.figures
    figure.suptitle(
        f"{play.policy}: {figures['slo_attainment']:.2%} within the SLO, {figures['gpu_hours']:.1f} GPU-hours, "
        f"{figures['scaling_actions']:.0f} scaling actions",
        x=0.01, ha="left", fontsize=14, fontweight="bold",
    )
    figure.supxlabel(_wrap(about), x=0.01, ha="left", fontsize=8, color="#555555")
    grid = figure.subplots(4, 2, sharex="col", sharey="row", width_ratios=(2.3, 1.0), height_ratios=(3.0, 1.6, 1.6, 0.9))
    whole = play.series(play.start_s, play.end_s, _BINS)
    close = play.series(*zoom, _ZOOM_BINS)
    for axes, series in ((grid[:, 0], whole), (grid[:, 1], close)):
        _instances(axes[0], series, limits)
        _kv_use(axes[1], series, limits)
        _ttft(axes[2], series, limits, config["cluster"]["slo"]["ttft_s"])
        _violations(axes[3], series, limits)
        _clock_axis(axes[3], series.edges_s)
    for axis in grid[:, 0]:
        axis.axvspan(zoom[0] + play.clock_s, zoom[1] + play.clock_s, color="#F3F0D8", zorder=0, lw=0)
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
        axis.stairs(base + values, series.edges_s, baseline=base, fill=True, color=colour, alpha=0.75, label=label)
        base = base + values
    axis.stairs(series.load, series.edges_s, baseline=None, color=BLACK, lw=1.1, label="load (arriving tokens)")
    axis.stairs(
        series.forecast_load, series.edges_s, baseline=None, color=VERMILLION, lw=1.4, ls="--", label="forecast"
    )
    axis.set_ylim(0.0, limits.instances)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylabel("instances")


def _kv_use(axis: Axes, series: Series, limits: _Limits) -> None:
    centres = 0.5 * (series.edges_s[1:] + series.edges_s[:-1])
    axis.fill_between(centres, 100.0 * series.kv_use_mean, color=SKY, alpha=0.6, lw=0, label="KV use, mean")
    axis.plot(centres, 100.0 * series.kv_use_max, color=BLUE, lw=1.0, label="fullest instance")
    axis.plot(
        centres, 100.0 * series.anticipated_peak_max, color=PURPLE, lw=1.0, label="its anticipated peak"
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
    axis.set_ylabel("TTFT, s")


def _violations(axis: Axes, series: Series, limits: _Limits) -> None:
    axis.stairs(
        100.0 * series.violations, series.edges_s, fill=True, color=VERMILLION, label="requests that miss the SLO"
    )
    axis.set_ylim(0.0, limits.violations)
    axis.set_ylabel("missed, %")


def _comparison_figure(
    plays: Sequence[Play], zoom: tuple[float, float], limits: _Limits, summary: pd.DataFrame, about: str
) -> Figure:
    figure = Figure(figsize=(13.5, 8.6), layout="constrained")
    figure.suptitle("Instances over load, and what they bought", x=0.01, ha="left", fontsize=14, fontweight="bold")
    figure.supxlabel(_wrap(about), x=0.01, ha="left", fontsize=8, color="#555555")
    rows = figure.subfigures(2, 1, height_ratios=(1.0, 1.0))
    top = rows[0].subplots()
    near, missed, cost = rows[1].subplots(1, 3, width_ratios=(1.25, 1.0, 1.0))
    clock_s = plays[0].clock_s
    for axis, span, bins in ((top, (plays[0].start_s, plays[0].end_s), _BINS), (near, zoom, _ZOOM_BINS)):
        for i, play in enumerate(plays):
            series = play.series(*span, bins)
            if i == 0:
                axis.stairs(series.load, series.edges_s, fill=True, color="#DDDDDD", label="load")
            axis.stairs(
                series.ready + series.starting, series.edges_s, baseline=None, color=_colour(i), lw=1.5,
                label=f"{play.policy}, {play.figures['gpu_hours']:.1f} GPU-hours",
            )
        axis.set_ylim(0.0, limits.instances)
        axis.set_ylabel("instances (ready + starting)")
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        _clock_axis(axis, np.array(span) + clock_s)
    top.axvspan(zoom[0] + clock_s, zoom[1] + clock_s, color="#F3F0D8", zorder=0, lw=0)
    top.legend(loc="lower left", bbox_to_anchor=(-0.005, 1.0), ncols=9, borderaxespad=0.0)
    near.set_title(_zoom_title(zoom, clock_s))
    for i, play in enumerate(plays):
        bad = play.arrival_s[play.violated] + clock_s
        edges = np.array([play.start_s, play.end_s]) + clock_s
        missed.step(np.r_[edges[0], bad, edges[1]], np.r_[0, np.arange(1, len(bad) + 1), len(bad)], where="post",
                    color=_colour(i), lw=1.5)
    missed.set_title("requests that missed the SLO, cumulative")
    missed.set_ylim(bottom=0.0)
    _clock_axis(missed, np.array([plays[0].start_s, plays[0].end_s]) + clock_s)
    _cost(cost, plays, summary)
    return figure


def _cost(axis: Axes, plays: Sequence[Play], summary: pd.DataFrame) -> None:
    """GPU-hours against attainment, a point for each seed."""
    for i, play in enumerate(plays):
        rows = summary[summary["policy"] == play.policy]
        x, y = rows["gpu_hours"].to_numpy(), 100.0 * rows["slo_attainment"].to_numpy()
        axis.scatter(x, y, color=_colour(i), s=42, zorder=3, edgecolor="white", lw=0.6)
        axis.annotate(
            play.policy, (float(x.mean()), float(y.mean())), (0, 8), textcoords="offset points", ha="center",
            color=_colour(i), fontweight="bold", fontsize=8.5,
        )
    axis.margins(0.18, 0.2)
    axis.set_xlabel("GPU-hours")
    axis.set_title("SLO attainment in % against cost: up and left is better")


def _colour(i: int) -> str:
    return _POLICY_COLOURS[i % len(_POLICY_COLOURS)]


def _clock_axis(axis: Axes, edges_s: FloatArray) -> None:
    span_s = float(edges_s[-1] - edges_s[0])
    wanted = span_s / 7.0
    steps = (60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 14_400, 21_600, 43_200, 86_400)
    step = next((s for s in steps if s >= wanted), 86_400 * math.ceil(wanted / 86_400))
    axis.set_xlim(float(edges_s[0]), float(edges_s[-1]))
    axis.xaxis.set_major_locator(MultipleLocator(step))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _clock(value)))


def _clock(seconds: float) -> str:
    day, second = divmod(round(seconds), 86_400)
    text = f"{second // 3600:02d}:{second % 3600 // 60:02d}"
    return f"day {day + 1}\n{text}" if day else text


def _zoom_title(zoom: tuple[float, float], clock_s: float) -> str:
    return f"the shaded stretch, {_clock(zoom[0] + clock_s)} to {_clock(zoom[1] + clock_s)}".replace("\n", " ")


def _wrap(text: str) -> str:
    """Lines of at most about 190 characters, to stay inside the figure."""
    import textwrap

    return "\n".join(textwrap.wrap(text, 190))
