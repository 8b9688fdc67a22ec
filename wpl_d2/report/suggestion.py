"""The page that shows which images to label next, and why each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from .. import __version__
from ..data.image_io import read_record
from ..data.pixel_values import RGB
from ..data.windows import image_name
from ..inference.suggestion import Choice, ImageJudge, Survey
from ..utils.files import write_text
from ..visualization import heatmap, overlay, render
from .evidence import encode_picture
from .page import data_url, load_template

_OBJECTS = 4
"""The most objects of an image that are named: the largest."""


def write_suggestions(
    page: Path, run: Path, judge: ImageJudge, survey: Survey, choices: Sequence[Choice], metadata: Mapping[str, Any]
) -> None:
    """Write the chosen images as a page, and their paths, a line each, into a .txt of the same name beside it.

    Args:
        page: the HTML file.
        run: the folder of the training.
        judge: of the images, which are read again.
        survey: of the candidates.
        choices: among them.
        metadata: of the model.

    Raises:
        InputError: an image cannot be read any more, or a file cannot be written.
    """
    files = dict.fromkeys(survey.records[choice.index]["file_name"] for choice in choices)  # windows share theirs
    images = [_describe(survey.records[choice.index], choice, judge, metadata) for choice in choices]
    html = load_template("suggested.html.jinja").render(
        run=run.absolute(),
        images=images,
        candidates=len(survey.records),
        classes=list(zip(metadata["classes"], metadata["colors"], strict=True)),
        list_file=page.with_suffix(".txt").absolute(),
        made=f"{datetime.now():%Y-%m-%d %H:%M}",
        version=__version__,
    )
    # In a data set's list a line without a tab is divided at its spaces.
    lines = (f"{file}\t" if " " in file else file for file in files)
    write_text(page.with_suffix(".txt"), "".join(f"{line}\n" for line in lines))
    write_text(page, html)


def _describe(
    record: Mapping[str, Any], choice: Choice, judge: ImageJudge, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    image = read_record(record)
    (judged,) = judge([image])
    pixels = render(image.transpose(2, 0, 1), record.get("layout", RGB))
    pictures = {
        "image": pixels,
        "prediction": overlay(pixels, judged.labels, metadata["colors"]),
        "weight": heatmap(judged.weights),
    }
    objects = sorted(judged.objects[:_OBJECTS], key=lambda found: found.weight)
    return {
        **vars(choice),
        "file": image_name(record),
        "trust": judged.trust,
        "objects": [{**found._asdict(), "class": metadata["classes"][found.class_id]} for found in objects],
        "urls": {title: data_url(encode_picture(picture)) for title, picture in pictures.items()},
    }
