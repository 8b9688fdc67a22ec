"""What the formats of shapes share: their settings, and the way from shapes to class ids."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...utils.errors import InputError
from ..image_io import read_size
from ..path_templates import SLOT, fill
from .label_format import LabelFormat, Labels, LabelSource, ListedImage
from .shapes import LabeledImage, rasterize

if TYPE_CHECKING:
    from ..datasets.folder import Description

_MAX_NAMED = 5


class ShapeFormat(LabelFormat):
    """Labels as shapes, which `rasterize` draws.

    Attributes:
        tool: who writes such files, for messages.
    """

    has_instances = True
    tool: ClassVar[str]

    def __init__(
        self, description: Description, *, uncovered: object, categories: object = None, other: object = None
    ) -> None:
        """Check the settings.

        Args:
            description: of the data set.
            uncovered: class, or "ignore" for none, of what no shape covers.
            categories: class, or "ignore", by category of the files; those that are not there are called as the class.
            other: class, or "ignore", of all other categories; by default they are errors.

        Raises:
            InputError: a setting is wrong.
        """
        super().__init__(description)
        self._uncovered = self.class_id(uncovered, "'uncovered'")
        if not isinstance(categories, Mapping | None):
            raise InputError(f"{self.where}: 'categories' is {categories!r}; write {{category: class}}")
        self._class_ids = {name: index for index, name in enumerate(description.classes)}
        self._class_ids |= {str(k): self.class_id(v, f"'categories': {k!r}") for k, v in (categories or {}).items()}
        self._other = None if other is None else self.class_id(other, "'other'")

    @abstractmethod
    def parse(self, image: ListedImage) -> LabeledImage:
        """The shapes of an image for which there are some, as their file has them.

        Raises:
            InputError: they are wrong; the message begins with the user's file.
            KeyError, TypeError, ValueError, AttributeError: they are not what the tool writes.
        """

    def category_names(self, images: Iterable[ListedImage]) -> list[str]:
        """The categories that labels name, in an order that does not depend on that of the images.

        Args:
            images: for which there are labels.

        Raises:
            InputError: some cannot be read.
        """
        return sorted({shape.category for image in images for shape in self._parse(image).shapes})

    def _parse(self, image: ListedImage) -> LabeledImage:
        try:
            return self.parse(image)
        except InputError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise self.not_of_tool(self.find(image).name, error) from error

    def read(self, image: ListedImage) -> Labels:
        """See `LabelFormat`."""
        labeled = self._parse(image)
        ids = self.class_ids({shape.category for shape in labeled.shapes}, labeled.source)
        return rasterize(labeled, read_size(image.file, self.description.exif), ids, self._uncovered)

    def class_ids(self, categories: Iterable[str], source: str) -> dict[str, int]:
        """The class ids, or `IGNORE`, of categories.

        Args:
            categories: as the files have them.
            source: where they were found, for the message.

        Raises:
            InputError: some are no class.
        """
        unknown = sorted(set(categories) - self._class_ids.keys())
        if unknown and self._other is None:
            named = ", ".join(map(repr, unknown[:_MAX_NAMED]))
            more = f" and {len(unknown) - _MAX_NAMED} more" if len(unknown) > _MAX_NAMED else ""
            raise InputError(
                f"{source}: has the categories {named}{more}, which are not in 'classes' of {self.description.path}; "
                "add them there, or say under 'labels' what they are: categories: {NAME: CLASS}, or other: CLASS or "
                "ignore"
            )
        return {name: self._class_ids.get(name, self._other) for name in categories}  # type: ignore[misc]

    def not_of_tool(self, source: str, what: object) -> InputError:
        """The error for a file that is not as the tool writes it."""
        reason = f"{type(what).__name__}: {what}" if isinstance(what, Exception) else what
        return InputError(f"{source}: is not as {self.tool} writes it ({reason}); export it anew")


class ImageFileFormat(ShapeFormat):
    """Labels of which each image has a file of its own. An image without the file is unlabeled."""

    def __init__(self, description: Description, *, files: object = None, **settings: Any) -> None:
        """Check the settings.

        Args:
            description: of the data set.
            files: where the file of an image is, such as labels/{id}.json; by default where the tool puts it.
            settings: of `ShapeFormat`.

        Raises:
            InputError: a setting is wrong.
        """
        super().__init__(description, **settings)
        if files is not None and (not isinstance(files, str) or SLOT not in files):
            raise InputError(
                f"{self.where}: 'files' is {files!r}; write where the file of an image is, such as labels/{SLOT}.json"
            )
        self._files = files

    @abstractmethod
    def usual_file(self, image: Path) -> Path:
        """Where the tool puts the labels of an image."""

    def file(self, image: ListedImage) -> Path:
        """The file that holds the labels of an image, if it is there."""
        if self._files is None:
            return self.usual_file(Path(image.file))
        return self.description.root / fill(self._files, image.id)

    def find(self, image: ListedImage) -> LabelSource:
        """See `LabelFormat`."""
        return LabelSource.of_file(self.file(image))
