"""The least bill of a window whose work is cut into blocks, by dynamic programming."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

if TYPE_CHECKING:
    from baselines.bounds.lower import Blocks

FloatArray = NDArray[np.float64]

_LEVELS = 32
"""Steps in which work left over is counted."""
_ROUNDING = 1e-9


def cheapest(blocks: Blocks, low: int, high: int, price_s: float) -> float:
    """The least of instance-seconds billed plus ``price_s`` for each dropped request.

    Block k with n instances costs n times its length, block 0 nothing, the last one as much again for
    n - 1 (see ``lower.lower_bound``). The state is the work left over, as the lower end of one of 32 equal
    parts of what may be left over; a step into a part needs no more than to reach its upper end.

    Args:
        low, high: bounds of n.
        price_s: of a drop, in instance-seconds.
    """
    return float(
        _cheapest(
            blocks.arriving_s,
            blocks.movable_s,
            blocks.heaviest_s,
            blocks.first,
            blocks.length_s,
            low,
            high,
            price_s,
        )
    )


@njit(cache=True)  # type: ignore[untyped-decorator]
def _cheapest(
    arriving_s: FloatArray,
    movable_s: FloatArray,
    heaviest_s: FloatArray,
    first: NDArray[np.int64],
    length_s: float,
    low: int,
    high: int,
    price_s: float,
) -> Any:
    count = len(arriving_s)
    least = np.full(_LEVELS, np.inf)
    least[0] = 0.0
    following = np.empty(_LEVELS)
    for k in range(count):
        following[:] = np.inf
        before_s = movable_s[k - 1] if k > 0 else 0.0
        for i in range(_LEVELS):
            if least[i] == np.inf:
                continue
            there_s = arriving_s[k] + before_s * i / _LEVELS
            for j in range(_LEVELS):
                to_do_s = there_s - movable_s[k] * (j + 1) / _LEVELS - _ROUNDING * (1.0 + there_s)
                for n in range(high if k == 0 else low, high + 1):
                    cost_s = 0.0 if k == 0 else n * length_s
                    if k == count - 1:
                        cost_s += max(low, n - 1) * length_s
                    excess_s = to_do_s - n * length_s
                    drops = _drops(heaviest_s, first[k], first[k + 1], excess_s)
                    total = least[i] + cost_s + price_s * drops
                    following[j] = min(following[j], total)
                    if drops == 0:
                        break
        least, following = following, least
    return least.min()


@njit(cache=True)  # type: ignore[untyped-decorator]
def _drops(heaviest_s: FloatArray, first: int, last: int, excess_s: float) -> Any:
    """The fewest requests of a block that hold ``excess_s`` of work; infinite if all hold less."""
    if excess_s <= 0.0:
        return 0.0
    low, high = first, last
    while low < high:
        middle = (low + high) // 2
        if heaviest_s[middle] < excess_s:
            low = middle + 1
        else:
            high = middle
    return np.inf if low == last else float(low - first + 1)
