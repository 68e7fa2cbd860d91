from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from experiments.exchangeable_runs import (
    bootstrap_interval,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)
from experiments.latency_histogram import Histogram, percentiles
from experiments.statistics import Estimate, FloatArray, change, interval, miss_statistic, share
from preserve_gym.errors import InputError

EXPERIMENTS = 2000


def _effects(rng: np.random.Generator, seeds: int, days: FloatArray) -> FloatArray:
    """Effects of seeds, days and cells, one unit each, shape (seeds, days, experiments)."""
    seed = rng.normal(size=(seeds, 1, EXPERIMENTS))
    return seed + days + rng.normal(size=(seeds, days.shape[1], EXPERIMENTS))


def _covered(bounds: tuple[FloatArray, FloatArray], truth: float) -> float:
    low, high = bounds
    return float(np.mean((low <= truth) & (truth <= high)))


def _same_days(n: int) -> FloatArray:
    return np.linspace(-1.0, 1.0, n)[None, :, None]


@pytest.mark.parametrize(("seeds", "days"), [(2, 2), (4, 2), (8, 2), (8, 7)])
def test_nineteen_of_twenty_intervals_of_costs_hold_the_truth(seeds: int, days: int) -> None:
    effects = _effects(np.random.default_rng(0), seeds, _same_days(days))
    costs = 100.0 * np.exp(0.05 * effects)
    truth = 100.0 * np.exp(0.05**2) * np.exp(0.05 * _same_days(days)).mean()
    estimate = Estimate.of(costs, lambda totals: totals / (seeds * days))
    assert 0.935 <= _covered(estimate.over_seeds(), truth) <= 0.97


@pytest.mark.parametrize(("seeds", "days"), [(2, 2), (4, 2), (8, 2), (8, 7)])
def test_intervals_of_attainment_hold_the_truth_nearly_as_often(seeds: int, days: int) -> None:
    rng = np.random.default_rng(0)
    missed = 0.005 * np.exp(0.6 * _effects(rng, seeds, _same_days(days)))
    arrived = np.full(missed.shape, 100_000)
    cells = np.stack([rng.binomial(arrived, np.minimum(missed, 1.0)), arrived], axis=-1).astype(float)
    truth = np.log(0.005 * np.exp(0.6**2) * np.exp(0.6 * _same_days(days)).mean())
    assert 0.90 <= _covered(Estimate.of(cells, miss_statistic).over_seeds(), truth) <= 0.97


@pytest.mark.parametrize(("seeds", "days"), [(1, 2), (2, 2), (8, 2), (8, 7)])
def test_intervals_over_days_hold_the_truth_of_all_days(seeds: int, days: int) -> None:
    rng = np.random.default_rng(1)
    costs = 100.0 + _effects(rng, seeds, rng.normal(size=(1, days, EXPERIMENTS)))
    estimate = Estimate.of(costs, lambda totals: totals / (seeds * days))
    # Of one seed, its own effect is on all days alike and cannot be seen in them.
    assert _covered(estimate.over_days(), 100.0) >= (0.80 if seeds == 1 else 0.90)


def test_intervals_of_tail_latencies_hold_the_truth() -> None:
    rng = np.random.default_rng(2)
    seeds, days, experiments, requests, spread = 8, 2, 200, 400, 0.1
    shift = spread * rng.normal(size=(seeds, 1, experiments, 1))
    logs = shift + rng.normal(size=(seeds, days, experiments, requests))
    bins = np.array([Histogram.of(v).counts for v in np.exp(logs).reshape(-1, requests)], np.float64)
    cells = bins.reshape(seeds, days, experiments, -1)
    truth = float(stats.norm.ppf(0.99) * np.sqrt(1.0 + spread**2))
    estimate = Estimate.of(cells, lambda totals: np.log(percentiles(totals, 99.0)))
    assert 0.88 <= _covered(estimate.over_seeds(), truth) <= 0.98


def test_of_means_the_jackknife_is_students_t() -> None:
    values = np.random.default_rng(0).normal(size=(6, 3))
    estimate = Estimate.of(values[:, :, None], lambda totals: totals / 18)
    low, high = estimate.over_seeds()
    assert (estimate.value[0], low[0], high[0]) == pytest.approx(interval(values.mean(axis=1)))


def test_nothing_is_said_of_chance_where_it_cannot_be_seen() -> None:
    one_seed = Estimate.of(np.ones((1, 2, 1)), lambda totals: totals)
    one_day = Estimate.of(np.ones((2, 1, 1)), lambda totals: totals)
    assert np.isnan(one_seed.over_seeds()).all()
    assert np.isnan(one_day.over_days()).all()
    assert one_seed.over_days() == (2.0, 2.0)
    assert one_day.over_seeds() == (2.0, 2.0)


def test_totals_of_a_part_are_scaled_up_to_all() -> None:
    seen: list[float] = []

    def statistic(totals: FloatArray) -> FloatArray:
        seen.append(float(totals[0]))
        return totals

    Estimate.of(np.full((4, 3, 1), 2.0), statistic)
    assert seen == pytest.approx([24.0] * 8)


def test_change_and_share() -> None:
    ratios = np.log([1.1, 1.2, 1.15])
    middle, low, high = change(ratios)
    assert middle == pytest.approx(100.0 * (np.exp(ratios.mean()) - 1.0))
    assert low < middle < high
    assert share(np.array([1.0, 2.0]), np.array([2.0, 4.0])) == pytest.approx((50.0, 50.0, 50.0))


def test_interquartile_mean_leaves_out_the_outer_quarters() -> None:
    assert interquartile_mean(np.array([[-100.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 1000.0]])) == 3.5


def test_performance_profile() -> None:
    profile = performance_profile(np.array([[0.1, 0.5], [0.9, 0.5]]), np.array([0.0, 0.5, 0.8, 1.0]))
    assert profile.tolist() == [1.0, 0.25, 0.25, 0.0]


def test_probability_of_improvement() -> None:
    scores, others = np.array([[1.0, 0.0], [3.0, 0.0]]), np.array([[2.0, 0.0]])
    assert probability_of_improvement(scores, others) == pytest.approx((0.5 + 0.5) / 2)
    rng = np.random.default_rng(0)
    better = probability_of_improvement(rng.normal(1.0, 1.0, (400, 2)), rng.normal(0.0, 1.0, (400, 2)))
    assert better == pytest.approx(stats.norm.cdf(1.0 / np.sqrt(2.0)), abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("statistic", [np.mean, interquartile_mean])
def test_bootstrap_intervals_of_exchangeable_runs(statistic: Callable[[FloatArray], float]) -> None:
    rng = np.random.default_rng(0)
    held = 0
    for k in range(200):
        low, high = bootstrap_interval(statistic, rng.normal(size=(20, 3)), resamples=200, seed=k)
        held += low <= 0.0 <= high
    assert 0.88 <= held / 200 <= 0.98


@pytest.mark.parametrize("scores", [np.zeros(3), np.zeros((0, 2)), np.array([[np.nan]])])
def test_refuses_what_are_no_scores(scores: FloatArray) -> None:
    with pytest.raises(InputError, match="scores: expected"):
        interquartile_mean(scores)


def test_refuses_scores_of_different_tasks() -> None:
    with pytest.raises(InputError, match="others: expected scores of 2 tasks, got 3"):
        probability_of_improvement(np.zeros((2, 2)), np.zeros((2, 3)))
