from __future__ import annotations

import numpy as np
import pytest

from preserve_gym import Workload, WorkloadConfig
from preserve_gym.errors import InputError
from preserve_gym.prediction import FOR_ANY_TRACE, predict_lengths
from preserve_gym.traces import synthetic_trace

TRACE = synthetic_trace("chat", duration_s=7200.0, seed=0)


def workload(predictor: str, split: str | None = None) -> Workload:
    config = WorkloadConfig(
        predictor=predictor,
        split=split,  # type: ignore[arg-type]
        split_gap_s=0.0,
        horizon_s=600.0,
        forecaster="naive",
        seed=3,
    )
    return Workload(config, TRACE)


@pytest.mark.parametrize("name", FOR_ANY_TRACE)
def test_a_workload_learns_from_its_training_part(name: str) -> None:
    train = TRACE.row_range(0.0, 0.6 * TRACE.span_s // 1)
    expected = predict_lengths(name, TRACE, train=train, seed=3)
    for split in ("train", "test"):
        np.testing.assert_array_equal(workload(name, split).predicted_tokens, expected)
    whole = predict_lengths(name, TRACE, seed=3)
    np.testing.assert_array_equal(workload(name).predicted_tokens, whole)
    assert np.array_equal(whole, expected) == (name not in ("learned", "mean", "ssjf"))


def test_a_name_misspelt_is_corrected() -> None:
    with pytest.raises(InputError, match=r"got 'lerned' \(did you mean learned\?\)"):
        workload("lerned")
