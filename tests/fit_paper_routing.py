"""Fits ``CALIBRATIONS`` of ``experiments/paper_calibration.py`` to the artifact's figures.

Run as ``python -m tests.fit_paper_routing`` with the data folder in ``PRESERVE_GYM_DATA``: prints the fits,
and how well prompts and host time make up for a GPU that is slower by a given factor.

Method. Gauss-Newton on the logarithms of the published figures of least requests that a calibration names;
ours are means over ``SEEDS``, which no experiment uses. As many unknowns as figures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from experiments.paper_calibration import (
    CALIBRATIONS,
    PUBLISHED,
    RATE_RPS,
    REQUESTS,
    Calibration,
    figures,
)
from preserve_gym import simulate

SEEDS = range(1000, 1040)
STEPS = {"gpu_factor": (0.1, 0.4), "host_s": (0.002, 0.006), "prompt_factor": (0.1, 0.3)}
"""Of each unknown: step of the derivative, and the longest step of an iteration."""
ITERATIONS = 10
ROUTER = "least-requests"


def mean_figures(calibration: Calibration, router: str = ROUTER) -> dict[str, float]:
    """Figures of the artifact's run, means over ``SEEDS``."""
    cluster = calibration.cluster()
    traces = (calibration.trace(RATE_RPS, REQUESTS, seed) for seed in SEEDS)
    runs = [figures(simulate(trace, cluster, router, progress=False).requests) for trace in traces]
    return {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}


def logs(calibration: Calibration) -> NDArray[np.float64]:
    """Of the figures that it is fitted to, over the published ones."""
    found = mean_figures(calibration)
    return np.log([found[name] / PUBLISHED[ROUTER][name] for name in calibration.fitted])


def fit(start: Calibration, unknowns: Sequence[str]) -> Calibration:
    """The calibration with the least error, from ``start``."""
    best, least = start, np.inf
    now = start
    for _ in range(ITERATIONS):
        error = logs(now)
        if np.abs(error).max() < least:
            best, least = now, float(np.abs(error).max())
        slope = np.column_stack(
            [
                (logs(dataclasses.replace(now, **{name: getattr(now, name) + STEPS[name][0]})) - error)
                / STEPS[name][0]
                for name in unknowns
            ]
        )
        step = np.linalg.lstsq(slope, -error, rcond=None)[0]
        moved = {
            name: max(getattr(now, name) + float(np.clip(move, -STEPS[name][1], STEPS[name][1])), 0.001)
            for name, move in zip(unknowns, step, strict=True)
        }
        now = dataclasses.replace(now, **moved)
    return best


def _show(title: str, calibration: Calibration) -> None:
    print(f"{title}: {calibration}")
    for router, published in PUBLISHED.items():
        found = mean_figures(calibration, router)
        print(f"  {router}", *(f"{name} {found[name]:.4g} ({value:g})" for name, value in published.items()))


if __name__ == "__main__":
    _show("gpu", fit(CALIBRATIONS["gpu"], ("gpu_factor", "host_s")))
    chosen = CALIBRATIONS["gpu-and-prompts"]
    _show("gpu-and-prompts", fit(chosen, ("gpu_factor", "host_s", "prompt_factor")))
    for factor in (1.5, 2.0, 2.65):
        start = Calibration(factor, 0.0371 - 0.0146 * (factor - 1.2), 1.4, ("tpot_mean_s", "ttft_mean_s"))
        _show(f"gpu_factor {factor:g}", fit(start, ("host_s", "prompt_factor")))
