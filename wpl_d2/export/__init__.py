"""Files of a trained model for other programs."""

from .export import export_model
from .formats import FORMATS, Format, open_model
from .verify import Agreement

__all__ = ["FORMATS", "Agreement", "Format", "export_model", "open_model"]
