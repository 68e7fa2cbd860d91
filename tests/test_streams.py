from __future__ import annotations

import numpy as np
import pytest

from preserve_gym.errors import InputError
from preserve_gym.streams import normal_at, seed_at, uniform_at

INDEX = np.arange(200_000)


def test_any_part_gets_the_numbers_of_the_whole() -> None:
    whole = normal_at(5, "a", INDEX)
    chosen = np.array([[7, 199_999], [0, 7]])
    np.testing.assert_array_equal(normal_at(5, "a", chosen), whole[chosen])
    assert normal_at(5, "a", INDEX[:0]).shape == (0,)


def test_numbers_are_standard_normal() -> None:
    z = normal_at(0, "a", INDEX)
    assert abs(z.mean()) < 0.01
    assert z.std() == pytest.approx(1.0, abs=0.01)
    levels = [0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999]
    expected = [-3.0902, -2.3263, -1.2816, -0.6745, 0.0, 0.6745, 1.2816, 2.3263, 3.0902]
    np.testing.assert_allclose(np.quantile(z, levels), expected, atol=0.05)


def test_neighbours_seeds_and_streams_are_independent() -> None:
    z = normal_at(0, "a", INDEX)
    others = [np.roll(z, 1), normal_at(1, "a", INDEX), normal_at(2**62, "a", INDEX), normal_at(0, "b", INDEX)]
    for other in others:
        assert abs(np.corrcoef(z, other)[0, 1]) < 0.01


def test_large_indices_and_seeds() -> None:
    z = normal_at(2**63 - 1, "a", np.array([0, 2**62]))
    assert np.isfinite(z).all()
    assert z[0] != z[1]


def test_the_numbers_themselves() -> None:
    """A change here changes every prediction and noisy forecast."""
    np.testing.assert_allclose(
        normal_at(42, "test", np.arange(3)),
        [-0.4381019200476274, 1.1293129137073163, -1.4944793327837578],
        rtol=1e-12,
    )


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, "1", None, True])
def test_a_seed_is_an_integer(seed: int) -> None:
    with pytest.raises(InputError, match="seed: expected an integer"):
        normal_at(seed, "a", INDEX)


def test_uniform_numbers() -> None:
    u = uniform_at(3, "a", INDEX)
    assert 0.0 < u.min() < u.max() < 1.0
    np.testing.assert_allclose(np.quantile(u, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.005)
    chosen = np.array([199_999, 0, 7])
    np.testing.assert_array_equal(uniform_at(3, "a", chosen), u[chosen])
    for other in (
        np.roll(u, 1),
        uniform_at(4, "a", INDEX),
        uniform_at(3, "b", INDEX),
        normal_at(3, "a", INDEX),
    ):
        assert abs(np.corrcoef(u, other)[0, 1]) < 0.01
    with pytest.raises(InputError, match="seed: expected"):
        uniform_at(-1, "a", INDEX)


def test_every_moment_has_a_seed_of_its_own() -> None:
    moments = np.concatenate([np.arange(20_000.0), np.arange(20_000) / 7.0 + 1e5])
    seeds = [seed_at(3, "a", time_s) for time_s in moments]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 0
    assert max(seeds) < 2**63
    assert seed_at(3, "a", -0.0) == seed_at(3, "a", 0.0) == seeds[0]
    assert len({seed_at(3, "a", 1.0), seed_at(4, "a", 1.0), seed_at(3, "b", 1.0)}) == 3
