"""SemiVL's decoder and MaskCLIP's features written again from their descriptions: one image, class or cell a time."""

import torch
import torch.nn.functional as F


def value_path(block, token):
    """What a block makes of a token (D,) that attends to itself alone."""
    channels = len(token)
    value = block.attn.qkv(block.norm1(token))[2 * channels :]
    token = token + block.attn.proj(value)
    return token + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(token))))


def decode(weights, skips, image, size):
    """Logits (C, *size) of one image: two skips, the coarser one first, and embeddings (D, h, w)."""

    def conv(name, maps, **options):
        return F.conv2d(maps[None], weights[f"{name}.weight"], weights.get(f"{name}.bias"), **options)[0]

    def conv_norm_relu(name, maps, **options):
        maps = conv(f"{name}.0", maps, **options)
        norm = (weights[f"{name}.1.weight"], weights[f"{name}.1.bias"])
        return F.relu(F.group_norm(maps[None], len(maps) // 16, *norm)[0])

    def linear(name, vector):
        return weights[f"{name}.weight"] @ vector + weights[f"{name}.bias"]

    def resize(maps, size, align_corners=True):
        return F.interpolate(maps[None], size, mode="bilinear", align_corners=align_corners)[0]

    def spatial(text):
        cosines = [[torch.cosine_similarity(cell, text, dim=0) for cell in row] for row in image.permute(1, 2, 0)]
        maps = conv("similarity", torch.stack([torch.stack(row) for row in cosines])[None], padding=3)
        branches = [conv_norm_relu("aspp.convs.0", maps)]
        for number, dilation in enumerate((6, 12, 18)):
            branches.append(conv_norm_relu(f"aspp.convs.{number + 1}", maps, padding=dilation, dilation=dilation))
        pooled = conv_norm_relu("aspp.pool.1", maps.mean(dim=(1, 2), keepdim=True))
        branches.append(pooled.repeat(1, *maps.shape[1:]))
        return maps + conv_norm_relu("aspp.project", torch.cat(branches))

    def attend(name, tokens):
        """A transformer layer, norms first, on the tokens (C, D) of one cell."""
        norms = [(weights[f"{name}.norm{n}.weight"], weights[f"{name}.norm{n}.bias"]) for n in (1, 2)]
        normed = F.layer_norm(tokens, tokens.shape[1:], *norms[0])
        mixed = torch.zeros_like(tokens)
        qkv = normed @ weights[f"{name}.self_attn.in_proj_weight"].T + weights[f"{name}.self_attn.in_proj_bias"]
        query, key, value = qkv.split(tokens.shape[1], dim=1)
        width = tokens.shape[1] // 4
        for head in range(4):
            own = slice(head * width, (head + 1) * width)
            share = (query[:, own] @ key[:, own].T / width**0.5).softmax(dim=1)
            mixed[:, own] = share @ value[:, own]
        tokens = tokens + torch.stack([linear(f"{name}.self_attn.out_proj", row) for row in mixed])
        normed = F.layer_norm(tokens, tokens.shape[1:], *norms[1])
        return tokens + torch.stack(
            [linear(f"{name}.linear2", F.gelu(linear(f"{name}.linear1", row))) for row in normed]
        )

    maps = [spatial(text) for text in weights["texts"]]
    texts = [F.relu(linear("text_project.0", text)) for text in weights["texts"]]
    for layer in range(2):
        pooled = [F.avg_pool2d(own[None], 4)[0] for own in maps]
        found = [torch.zeros_like(own) for own in pooled]
        for y in range(pooled[0].shape[1]):
            for x in range(pooled[0].shape[2]):
                tokens = torch.stack([torch.cat([own[:, y, x], text]) for own, text in zip(pooled, texts, strict=True)])
                for own, token in zip(found, attend(f"attentions.{layer}.transformer", tokens), strict=True):
                    own[:, y, x] = token[: len(own)]
        maps = [own + resize(add, own.shape[1:]) for own, add in zip(maps, found, strict=True)]
    for stage, skip in enumerate(skips):
        skip = F.relu(conv(f"skip_projects.{stage}.0", skip, padding=1))
        larger = []
        for own in maps:
            up = (weights[f"ups.{stage}.up.weight"], weights[f"ups.{stage}.up.bias"])
            own = F.conv_transpose2d(own[None], *up, stride=2)[0]
            own = torch.cat([own, resize(skip, own.shape[1:])])
            for number in range(2):
                own = conv_norm_relu(f"ups.{stage}.convs.{number}", own, padding=1)
            larger.append(own)
        maps = larger
    return resize(torch.cat([conv("mask", own, padding=1) for own in maps]), size, align_corners=False)
