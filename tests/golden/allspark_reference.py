"""AllSpark's step written again from its description, one image, head and channel after the other.

Only backbone, convolutions and SegFormer's decoder are the product's.
"""

import copy

import numpy as np
import torch
from plain import consistency, label, normal, supervised


class PlainAllSpark:
    """AllSpark on a copy of a student, from `memory`: a list of channels for each class."""

    def __init__(self, student, threshold, memory, memory_after, weigher):
        self.student, self.threshold, self.weigher = copy.deepcopy(student), threshold, weigher
        self.memory, self.memory_after = memory, memory_after
        self.joined = [0] * len(memory)

    def after_step(self, step):
        """Channels have joined the memory in the step itself."""

    def losses(self, batch, step):
        """Both losses of a step."""
        student, head = self.student, self.student.sem_seg_head
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        size = labeled[0]["image"].shape[1:]
        strong = [normal(student, item["strong"][0]) for item in labeled]
        weak = torch.stack([normal(student, item["image"]) for item in unlabeled])
        student.eval()
        with torch.no_grad():
            features = student.backbone(weak)
            entered = [enter(head, maps) for maps in features["res5"]]
            everyone = [channel for _, channels in entered for channel in channels]
            rebuilt = [attend(head.cross, channels, everyone, apart=False) for _, channels in entered]
            first = decode(head, features, entered, rebuilt, size)
        student.train()
        known = [label(*image, self.weigher) for image in zip(unlabeled, *first[:2], strict=True)]
        features = student.backbone(torch.cat([torch.stack(strong), weak]))
        entered = [enter(head, maps) for maps in features["res5"]]
        everyone = [channel for _, channels in entered[len(labeled) :] for channel in channels]
        for (maps, channels), logits in zip(entered[len(labeled) :], first[0], strict=True):
            self.remember(channels.detach(), logits, maps.shape[1:], head.align_corners)
        if step >= self.memory_after:
            everyone = [channel for kept in self.memory for channel in kept]
        rebuilt = [attend(head.cross, channels, everyone, apart=False) for _, channels in entered[: len(labeled)]]
        rebuilt += [attend(head.own, channels, list(channels), apart=True) for _, channels in entered[len(labeled) :]]
        logits, embedding, _ = decode(head, features, entered, rebuilt, size)
        return {
            "loss_sem_seg": supervised(labeled, logits, embedding, self.weigher) / 2,
            "loss_unsup": consistency(logits[len(labeled) :], known, self.threshold) / 2,
        }

    def remember(self, channels, logits, cells, align_corners):
        """Each channel of an image takes the next place in the list of the class that it resembles most."""
        maps = torch.nn.functional.interpolate(logits[None], cells, mode="bilinear", align_corners=align_corners)[0]
        maps = maps.flatten(1).numpy()
        for channel in channels:
            values = channel.numpy()
            cosines = [values @ own / np.linalg.norm(values) / np.linalg.norm(own) for own in maps]
            kind = int(np.argmax(cosines))
            self.memory[kind][self.joined[kind] % len(self.memory[kind])] = channel
            self.joined[kind] += 1


def enter(head, maps):
    """One image's last map (C, h, w) by convolution and GELU, and its channels, normalized in each cell: (C, N)."""
    maps = gelu(convolve(head.map_in[0], maps))
    return maps, normalize(head.norm_in, maps.flatten(1))


def attend(layer, channels, sources, apart):
    """One image's channels (C, N), rebuilt from a list of channels (N,)."""
    width, sources = len(channels), torch.stack(sources)
    images = sources.split(width)
    heads = [slice(start, start + width) for start in range(0, len(layer.query.weight), width)]
    kinds = (layer.key.weight, layer.value.weight)
    keys, values = ([[weight[rows] @ own for own in images] for rows in heads] for weight in kinds)
    if apart:
        keys, values = ([torch.cat(own) for own in kind] for kind in (keys, values))
    else:
        keys, values = ([torch.cat([own for head in kind for own in head])] * len(heads) for kind in (keys, values))
    scores = [layer.query.weight[rows] @ channels @ key.T for rows, key in zip(heads, keys, strict=True)]
    # Of both heads together where these attend to the same.
    groups = scores if apart else [torch.cat(scores)] * len(heads)
    total = 0.0
    for number, (own, group, value) in enumerate(zip(scores, groups, values, strict=True)):
        scaled = (own - group.mean()) / (group.var(unbiased=False) + 1e-5).sqrt()
        shares = scaled.exp() / scaled.exp().sum(1, keepdim=True)
        out = layer.out.weight[:, number :: len(heads)] if apart else layer.out.weight[:, heads[number]]
        total = total + out @ (shares @ value)
    return total


def decode(head, features, entered, rebuilt, size):
    """The output of SegFormer's decoder with last maps from rebuilt channels."""
    last = []
    for (maps, _), channels in zip(entered, rebuilt, strict=True):
        cells = normalize(head.norm_out, maps.flatten(1) + channels)
        last.append(gelu(convolve(head.map_out[0], cells.reshape(maps.shape))))
    return head.classify(head.merge(features, torch.stack(last)), size)


def convolve(conv, maps):
    return (conv.weight[:, :, 0, 0] @ maps.flatten(1) + conv.bias[:, None]).reshape(maps.shape)


def gelu(values):
    return values * (1 + torch.erf(values / 2**0.5)) / 2


def normalize(norm, channels):
    """LayerNorm over the channels of each cell: (C, N) -> (C, N)."""
    deviation = (channels.var(0, unbiased=False) + 1e-6).sqrt()
    return (channels - channels.mean(0)) / deviation * norm.weight[:, None] + norm.bias[:, None]
