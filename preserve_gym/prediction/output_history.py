"""Lengths of earlier answers to requests alike, as a gateway knows them when a request arrives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RECENT = (10, 1000)
"""Over how many of the latest known answers their means are taken."""

# Sums of integers are exact, so that no later request can change the rounding of an earlier mean.
_UNIT = 1e-6


class OutputHistory:
    """Means of the logarithm of the known output lengths in the group of each request.

    The length of an answer counts as known to requests that arrive more than ``known_after_s`` later.

    Args:
        arrival_s: float64[n], never decreasing.
        output_tokens: int32[n], true lengths.
        group: int64[n]; requests of one number are alike, and those of negative ones have no history.
        known_after_s: seconds.
    """

    COLUMNS = len(RECENT) + 1

    def __init__(
        self,
        arrival_s: NDArray[np.float64],
        output_tokens: NDArray[np.int32],
        group: NDArray[np.int64],
        known_after_s: float,
    ) -> None:
        count = len(arrival_s)
        _, numbered = np.unique(group, return_inverse=True)
        order = np.argsort(numbered, kind="stable")
        self._arrival_s, self._known_after_s = arrival_s, known_after_s
        self._group = np.where(group < 0, -1, numbered)
        # Places of (group, row) in order; those of the known answers of a group are a stretch of it.
        self._keys = numbered[order] * count + order
        logs = np.rint(np.log(output_tokens[order]) / _UNIT).astype(np.int64)
        self._sums = np.concatenate(([0], np.cumsum(logs)))

    def features(self, rows: slice) -> NDArray[np.float32]:
        """What is known of the groups of some requests when they arrive.

        Returns:
            float32[k, 3]: mean log output tokens of the last ``RECENT`` known answers of the group, -1 if
            there is none, and how many they are at most.
        """
        group = self._group[rows].astype(np.int64)
        known_rows = np.searchsorted(self._arrival_s, self._arrival_s[rows] - self._known_after_s)
        count = len(self._arrival_s)
        first = np.searchsorted(self._keys, group * count)
        end = np.searchsorted(self._keys, group * count + known_rows)
        known = np.where(group < 0, 0, end - first)
        # Not NaN: scikit-learn refuses a column of nothing else.
        features = np.full((len(group), self.COLUMNS), -1.0, np.float32)
        for column, most in enumerate(RECENT):
            taken = np.minimum(known, most)
            some = taken > 0
            sums = self._sums[end[some]] - self._sums[end[some] - taken[some]]
            features[some, column] = sums * _UNIT / taken[some]
        # Not the count itself: it is a clock, and goes beyond all that a model was trained on.
        features[:, -1] = np.minimum(known, max(RECENT))
        return features
