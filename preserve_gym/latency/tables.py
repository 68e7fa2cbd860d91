"""Measured values as functions: interpolation in the grids of a profile."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def line(x: float, xs: FloatArray, ys: FloatArray) -> float:
    """Piecewise linear interpolation of values that do not fall; constant below the first point.

    Beyond the last one it goes on with the mean slope of the upper half of the axis: neighbours may lie
    so close together that their difference is noise.
    """
    if x <= xs[0] or len(xs) == 1:
        return float(ys[0])
    i = min(int(np.searchsorted(xs, x)), len(xs) - 1)
    before = i - 1 if x <= xs[-1] else min(int(np.searchsorted(xs, xs[-1] / 2)), i - 1)
    return float(ys[before] + (ys[i] - ys[before]) * (x - xs[before]) / (xs[i] - xs[before]))


def curve(frame: pd.DataFrame, x: str, y: str, *, rising: bool = False) -> Callable[[float], float]:
    """``y`` as a function of ``x``; repeated measurements are averaged.

    ``rising`` takes no ``y`` for more than any at a larger ``x``: single measurements that are far too
    slow would make it fall.
    """
    means = frame.groupby(x)[y].mean()
    if rising:
        means = means[::-1].cummin()[::-1]
    xs, ys = means.index.to_numpy(float), means.to_numpy(float)
    return lambda value: line(value, xs, ys)


def surface(frame: pd.DataFrame, x: str, y: str, z: str) -> Callable[[float, float], float]:
    """``z(x, y)``, linear between the rows of ``x`` and within each; rows may end at different ``y``."""
    xs = np.unique(frame[x].to_numpy(float))
    rows = {key: curve(frame[frame[x] == key], y, z) for key in xs}

    def value(at_x: float, at_y: float) -> float:
        i = int(np.clip(np.searchsorted(xs, at_x) - 1, 0, max(len(xs) - 2, 0)))
        near = xs[i : i + 2]
        return line(at_x, near, np.array([rows[key](at_y) for key in near]))

    return value
