"""The forecasts of ``tests.drift_noise_floor`` know the past alone, but those that are said to know more."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests import drift_noise_floor as floor

FIRST = floor.measured("validation")[0]
Forecaster = Callable[[np.ndarray], np.ndarray]


def tokens(days: int = 1) -> np.ndarray:
    """Of seven clients, to so many days after ``FIRST``, float64[windows, clients]."""
    count = FIRST + days * floor.DAY
    rng = np.random.default_rng(0)
    return 1e5 * np.exp(np.cumsum(0.05 * rng.standard_normal((count, 7)), axis=0))


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda tokens: floor.each_by_itself(tokens, 2, FIRST),
        lambda tokens: floor.regression(tokens, 2, floor.linear, FIRST),
        lambda tokens: floor.regression(tokens, 2, floor.trees, FIRST),
    ],
    ids=["each", "linear", "trees"],
)
def test_no_look_ahead(make: Forecaster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor, "HORIZON", 2)
    known = tokens()
    # In the middle of a day, so that a fit at its start could have seen too much.
    end = FIRST + floor.DAY // 2
    changed = known.copy()
    changed[end:] *= np.linspace(2.0, 9.0, len(known) - end)[:, None]
    rows = slice(FIRST, end + 1)
    np.testing.assert_array_equal(make(known)[rows], make(changed)[rows])
    assert not np.array_equal(make(known)[rows.stop :], make(changed)[rows.stop :])


def test_who_foresees_all_clients_makes_no_error() -> None:
    known = tokens()
    total = known.sum(axis=1)
    errors = [floor.error(floor.foreseen(known, count, FIRST), total, FIRST) for count in (0, 3, 7)]
    assert errors[0] == pytest.approx(floor.error(floor.last_window(total), total, FIRST))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] == pytest.approx(0.0, abs=1e-6)


def test_regression_finds_a_client_that_returns_to_its_mean() -> None:
    known = tokens(3)
    rng = np.random.default_rng(1)
    known[:, 0] = 1e6 * np.exp(0.3 * rng.standard_normal(len(known)))
    total = known.sum(axis=1)
    without, seen = (
        floor.error(floor.regression(known, count, floor.linear, FIRST), total, FIRST) for count in (0, 1)
    )
    assert seen < 0.9 * floor.error(floor.last_window(total), total, FIRST)
    assert seen < 0.98 * without
