"""Random numbers addressed by index, for noise that belongs to a request or a window.

A generator yields number i only after the i - 1 before it, so dropping a request would shift the
noise of all that follow. Here each number is a hash of (seed, stream, index): any part of a trace, in
any order, gets the numbers that the whole trace gets.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError

# SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)


def normal_at(seed: int, stream: str, index: NDArray[np.integer]) -> NDArray[np.float64]:
    """Independent standard normal numbers, float64 in the shape of ``index``.

    Each is a Box-Muller transform of two SplitMix64 outputs, numbers ``2*index`` and ``2*index + 1``
    of a sequence that starts where seed and stream say.

    Args:
        seed: an integer in [0, 2**63).
        stream: what the noise is for; different names give independent numbers.
        index: integers >= 0.

    Raises:
        InputError: on a seed out of range.
    """
    start = _start(seed, stream)
    pair = np.asarray(index).astype(np.uint64) * np.uint64(2)
    first, second = (_mix(start + (pair + np.uint64(k)) * _GOLDEN_GAMMA) for k in (1, 2))
    radius = np.sqrt(-2.0 * np.log(_unit(first)))
    return radius * np.cos(2.0 * np.pi * _unit(second))


def uniform_at(seed: int, stream: str, index: NDArray[np.integer]) -> NDArray[np.float64]:
    """Independent numbers, uniform in (0, 1), float64 in the shape of ``index``; arguments as ``normal_at``.

    Raises:
        InputError: on a seed out of range.
    """
    place = np.asarray(index).astype(np.uint64) + np.uint64(1)
    return _unit(_mix(_start(seed, stream) + place * _GOLDEN_GAMMA))


def seed_at(seed: int, stream: str, time_s: float) -> int:
    """A seed of its own for every moment, in [0, 2**63); arguments as ``normal_at``.

    Raises:
        InputError: on a seed out of range.
    """
    moment = np.array([time_s + 0.0]).view(np.uint64)  # -0.0 becomes 0.0
    return int(_mix(_start(seed, stream) + moment * _GOLDEN_GAMMA)[0] >> np.uint64(1))


def check_seed(seed: int) -> None:
    """Refuse what is no seed.

    Raises:
        InputError: unless it is an integer in [0, 2**63).
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise InputError(f"seed: expected an integer in [0, 2**63), got {seed!r}")


def _start(seed: int, stream: str) -> NDArray[np.uint64]:
    check_seed(seed)
    return _mix(_mix(np.array([seed], np.uint64)) ^ np.uint64(zlib.crc32(stream.encode())))


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * _MULTIPLIER_1
    bits = (bits ^ (bits >> np.uint64(27))) * _MULTIPLIER_2
    return bits ^ (bits >> np.uint64(31))


def _unit(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Uniform in (0, 1): never 0, whose logarithm is infinite."""
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
