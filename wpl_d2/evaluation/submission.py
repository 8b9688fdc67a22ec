"""Predictions as files for a benchmark's server, such as Cityscapes'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from PIL import Image

from ..data import EvalDataset
from ..utils.cpu_speed import label_map
from ..utils.errors import InputError
from ..utils.files import clear_write_errors, save_png


class SubmissionWriter(DatasetEvaluator):
    """Writes for each image an 8-bit PNG of the data set's own ids under the image's name; it measures nothing."""

    def __init__(self, dataset: EvalDataset, output_dir: str | Path) -> None:
        """Prepare for a data set, with or without masks.

        Args:
            dataset: with `dataset_ids` in its description.
            output_dir: gets a folder `label_ids`.

        Raises:
            InputError: the data set gives no ids, or ids that do not fit into a byte.
        """
        ids = list(dataset.metadata.get("stuff_dataset_id_to_contiguous_id", ()))
        if not ids or not all(0 <= number <= 255 for number in ids):
            raise InputError(
                f"TEST.EVALUATOR: submission writes ids from 0 to 255, but those of {dataset.name} are "
                f"{ids or 'not given'}; give one to each class under 'dataset_ids' in {dataset.metadata.description}"
            )
        self._ids = np.array(ids, dtype=np.uint8)
        self._folder = Path(output_dir) / "label_ids"

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Write a batch.

        Args:
            inputs: dicts with "file_name".
            outputs: dicts with "sem_seg" (C, H, W), at the size of the image.
        """
        with clear_write_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        for item, output in zip(inputs, outputs, strict=True):
            ids = self._ids[label_map(output["sem_seg"]).cpu().numpy()]
            save_png(Image.fromarray(ids), self._folder / f"{Path(item['file_name']).stem}.png")
