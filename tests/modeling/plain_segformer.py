"""SegFormer's encoder and decoder by the names of its published checkpoints, one line a layer."""

import torch
import torch.nn.functional as F

HEADS, REDUCTIONS = (1, 2, 5, 8), (8, 4, 2, 1)


def random_weights(depths, widths):
    """A state dict of an encoder, with its classifier, under the published names."""
    shapes, before = {}, 3
    for stage, (depth, width, reduction) in enumerate(zip(depths, widths, REDUCTIONS, strict=True), 1):
        side = 7 if stage == 1 else 3
        shapes |= {f"patch_embed{stage}.proj.weight": (width, before, side, side)}
        shapes |= {f"{name}.weight": (width,) for name in (f"patch_embed{stage}.norm", f"norm{stage}")}
        for number in range(depth):
            block = f"block{stage}.{number}"
            shapes |= {f"{block}.{norm}.weight": (width,) for norm in ("norm1", "norm2")}
            shapes |= {f"{block}.attn.{name}.weight": (width, width) for name in ("q", "proj")}
            shapes |= {f"{block}.attn.kv.weight": (2 * width, width)}
            if reduction > 1:
                shapes |= {f"{block}.attn.sr.weight": (width, width, reduction, reduction)}
                shapes |= {f"{block}.attn.norm.weight": (width,)}
            shapes |= {f"{block}.mlp.fc1.weight": (4 * width, width), f"{block}.mlp.fc2.weight": (width, 4 * width)}
            shapes |= {f"{block}.mlp.dwconv.dwconv.weight": (4 * width, 1, 3, 3)}
        before = width
    weights = {}
    for name, shape in (shapes | {"head.weight": (10, before)}).items():
        fan_in = torch.Size(shape[1:]).numel() if len(shape) > 1 else 1
        weights[name] = (len(shape) == 1) + torch.randn(shape) / fan_in**0.5 / 2
        weights[name.replace("weight", "bias")] = 0.1 * torch.randn(shape[0])
    return weights


def encode(weights, images):
    """The four maps of images (B, 3, H, W)."""

    def norm(name, maps, eps=1e-6):
        columns = maps.permute(0, 2, 3, 1)
        columns = F.layer_norm(columns, columns.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)
        return columns.permute(0, 3, 1, 2)

    def conv(name, maps, **options):
        weight = weights[f"{name}.weight"]
        weight = weight[:, :, None, None] if weight.ndim == 2 else weight
        return F.conv2d(maps, weight, weights[f"{name}.bias"], **options)

    def attend(name, maps, heads, reduction):
        keys = maps
        if reduction > 1:
            keys = norm(f"{name}.norm", conv(f"{name}.sr", maps, stride=reduction), 1e-5)
        key, value = conv(f"{name}.kv", keys).flatten(2).unflatten(1, (2, heads, -1)).unbind(1)
        query = conv(f"{name}.q", maps).flatten(2).unflatten(1, (heads, -1))
        scores = torch.einsum("bhcn,bhcm->bhnm", query, key) / query.shape[2] ** 0.5
        mixed = torch.einsum("bhnm,bhcm->bhcn", scores.softmax(-1), value)
        return conv(f"{name}.proj", mixed.flatten(1, 2).unflatten(2, maps.shape[2:]))

    def mlp(name, maps):
        hidden = conv(f"{name}.fc1", maps)
        hidden = conv(f"{name}.dwconv.dwconv", hidden, padding=1, groups=hidden.shape[1])
        return conv(f"{name}.fc2", F.gelu(hidden))

    found, maps = [], images
    for stage, (heads, reduction) in enumerate(zip(HEADS, REDUCTIONS, strict=True), 1):
        first = stage == 1
        maps = conv(f"patch_embed{stage}.proj", maps, stride=4 if first else 2, padding=3 if first else 1)
        maps = norm(f"patch_embed{stage}.norm", maps, 1e-5)
        number = 0
        while f"block{stage}.{number}.norm1.weight" in weights:
            block = f"block{stage}.{number}"
            maps = maps + attend(f"{block}.attn", norm(f"{block}.norm1", maps), heads, reduction)
            maps = maps + mlp(f"{block}.mlp", norm(f"{block}.norm2", maps))
            number += 1
        maps = norm(f"norm{stage}", maps)
        found.append(maps)
    return found


def decode(projects, fuse, norm, predict, maps, size):
    """Embedding and logits by pairs of weight and bias, `fuse` without a bias, `norm` with mean and variance."""
    projected = [F.conv2d(own, *pair) for own, pair in zip(maps, projects, strict=True)]
    resized = [F.interpolate(own, projected[0].shape[2:], mode="bilinear") for own in reversed(projected)]
    weight, bias, mean, variance = norm
    embedding = F.batch_norm(F.conv2d(torch.cat(resized, 1), fuse), mean, variance, weight, bias).relu()
    return embedding, F.interpolate(F.conv2d(embedding, *predict), size, mode="bilinear")
