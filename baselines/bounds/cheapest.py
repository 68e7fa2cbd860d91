"""The least bill of a window whose work is cut into blocks, by dynamic programming."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Blocks:
    """The work of a window, cut into blocks of equal length.

    Attributes:
        length_s: of a block.
        arriving_s: work of the requests that arrive in each block, float64[blocks].
        movable_s: of what has arrived by the end of each block, the work that is due after it.
        heaviest_s: work of the requests that arrive in each block, the heaviest first, summed up, block by
            block; ``first[k]`` is where block k begins, which has ``first[k + 1] - first[k]`` of them.
    """

    length_s: float
    arriving_s: FloatArray
    movable_s: FloatArray
    heaviest_s: FloatArray
    first: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Plan:
    """What the adversary would do with a window.

    Attributes:
        cost_s: what it costs.
        instances: that serve in each block, int64[blocks].
        drops: requests dropped.
    """

    cost_s: float
    instances: NDArray[np.int64]
    drops: int


def cheapest(blocks: Blocks, weights: FloatArray, low: int, high: int, price_s: float, levels: int) -> Plan:
    """The plan of least cost.

    Block k with n instances costs ``weights[k] * n`` times its length, the last one another n - 1 times
    it (at least ``low``), and each dropped request ``price_s``. The state is the work left over, as the
    lower end of one of ``levels`` equal parts of what may be left over; a step into a part needs no more
    than to reach its upper end. So no plan costs less, and the one given may be too good to be true.

    Args:
        weights: float64[blocks].
        low, high: bounds of n.
        price_s: of a drop, in instance-seconds.
        levels: the more, the sharper; at most 2**15 - 1.
    """
    cost_s, instances, drops = _cheapest(
        blocks.arriving_s,
        blocks.movable_s,
        blocks.heaviest_s,
        blocks.first,
        blocks.length_s,
        weights,
        low,
        high,
        price_s,
        levels,
    )
    return Plan(cost_s, instances, int(drops))


@njit(cache=True)
def _cheapest(
    arriving_s: FloatArray,
    movable_s: FloatArray,
    heaviest_s: FloatArray,
    first: NDArray[np.int64],
    length_s: float,
    weights: FloatArray,
    low: int,
    high: int,
    price_s: float,
    levels: int,
) -> Any:
    count = len(arriving_s)
    least = np.full(levels, np.inf)
    least[0] = 0.0
    following = np.empty(levels)
    came_from = np.zeros((count, levels), np.int16)
    with_n = np.zeros((count, levels), np.int32)
    with_drops = np.zeros((count, levels), np.int32)
    for k in range(count):
        following[:] = np.inf
        before_s = movable_s[k - 1] if k > 0 else 0.0
        for i in range(levels):
            if least[i] == np.inf or (i > 0 and before_s == 0.0):
                continue
            there_s = arriving_s[k] + before_s * i / levels
            for j in range(levels):
                to_do_s = there_s - movable_s[k] * (j + 1) / levels - _ROUNDING * (1.0 + there_s)
                for n in range(low, high + 1):
                    cost_s = least[i] + weights[k] * n * length_s
                    if k == count - 1:
                        cost_s += max(low, n - 1) * length_s
                    if cost_s >= following[j]:
                        break
                    drops = _drops(heaviest_s, first[k], first[k + 1], to_do_s - n * length_s)
                    if drops >= 0 and cost_s + price_s * drops < following[j]:
                        following[j] = cost_s + price_s * drops
                        came_from[k, j], with_n[k, j], with_drops[k, j] = i, n, drops
                    if drops == 0:
                        break
        least, following = following, least
    instances = np.zeros(count, np.int64)
    total_drops = 0
    state = int(np.argmin(least))
    cost_s = least[state]
    for k in range(count - 1, -1, -1):
        instances[k] = with_n[k, state]
        total_drops += with_drops[k, state]
        state = came_from[k, state]
    return cost_s, instances, total_drops


@njit(cache=True)
def _drops(heaviest_s: FloatArray, first: int, last: int, excess_s: float) -> Any:
    """The fewest requests of a block that hold ``excess_s`` of work; -1 if all hold less."""
    if excess_s <= 0.0:
        return 0
    low, high = first, last
    while low < high:
        middle = (low + high) // 2
        if heaviest_s[middle] < excess_s:
            low = middle + 1
        else:
            high = middle
    return -1 if low == last else low - first + 1
