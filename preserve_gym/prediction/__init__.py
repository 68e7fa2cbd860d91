"""Request-load predictors: the predicted output length of each request at its arrival."""

from preserve_gym.prediction.accuracy import LengthAccuracy, length_accuracy
from preserve_gym.prediction.learned_lengths import LearnedLengths
from preserve_gym.prediction.lengths import (
    FOR_ANY_TRACE,
    PREDICTORS,
    LengthPrediction,
    predict_length_bounds,
    predict_lengths,
)

__all__ = [
    "FOR_ANY_TRACE",
    "PREDICTORS",
    "LearnedLengths",
    "LengthAccuracy",
    "LengthPrediction",
    "length_accuracy",
    "predict_length_bounds",
    "predict_lengths",
]
