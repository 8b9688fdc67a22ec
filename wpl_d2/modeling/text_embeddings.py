"""CLIP's embeddings of phrases: made by its text encoder at first use, and kept in the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.file_cache import cache_file, load_arrays, store_arrays
from ..utils.errors import InputError
from .heads.vlg_head import VLGHead

_TEXT_ENCODER = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")
_MARKS = ("positional_embedding", "ln_final.weight", "text_projection")
"""Weights by which text encoders are told apart; the others are a hundred times as many."""


def load_texts(head: VLGHead, weights: Mapping[str, Tensor], names: Sequence[str], keys: Any, source: str) -> None:
    """Set the texts and concepts of a head, in place.

    Args:
        head: of C classes.
        weights: of CLIP, see `embed_sentences`.
        names: of the classes.
        keys: MODEL.VLG.
        source: the file of the weights.

    Raises:
        InputError: see `embed_sentences`; or embeddings have another length.
    """
    texts = keys.TEXTS or [[name] for name in names]
    concepts = keys.CONCEPTS or texts
    phrases = [phrase for own in (*texts, *concepts) for phrase in own]
    found = embed_sentences([keys.TEMPLATE.format(phrase) for phrase in phrases], weights, source)
    if found.shape[1] != head.texts.shape[1]:
        raise InputError(
            f"MODEL.MASKCLIP.DIM: {head.texts.shape[1]}, but the texts of {source} have {found.shape[1]} channels; set "
            "it, and MODEL.SEM_SEG_HEAD.CONVS_DIM, to that"
        )
    of_texts, of_concepts = found.split([sum(map(len, texts)), sum(map(len, concepts))])
    means = [own.mean(dim=0) for own in of_texts.split([len(own) for own in texts])]
    head.texts.copy_(F.normalize(torch.stack(means)))
    head.concepts.copy_(F.normalize(of_concepts))


def embed_sentences(sentences: Sequence[str], weights: Mapping[str, Tensor], source: str) -> Tensor:
    """The embeddings of sentences, (N, D) float32 on the CPU, as CLIP's text encoder gives them.

    They are computed once for each encoder, and kept in `$WPL_D2_CACHE`.

    Args:
        sentences: in English.
        weights: of OpenAI's CLIP, image and text encoder, under its names.
        source: their file, for messages.

    Raises:
        InputError: the weights have no text encoder, or the extra `clip` is not installed.
    """
    if lacking := [name for name in _MARKS if name not in weights]:
        raise InputError(
            f"{source}: has no text encoder, by which VLGHead knows the classes ({lacking[0]} is missing); set "
            "MODEL.WEIGHTS to open_clip://ViT-B-16/openai, or to a file with both encoders of OpenAI's CLIP"
        )
    digest = hashlib.sha256(json.dumps(list(sentences)).encode())
    for name in _MARKS:
        digest.update(weights[name].float().numpy().tobytes())
    file = cache_file(f"text_embeddings/{digest.hexdigest()}.npz")
    if stored := load_arrays(file, ["embeddings"]):
        return torch.from_numpy(stored["embeddings"])
    embeddings = _encode(sentences, weights, source)
    store_arrays(file, {"embeddings": embeddings.numpy()})
    return embeddings


@torch.no_grad()
def _encode(sentences: Sequence[str], weights: Mapping[str, Tensor], source: str) -> Tensor:
    try:
        from open_clip import tokenize
        from open_clip.transformer import QuickGELU, TextTransformer
    except ImportError as error:
        raise InputError(
            f"open_clip: is not installed, which reads the text encoder of {source}; run `pip install 'wpl_d2[clip]'`"
        ) from error
    own = {key: value.float() for key, value in weights.items() if key.startswith(_TEXT_ENCODER)}
    length, width = own["positional_embedding"].shape
    encoder = TextTransformer(
        context_length=length,
        vocab_size=len(own["token_embedding.weight"]),
        width=width,
        heads=width // 64,  # as in all of CLIP's models
        layers=len({key.split(".")[2] for key in own if key.startswith("transformer.resblocks.")}),
        output_dim=own["text_projection"].shape[1],
        act_layer=QuickGELU,  # OpenAI's
    )
    encoder.load_state_dict(own)
    return encoder.eval()(tokenize(list(sentences), context_length=length))
