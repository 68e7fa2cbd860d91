"""A law held against whole iterations that it was not fitted to."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from preserve_gym.errors import InputError
from preserve_gym.latency.fit import compared
from preserve_gym.latency.iterations import Iterations
from preserve_gym.latency.law import LatencyLaw
from preserve_gym.latency.parts import Target
from preserve_gym.latency.profiles import read_profile


def read_whole(path: Path, target: Target) -> Iterations:
    """Whole iterations of the target's own GPU.

    Raises:
        InputError: if the file cannot be read, or holds no whole iterations of the target.
    """
    whole = read_profile([path], Target(target.model, target.gpu, target.tp, target.gpu))
    if not isinstance(whole, Iterations):
        raise InputError(f"{path}: expected whole iterations (Splitwise, SageServe or `measure`)")
    return whole


def compare(law: LatencyLaw, whole: Iterations) -> pd.DataFrame:
    """Measured and predicted times of whole iterations, as ``Fit.checked``."""
    return compared(law, whole.batches, whole.seconds)
