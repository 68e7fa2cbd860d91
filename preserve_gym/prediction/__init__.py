"""Request-load predictors: the predicted output length of each request at its arrival."""

from preserve_gym.prediction.lengths import PREDICTORS, predict_lengths

__all__ = ["PREDICTORS", "predict_lengths"]
