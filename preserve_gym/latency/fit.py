"""Fitting a latency law to measured iterations, and how far it lies from others.

The law is fitted to the batches that serving visits (a law fitted to a whole profile grid is far worse end to
end), by least squares of the relative error with non-negative coefficients, for each of some knees. It is
judged on batches that the fit has not seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from preserve_gym.latency.batch import REGIONS, Batch, served_batches
from preserve_gym.latency.iterations import Iterations
from preserve_gym.latency.law import LatencyLaw
from preserve_gym.latency.parts import Operators
from preserve_gym.latency.presets import FitError
from preserve_gym.latency.tables import FloatArray

KNEES = (0, 32, 64, 96, 128, 160, 192, 256, 320, 384, 448, 512, 768)
FIT_SEED, CHECK_SEED = 0, 1
BATCHES = 2000
FOLDS = 5
_LEAST_BASE_S = 1e-6
"""A law wants some time for any iteration; so little does not show."""
_UNSEEN_WEIGHT = 0.02
"""Share of a measured row's mean weight that it keeps if serving never comes near it."""


@dataclass(frozen=True)
class Limits:
    """Limits of an instance, which decide what batches it visits."""

    kv_tokens: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int

    def visited(self, seed: int, count: int = BATCHES) -> list[Batch]:
        """Batches that such an instance visits."""
        return served_batches(
            seed,
            kv_tokens=self.kv_tokens,
            max_num_seqs=self.max_num_seqs,
            budget=self.max_num_batched_tokens,
            max_model_len=self.max_model_len,
            count=count,
        )


@dataclass(frozen=True)
class Fit:
    """A law, how far it lies from the profile, and the batches that say so.

    ``checked`` has one row per batch that the fit of its prediction has not seen: ``region``, ``tokens``,
    ``context``, ``quad``, ``weight``, ``measured_s``, ``predicted_s``.
    """

    law: LatencyLaw
    error: FitError
    checked: pd.DataFrame


def fit(profile: Operators | Iterations, limits: Limits) -> Fit:
    """Fit a law to what an instance of these limits visits.

    With operators, the law is fitted to 2,000 such batches and checked on 2,000 others. With whole
    iterations it is fitted to the measured rows, each weighted by how many of 2,000 such batches lie nearest
    to it, and checked by cross-validation: each fifth is predicted by a law of the others.
    """
    if isinstance(profile, Operators):
        fitted, checked = (_timed(profile, limits.visited(seed)) for seed in (FIT_SEED, CHECK_SEED))
        law = fit_law(*fitted)
        table = compared(law, *checked)
    else:
        weights = _nearness(profile.batches, limits.visited(FIT_SEED))
        law = fit_law(profile.batches, profile.seconds, weights)
        folds = [
            compared(
                fit_law(*_rows(profile, weights, ~fold)),
                *_rows(profile, weights, fold),
            )
            for fold in _folds(len(profile.batches))
        ]
        table = pd.concat(folds, ignore_index=True)
    return Fit(law, errors(table), table)


def _timed(profile: Operators, batches: list[Batch]) -> tuple[list[Batch], FloatArray, FloatArray]:
    seconds = np.array([profile.iteration_s(batch) for batch in batches])
    return batches, seconds, np.ones(len(batches))


def _folds(n: int) -> Iterator[np.ndarray]:
    order = np.random.default_rng(FIT_SEED).permutation(n) % FOLDS
    for fold in range(FOLDS):
        yield order == fold


def _rows(
    profile: Iterations, weights: FloatArray, which: np.ndarray
) -> tuple[list[Batch], FloatArray, FloatArray]:
    batches = [batch for batch, wanted in zip(profile.batches, which, strict=True) if wanted]
    return batches, profile.seconds[which], weights[which]


