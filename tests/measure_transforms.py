"""Measures what changing the rate of a trace keeps and alters, as the docs record it.

Run as ``python -m tests.measure_transforms`` with the data folder in ``PRESERVE_GYM_DATA``: prints the
table of docs/bring-your-own-trace.md. Each figure is the mean over the seeds 0 to 9.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from preserve_gym.traces import Burst, SqueezeTime, Step, Trace, load_trace, scale_rate

SEEDS = range(10)
TRACES = ("azure-2023-conv", "azure-2023-code", "synthetic-chat")
DISPERSION_WINDOWS_S = (1.0, 10.0, 60.0, 600.0)
CURVE_WINDOW_S = 600.0

Change = Callable[[Trace, np.random.Generator], Trace]
CHANGES: dict[str, Change] = {
    "as recorded": lambda trace, rng: trace,
    "thinned to 1/8": lambda trace, rng: scale_rate(trace, 1 / 8, rng),
    "superposed x 8": lambda trace, rng: scale_rate(trace, 8, rng),
    "`step` x 8 at 0 s": Step(at_s=0.0, factor=8.0).apply,
    "`burst` x 4": Burst(onset_s=900.0, width_s=300.0, height=4.0, period_s=1800.0).apply,
    "`squeeze-time` 24": SqueezeTime(24.0).apply,
}


def counts(trace: Trace, window_s: float) -> NDArray[np.int64]:
    """Requests in each complete window."""
    complete = int(trace.span_s / window_s)
    window = (trace.arrival_s // window_s).astype(np.int64)
    return np.bincount(window, minlength=complete)[:complete]


def figures(trace: Trace, original: Trace) -> list[float]:
    """Rate, CV of the gaps, index of dispersion per window, correlation of the rate curves."""
    gap_s = np.diff(trace.arrival_s)
    per_window = [counts(trace, window_s) for window_s in DISPERSION_WINDOWS_S]
    # Of a squeezed trace the windows are squeezed with it.
    pace = original.span_s / trace.span_s
    curves = counts(trace, CURVE_WINDOW_S / pace), counts(original, CURVE_WINDOW_S)
    shared = min(map(len, curves))
    return [
        len(trace) / trace.span_s,
        float(gap_s.std() / gap_s.mean()),
        *(float(n.var() / n.mean()) for n in per_window),
        float(np.corrcoef([curve[:shared] for curve in curves])[0, 1]),
    ]


def rows_of(name: str) -> list[list[str]]:
    """The rows of a trace, as the docs show them."""
    original = load_trace(name)
    rows = []
    for label, change in CHANGES.items():
        # Squeezed, an hour leaves too few windows to measure.
        if label.startswith("`squeeze-time`") and original.span_s < 86_400.0:
            continue
        seeds = SEEDS if label != "as recorded" else range(1)
        found = [figures(change(original, np.random.default_rng(seed)), original) for seed in seeds]
        rate, cv, *dispersion, correlation = np.mean(found, axis=0)
        figures_shown = [f"{rate:.2f}", f"{cv:.2f}", *(f"{d:.1f}" for d in dispersion), f"{correlation:.2f}"]
        rows.append([f"`{name}`", label, *figures_shown])
    return rows


if __name__ == "__main__":
    for name in TRACES:
        for row in rows_of(name):
            print(f"| {' | '.join(row)} |", flush=True)
