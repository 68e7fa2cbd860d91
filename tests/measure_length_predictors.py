"""Measures how good each length predictor is, as the docs record it.

Run as ``python -m tests.measure_length_predictors [TRACE ...]`` with the data folder in
``PRESERVE_GYM_DATA``: prints the tables of docs/length-predictors.md. The first 60 % of the requests are
learned from, the others are predicted. ``constant`` says the median and the 90 % quantile of the former.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from preserve_gym.prediction import (
    FOR_ANY_TRACE,
    LengthPrediction,
    length_accuracy,
    predict_length_bounds,
    predict_lengths,
)
from preserve_gym.traces import Trace, load_trace

TRACES = {
    "azure-2023-conv": 1.0,
    "mooncake-conversation": 1.0,
    "sharegpt-poisson": 1.0,
    "servegen-m-large-from-windows": 0.02,
}
TRAINED_SHARE = 0.6
LEVEL = 0.9


def rows_of(name: str) -> list[list[str]]:
    """One row a predictor: its name, six measures on the test requests, seconds for the predictions."""
    trace = load_trace(name, 0, TRACES[name])
    trained = int(TRAINED_SHARE * len(trace))
    return [row_of(predictor, trace, trained) for predictor in ("constant", *FOR_ANY_TRACE)]


def row_of(predictor: str, trace: Trace, trained: int) -> list[str]:
    train, test = slice(0, trained), slice(trained, None)
    true = trace.output_tokens
    start_s = time.perf_counter()
    if predictor == "constant":
        known = np.quantile(true[train], [0.5, LEVEL])
        tokens, upper = (np.full(len(true), round(value), np.int32) for value in known)
        seconds = 0.0
    else:
        predict_lengths(predictor, trace, train=train)
        seconds = time.perf_counter() - start_s
        bounds = predict_length_bounds(predictor, trace, train=train, level=LEVEL)
        tokens, upper = bounds.tokens, bounds.upper_tokens
    accuracy = length_accuracy(true[test], LengthPrediction(tokens[test], upper[test]))
    return [
        f"`{predictor}`" if predictor != "constant" else predictor,
        f"{accuracy.mae:.1f}",
        f"{accuracy.bias:+.1f}",
        *(f"{100 * share:.1f}" for share in (accuracy.acc_50, accuracy.acc_100)),
        f"{accuracy.kendall_tau:.2f}",
        f"{100 * accuracy.coverage:.1f}",
        f"{seconds:.1f}",
    ]


if __name__ == "__main__":
    for trace_name in sys.argv[1:] or TRACES:
        print(f"\n{trace_name}\n")
        for row in rows_of(trace_name):
            print(f"| {' | '.join(row)} |", flush=True)
