from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.latency_histogram import Histogram
from experiments.run_records import RunRecords
from experiments.statistics import interval
from experiments.summary import Histograms, summary
from preserve_gym.errors import InputError
from tests.synthetic_run import write_run

LATENCIES = {name: Histogram.of([0.1, 0.2]) for name in ("ttft_s", "tpot_s", "normalized_latency_s")}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> RunRecords:
    return RunRecords(write_run(tmp_path_factory.mktemp("run"), scenarios=2, policies=5, seeds=4))


def _episodes(**policies: list[list[tuple[float, int]]]) -> pd.DataFrame:
    """GPU-hours and violations of 1000 requests by policy, seed and window."""
    return pd.DataFrame(
        [
            {"scenario": "toy", "policy": policy.replace("_", "-"), "seed": seed, "window": window}
            | {"gpu_hours": hours, "violations": missed, "arrived": 1000}
            for policy, by_seed in policies.items()
            for seed, by_window in enumerate(by_seed)
            for window, (hours, missed) in enumerate(by_window)
        ]
    )


def _latencies(episodes: pd.DataFrame) -> Histograms:
    keys = zip(episodes["policy"], episodes["seed"], episodes["window"], strict=True)
    return dict.fromkeys(keys, LATENCIES)


def _summary(episodes: pd.DataFrame, bounds: pd.DataFrame | None = None) -> pd.DataFrame:
    return summary(episodes, lambda _: _latencies(episodes), bounds=bounds).set_index("policy")


def test_means_and_paired_differences() -> None:
    episodes = _episodes(
        preserve=[[(10.0, 5), (20.0, 1)], [(12.0, 3), (22.0, 3)]],
        other=[[(9.0, 5), (18.0, 2)], [(11.0, 4), (21.0, 4)]],
    )
    row = _summary(episodes).loc["other"]
    assert row["gpu_hours"] == pytest.approx((27.0 + 32.0) / 2)
    expected = interval(np.array([27.0, 32.0]))
    assert (row["gpu_hours"], row["gpu_hours_low"], row["gpu_hours_high"]) == pytest.approx(expected)
    assert row["slo_attainment"] == pytest.approx(1.0 - 15 / 4000)
    assert row["slo_attainment_low"] < row["slo_attainment"] < row["slo_attainment_high"]
    expected = interval(np.array([-3.0, -2.0]))
    names = ["gpu_hours_difference", "gpu_hours_difference_low", "gpu_hours_difference_high"]
    assert tuple(row[names]) == pytest.approx(expected)
    assert row["gpu_hours_change"] == pytest.approx(59.0 / 64.0 - 1.0)
    assert row["slo_attainment_difference"] == pytest.approx(-3 / 4000)
    assert (row["seeds"], row["windows"], row["paired_seeds"]) == (2, 2, 2)


def test_pooled_percentiles_are_those_of_all_requests(records: RunRecords) -> None:
    scenario = records.scenarios[0]
    table = summary(records.episodes, records.histograms)
    pooled = sum(
        (v["ttft_s"] for (policy, _, _), v in records.histograms(scenario).items() if policy == "hpa"),
        start=Histogram.of([]),
    )
    row = table[(table["scenario"] == scenario) & (table["policy"] == "hpa")].iloc[0]
    assert row["ttft_p99_s"] == pytest.approx(pooled.percentile(99.0))
    assert row["ttft_p99_s_low"] < row["ttft_p99_s"] < row["ttft_p99_s_high"]


@pytest.mark.parametrize(("more", "non_inferior"), [(0, True), (1, False), (4, False)])
def test_non_inferiority_is_decided_by_the_interval(more: int, non_inferior: bool) -> None:
    base = [[(10.0, missed)] * 2 for missed in (5, 6, 5, 6)]
    worse = [[(10.0, missed + more * (k % 2))] * 2 for k, ((_, missed), _) in enumerate(base)]
    # One of 1000 more on every other seed is 0.05 points on average, whose interval ends at 0.142.
    row = _summary(_episodes(preserve=base, other=worse)).loc["other"]
    assert row["slo_attainment_difference"] == pytest.approx(-more / 2000)
    assert bool(row["non_inferior"]) is non_inferior


