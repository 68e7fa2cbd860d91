"""Time lines: what a few hundred rows keep of thousands."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from experiments.evaluate import INTERVAL_COLUMNS
from experiments.timeline import POINTS, timeline


def intervals(count: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({name: rng.uniform(0.0, 9.0, count) for name in INTERVAL_COLUMNS})
    table["time_s"] = 10.0 * np.arange(count)
    table["arrived"] = rng.integers(0, 5, count)
    table.loc[table["arrived"] == 0, "ttft_mean_s"] = np.nan
    return table


def test_a_short_window_stays_as_it_is() -> None:
    table = intervals(POINTS)
    pd.testing.assert_frame_equal(timeline(table), table, check_dtype=False)


def test_counts_are_kept_and_means_are_means() -> None:
    table = intervals(1000)
    short = timeline(table)
    assert len(short) == 250
    assert list(short.columns) == list(table.columns)
    assert short["time_s"].tolist() == table["time_s"][::4].tolist()
    for name in ("arrived", "violations", "completed", "instance_s", "prompt_tokens"):
        assert short[name].sum() == pytest.approx(table[name].sum())
    assert short["ready"][0] == pytest.approx(table["ready"][:4].mean())
    assert short["kv_use_max"][0] == table["kv_use_max"][:4].max()
    total_s = (short["ttft_mean_s"] * short["arrived"]).sum()
    assert total_s == pytest.approx((table["ttft_mean_s"] * table["arrived"]).sum())


def test_a_row_of_no_request_has_no_latency() -> None:
    table = intervals(600)
    table.loc[:2, "arrived"] = 0
    table.loc[:2, "ttft_mean_s"] = np.nan
    short = timeline(table)
    assert len(short) == 200
    assert np.isnan(short["ttft_mean_s"][0])
    assert short["ttft_mean_s"].notna().sum() > 150
