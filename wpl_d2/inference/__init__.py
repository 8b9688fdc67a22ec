"""From a trained model to label maps and boxes: of a batch, of a folder, of a video."""

from .build import Inference, build_inference, build_predict
from .detection_caching import cache_detections
from .engines import LocalEngine, RayEngine
from .predictor import Predictor, predict
from .runtime_model import Prediction, RuntimeModel
from .sliding_window import Predict
from .sources import Source, open_source
from .writers import Outcome, PredictionWriter

__all__ = [
    "Inference",
    "LocalEngine",
    "Outcome",
    "Predict",
    "Prediction",
    "PredictionWriter",
    "Predictor",
    "RayEngine",
    "RuntimeModel",
    "Source",
    "build_inference",
    "build_predict",
    "cache_detections",
    "open_source",
    "predict",
]
