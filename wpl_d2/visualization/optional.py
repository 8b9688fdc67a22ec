"""Pictures without which a run goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import InputError

logger = logging.getLogger(__name__)


@contextmanager
def optional_picture(name: str) -> Iterator[None]:
    """Around the drawing of a picture that a person looks at: where it fails, that is said and nothing more.

    Args:
        name: what is not there then.
    """
    try:
        yield
    except InputError as error:  # it has its words
        logger.warning("%s: could not be drawn: %s", name, error)
    except Exception:  # a training of days is worth more than any picture
        logger.warning("%s: could not be drawn", name, exc_info=True)
