"""The median of several forecasters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from preserve_gym.forecasting.forecaster import FloatArray, Forecaster, Prediction


class Ensemble:
    """The median of forecasters, and of their quantiles where they have them.

    Each member keeps its own policy of fitting.

    Args:
        members: forecasters, all of which are fitted again from time to time.
    """

    name = "ensemble"

    def __init__(self, members: Sequence[Forecaster]) -> None:
        self._members = members
        self._every = [member.refit_windows or 1 for member in members]
        self.min_history = max(member.min_history for member in members)
        self.refit_windows: int | None = min(self._every)
        self._fitted = [-1] * len(members)

    def fit(self, history: FloatArray, first_window: int, window_s: float, clock_s: float) -> None:
        """Fit the members that are due."""
        for k, (member, every) in enumerate(zip(self._members, self._every, strict=True)):
            due = len(history) // every
            if due != self._fitted[k]:
                self._fitted[k] = due
                member.fit(history, first_window, window_s, clock_s)

    def predict(self, history: FloatArray, horizon: int, levels: tuple[float, ...] = ()) -> Prediction:
        """The medians."""
        made = [member.predict(history, horizon, levels) for member in self._members]
        quantiles = [p.quantiles for p in made if p.quantiles is not None]
        return Prediction(
            np.median([p.mean for p in made], axis=0), np.median(quantiles, axis=0) if quantiles else None
        )
