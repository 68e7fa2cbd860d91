"""The picture of a capacity plan: what each setting costs and achieves, and need against fleet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from baselines.policy_name import label_of
from experiments.palette import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION
from experiments.plan_answer import HINDSIGHT, STATIC, Answer, Plan
from experiments.plan_report import settings_table
from experiments.timeline import timeline

_COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY)
_MARKERS = "oD^vPX"
_LEAST_MISSED = 1e-4  # what is drawn of fewer; a log scale has no zero
_TICKS = (0.5, 0.8, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0 - _LEAST_MISSED)


def draw(answers: Sequence[Answer], folder: Path) -> None:
    """Write ``plan.png`` and ``plan.svg``: a row of two panels for each cluster that can do it.

    Left, on the traffic that settings were chosen on: SLO attainment over GPUs on average. Right, on the
    traffic measured: instances needed and held.
    """
    shown = [answer for answer in answers if answer.plans]
    if not shown:
        return
    figure, axes = plt.subplots(
        len(shown), 2, figsize=(11.0, 4.0 * len(shown)), layout="constrained", squeeze=False
    )
    for (left, right), answer in zip(axes, shown, strict=True):
        _draw_fronts(left, answer)
        _draw_need(right, answer)
    # As text, letters stay letters and the same input gives the same file.
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "plan"}):
        figure.savefig(folder / "plan.svg", metadata={"Date": None})
        figure.savefig(folder / "plan.png", dpi=130, metadata={"Software": None})
    plt.close(figure)


def _draw_fronts(axis: Axes, answer: Answer) -> None:
    settings = settings_table([answer])
    for k, (policy, rows) in enumerate(settings.groupby("policy", sort=False)):
        static = policy == STATIC
        colour = BLACK if static else _COLOURS[(k - 1) % len(_COLOURS)]
        marker = "s" if static else _MARKERS[(k - 1) % len(_MARKERS)]
        front = _front(rows)
        axis.plot(front["gpus"], _missed(front), ":" if static else "-", color=colour, lw=1.2)
        axis.scatter(rows["gpus"], _missed(rows), s=12, color=colour, marker=marker, alpha=0.35, lw=0)
        chosen = rows[rows["chosen"]]
        label = label_of(str(policy))
        axis.scatter(
            chosen["gpus"], _missed(chosen), s=60, color=colour, marker=marker, label=label, zorder=3
        )
    if (hindsight := answer.plan(HINDSIGHT)) is not None and not answer.case.traffic.is_split:
        missed = max(1.0 - hindsight.figures["attainment"], _LEAST_MISSED)
        axis.scatter(
            hindsight.figures["gpus"], missed, s=90, color=GREY, marker="*", label=HINDSIGHT, zorder=3
        )
    axis.axhline(max(1.0 - answer.case.target, _LEAST_MISSED), color=GREY, lw=1)
    part = " on the first part" if answer.case.traffic.is_split else ""
    able = settings[settings["attainment"] >= 0.6]
    low, high = able["gpus"].min(), settings.loc[settings["chosen"], "gpus"].max()
    axis.set(
        xlim=(0.92 * low, high + 0.35 * (high - low) + 0.1 * high),
        ylim=(0.6, 0.7 * _LEAST_MISSED),
        yscale="log",
        xlabel="GPUs on average",
        ylabel="within the SLO, %",
        title=f"{answer.case.label}: settings tried{part}, large: chosen",
    )
    axis.yaxis.set_major_locator(FixedLocator([1.0 - tick for tick in _TICKS]))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(_met))
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, loc="lower right", frameon=False)


def _draw_need(axis: Axes, answer: Answer) -> None:
    """What the arrivals need and what is held, over time; windows follow each other."""
    best = min(
        (plan for plan in answer.policies if plan.meets),
        key=lambda plan: plan.figures["gpu_hours"],
        default=None,
    )
    static = answer.plan(STATIC)
    assert static is not None
    lines: list[tuple[Plan, str]] = [(static, BLACK)]
    if best is not None:
        place = [label_of(front.policy) for front in answer.fronts].index(best.policy)
        lines.append((best, _COLOURS[place % len(_COLOURS)]))
    if (hindsight := answer.plan(HINDSIGHT)) is not None:
        lines.append((hindsight, GREY))
    rows = timeline(static.intervals)
    axis.fill_between(
        _hours(rows, answer), rows["load"], step="post", color=GREY, alpha=0.35, lw=0, label="need"
    )
    for plan, colour in lines:
        rows = timeline(plan.intervals)
        held = rows["ready"] + rows["starting"] + rows["draining"]
        style = "--" if plan.policy == HINDSIGHT else "-"
        axis.step(_hours(rows, answer), held, style, where="post", color=colour, lw=1.3, label=plan.policy)
    axis.set(xlabel="hours played", ylabel="instances", title="needed by what arrives, and held")
    axis.grid(alpha=0.25)
    axis.set_ylim(0.0, 1.15 * axis.get_ylim()[1])  # room for the legend
    axis.legend(fontsize=8, ncols=len(lines) + 1, frameon=False, loc="upper left")


def _hours(rows: pd.DataFrame, answer: Answer) -> np.ndarray:
    """Time played, h, float64[rows]; between windows it stands still."""
    return np.arange(len(rows)) * answer.hours / len(rows)


def _front(rows: pd.DataFrame) -> pd.DataFrame:
    """Settings that no other of the policy beats in both, by cost."""
    rows = rows.sort_values(["gpus", "attainment"], ascending=[True, False])
    return rows[rows["attainment"] > rows["attainment"].cummax().shift(fill_value=-1.0)]


def _missed(rows: pd.DataFrame) -> pd.Series:
    return (1.0 - rows["attainment"]).clip(lower=_LEAST_MISSED)


def _met(missed: float, _: object = None) -> str:
    text = f"{100 * (1.0 - missed):.6g}"
    return f"{text} +" if missed <= 1.01 * _LEAST_MISSED else text
