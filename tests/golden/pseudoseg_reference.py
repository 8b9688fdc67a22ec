"""PseudoSeg's step written again from its description, image by image; only the layers are the product's."""

import copy
import math

import torch
from plain import label, normal, supervised
from toy import CLASSES, SIZE, mix_box


class PlainPseudoSeg:
    """PseudoSeg on a copy of a student."""

    def __init__(self, student, threshold, alpha, temperature, weigher):
        self.student = copy.deepcopy(student)
        self.threshold, self.alpha, self.temperature = threshold, alpha, temperature
        self.weigher = weigher

    def after_step(self, step):
        """Nothing but the bank moves."""

    def losses(self, batch, step):
        """The four losses of a step."""
        unsup = self._consistency(batch["unlabeled"], step)
        labeled = batch["labeled"]
        features = self.student.backbone(self._images(labeled))
        logits, embedding, _ = self.student.sem_seg_head(features, SIZE)
        shown = torch.tensor([[float((item["sem_seg"] == c).any()) for c in range(1, CLASSES)] for item in labeled])
        probability = self._image_logits(features["res5"]).sigmoid()
        known = (shown * probability.log() + (1 - shown) * (1 - probability).log()).mean()
        maps = self._maps(features, shown, [item["valid"] for item in labeled])
        return {
            "loss_sem_seg": supervised(labeled, logits, embedding, self.weigher),
            "loss_image_labels": -known,
            "loss_cam": supervised(labeled, maps, None, None),
            "loss_unsup": unsup,
        }

    def _images(self, items):
        return torch.stack([normal(self.student, item["image"]) for item in items])

    def _image_logits(self, feature):
        layer = self.student.method_head.classifier
        return feature.mean((2, 3)) @ layer.weight[:, :, 0, 0].T + layer.bias

    def _consistency(self, items, step):
        weak = self._images(items)
        self.student.eval()
        features = self.student.backbone(weak)
        self.student.train()
        with torch.no_grad():
            shown = (self._image_logits(features["res5"]).sigmoid() >= 0.5).float()
            logits, embedding, _ = self.student.sem_seg_head(self.student.backbone(weak), SIZE)
        assert shown.any()
        maps = self._maps(features, shown, [item["valid"] for item in items]).detach()
        scale = math.sqrt((logits.square().sum() + maps.square().sum()) / (2 * logits.numel()))
        soft = ((logits / scale).softmax(1) + (maps / scale).softmax(1)) / 2
        soft = soft ** (1 / self.temperature)
        soft = soft / soft.sum(1, keepdim=True)
        views, pixels = [], []
        for number, item in enumerate(items):
            pseudo = label(item, soft[number].log(), embedding[number], self.weigher)
            view, kept = normal(self.student, item["strong"][0]), pseudo["valid"].copy()
            if box := mix_box(step, 0, number):
                rows, columns = slice(box[0], box[1]), slice(box[2], box[3])
                view[:, rows, columns] = 0
                kept[rows, columns] = False
            views.append(view)
            trained = kept & (pseudo["confidence"] >= self.threshold)
            assert trained.any() and not trained[kept].all()
            pixels.append((kept, torch.from_numpy(trained * pseudo["weight"])))
        log = self.student.sem_seg_head(self.student.backbone(torch.stack(views)), SIZE).logits.log_softmax(1)
        total = sum(-(soft[i] * log[i]).sum(0).mul(factor).sum() for i, (_, factor) in enumerate(pixels))
        return self.alpha * total / sum(kept.sum() for kept, _ in pixels)

    def _maps(self, features, shown, valid):
        """Logits of the image's size, by Grad-CAM and self-attention."""
        head, attended = self.student.method_head, []
        for image in range(len(shown)):
            fine, last = (features[name][image].detach() for name in ("res4", "res5"))
            cams = self._grad_cams(last, shown[image])
            fine = torch.nn.functional.interpolate(fine[None], last.shape[1:], mode="bilinear")[0]
            column = torch.cat([last, fine]).flatten(1)
            query, key = (conv.weight[:, :, 0, 0] @ column for conv in (head.query, head.key))
            inside = cells(valid[image], last.shape[1:]).flatten()
            mixed = []
            for cell in range(query.shape[1]):
                similar = (query[:, cell] @ key) / math.sqrt(len(query))
                # A cell of padding attends to all alike; the difference to 0 is what its gradient sees.
                similar = similar.masked_fill(~inside, -torch.inf) if inside[cell] else similar - similar.detach()
                mixed.append(cams.flatten(1) @ similar.softmax(0))
            score = torch.stack(mixed, 1) + cams.flatten(1)
            background = 2 - score.max(0).values
            projected = head.project.weight[:, :, 0, 0] @ torch.cat([background[None], score])
            attended.append(projected.unflatten(1, last.shape[1:]))
        every = torch.stack(attended)
        mean, spread = every.mean((0, 2, 3)), every.var((0, 2, 3), correction=0)
        scaled = (every - mean[:, None, None]) / (spread + 1e-3).sqrt()[:, None, None] + head.norm.bias[:, None, None]
        return torch.nn.functional.interpolate(scaled, SIZE, mode="bilinear")

    def _grad_cams(self, feature, shown):
        maps = []
        with torch.enable_grad():
            feature = feature.clone().requires_grad_(True)
            logits = self._image_logits(feature[None])[0]
            for c in range(CLASSES - 1):
                (gradient,) = torch.autograd.grad(logits[c], feature, retain_graph=True)
                cam = (gradient.mean((1, 2))[:, None, None] * feature).sum(0).clamp(min=0).detach() * shown[c]
                maps.append(cam / cam.max() if cam.max() > 0 else cam)
        return torch.stack(maps)


def cells(mask, size):
    """The pixel in the middle of each cell."""
    rows, columns = (
        ((torch.arange(count) + 0.5) * length / count).long() for count, length in zip(size, mask.shape, strict=True)
    )
    return mask[rows][:, columns]