def test_ranks_and_scores() -> None:
    episodes = _episodes(
        preserve=[[(60.0, 5)]], cheap=[[(30.0, 20)]], worst=[[(20.0, 50)]], good=[[(40.0, 10)]]
    )
    bounds = pd.DataFrame(
        [{"scenario": "toy", "target": 0.99, "static_gpu_hours": 100.0, "hindsight_gpu_hours": 20.0}]
    )
    table = _summary(episodes, bounds)
    assert table["rank"].to_dict() == {"preserve": 2, "cheap": 3, "worst": 4, "good": 1}
    assert table["meets_target"].to_dict() == {"preserve": True, "cheap": False, "worst": False, "good": True}
    assert table["score"][["preserve", "good"]].tolist() == [0.5, 0.75]
    assert table["score"][["cheap", "worst"]].isna().all()
    assert _summary(episodes)["score"].isna().all()


def test_bounds_that_were_played_come_before_the_table() -> None:
    episodes = _episodes(preserve=[[(60.0, 5)]], best_static=[[(80.0, 5)]], hindsight=[[(40.0, 9)]])
    assert _summary(episodes)["score"].tolist() == [0.5, 0.0, 1.0]


def test_a_policy_that_failed_on_a_seed_is_compared_on_the_others() -> None:
    episodes = _episodes(
        preserve=[[(10.0, 5)] * 2, [(20.0, 5)] * 2, [(90.0, 5)] * 2], other=[[(9.0, 5)] * 2, [(18.0, 5)] * 2]
    )
    episodes = pd.concat([episodes, _episodes(third=[[(1.0, 1)]] * 3)])
    table = _summary(episodes)
    assert table.loc["other", "paired_seeds"] == 2
    assert table.loc["other", "gpu_hours_change"] == pytest.approx(-0.1)
    assert "third" not in table.index


def test_one_seed_has_no_interval_and_is_not_called_non_inferior() -> None:
    row = _summary(_episodes(preserve=[[(10.0, 5), (11.0, 5)]], other=[[(9.0, 1), (9.5, 1)]])).loc["other"]
    assert np.isnan(row["gpu_hours_low"])
    assert row["gpu_hours_days_low"] < 18.5 < row["gpu_hours_days_high"]
    assert not row["non_inferior"]


def test_no_request_missed() -> None:
    row = _summary(_episodes(preserve=[[(10.0, 0)]] * 3)).loc["preserve"]
    assert row["slo_attainment"] == row["slo_attainment_high"] == 1.0
    assert row["slo_attainment_low"] == pytest.approx(1.0, abs=1e-3)


def test_refuses_a_baseline_that_did_not_play(records: RunRecords) -> None:
    with pytest.raises(InputError, match=r"--baseline: expected a policy .*did you mean preserve"):
        summary(records.episodes, records.histograms, baseline="preserv")


def test_without_a_baseline_nothing_is_compared(records: RunRecords) -> None:
    table = summary(records.episodes, records.histograms, baseline=None)
    assert "gpu_hours_change" not in table
    assert table["rank"].notna().all()


def test_no_episode_no_row() -> None:
    assert summary(pd.DataFrame(), lambda _: {}).empty


def test_refuses_a_broken_record(tmp_path: Path) -> None:
    folder = write_run(tmp_path, scenarios=1, policies=1, seeds=1)
    path = folder / "cells" / "api-burst" / "preserve" / "seed0.json"
    for text in ("{", "{}", '{"windows": [{"window": 0, "latency": {"ttft_s": {"first": 9}}}]}'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=r"seed0\.json: expected the record of a cell"):
            RunRecords(folder).histograms("api-burst")
    path.unlink()
    with pytest.raises(InputError, match=r"seed0\.json: expected a file of a run"):
        RunRecords(folder).histograms("api-burst")
    (folder / "episodes.csv").write_text("scenario,policy\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"episodes\.csv: expected a column"):
        _ = RunRecords(folder).episodes
