"""UniMatch V2's step written again from its description; only the network is the product's."""

import torch
from mean_teacher_reference import PlainMeanTeacher
from plain import consistency, label, mix, normal, supervised
from toy import factors


class PlainUniMatchV2(PlainMeanTeacher):
    """Student and EMA teacher; see `PlainMeanTeacher`."""

    def losses(self, batch, step):
        """The two losses of a step."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        size = labeled[0]["image"].shape[1:]
        weak = torch.stack([normal(self.teacher, item["image"]) for item in unlabeled])
        logits, embedding, *_ = self.teacher.sem_seg_head(self.teacher.backbone(weak), size)
        known = [label(*found, self.weigher) for found in zip(unlabeled, logits, embedding, strict=True)]
        images = torch.stack([normal(self.student, item["image"]) for item in labeled])
        logits, embedding, *_ = self.student.sem_seg_head(self.student.backbone(images), size)
        losses = {"loss_sem_seg": supervised(labeled, logits, embedding, self.weigher) / 2, "loss_unsup": 0.0}
        views = [[mix(unlabeled, known, i, view, step) for i in range(len(unlabeled))] for view in range(2)]
        features = self.student.backbone(
            torch.stack([normal(self.student, image) for view in views for image, _ in view])
        )
        dropped = {name: self._drop(maps, factors(step, maps.shape[1])) for name, maps in features.items()}
        logits = self.student.sem_seg_head(dropped, size).logits
        for view, part in zip(views, logits.split(len(unlabeled)), strict=True):
            part_loss = consistency(part, [pseudo for _, pseudo in view], self.threshold)
            losses["loss_unsup"] = losses["loss_unsup"] + part_loss / 4
        return losses

    def _drop(self, maps, table):
        kept = [[channel * by for channel, by in zip(*row, strict=True)] for row in zip(maps, table, strict=True)]
        return torch.stack([torch.stack(channels) for channels in kept])
