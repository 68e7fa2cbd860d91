"""Fits the errors in ``preserve_gym/prediction/length_errors.py`` to a real predictor's.

Run as ``python -m tests.fit_length_errors`` with the data folder in ``PRESERVE_GYM_DATA``: prints the
figures of the module.

Method. The 40,000 pairs of true and predicted lengths of ``sharegpt-predicted`` are sorted into bins of
true length, which end at its quantiles at ``SHARES``: finer where answers are short, as the error changes
there. In each bin the quantiles of log(predicted / true) at ``ERROR_LEVELS``.
"""

from __future__ import annotations

import numpy as np

from preserve_gym.prediction.length_errors import ERROR_LEVELS
from preserve_gym.traces import Lengths, dataset_path, read_lengths

SHARES = (0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97)


def fit(lengths: Lengths) -> tuple[tuple[int, ...], tuple[tuple[float, ...], ...]]:
    """Longest true length of each bin but the last, and the quantiles of each bin."""
    true = lengths.output_tokens
    assert lengths.predicted_tokens is not None
    error = np.log(lengths.predicted_tokens / true)
    ends = np.unique(np.quantile(true, SHARES, method="lower"))
    bin_of = np.searchsorted(ends, true)
    # Adding zero makes 0.0 of -0.0.
    rows = tuple(
        tuple(round(float(q), 2) + 0.0 for q in np.quantile(error[bin_of == k], ERROR_LEVELS))
        for k in range(len(ends) + 1)
    )
    return tuple(int(end) for end in ends), rows


if __name__ == "__main__":
    bin_ends, log_errors = fit(read_lengths(dataset_path("sharegpt-predicted")))
    print(f"BIN_ENDS = {bin_ends}\nLOG_ERRORS = (")
    for row in log_errors:
        print(f"    {row},")
    print(")")
