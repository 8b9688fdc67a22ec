"""DPT's head as in UniMatch V2's checkpoints: their names and shapes, and what they compute, one line a layer."""

import torch
import torch.nn.functional as F


def random_weights(classes, dim, width, channels):
    """A state dict of the published names."""
    shapes = {}
    for number, own in enumerate(channels):
        shapes |= {f"projects.{number}.weight": (own, dim, 1, 1), f"projects.{number}.bias": (own,)}
        shapes[f"scratch.layer{number + 1}_rn.weight"] = (width, own, 3, 3)
        block = f"scratch.refinenet{number + 1}"
        shapes |= {f"{block}.out_conv.weight": (width, width, 1, 1), f"{block}.out_conv.bias": (width,)}
        for unit in ("resConfUnit1", "resConfUnit2"):
            for conv in ("conv1", "conv2"):
                shapes[f"{block}.{unit}.{conv}.weight"] = (width, width, 3, 3)
                shapes[f"{block}.{unit}.{conv}.bias"] = (width,)
    for number, side in ((0, 4), (1, 2), (3, 3)):
        own = channels[number]
        shapes |= {f"resize_layers.{number}.weight": (own, own, side, side), f"resize_layers.{number}.bias": (own,)}
    for number, (out, side) in {0: (width, 3), 2: (classes, 1)}.items():
        shapes[f"scratch.output_conv.{number}.weight"] = (out, width, side, side)
        shapes[f"scratch.output_conv.{number}.bias"] = (out,)
    return {f"head.{name}": 0.05 * torch.randn(shape) for name, shape in shapes.items()}


def decode(weights, maps, size):
    """Logits of four maps (B, D, h, w)."""

    def conv(name, images, **options):
        return F.conv2d(images, weights[f"head.{name}.weight"], weights.get(f"head.{name}.bias"), **options)

    def enlarge(name, images, factor):
        return F.conv_transpose2d(images, weights[f"head.{name}.weight"], weights[f"head.{name}.bias"], stride=factor)

    def residual(name, images):
        hidden = conv(f"{name}.conv1", F.relu(images), padding=1)
        return images + conv(f"{name}.conv2", F.relu(hidden), padding=1)

    def resize(images, size):
        return F.interpolate(images, size, mode="bilinear", align_corners=True)

    projected = [conv(f"projects.{number}", own) for number, own in enumerate(maps)]
    sized = [
        enlarge("resize_layers.0", projected[0], 4),
        enlarge("resize_layers.1", projected[1], 2),
        projected[2],
        conv("resize_layers.3", projected[3], stride=2, padding=1),
    ]
    reduced = [conv(f"scratch.layer{number + 1}_rn", own, padding=1) for number, own in enumerate(sized)]
    path = residual("scratch.refinenet4.resConfUnit2", reduced[3])
    path = conv("scratch.refinenet4.out_conv", resize(path, reduced[2].shape[2:]))
    for number in (3, 2, 1):
        block = f"scratch.refinenet{number}"
        path = residual(f"{block}.resConfUnit2", path + residual(f"{block}.resConfUnit1", reduced[number - 1]))
        height, width = reduced[0].shape[2:]
        larger = reduced[number - 2].shape[2:] if number > 1 else (2 * height, 2 * width)
        path = conv(f"{block}.out_conv", resize(path, larger))
    embedding = F.relu(conv("scratch.output_conv.0", path, padding=1))
    return embedding, resize(conv("scratch.output_conv.2", embedding), size)
