"""How token totals become inputs of a recurrent network, and its outputs token totals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from preserve_gym.forecasting.forecaster import FloatArray, seconds_of_day
from preserve_gym.traces.trace import SECONDS_PER_DAY

_INPUT_SPREADS = 4.0
"""Changes from window to window that become an input of 1: about the range of those over some hours."""
_HARMONICS = 2


@dataclass(frozen=True)
class LevelScaling:
    """The artifact's: the totals, scaled so that those of the training part lie in [0, 1]. One window ahead.

    Attributes:
        low, high: smallest and largest total of the training part.
    """

    low: float
    high: float

    steps: ClassVar[int] = 1
    features: ClassVar[int] = 1

    @classmethod
    def fit(cls, history: FloatArray, window_s: float, clock_s: float) -> Self:
        """Learn the range."""
        return cls(float(history.min()), float(history.max()))

    def inputs(self, windows: FloatArray, following: NDArray[np.int64]) -> NDArray[np.float32]:
        """Inputs float32[k, windows, 1] of stretches of windows, float64[k, windows]."""
        return self._scaled(windows)[:, :, None].astype(np.float32)

    def targets(self, windows: FloatArray, future: FloatArray) -> NDArray[np.float32]:
        """Outputs float32[k, 1] that say what came, float64[k, 1]."""
        return self._scaled(future).astype(np.float32)

    def tokens(self, windows: FloatArray, outputs: NDArray[np.float32]) -> FloatArray:
        """What outputs say about the windows to come, float64[k, 1]."""
        return np.maximum(outputs.astype(np.float64) * (self.high - self.low) + self.low, 0.0)

    def _scaled(self, tokens: FloatArray) -> FloatArray:
        return (tokens - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class RatioScaling:
    """Ratios to the last window, as logarithms, and the time of day. ``steps`` windows ahead at once.

    So the network says how the load will change, which does not depend on how large it is: a service that
    outgrows the training part is forecast as well as before. No forecast change is larger than those
    of the training part over as many windows.

    Attributes:
        offset: tokens added to every total, so that windows without requests have a logarithm.
        spread: root mean square of the training part's changes from window to window.
        falls, rises: the largest changes of the training part, one, two, ... windows ahead.
        window_s, clock_s: length of a window, and time of day at the start of window 0, in seconds.
    """

    offset: float
    spread: float
    falls: tuple[float, ...]
    rises: tuple[float, ...]
    window_s: float
    clock_s: float

    steps: ClassVar[int] = 6
    features: ClassVar[int] = 1 + 2 * _HARMONICS

    @classmethod
    def fit(cls, history: FloatArray, window_s: float, clock_s: float) -> Self:
        """Learn how much the series changes."""
        offset = max(1.0, 0.01 * float(history.mean()))
        logs = np.log(history + offset)
        changes = [logs[step:] - logs[:-step] for step in range(1, cls.steps + 1)]
        falls, rises = (tuple(float(limit(change)) for change in changes) for limit in (np.min, np.max))
        return cls(offset, float(np.sqrt(np.mean(changes[0] ** 2))), falls, rises, window_s, clock_s)

    def inputs(self, windows: FloatArray, following: NDArray[np.int64]) -> NDArray[np.float32]:
        """Inputs float32[k, windows, 1 + 2 * 2] of stretches of windows.

        Args:
            windows: float64[k, windows], tokens.
            following: int64[k], number of the window after each stretch.
        """
        length = windows.shape[1]
        ratios = self._logs(windows, windows) / (_INPUT_SPREADS * self.spread)
        number = following[:, None] + np.arange(-length, 0)
        phase = 2.0 * np.pi / SECONDS_PER_DAY * seconds_of_day(number, self.window_s, self.clock_s)
        waves = [wave(k * phase) for k in range(1, _HARMONICS + 1) for wave in (np.sin, np.cos)]
        return np.stack([ratios, *waves], axis=2).astype(np.float32)

    def targets(self, windows: FloatArray, future: FloatArray) -> NDArray[np.float32]:
        """Outputs float32[k, steps] that say what came, float64[k, steps]."""
        return (self._logs(future, windows) / self._units).astype(np.float32)

    def tokens(self, windows: FloatArray, outputs: NDArray[np.float32]) -> FloatArray:
        """What outputs say about the windows to come, float64[k, steps]."""
        changes = np.clip(outputs * self._units, self.falls, self.rises)
        return np.maximum((windows[:, -1:] + self.offset) * np.exp(changes) - self.offset, 0.0)

    @property
    def _units(self) -> FloatArray:
        """Changes that an output of 1 stands for: those of a random walk."""
        return self.spread * np.sqrt(np.arange(1.0, self.steps + 1.0))

    def _logs(self, tokens: FloatArray, windows: FloatArray) -> FloatArray:
        return np.log((tokens + self.offset) / (windows[:, -1:] + self.offset))


Scaling = LevelScaling | RatioScaling
SCALINGS: dict[str, Any] = {"levels": LevelScaling, "ratios": RatioScaling}