def _nearness(measured: list[Batch], visited: list[Batch]) -> FloatArray:
    """Of each measured batch, how many of the visited ones are nearest to it; never nothing."""

    def place(batch: Batch) -> list[float]:
        decodes = len(batch.contexts)
        prefill = sum(n for n, _ in batch.chunks)
        values = (decodes, batch.context / max(decodes, 1), prefill, batch.quad / max(prefill, 1))
        return [float(np.log1p(value)) for value in values]

    places = np.array([place(batch) for batch in measured])
    counts = np.zeros(len(measured))
    for batch in visited:
        distance = np.square(places - place(batch)).sum(axis=1)
        nearest = distance <= distance.min() + 1e-12
        counts[nearest] += 1 / nearest.sum()
    weights = counts + _UNSEEN_WEIGHT * counts.mean()
    return weights / weights.mean()


def fit_law(batches: list[Batch], seconds: FloatArray, weights: FloatArray) -> LatencyLaw:
    """The law of least weighted squared relative error with non-negative coefficients.

    Args:
        batches: iterations.
        seconds: how long each takes, float64 of shape (n,).
        weights: of each, float64 of shape (n,).
    """
    from scipy.optimize import nnls

    tokens = np.array([batch.tokens for batch in batches], dtype=float)
    context = np.array([batch.context for batch in batches], dtype=float)
    quad = np.array([batch.quad for batch in batches])
    root = np.sqrt(weights)
    best, best_error, best_knee = np.zeros(6), np.inf, 0
    for knee in KNEES:
        beyond = np.maximum(tokens - knee, 0.0) if knee else np.zeros_like(tokens)
        columns = np.stack(
            [np.ones_like(tokens), tokens, context, quad, beyond, np.where(quad > 0, context, 0.0)]
        ).T
        rows = columns * (root / seconds)[:, None]
        scale = np.maximum(rows.max(axis=0), 1e-300)
        solution, error = nnls(rows / scale, root)
        if error < best_error - 1e-9:  # not for the sake of rounding
            best, best_error, best_knee = solution / scale, float(error), knee
    base, per_token, per_context, per_quad, per_beyond, per_mixed = (float(f"{x:.4g}") for x in best)
    return LatencyLaw(
        base_s=max(base, _LEAST_BASE_S),
        per_token_s=per_token,
        per_context_token_s=per_context,
        per_quad_s=per_quad,
        knee_tokens=best_knee if per_beyond else 0,
        per_token_beyond_knee_s=per_beyond,
        per_mixed_context_token_s=per_mixed,
    )


def compared(
    law: LatencyLaw, batches: list[Batch], seconds: FloatArray, weights: FloatArray | None = None
) -> pd.DataFrame:
    """Measured and predicted times, as ``Fit.checked``; without weights each batch has the same."""
    table = pd.DataFrame(
        {
            "region": [batch.region for batch in batches],
            "tokens": [batch.tokens for batch in batches],
            "context": [batch.context for batch in batches],
            "quad": [batch.quad for batch in batches],
            "weight": np.ones(len(batches)) if weights is None else weights,
            "measured_s": seconds,
        }
    )
    table["predicted_s"] = [law.iteration_s(batch.tokens, batch.context, batch.quad) for batch in batches]
    return table


def errors(checked: pd.DataFrame) -> FitError:
    """Relative errors in percent, to one decimal, of a table as ``Fit.checked``."""
    percent = 100 * (checked["predicted_s"] / checked["measured_s"] - 1).abs().to_numpy(float)
    weight = checked["weight"].to_numpy(float)
    region = checked["region"].to_numpy()

    def mean(rows: np.ndarray) -> float:
        return (
            round(float(np.average(percent[rows], weights=weight[rows])), 1) if rows.any() else float("nan")
        )

    order = np.argsort(percent)
    share = np.cumsum(weight[order]) / weight.sum()
    p95 = percent[order][min(int(np.searchsorted(share, 0.95)), len(order) - 1)]
    decode_only, prefill_only, mixed = (mean(region == name) for name in REGIONS)
    return FitError(
        overall=mean(np.ones(len(percent), dtype=bool)),
        decode_only=decode_only,
        prefill_only=prefill_only,
        mixed=mixed,
        p95=round(float(p95), 1),
    )
