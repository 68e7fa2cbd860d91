"""Draws ``docs/images/real-vllm.png``: the course of three runs of real vLLM, recorded and simulated.

Run as ``python -m tests.plot_real_vllm`` with the data folder in ``PRESERVE_GYM_DATA``.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from experiments.palette import BLACK, BLUE, ORANGE
from preserve_gym.data import data_dir
from tests.real_vllm import RUNS, SERIES, law_of_visited_batches, recorded, simulated

IMAGE = Path(__file__).parents[1] / "docs" / "images" / "real-vllm.png"
ROWS = ("running requests", "waiting requests", "KV cache in use")
STYLE = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
}


def draw(data: Path, image: Path) -> None:
    """Draw the series of ``SERIES``, a row each, for each run, a column each."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 5.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(SERIES), len(RUNS), sharex="col")
        for column, run in zip(axes.T, RUNS, strict=True):
            record = recorded(run, data)
            law = law_of_visited_batches(run, record.trace)
            sides = (
                ("vLLM, recorded", record.series, {"color": BLACK, "linewidth": 1.8, "alpha": 0.75}),
                ("simulated, preset", simulated(run, record).series, {"color": ORANGE, "linewidth": 1.1}),
                (
                    "simulated, law of the run's own batches",
                    simulated(run, record, law).series,
                    {"color": BLUE, "linewidth": 1.1},
                ),
            )
            for ax, name in zip(column, SERIES, strict=True):
                for label, series, look in sides:
                    ax.plot(series.index, series[name], label=label, **look)
                ax.set_ylim(bottom=0)
                ax.set_xlim(0, record.series.index[-1])
                if record.series[name].isna().all():
                    ax.text(0.98, 0.94, "not recorded", transform=ax.transAxes, ha="right", va="top")
            column[0].set_title(run.title, loc="left", fontsize=10)
            column[-1].set_xlabel("time, s")
            column[-1].set_ylim(0, 1.05)
            column[-1].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        for ax, label in zip(axes[:, 0], ROWS, strict=True):
            ax.set_ylabel(label)
        figure.align_ylabels(axes[:, 0])
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3, frameon=False)
        # Without the version of matplotlib, which would make equal figures differ.
        figure.savefig(image, dpi=90, metadata={"Software": None})


if __name__ == "__main__":
    draw(data_dir(), IMAGE)
