"""Histograms of times: bins, quantiles, differences, classes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from preserve_gym import Cluster, ClusterConfig, InputError, Trace
from preserve_gym.sim import Histogram
from preserve_gym.sim.histograms import bin_edges, bin_of


def histogram_of(values: np.ndarray) -> Histogram:
    counts = np.histogram(values, bins=bin_edges())[0]
    return Histogram(counts.astype(np.int64))


def served(n: int = 3000, seed: int = 0) -> Cluster:
    rng = np.random.default_rng(seed)
    trace = Trace(
        np.cumsum(rng.exponential(0.2, n)),
        rng.integers(1, 2000, n),
        rng.integers(1, 400, n),
        rng.choice([4, 9], n, p=[0.8, 0.2]),
    )
    return Cluster(ClusterConfig(), trace, initial_instances=4)


def test_bins_are_those_between_the_edges() -> None:
    edges = bin_edges()
    assert len(edges) == 2051
    assert (np.diff(edges) > 0).all()
    inner = edges[1:-1]
    assert inner[0] == 2.0**-14
    assert inner[-1] == 2.0**18
    assert (np.diff(inner) / inner[:-1]).max() == pytest.approx(1 / 64)
    for k in (0, 1, 700, 2048):
        assert bin_of.py_func(float(edges[k])) == k
        assert bin_of.py_func(math.nextafter(edges[k + 1], 0.0)) == k
    assert bin_of.py_func(1e300) == 2049


def test_quantiles_are_within_a_bin_of_the_true_ones() -> None:
    values = np.random.default_rng(1).lognormal(-3.0, 1.5, 100_000)
    histogram = histogram_of(values)
    assert histogram.total == 100_000
    for q in (0.01, 0.5, 0.9, 0.99, 0.999):
        assert histogram.quantile(q) == pytest.approx(np.quantile(values, q), rel=1 / 64)
    assert histogram.quantile(0.0) <= values.min() * (1 + 1 / 64)
    assert histogram.quantile(1.0) == pytest.approx(values.max(), rel=1 / 64)


def test_a_histogram_of_nothing_has_no_quantile() -> None:
    nothing = histogram_of(np.zeros(0))
    assert math.isnan(nothing.quantile(0.5))
    with pytest.raises(InputError, match=r"q: expected a number in \[0, 1\], got 1.5"):
        nothing.quantile(1.5)


def test_times_beyond_the_last_bin_are_at_least_its_edge() -> None:
    assert histogram_of(np.array([1e9, 2e9])).quantile(0.5) == 2.0**18


def test_they_agree_with_the_results() -> None:
    cluster = served()
    cluster.settle()
    results = cluster.results()
    figures = {
        "ttft_s": results["first_token_s"] - results["arrival_s"],
        "e2e_s": results["completed_s"] - results["arrival_s"],
        "normalized_latency_s": (results["completed_s"] - results["arrival_s"]) / results["output_tokens"],
        "tpot_s": ((results["completed_s"] - results["first_token_s"]) / (results["output_tokens"] - 1))[
            results["output_tokens"] > 1
        ],
    }
    for metric, values in figures.items():
        for request_class in (None, 4, 9):
            chosen = values
            if request_class is not None:
                chosen = values[results["request_class"] == request_class]
            expected = histogram_of(chosen.to_numpy())
            np.testing.assert_array_equal(cluster.histogram(metric, request_class).counts, expected.counts)
    # Each token but the first of each request follows another.
    assert cluster.histogram("itl_s").total == results["output_tokens"].sum() - len(results)


def test_a_difference_is_the_histogram_of_what_lies_between() -> None:
    cluster = served()
    cluster.run_until(200.0)
    before, completed = cluster.histogram("e2e_s"), cluster.totals()["completed"]
    cluster.run_until(400.0)
    between = cluster.histogram("e2e_s") - before
    results = cluster.results()
    done = results["completed_s"].between(200.0, 400.0, inclusive="right")
    assert between.total == cluster.totals()["completed"] - completed == done.sum() > 0
    expected = histogram_of((results["completed_s"] - results["arrival_s"])[done].to_numpy())
    np.testing.assert_array_equal(between.counts, expected.counts)


def test_totals_of_classes_are_those_of_their_requests() -> None:
    cluster = served()
    cluster.settle()
    totals, results = cluster.class_totals(), cluster.results()
    by_class = results.groupby("request_class")
    assert totals.index.tolist() == [4, 9]
    assert totals["arrived"].tolist() == by_class.size().tolist()
    assert totals["output_tokens"].tolist() == by_class["output_tokens"].sum().tolist()
    assert totals["violations"].tolist() == by_class["violated_s"].count().tolist()
    assert (totals["compliant"] + totals["violations"] == totals["arrived"]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("latency_s",), "metric: expected one of ttft_s, tpot_s"),
        (("itl_s", 4), "metric: expected one of ttft_s, tpot_s"),
        (("ttft_s", 5), "request_class: expected one of 4, 9, got 5"),
    ],
)
def test_what_is_not_counted_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError) as error:
        served(10).histogram(*arguments)
    assert str(error.value).startswith(message)


def test_more_classes_than_there_is_room_for_are_refused() -> None:
    n = 300
    trace = Trace(np.arange(n), np.ones(n), np.ones(n), np.arange(n))
    with pytest.raises(InputError, match="expected at most 256 request classes, got 300"):
        Cluster(ClusterConfig(), trace)
