"""The networks of the published hosts, written again from their descriptions in plain PyTorch.

A network is a function of its weights, by the product's names, and an image: the names say which tensor is meant, and
nothing of what is done with it.
"""

import torch
import torch.nn.functional as F

# Stride of the last feature map, dilations of res4's blocks but the first and of res5's, ASPP's, and whether the stem's
# pooling rounds up.
HOSTS = {
    "unimatch": {"stride": 16, "res4": 1, "res5": (1, 2, 2), "aspp": (6, 12, 18), "ceil": False},
    "augseg": {"stride": 16, "res4": 1, "res5": (2, 4, 8), "aspp": (6, 12, 18), "ceil": True},
    "u2pl": {"stride": 8, "res4": 2, "res5": (4, 8, 16), "aspp": (12, 24, 36), "ceil": True},
    "ael": {"stride": 8, "res4": 2, "res5": (4, 8, 16), "aspp": (12, 24, 36), "ceil": True},
}


class PlainDeepLab:
    """DeepLabv3+ on a ResNet with a deep stem, without dropout; in `training` its BN takes the batch's statistics."""

    def __init__(self, weights, host, training):
        self.weights, self.training, self.settings = weights, training, HOSTS[host]

    def outputs(self, image):
        """Logits, their auxiliary ones, embedding and representation, the second and fourth if there are weights."""
        features = self.backbone(image)
        aspp, fuse = "sem_seg_head.decoder.res5.project_conv", "sem_seg_head.decoder.res2.fuse_conv"
        branches = [self.block(features[3], f"{aspp}.convs.0")]
        for branch, rate in enumerate(self.settings["aspp"], 1):
            branches.append(self.block(features[3], f"{aspp}.convs.{branch}", dilation=rate))
        pooled = self.block(features[3].mean((2, 3), keepdim=True), f"{aspp}.convs.4.1")
        branches.append(pooled.expand_as(branches[0]))
        skip = self.block(features[0], "sem_seg_head.decoder.res2.project_conv")
        high = _resize(self.block(torch.cat(branches, 1), f"{aspp}.project"), skip.shape[2:])
        joint, representation = torch.cat([skip, high], 1), None
        if f"{fuse}.representation.0.weight" in self.weights:
            # Between its three convolutions stands dropout.
            representation = self.block(self.block(joint, f"{fuse}.representation.0"), f"{fuse}.representation.2")
            representation = self.conv(representation, f"{fuse}.representation.4")
            fuse = f"{fuse}.fuse"
        embedding = self.block(self.block(joint, f"{fuse}.0"), f"{fuse}.1")
        logits = _resize(self.conv(embedding, "sem_seg_head.predictor"), image.shape[2:])
        auxiliary = None
        if "aux_head.layers.0.weight" in self.weights:
            auxiliary = self.conv(self.block(features[2], "aux_head.layers.0"), "aux_head.layers.2")
            auxiliary = _resize(auxiliary, image.shape[2:])
        return logits, auxiliary, embedding, representation

    def backbone(self, image):
        x = self.block(image, "backbone.stem.conv1", stride=2)
        x = self.block(self.block(x, "backbone.stem.conv2"), "backbone.stem.conv3")
        x = F.max_pool2d(x, 3, 2, 1, ceil_mode=self.settings["ceil"])
        features = []
        for level in range(2, 6):
            stride = 1 if level == 2 or (level > 3 and self.settings["stride"] < 2**level) else 2
            number = 0
            while f"backbone.res{level}.{number}.conv1.weight" in self.weights:
                dilation = self.dilations(level)[min(number, 2)]
                x = self.bottleneck(x, f"backbone.res{level}.{number}", 1 if number else stride, dilation)
                number += 1
            features.append(x)
        return features

    def dilations(self, level):
        """Those of a stage's first, second and later blocks."""
        return {4: (1, self.settings["res4"], self.settings["res4"]), 5: self.settings["res5"]}.get(level, (1, 1, 1))

    def bottleneck(self, x, name, stride, dilation):
        shortcut = x
        if f"{name}.shortcut.weight" in self.weights:
            shortcut = self.block(x, f"{name}.shortcut", stride=stride, relu=False)
        x = self.block(self.block(x, f"{name}.conv1"), f"{name}.conv2", stride=stride, dilation=dilation)
        return F.relu(self.block(x, f"{name}.conv3", relu=False) + shortcut)

    def block(self, x, name, stride=1, dilation=1, relu=True):
        x = self.conv(x, name, stride, dilation)
        mean, var, scale, shift = (
            self.weights[f"{name}.norm.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        x = (x - mean.view(-1, 1, 1)) / (var.view(-1, 1, 1) + 1e-5).sqrt() * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
        return F.relu(x) if relu else x

    def conv(self, x, name, stride=1, dilation=1):
        weight = self.weights[f"{name}.weight"]
        padding = weight.shape[-1] // 2 * dilation
        return F.conv2d(x, weight, self.weights.get(f"{name}.bias"), stride, padding, dilation)


def _resize(x, size):
    """Bilinear, the corners on the corners."""
    for axis, wanted in ((2, size[0]), (3, size[1])):
        given = x.shape[axis]
        place = torch.arange(wanted, dtype=x.dtype) * ((given - 1) / max(1, wanted - 1))
        low = place.floor().clamp(max=given - 1).long()
        share = (place - low).view([-1 if i == axis else 1 for i in range(4)])
        below, above = x.index_select(axis, low), x.index_select(axis, (low + 1).clamp(max=given - 1))
        x = below * (1 - share) + above * share
    return x
