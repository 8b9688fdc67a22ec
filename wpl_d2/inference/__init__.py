"""From a trained model to label maps and boxes: of a batch, of a folder, of a video."""

from .build import Inference, build_inference, build_predict
from .detection_caching import cache_detections
from .predict import predict
from .predictor import Prediction, Predictor
from .runtime_model import Found, RuntimeModel
from .sliding_window import Predict
from .sources import Source, open_source
from .writers import Results

__all__ = [
    "Found",
    "Inference",
    "Predict",
    "Prediction",
    "Predictor",
    "Results",
    "RuntimeModel",
    "Source",
    "build_inference",
    "build_predict",
    "cache_detections",
    "open_source",
    "predict",
]
