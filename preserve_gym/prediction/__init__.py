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
from preserve_gym.prediction.text_lengths import TextLengths
from preserve_gym.prediction.text_network import TextTraining

__all__ = [
    "FOR_ANY_TRACE",
    "PREDICTORS",
    "LearnedLengths",
    "LengthAccuracy",
    "LengthPrediction",
    "TextLengths",
    "TextTraining",
    "length_accuracy",
    "predict_length_bounds",
    "predict_lengths",
]
