"""What some options can be, for parsers that must not wait for the modules that know it."""

from __future__ import annotations

MODELS = ("teacher", "student")
"""`wpl_d2.modeling.weights.MODEL_NAMES`"""
FORMATS = {"torchscript": ".pt", "onnx": ".onnx", "torch_export": ".pt2", "safetensors": ".safetensors"}
"""The suffixes of `wpl_d2.export.FORMATS`."""
BENCHMARKS = ("ade20k", "cityscapes", "coco", "nyuv2", "voc", "voc_animals")
"""Those of `wpl_d2.data.preparation`."""
MASK_FORMATS = ("index_png", "geotiff", "coco", "labelme")
"""Those of `wpl_d2.inference.mask_formats`."""
MAPS = ("confidence", "probabilities")
"""What `wpl_d2.inference.Predictor` makes beside labels and boxes."""
KNOWN_SETS = ("ade20k", "camvid", "deepglobe", "loveda", "pascal-context", "potsdam")
"""Those of `wpl_d2.data.inspection.known_sets`."""
