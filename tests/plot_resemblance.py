"""Draws ``docs/images/generated/*.png``: generated traffic beside what it was generated from.

Run as ``python -m tests.plot_resemblance`` with the data folder in ``PRESERVE_GYM_DATA``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from experiments.palette import BLACK, BLUE, GREY, ORANGE, SKY
from preserve_gym.data import data_dir
from preserve_gym.traces import Trace, azure_2024
from tests import fit_azure_2024, fit_synthetic
from tests.modulation_2024 import ranges_of_minutes
from tests.plot_real_vllm import STYLE
from tests.resemblance import CASES, held_out_hours
from tests.week_shape import DAYS, generated_week, real_week
from tests.window_statistics import autocorrelation, counts, dispersion, windows_of

IMAGES = Path(__file__).parents[1] / "docs" / "images" / "generated"
SEEDS = 40
SCALES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
LAGS_S = tuple(range(10, 190, 10))
TITLES = {"chat": "conversation service", "code": "code service"}
SERVICES = {"chat": "conv", "code": "code"}
# The first day of each recording, as an index of DAYS, and the one whose minutes are shown.
FIRST = {"chat": 2, "code": 0}
SHOWN = "Tue"
REAL, WINDOWS, SYNTHETIC = "real hour", "generated from its windows", "synthetic service"
PLAIN = FuncFormatter(lambda x, _: f"{x:,g}")


@contextmanager
def drawing(name: str, height: float) -> Iterator[Figure]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.5, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        # Without the version of matplotlib, which would make equal figures differ.
        figure.savefig(IMAGES / f"{name}.png", dpi=90, metadata={"Software": None})


def add_legend(figure: Figure, ax: Axes) -> None:
    """The lines of a panel, the real hour first."""
    order = (REAL, WINDOWS, SYNTHETIC)
    lines = sorted(ax.get_lines(), key=lambda line: order.index(str(line.get_label()).split(":")[0]))
    figure.legend(handles=lines, loc="outside upper left", ncols=len(lines), frameon=False)


def draw_hours(traces: Path) -> None:
    """Statistics, courses and lengths of the hours of 2023."""
    sides = {}
    for case in CASES:
        real = case.hour(traces)
        synthetic = fit_synthetic.generated_hours(case.kind, real, SEEDS)
        sides[case.kind] = {
            REAL: [real],
            WINDOWS: held_out_hours(case, real, SEEDS),
            SYNTHETIC: synthetic,
        }
    draw_statistics(sides)
    draw_courses(sides)
    draw_lengths(sides)


def draw_statistics(sides: dict[str, dict[str, list[Trace]]]) -> None:
    """Index of dispersion by scale, and autocorrelation inside windows by lag."""
    with drawing("statistics", 6.4) as figure:
        axes = figure.subplots(2, 2)
        for (top, bottom), case in zip(axes.T, CASES, strict=True):
            top.set(xscale="log", yscale="log", xlabel="width of the bins, s")
            draw_bands(top, SCALES_S, sides[case.kind], dispersion)
            for axis in (top.xaxis, top.yaxis):
                axis.set_major_formatter(PLAIN)
            top.set_title(TITLES[case.kind], loc="left", fontsize=10)

            def inside(trace: Trace, lag_s: float, window_s: float = case.window_s) -> float:
                return float(np.mean([autocorrelation(w, int(lag_s)) for w in windows_of(trace, window_s)]))

            draw_bands(bottom, LAGS_S, sides[case.kind], inside)
            bottom.axhline(0.0, color=GREY, linewidth=0.8)
            bottom.set(xlabel="lag, s", xlim=(LAGS_S[0], LAGS_S[-1]))
        axes[0, 0].set_ylabel("index of dispersion")
        axes[1, 0].set_ylabel("autocorrelation of the counts\nof 10 s inside windows")
        add_legend(figure, axes[0, 0])


def draw_bands(
    ax: Axes, at: Sequence[float], sides: dict[str, list[Trace]], of: Callable[[Trace, float], float]
) -> None:
    """The real figure over ``at`` as a line, generated ones as bands."""
    for label, colour in ((SYNTHETIC, ORANGE), (WINDOWS, BLUE)):
        values = np.array([[of(trace, x) for x in at] for trace in sides[label]])
        low, middle, high = np.percentile(values, [5, 50, 95], axis=0)
        ax.fill_between(at, low, high, color=colour, alpha=0.25, linewidth=0)
        ax.plot(at, middle, color=colour, linewidth=1.2, label=f"{label}: median, 5 % to 95 %")
    ax.plot(at, [of(sides[REAL][0], x) for x in at], color=BLACK, linewidth=1.8, label=REAL)


def draw_courses(sides: dict[str, dict[str, list[Trace]]]) -> None:
    """Requests of each 10 s: the real hour above generated ones, on the same axes."""
    with drawing("hours", 7.6) as figure:
        axes = figure.subplots(5, 2, sharex=True, sharey="col")
        for column, case in zip(axes.T, CASES, strict=True):
            side = sides[case.kind]
            shown = [
                (REAL, side[REAL][0], BLACK),
                *((f"{WINDOWS}, seed {seed}", side[WINDOWS][seed], BLUE) for seed in range(3)),
                (f"{SYNTHETIC}, seed 0", side[SYNTHETIC][0], ORANGE),
            ]
            for ax, (label, trace, colour) in zip(column, shown, strict=True):
                count = counts(trace, 10.0)
                ax.stairs(count, np.arange(len(count) + 1) / 6, fill=True, color=colour)
                ax.set_title(label, loc="left", fontsize=8.5, color=colour, pad=2)
            column[0].set(xlim=(0, 58), ylim=(0, None))
            column[0].set_title(f"{TITLES[case.kind]}: {REAL}", loc="left", fontsize=8.5, pad=2)
            column[-1].set_xlabel("time, min")
        figure.supylabel("requests in 10 s", fontsize=9)


def draw_lengths(sides: dict[str, dict[str, list[Trace]]]) -> None:
    looks = {
        REAL: {"color": BLACK, "linewidth": 3.5, "alpha": 0.4},
        WINDOWS: {"color": BLUE, "linewidth": 1.2},
        SYNTHETIC: {"color": ORANGE, "linewidth": 1.2, "linestyle": "--"},
    }
    with drawing("lengths", 6.0) as figure:
        axes = figure.subplots(2, 2, sharey=True)
        for row, name in zip(axes, ("prompt", "output"), strict=True):
            for ax, case in zip(row, CASES, strict=True):
                for label, look in looks.items():
                    tokens = np.concatenate([getattr(t, f"{name}_tokens") for t in sides[case.kind][label]])
                    level = np.linspace(0, 1, 2001)
                    ax.plot(np.quantile(tokens, level), level, label=label, **look)
                ax.set(xscale="log", xlabel=f"{name} tokens", ylim=(0, 1))
                ax.xaxis.set_major_formatter(PLAIN)
            row[0].set_ylabel("share of requests")
        for ax, case in zip(axes[0], CASES, strict=True):
            ax.set_title(TITLES[case.kind], loc="left", fontsize=10)
        add_legend(figure, axes[0, 0])


def draw_week_of_2024(traces: Path) -> None:
    """The generated week on its exact hours, and how far the minutes of a day range."""
    hourly, tens = (traces / f"azure_llm_2024_{name}.csv.gz" for name in ("hourly", "10min"))
    with drawing("week-2024", 6.6) as figure:
        axes = figure.subplots(2, 2)
        for (top, bottom), (kind, service) in zip(axes.T, SERVICES.items(), strict=True):
            days = [DAYS[(FIRST[kind] + k) % 7] for k in range(7)]
            minutes = counts(azure_2024.trace_from_hourly(hourly, service), 60.0)
            top.plot(
                np.arange(len(minutes)) / 1440,
                minutes,
                color=SKY,
                linewidth=0.4,
                label="each minute, generated",
            )
            exact = azure_2024.hourly_counts(hourly, service).requests / 60
            top.stairs(
                exact, np.arange(169) / 24, color=BLACK, linewidth=1.2, zorder=3, label="each hour, exact"
            )
            top.set_title(TITLES[kind], loc="left", fontsize=10)
            show_days(top, days)
            table = fit_azure_2024.windows_of(service, traces)
            day = days.index(SHOWN)
            of_day = slice(144 * day, 144 * (day + 1))
            low, high = ranges_of_minutes(azure_2024.trace_from_ten_minutes(tens, service))
            edges_h = np.arange(145) / 6
            bottom.stairs(
                table["rpm_max_est"][of_day],
                edges_h,
                baseline=table["rpm_min_est"][of_day].to_numpy(),
                fill=True,
                color=GREY,
                alpha=0.5,
                label="published plot: edges of the line",
            )
            bottom.stairs(
                high[of_day],
                edges_h,
                baseline=low[of_day],
                fill=True,
                color=BLUE,
                alpha=0.55,
                label="generated: least and most of 14 minutes",
            )
            bottom.set(
                xlim=(0, 24), ylim=(0, None), xticks=range(0, 25, 4), xlabel="hour of the Tuesday (UTC)"
            )
        axes[0, 0].set_ylabel("requests/min")
        axes[1, 0].set_ylabel("requests/min around 10 minutes")
        for ax in axes[:, 0]:
            ax.legend(loc="lower left", fontsize=8)


def show_days(ax: Axes, days: Sequence[str]) -> None:
    ax.set(xlim=(0, 7), ylim=(0, None), xticks=np.arange(7) + 0.5)
    ax.set_xticklabels(days)
    ax.tick_params(axis="x", length=0)
    ax.grid(axis="x", visible=False)
    for day in range(1, 7):
        ax.axvline(day, color="#E6E6E6", linewidth=0.6, zorder=0)


def draw_embedded_week(traces: Path) -> None:
    """Hours of the synthetic weeks beside those of 2024, all over their mean."""
    with drawing("embedded-week", 5.6) as figure:
        axes = figure.subplots(2, 1)
        for ax, kind in zip(axes, SERVICES, strict=True):
            edges_d = np.arange(169) / 24
            for seed in range(3):
                label = f"synthetic-{kind}-week, seeds 0 to 2" if seed == 0 else None
                ax.stairs(
                    generated_week(kind, seed),
                    edges_d,
                    baseline=None,
                    color=ORANGE,
                    linewidth=0.9,
                    label=label,
                )
            ax.stairs(
                real_week(kind, traces),
                edges_d,
                baseline=None,
                color=BLACK,
                linewidth=1.5,
                label="Azure 2024",
            )
            ax.set_title(TITLES[kind], loc="left", fontsize=10)
            show_days(ax, DAYS)
            ax.set_ylim(0, 1.15 * ax.get_ylim()[1])
            ax.set_ylabel("requests of an hour\nover the week's mean")
            ax.legend(loc="upper center", fontsize=8, ncols=2)


def main() -> None:
    traces = data_dir() / "traces"
    IMAGES.mkdir(parents=True, exist_ok=True)
    draw_hours(traces)
    draw_week_of_2024(traces)
    draw_embedded_week(traces)


if __name__ == "__main__":
    main()
