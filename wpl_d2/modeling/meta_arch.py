"""The model: one backbone, a segmentation head and optionally a detector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone, build_sem_seg_head
from detectron2.modeling.postprocessing import detector_postprocess, sem_seg_postprocess
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from ..config.validation import check_section
from ..structures import IGNORE, Detections, SemSegOutput
from ..utils.errors import InputError
from .detector import SharedDetector
from .heads.aux_head import AuxHead
from .heads.method_head import build_method_head
from .model_metadata import register_classes
from .weights import FrameworkCheckpointMixin


@META_ARCH_REGISTRY.register()
class UnifiedSegDet(FrameworkCheckpointMixin):
    """Segmentation and detection on one backbone, which runs once for both.

    `forward` keeps Detectron2's contract. Frameworks build their steps from `normalize`, `encode`, `decode`, `detect`
    and `detection_losses`.

    Attributes:
        backbone: images to feature maps.
        sem_seg_head: feature maps to `SemSegOutput`.
        detector: None unless MODEL.DETECTOR.MODE is shared.
        aux_head: None unless MODEL.AUX_HEAD.ENABLED; used in training only.
        method_head: MODEL.METHOD_HEAD's, of a semi-supervised method; used in training only, or None.
        pixel_mean, pixel_std: (C, 1, 1) float, for pixels in 0..255.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        sem_seg_head: nn.Module,
        detector: SharedDetector | None = None,
        aux_head: AuxHead | None = None,
        method_head: nn.Module | None = None,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        """Build from parts, as `from_config` makes them from a config.

        Args:
            backbone: provides the feature maps that the heads read.
            sem_seg_head: called with (features, size), returns a `SemSegOutput`.
            detector: reads the backbone's feature maps.
            aux_head: reads the backbone's feature maps.
            method_head: called by the method alone.
            pixel_mean: per channel, in 0..255.
            pixel_std: per channel.
        """
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        self.detector = detector
        self.aux_head = aux_head
        self.method_head = method_head
        # As in Detectron2 they belong to the config, not to the state.
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Build the parts that `cfg.MODEL` describes.

        Raises:
            InputError: an invalid value below MODEL, or the number of classes is not set.
        """
        check_section(cfg, "MODEL")
        if cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES < 1:
            raise InputError(
                "MODEL.SEM_SEG_HEAD.NUM_CLASSES: 0, it is filled in from the data set; "
                "set DATASETS.DESCRIPTION, or the key itself"
            )
        register_classes(cfg)
        backbone = build_backbone(cfg)
        shape = backbone.output_shape()
        return {
            "backbone": backbone,
            "sem_seg_head": build_sem_seg_head(cfg, shape),
            "detector": SharedDetector(cfg, shape) if cfg.MODEL.DETECTOR.MODE == "shared" else None,
            "aux_head": AuxHead(cfg, shape) if cfg.MODEL.AUX_HEAD.ENABLED else None,
            "method_head": build_method_head(cfg, shape),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return self.pixel_mean.device

    @property
    def has_detector(self) -> bool:
        """Whether there is a detector, so that `detect` and `detection_losses` work."""
        return self.detector is not None

    def normalize(self, images: Tensor) -> Tensor:
        """Normalize images (..., C, H, W), uint8 or float in 0..255, to float on the model's device."""
        # Moved before the conversion: bytes are a quarter of the transfer.
        images = images.to(self.device, non_blocking=True).float()
        return (images - self.pixel_mean) / self.pixel_std

    def encode(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps, by name, of normalized images (B, C, H, W)."""
        return self.backbone(images)

    def decode(
        self,
        features: dict[str, Tensor],
        size: Sequence[int],
        perturb: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
    ) -> SemSegOutput:
        """Segment from feature maps.

        Args:
            features: of `encode`.
            size: (H, W) of the images, and so of the logits.
            perturb: applied to the feature maps first; may change the batch size.
        """
        return self.sem_seg_head(features if perturb is None else perturb(features), size)

    def segment(self, images: Tensor) -> Tensor:
        """Segment images (B, C, H, W) in 0..255: logits (B, C, H, W) float32."""
        batch = self._batch(list(self.normalize(images)))
        logits = self.decode(self.encode(batch.tensor), _size(batch.tensor)).logits.float()
        return logits[..., : images.shape[-2], : images.shape[-1]]

    def detect_images(self, images: Tensor) -> list[Instances]:
        """Detect objects in images (B, C, H, W) in 0..255; see `SharedDetector.detect`."""
        batch = self._batch(list(self.normalize(images)))
        return self._detector().detect(self.encode(batch.tensor), batch.image_sizes)

    def detect(self, features: dict[str, Tensor], sizes: list[tuple[int, int]]) -> list[Detections]:
        """Detect objects from feature maps, independent of `training`; see `SharedDetector.detect`."""
        detector = self._detector()
        return [Detections.from_instances(found, detector.object_classes) for found in detector.detect(features, sizes)]

    def detection_losses(
        self, features: dict[str, Tensor], sizes: list[tuple[int, int]], instances: list[Instances]
    ) -> dict[str, Tensor]:
        """Compute the detector's losses; see `SharedDetector.losses`."""
        return self._detector().losses(features, sizes, instances)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Train or predict by Detectron2's contract.

        Args:
            batched_inputs: one dict per image with "image" (C, H, W) in 0..255; in training also "sem_seg" (H, W)
                int64 and, for the detector, "instances"; in evaluation optionally "height" and "width" of the output.

        Returns:
            in training a dict of losses; in evaluation one dict per image with "sem_seg", (C, height, width) float
            logits, and, with a detector, "instances" in pixels of the output.
        """
        return self._losses(batched_inputs) if self.training else self._inference(batched_inputs)

    def _detector(self) -> SharedDetector:
        if self.detector is None:
            raise InputError("MODEL.DETECTOR.MODE: the model has no detector; set it to shared")
        return self.detector

    def _batch(self, maps: list[Tensor], pad_value: float = 0.0) -> ImageList:
        return ImageList.from_tensors(
            maps, self.backbone.size_divisibility, pad_value, self.backbone.padding_constraints
        )

    def _losses(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        images = self._batch([self.normalize(item["image"]) for item in batched_inputs])
        target = self._batch([item["sem_seg"].to(self.device) for item in batched_inputs], IGNORE).tensor
        features = self.encode(images.tensor)
        logits = self.decode(features, _size(target)).logits.float()
        total = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="sum")
        losses = {"loss_sem_seg": total / (target != IGNORE).sum().clamp(min=1)}
        if self.detector is not None and all("instances" in item for item in batched_inputs):
            instances = [item["instances"].to(self.device) for item in batched_inputs]
            losses |= self.detection_losses(features, images.image_sizes, instances)
        return losses

    def _inference(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if len({_size(item["image"]) for item in batched_inputs}) > 1:
            # One by one: with padding to a common size, results would depend on the other images of the batch.
            return [self._inference([item])[0] for item in batched_inputs]
        images = self._batch([self.normalize(item["image"]) for item in batched_inputs])
        features = self.encode(images.tensor)
        logits = self.decode(features, _size(images.tensor)).logits.float()
        size = images.image_sizes[0]
        outputs = [(item.get("height", size[0]), item.get("width", size[1])) for item in batched_inputs]
        results: list[dict[str, Any]] = [
            {"sem_seg": sem_seg_postprocess(own, size, *output)} for own, output in zip(logits, outputs, strict=True)
        ]
        if self.detector is not None:
            detections = self.detector.detect(features, images.image_sizes)
            for result, found, output in zip(results, detections, outputs, strict=True):
                result["instances"] = detector_postprocess(found, *output)
        return results


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]
