"""Sizes and pictures of the named scenarios, for ``docs/scenarios.md``.

Run as ``python -m tests.plot_scenarios [names]`` with the data folder in ``PRESERVE_GYM_DATA``: prints the
rows of the table and draws ``docs/images/scenarios/<name>.png``.

*Need*: the tokens of each window (10 minutes, a minute in recordings of an hour or two) over what one
instance serves at the SLO. *Best constant fleet*: the fewest instances that, always ready, serve the test
windows with at least 99 % of the requests within the SLO, found by simulation.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from preserve_gym import Workload
from preserve_gym.scenarios import Scenario, load_scenario, scenario_names
from preserve_gym.sim.cluster import Cluster
from preserve_gym.workload import Episode

FOLDER = Path(__file__).parent.parent / "docs" / "images" / "scenarios"
TARGET = 0.99
_SPLITS = {"train": "#d9e6f2", "validation": "#fde8c8", "test": "#d8efd6"}

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Size:
    """What a scenario asks of its cluster.

    Attributes:
        rate_rps, prompt_mean, output_mean: of the whole recording.
        low, middle, high: need in instances, 5th percentile, median and largest of the windows.
        test_mean: mean need over the evaluation windows of the test.
        best_static: fewest instances that reach ``TARGET`` on the test windows, or None.
        attainment: what they reach, or the largest fleet.
    """

    rate_rps: float
    prompt_mean: float
    output_mean: float
    low: float
    middle: float
    high: float
    test_mean: float
    best_static: int | None
    attainment: float


def window_s(workload: Workload) -> float:
    return 600.0 if workload.trace.span_s > 86_000 else 60.0


def need(scenario: Scenario, workload: Workload) -> FloatArray:
    """Instances that each window needs, float64[windows]; the last, broken one is left out."""
    width_s = window_s(workload)
    prompt, output = (tokens / width_s for tokens in workload.trace.window_tokens(width_s))
    whole = int(workload.trace.span_s // width_s)
    return np.asarray(workload.profile(scenario.cluster).need(prompt, output))[:whole]


def mean_need(scenario: Scenario, workload: Workload, episodes: list[Episode]) -> float:
    """Of the scored parts."""
    prompt = output = total_s = 0.0
    for episode in episodes:
        scored = episode.trace.arrival_s >= episode.start_s
        prompt += float(episode.trace.prompt_tokens[scored].sum())
        output += float(episode.trace.output_tokens[scored].sum())
        total_s += episode.horizon_s
    return float(workload.profile(scenario.cluster).need(prompt / total_s, output / total_s))


def attainment(scenario: Scenario, episodes: list[Episode], instances: int) -> float:
    """Share of the requests of the episodes within the SLO, with a constant fleet."""
    arrived = violations = 0.0
    for episode in episodes:
        cluster = Cluster(
            scenario.cluster,
            episode.trace,
            predicted_tokens=episode.predicted_tokens,
            initial_instances=instances,
            start_s=episode.start_s - episode.warmup_s,
        )
        cluster.run_until(episode.start_s)
        before = cluster.totals()
        cluster.run_until(episode.start_s + episode.horizon_s)
        cluster.settle()
        after = cluster.totals()
        arrived += after["arrived"] - before["arrived"]
        violations += after["violations"] - before["violations"]
    return 1.0 - violations / arrived


def size(scenario: Scenario, workload: Workload) -> Size:
    episodes = [workload.episode_at(float(start_s)) for start_s in workload.evaluation_windows]
    reached: dict[int, float] = {}

    def meets(instances: int) -> bool:
        reached[instances] = attainment(scenario, episodes, instances)
        return reached[instances] >= TARGET

    low, high = scenario.cluster.min_instances, scenario.cluster.max_instances
    best = None
    while low <= high:
        middle = (low + high) // 2
        if meets(middle):
            best, high = middle, middle - 1
        else:
            low = middle + 1
    needs = need(scenario, workload)
    trace = workload.trace
    return Size(
        rate_rps=len(trace) / trace.span_s,
        prompt_mean=float(trace.prompt_tokens.mean()),
        output_mean=float(trace.output_tokens.mean()),
        low=float(np.percentile(needs, 5)),
        middle=float(np.median(needs)),
        high=float(needs.max()),
        test_mean=mean_need(scenario, workload, episodes),
        best_static=best,
        attainment=reached[best] if best is not None else max(reached.values()),
    )


def row(name: str, found: Size) -> str:
    figures = [
        f"{found.rate_rps:.1f}",
        *(f"{mean:,.0f}" for mean in (found.prompt_mean, found.output_mean)),
        *(f"{need:.1f}" for need in (found.low, found.middle, found.high, found.test_mean)),
        "none" if found.best_static is None else str(found.best_static),
        f"{100 * found.attainment:.2f}",
    ]
    return f"| `{name}` | " + " | ".join(figures) + " |"


def draw(scenario: Scenario, workload: Workload, found: Size) -> None:
    """Need over time, with the splits and the best constant fleet."""
    width_s = window_s(workload)
    days = workload.trace.span_s > 86_000
    unit_s, unit = (86_400.0, "days") if days else (60.0, "minutes")
    needs = need(scenario, workload)
    figure, axes = plt.subplots(figsize=(9.0, 2.6), layout="constrained")
    assert workload.bounds is not None
    for split, (start_s, end_s) in workload.bounds.items():
        axes.axvspan(start_s / unit_s, end_s / unit_s, color=_SPLITS[split], label=split, lw=0)
    axes.plot((np.arange(len(needs)) + 0.5) * width_s / unit_s, needs, color="#1f3b57", lw=0.8)
    if found.best_static is not None:
        axes.axhline(
            found.best_static, color="#b03a2e", lw=1.0, ls="--", label="best constant fleet of the test"
        )
    axes.set(
        xlim=(0.0, workload.trace.span_s / unit_s),
        ylim=(0.0, None),
        xlabel=f"time of the recording, {unit}",
        ylabel="need, instances",
        title=f"{scenario.name}: {workload.trace.name}",
    )
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.savefig(FOLDER / f"{scenario.name}.png", dpi=110, metadata={"Software": None})
    plt.close(figure)


def main(names: list[str]) -> None:
    for name in names or scenario_names():
        scenario = load_scenario(name)
        workload = scenario.make_workload("test")
        found = size(scenario, workload)
        print(row(name, found), flush=True)
        draw(scenario, workload, found)


if __name__ == "__main__":
    main(sys.argv[1:])
