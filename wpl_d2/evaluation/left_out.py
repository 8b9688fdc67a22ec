"""What an evaluation cannot read or judge is named and left out: a file that breaks while a run trains costs no run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..data.loader import missing_mask
from ..utils.errors import InputError

Items = list[dict[str, Any]]


class LeftOut:
    """The images that an evaluation leaves out.

    Attributes:
        reasons: why, by the image's file; of this process until `gather`.
    """

    def __init__(self, strict: bool = False) -> None:
        """Begin with none.

        Args:
            strict: nothing may be left out; the first image that would be is an error.
        """
        self.strict = strict
        self.reasons: dict[str, str] = {}

    def note(self, record: dict[str, Any], error: InputError) -> None:
        """Leave an image out.

        Args:
            record: its dataset dict.
            error: what is wrong, with the file and how to mend it; it is raised if this is strict.
        """
        if self.strict:
            raise error
        self.reasons.setdefault(record["file_name"], str(error))

    def gather(self) -> None:
        """Take over what other processes leave out. All processes must call it."""
        for reasons in comm.all_gather(self.reasons):
            self.reasons |= reasons


NOTHING = LeftOut(strict=True)


class ReadableImages:
    """A loader of single images (see `build_test_loader`) without those that are left out or cannot be read."""

    def __init__(self, loader: Any, left_out: LeftOut) -> None:
        """Wrap a loader.

        Args:
            loader: lenient: gives lists of one item whose "image" is an `InputError` where it could not be read.
            left_out: images to skip; those that cannot be read are added.
        """
        self._loader = loader
        self._left_out = left_out

    def __len__(self) -> int:
        """The number of images, readable or not."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Items]:
        """The items of this process."""
        for (item,) in self._loader:
            if isinstance(item["image"], InputError):
                self._left_out.note(item, item["image"])
            elif item["file_name"] not in self._left_out.reasons:
                yield [item]


class LenientEvaluator(DatasetEvaluator):
    """An evaluator that leaves out images that it cannot judge, such as those with a broken mask."""

    def __init__(self, evaluator: DatasetEvaluator, left_out: LeftOut) -> None:
        """Wrap an evaluator.

        Args:
            evaluator: raises an `InputError` for an image that it cannot judge, before it counts anything of it.
            left_out: takes these images.
        """
        self._evaluator = evaluator
        self._left_out = left_out

    def reset(self) -> None:
        """Forget all images."""
        self._evaluator.reset()

    def process(self, inputs: Items, outputs: Iterable[dict[str, Any]]) -> None:
        """Judge one image.

        Args:
            inputs: a list of one item.
            outputs: the model's.
        """
        try:
            self._evaluator.process(inputs, outputs)
        except InputError as error:
            self._left_out.note(inputs[0], error)

    def evaluate(self) -> Any:
        """The wrapped evaluator's results."""
        return self._evaluator.evaluate()


def records_with_masks(dataset_name: str, left_out: LeftOut = NOTHING) -> list[dict[str, Any]]:
    """The dataset dicts of a registered data set, all with "sem_seg_file_name".

    Args:
        dataset_name: registered.
        left_out: takes the images without a mask.

    Raises:
        InputError: an image has no mask, and nothing may be left out.
    """
    records = []
    for record in DatasetCatalog.get(dataset_name):
        if "sem_seg_file_name" in record:
            records.append(record)
        else:
            left_out.note(record, InputError(missing_mask(record, dataset_name)))
    return records
