"""Upper bounds of output lengths, learned from how far earlier predictions were off."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BINS = 10
_MIN_ROWS = 50


def upper_lengths(
    predicted: NDArray[np.int32],
    known_predicted: NDArray[np.int32],
    known: NDArray[np.int32],
    level: float,
) -> NDArray[np.float64]:
    """Lengths that a share ``level`` of the requests do not exceed, float64[n], each >= the prediction.

    The quantile of true over predicted length among the training requests, for each of up to ten bins
    of the predicted length, of at least 50 requests each, times the prediction. Where the requests to come
    are like the training requests, the bound holds for a share ``level`` of them, whatever the predictor.

    Args:
        predicted: int32[n], predictions to bound.
        known_predicted: int32[m], predictions for the training requests, m >= 1.
        known: int32[m], their true lengths.
        level: in (0, 1).
    """
    bins = min(max(len(known) // _MIN_ROWS, 1), _BINS)
    starts = np.unique(np.quantile(known_predicted, np.arange(1, bins) / bins, method="higher"))
    ratio = known / known_predicted
    of_known, of_predicted = (np.searchsorted(starts, p, side="right") for p in (known_predicted, predicted))
    factors = np.ones(len(starts) + 1)
    for k in np.unique(of_known):
        factors[k] = max(np.quantile(ratio[of_known == k], level, method="higher"), 1.0)
    return predicted * factors[of_predicted]
