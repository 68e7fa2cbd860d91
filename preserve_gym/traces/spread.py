"""Arrivals inside coarse time stamps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def spread_stamps(
    stamp_s: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Spread requests that share a stamp over the time until the next one, in their order.

    Each is placed uniformly at random between its stamp and the next, at most the median gap away: a
    recorder that stamps in batches does so regularly, and a longer gap is silence. The last stamp has
    the median gap. A request that is alone at its stamp stays there.

    Args:
        stamp_s: float64[n], seconds, never falling.

    Returns:
        Arrivals, float64[n], never falling, and which of them were spread, bool[n].
    """
    stamps, place, count = np.unique(stamp_s, return_inverse=True, return_counts=True)
    spread = (count > 1)[place]
    if len(stamps) < 2:
        return stamp_s, np.zeros(len(stamp_s), np.bool_)
    gap_s = np.diff(stamps)
    median_s = np.median(gap_s)
    end_s = stamps + np.append(np.minimum(gap_s, median_s), median_s)
    share = rng.random(len(stamp_s))
    share = share[np.lexsort((share, place))]  # rising inside each stamp
    arrival_s = stamp_s + share * (end_s - stamps)[place]
    arrival_s = np.minimum(arrival_s, np.nextafter(end_s, 0.0)[place])
    return np.where(spread, arrival_s, stamp_s), spread
