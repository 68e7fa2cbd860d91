from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.latency_histogram import BINS, Histogram, edges_s, percentiles
from preserve_gym.errors import InputError

A_BIN = 2.0 ** (1 / 64) - 1.0


@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(0, 400), min_size=1, max_size=5),
    q=st.sampled_from([0.0, 1.0, 50.0, 90.0, 99.0, 99.9, 100.0]),
)
def test_percentiles_of_pools_agree_with_numpy(seed: int, sizes: list[int], q: float) -> None:
    rng = np.random.default_rng(seed)
    parts = [np.maximum(np.exp(rng.normal(-1.0, 2.0, n)), 2.0**-14) for n in sizes]
    pooled = sum((Histogram.of(part) for part in parts), start=Histogram.of([]))
    values = np.concatenate(parts)
    assert pooled.total == len(values)
    if len(values) == 0:
        assert np.isnan(pooled.percentile(q))
    else:
        assert pooled.percentile(q) == pytest.approx(np.percentile(values, q), rel=A_BIN)


def test_one_latency_lies_in_the_middle_of_its_bin_and_many_are_spread_over_it() -> None:
    assert Histogram.of([1.0]).percentile(99.0) == pytest.approx(2.0 ** (0.5 / 64))
    values = 2.0 ** (np.arange(1000) / 1000 / 64)
    for q in (10.0, 50.0, 99.0):
        assert Histogram.of(values).percentile(q) == pytest.approx(np.percentile(values, q), rel=2e-5)


def test_sums_pool_exactly() -> None:
    values = np.random.default_rng(0).lognormal(size=1000)
    pooled = Histogram.of(values[:300]) + Histogram.of(values[300:])
    np.testing.assert_array_equal(pooled.counts, Histogram.of(values).counts)


def test_bins_are_where_they_are_said_to_be() -> None:
    edges = edges_s()
    assert (edges[0], edges[64], edges[-1]) == (2.0**-14, 2.0**-13, 2.0**18)
    np.testing.assert_allclose(edges[1:] / edges[:-1], 1.0109, atol=1e-4)
    inside = Histogram.of(np.sqrt(edges[1:] * edges[:-1]))
    np.testing.assert_array_equal(inside.counts, np.ones(BINS))
    powers = np.exp2(np.arange(-14, 18))  # exact, so on the edge of the bin that begins there
    np.testing.assert_array_equal(np.flatnonzero(Histogram.of(powers).counts), 64 * np.arange(32))


def test_shorter_and_longer_ones_are_in_the_outer_bins_and_nan_in_none() -> None:
    histogram = Histogram.of([0.0, 1e-9, 1e9, np.nan])
    assert (histogram.counts[0], histogram.counts[-1], histogram.total) == (2, 1, 3)


def test_survives_json() -> None:
    histogram = Histogram.of([0.1, 0.1, 3.0])
    mapping = json.loads(json.dumps(histogram.to_mapping()))
    np.testing.assert_array_equal(Histogram.from_mapping(mapping).counts, histogram.counts)
    assert mapping["counts"][0] == 2
    assert mapping["counts"][-1] == 1
    empty = Histogram.of([])
    np.testing.assert_array_equal(Histogram.from_mapping(empty.to_mapping()).counts, empty.counts)


def test_cdf() -> None:
    upper_s, share = Histogram.of([0.1, 0.1, 1.0, 10.0]).cdf()
    np.testing.assert_allclose(share, [0.5, 0.75, 1.0])
    np.testing.assert_allclose(upper_s, [0.1, 1.0, 10.0], rtol=0.011)
    assert (upper_s >= [0.1, 1.0, 10.0]).all()


def test_many_at_once_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    counts = np.array([Histogram.of(rng.lognormal(size=n)).counts for n in (0, 1, 2, 500)])
    together = percentiles(counts.reshape(2, 2, BINS), 99.0)
    alone = [Histogram(row).percentile(99.0) for row in counts]
    np.testing.assert_array_equal(together.reshape(-1), alone)


@pytest.mark.parametrize("value", [-1.0, np.inf])
def test_refuses_what_is_no_latency(value: float) -> None:
    with pytest.raises(InputError, match="latency"):
        Histogram.of([1.0, value])


@pytest.mark.parametrize(
    "mapping",
    [
        {},
        {"first": 0},
        {"first": 2047, "counts": [1, 1]},
        {"first": -1, "counts": [1]},
        {"first": 0, "counts": [-1]},
        {"first": "x", "counts": [1]},
        {"first": 0, "counts": [[1]]},
    ],
)
def test_refuses_what_is_no_histogram(mapping: dict[str, object]) -> None:
    with pytest.raises(InputError, match="histogram"):
        Histogram.from_mapping(mapping)


@pytest.mark.parametrize("q", [-1.0, 101.0, np.nan])
def test_refuses_a_percentile_that_is_none(q: float) -> None:
    with pytest.raises(InputError, match="q: expected"):
        Histogram.of([1.0]).percentile(q)
