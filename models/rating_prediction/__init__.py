"""Rating prediction before any review is read: RMSE and MAE of the library's predictors and of freshet's."""

from models.rating_prediction.protocol import LIBRARY, MODELS, rating_protocol

__all__ = ["LIBRARY", "MODELS", "rating_protocol"]
