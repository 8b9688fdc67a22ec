"""Average precision of the detector against the component boxes of the masks."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.utils import comm

from ..data import EvalDataset
from ..utils.files import write_text


class BoxEvaluator(COCOEvaluator):
    """Detectron2's COCO evaluator on the images that it processed, so that no boxes of others are missed."""

    def state(self) -> list[dict[str, Any]]:
        """The predictions, as plain containers."""
        return self._predictions

    def add_state(self, state: list[dict[str, Any]]) -> None:
        """Add the predictions of another evaluator, as of `state`."""
        self._predictions += state

    def evaluate(self, img_ids: list[Any] | None = None) -> Any:
        """All processes' average precision on the main one."""
        given = comm.all_gather([prediction["image_id"] for prediction in self._predictions])
        with redirect_stdout(StringIO()):  # of pycocotools; the figures are logged
            return super().evaluate(img_ids or list(chain.from_iterable(given)))


def build_box_evaluator(dataset: EvalDataset, output_dir: str | Path) -> BoxEvaluator:
    """Detectron2's COCO evaluator on component boxes (paper, section 3.2).

    Writes `NAME_boxes.json` and describes it in the metadata of `NAME_boxes`. All processes must call it.

    Args:
        dataset: with objects; images without a mask that can be read are left out.
        output_dir: where the file goes, and the evaluator's own results.

    Raises:
        InputError: an image has no mask that can be read, and the data set is not lenient.
    """
    name, classes = f"{dataset.name}_boxes", dataset.metadata.thing_classes
    file = Path(output_dir) / f"{name}.json"
    records = dataset.records_with_boxes
    if comm.is_main_process():
        write_text(file, json.dumps(coco_json(records, classes)))
    comm.synchronize()
    if name in MetadataCatalog.list():
        MetadataCatalog.remove(name)
    MetadataCatalog.get(name).set(json_file=str(file), thing_classes=classes)
    return BoxEvaluator(name, tasks=("bbox",), output_dir=str(output_dir), use_fast_impl=False)


def coco_json(records: list[dict[str, Any]], classes: list[str]) -> dict[str, Any]:
    """Dataset dicts with boxes in COCO's format.

    Args:
        records: of `attach_component_boxes`: "image_id", "boxes" (N, 4) xyxy half-open, "box_classes" (N,) indices.
        classes: names of the detector's classes; their indices are the category ids, as in its predictions.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in records:
        images.append({"id": record["image_id"], "file_name": record["file_name"]})
        boxes, categories = record["boxes"].tolist(), record["box_classes"].tolist()
        for (x0, y0, x1, y1), category in zip(boxes, categories, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,  # COCO's evaluation takes 0 for "no match"
                    "image_id": record["image_id"],
                    "category_id": category,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                }
            )
    names = [{"id": index, "name": name} for index, name in enumerate(classes)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": names}
