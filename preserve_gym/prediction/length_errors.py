"""Errors of a real predictor of output lengths, as quantiles, by true length.

Fitted by ``tests/fit_length_errors.py`` to the 40,000 predictions of ``sharegpt-predicted``, whose source
does not say what made them. They are good for most answers and far off for a few: 82 % are within 25 %,
and answers under about 30 tokens are mostly taken to be shorter still.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ERROR_LEVELS = (0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.995, 1.0)
"""Shares of requests with a smaller error."""

BIN_ENDS = (10, 15, 28, 40, 72, 104, 164, 227, 282, 338, 403, 498, 680, 919)
"""Longest true length of each bin, tokens; the last bin has no end."""

# fmt: off
LOG_ERRORS = (
    (-2.3, -2.3, -2.3, -2.3, -2.3, -2.3, -2.3, -1.95, -1.79, -1.39, -1.1, 0.16, 3.73, 4.64, 5.65),
    (-2.71, -2.71, -2.71, -2.71, -2.71, -2.64, -2.56, -2.48, -2.4, -2.4, -0.88, -0.25, 2.3, 3.36, 3.53),
    (-3.3, -3.18, -3.0, -2.89, -2.77, -1.77, -1.3, -1.06, -0.86, -0.69, -0.31, 0.82, 2.37, 3.21, 3.96),
    (-3.69, -3.66, -3.56, -1.55, -0.83, -0.66, -0.57, -0.49, -0.42, -0.34, 0.03, 1.16, 2.31, 2.64, 2.94),
    (-4.25, -3.87, -0.98, -0.46, -0.37, -0.3, -0.26, -0.21, -0.17, -0.14, -0.08, 0.92, 1.67, 2.21, 2.75),
    (-4.57, -1.15, -0.27, -0.16, -0.13, -0.11, -0.08, -0.07, -0.05, -0.04, 0.1, 0.9, 1.41, 1.8, 2.18),
    (-4.98, -0.95, -0.2, -0.06, -0.04, -0.03, -0.02, -0.01, 0.01, 0.02, 0.04, 0.62, 1.05, 1.38, 1.75),
    (-5.31, -1.45, -0.37, -0.02, 0.0, 0.01, 0.02, 0.03, 0.03, 0.04, 0.05, 0.3, 0.7, 0.95, 1.38),
    (-2.87, -1.15, -0.51, 0.0, 0.03, 0.03, 0.04, 0.04, 0.05, 0.05, 0.06, 0.23, 0.48, 0.92, 1.27),
    (-5.79, -1.17, -0.45, -0.01, 0.03, 0.04, 0.05, 0.05, 0.05, 0.06, 0.06, 0.13, 0.33, 0.68, 1.23),
    (-2.49, -1.0, -0.36, -0.1, 0.03, 0.04, 0.05, 0.05, 0.05, 0.06, 0.06, 0.08, 0.25, 0.47, 0.96),
    (-6.18, -1.47, -0.43, -0.13, 0.03, 0.04, 0.04, 0.05, 0.05, 0.05, 0.06, 0.06, 0.26, 0.62, 0.8),
    (-4.28, -1.35, -0.62, -0.3, 0.01, 0.02, 0.02, 0.03, 0.03, 0.04, 0.04, 0.05, 0.12, 0.35, 0.7),
    (-3.88, -1.3, -0.76, -0.47, -0.01, 0.0, 0.01, 0.01, 0.01, 0.01, 0.02, 0.02, 0.03, 0.09, 0.29),
    (-3.72, -1.97, -1.13, -0.77, -0.22, -0.06, -0.01, 0.01, 0.01, 0.02, 0.03, 0.04, 0.04, 0.05, 0.08),
)
# fmt: on
"""For each bin, log(predicted / true) at ``ERROR_LEVELS``."""


def log_error(output_tokens: NDArray[np.int32], level: NDArray[np.float64]) -> NDArray[np.float64]:
    """The error at a level of its distribution, float64[n].

    Args:
        output_tokens: true lengths, int32[n].
        level: float64[n] in [0, 1]; uniform numbers draw from the distribution.
    """
    bin_of = np.searchsorted(BIN_ENDS, output_tokens)
    error = np.empty(len(output_tokens))
    for k, quantiles in enumerate(LOG_ERRORS):
        chosen = bin_of == k
        error[chosen] = np.interp(level[chosen], ERROR_LEVELS, quantiles)
    return error
