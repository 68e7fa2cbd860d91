"""Time lines: tables of control intervals, made short enough to draw."""

from __future__ import annotations

import numpy as np
import pandas as pd

POINTS = 288
"""Most rows of a window: five minutes each over a day."""
_FIRST = ("time_s", "time_of_day_s")
_SUMMED = ("arrived", "prompt_tokens", "output_tokens", "violations", "completed", "instance_s")
_LARGEST = ("kv_use_max", "anticipated_peak_max")


def timeline(intervals: pd.DataFrame) -> pd.DataFrame:
    """At most ``POINTS`` rows, each of equally many intervals but for the last.

    Args:
        intervals: columns as ``experiments.evaluate.INTERVAL_COLUMNS``.

    Returns:
        The same columns: counts and instance-seconds are summed, the start is the first one's,
        ``ttft_mean_s`` is the mean over requests, maxima are maxima, all else is the mean; NaN is left out.
    """
    group = np.arange(len(intervals)) // max(1, -(-len(intervals) // POINTS))
    how = dict.fromkeys(intervals.columns, "mean")
    for names, rule in ((_FIRST, "first"), (_SUMMED, "sum"), (_LARGEST, "max")):
        how |= dict.fromkeys(names, rule)
    table = intervals.groupby(group).agg(how)
    weights = intervals["arrived"].where(intervals["ttft_mean_s"].notna(), 0).groupby(group).sum()
    total_s = (intervals["ttft_mean_s"] * intervals["arrived"]).groupby(group).sum()
    table["ttft_mean_s"] = total_s / weights.where(weights > 0)
    return table.reset_index(drop=True)
