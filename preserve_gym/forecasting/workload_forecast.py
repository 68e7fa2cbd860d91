"""What a forecaster says at the start of each window about the windows to come."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError

if TYPE_CHECKING:
    from preserve_gym.sim.profile import InstanceProfile


@dataclass(frozen=True, eq=False)
class WorkloadForecast:
    """Forecast tokens per window, made at the start of each window; the arrays are read-only.

    Window k covers [k*window_s, (k+1)*window_s) of the trace's clock (``Trace.window_tokens``). Row k
    is made at its start, from the windows before it alone unless ``uses_future``; column h is the
    forecast for window k + h, so column 0 is the window that begins. Windows past the end of the trace
    have forecasts too.

    Attributes:
        window_s: length of a window in seconds.
        prompt_tokens: float64[k, horizon], prompt tokens that arrive in the window.
        output_tokens: float64[k, horizon], output tokens of the requests that arrive in the window.
        name: of the forecaster.
        uses_future: made from what happens later, for studies of what forecast quality is worth.
        levels: of the quantiles, ascending in (0, 1); empty: none.
        prompt_quantiles, output_quantiles: float64[k, levels, horizon]; None without ``levels``.
        fallbacks: rows whose prompt or output tokens are not the forecaster's own (``walk_forward``).
        failure: what went wrong first in the forecaster, where it was not too little history.

    Raises:
        InputError: on arrays of other shapes, or values that are not finite and non-negative.
    """

    window_s: float
    prompt_tokens: NDArray[np.float64]
    output_tokens: NDArray[np.float64]
    name: str
    uses_future: bool
    levels: tuple[float, ...] = ()
    prompt_quantiles: NDArray[np.float64] | None = None
    output_quantiles: NDArray[np.float64] | None = None
    fallbacks: int = 0
    failure: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.window_s) and self.window_s > 0):
            raise InputError(
                f"forecast {self.name!r}: window_s: expected a finite number > 0, got {self.window_s!r}"
            )
        for field in ("prompt_tokens", "output_tokens"):
            values = np.array(getattr(self, field), dtype=np.float64)
            if values.ndim != 2 or 0 in values.shape or values.shape != np.shape(self.prompt_tokens):
                raise InputError(
                    f"forecast {self.name!r}: {field}: expected an array of windows x horizon, the same for "
                    f"prompt and output, got shape {values.shape}"
                )
            self._keep(field, values)
        for field in ("prompt_quantiles", "output_quantiles"):
            if getattr(self, field) is not None or self.levels:
                values = np.array(getattr(self, field), dtype=np.float64)
                expected = (len(self), len(self.levels), self.horizon)
                if values.shape != expected:
                    raise InputError(
                        f"forecast {self.name!r}: {field}: expected windows x levels x horizon {expected}, "
                        f"got shape {values.shape}"
                    )
                self._keep(field, values)

    def _keep(self, field: str, values: NDArray[np.float64]) -> None:
        bad = ~(np.isfinite(values) & (values >= 0.0))
        if bad.any():
            place = np.argwhere(bad)[0]
            raise InputError(
                f"forecast {self.name!r}: window {place[0]}, step {place[-1]}: {field}: expected a finite "
                f"number >= 0, got {values[tuple(place)].item()!r}"
            )
        values.flags.writeable = False
        object.__setattr__(self, field, values)

    @property
    def horizon(self) -> int:
        """Windows that each forecast covers, the current one included."""
        return int(self.prompt_tokens.shape[1])

    def __len__(self) -> int:
        """Windows of the trace."""
        return len(self.prompt_tokens)


def needed_instances(forecast: WorkloadForecast, profile: InstanceProfile) -> NDArray[np.float64]:
    """The forecast as instances, not rounded, as Tier 1 of PreServe wants it (its Algorithm 2).

    Args:
        forecast: tokens per window.
        profile: what one instance serves (``Workload.profile``).

    Returns:
        float64[k, horizon]; row and column as in ``forecast``.
    """
    window_s = forecast.window_s
    return np.asarray(
        profile.need(forecast.prompt_tokens / window_s, forecast.output_tokens / window_s), np.float64
    )
