"""Using a trained model: files for other programs, predictions of folders and videos."""

from .deployed import Deployed, Found
from .export import export_model
from .formats import FORMATS, Format, open_model
from .predict import predict
from .predictor import Prediction, Predictor
from .results import Results
from .sources import Source, open_source
from .verify import Agreement

__all__ = [
    "FORMATS",
    "Agreement",
    "Deployed",
    "Format",
    "Found",
    "Prediction",
    "Predictor",
    "Results",
    "Source",
    "export_model",
    "open_model",
    "open_source",
    "predict",
]
