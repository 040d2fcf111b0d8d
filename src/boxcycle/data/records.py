"""What a reader found in one split, as it stands in the files: image by image, object by object, not judged yet.

Readers only parse; what happens to a box outside its image or a class that nobody listed is decided once for all
formats, in :mod:`boxcycle.data.build`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Column = Any  # a list while it grows, or a whole numpy array
UNKNOWN = float("nan")  # a size or an area that the file does not give


@dataclass
class Records:
    """Columns of I images, N objects and T tags of one split; boxes xyxy in the original frame.

    Lists and arrays serve alike: small formats append, COCO fills whole columns. ``labels`` and ``tags`` are 1..K and
    count in ``class_names``; ``declared`` is False where no file lists the classes and they are those that occur.
    """

    file: Path  # named in findings about objects, where ``image_files`` does not name a nearer one
    root: Path  # what file_names are relative to
    class_names: Sequence[str] = ()
    category_ids: Column = ()
    declared: bool = True
    sizes_given: bool = True  # False: the format has no place for image sizes
    noun: str = "annotation"  # what an object is called in findings, followed by its number
    image_ids: Column = field(default_factory=list)
    file_names: list[str] = field(default_factory=list)
    image_files: list[str] = field(default_factory=list)  # [I] annotation file of each image, or empty
    image_sizes: Column = field(default_factory=list)  # (height, width), UNKNOWN where not given
    annotated: Column = field(default_factory=list)
    box_images: Column = field(default_factory=list)  # [N] position of the image
    numbers: Column = field(default_factory=list)  # [N] the object's number in findings
    boxes: Column = field(default_factory=list)
    labels: Column = field(default_factory=list)
    box_ids: Column = field(default_factory=list)  # [N] -1: none; all -1: numbered from 1 in order
    areas: Column = field(default_factory=list)
    iscrowd: Column = field(default_factory=list)
    difficult: Column = field(default_factory=list)
    segmentations: list[str] = field(default_factory=list)
    tagged: Column = field(default_factory=list)
    tag_images: list[int] = field(default_factory=list)  # [T]
    tags: list[int] = field(default_factory=list)  # [T]
    partly_verified: Column = ()  # [I], or empty: every class was looked for in every image
    absent: list[tuple[int, int]] = field(default_factory=list)  # (image, label): looked for, none there
    incomplete: list[tuple[int, int]] = field(default_factory=list)  # (image, label): not all of them have a box

    def add_image(
        self,
        image_id: int,
        name: str,
        *,
        size: tuple[float, float] = (UNKNOWN, UNKNOWN),
        annotated: bool = True,
        file: Path | None = None,
        tags: Sequence[int] | None = None,
    ) -> int:
        """Append an image; returns its position."""
        position = len(self.file_names)
        self.image_ids.append(image_id)
        self.file_names.append(name)
        self.image_files.append(str(file or self.file))
        self.image_sizes.append(size)
        self.annotated.append(annotated)
        self.tagged.append(tags is not None)
        self.tag_images.extend([position] * len(tags or ()))
        self.tags.extend(tags or ())
        return position

    def add_object(
        self,
        image: int,
        number: int,
        box: Sequence[float],
        label: int,
        *,
        box_id: int = -1,
        area: float = UNKNOWN,
        iscrowd: bool = False,
        difficult: bool = False,
        segmentation: str = "",
    ) -> None:
        """Append an object of the image at position ``image``."""
        self.box_images.append(image)
        self.numbers.append(number)
        self.boxes.append(box)
        self.labels.append(label)
        self.box_ids.append(box_id)
        self.areas.append(area)
        self.iscrowd.append(iscrowd)
        self.difficult.append(difficult)
        self.segmentations.append(segmentation)

    def where_image(self, image: int) -> tuple[str, str]:
        """File and object of a finding about the image at a position."""
        file = self.image_files[image] if self.image_files else str(self.file)
        return file, f"image {self.image_ids[image]}"

    def where_object(self, row: int) -> tuple[str, str]:
        """File and object of a finding about the object at a row."""
        file = self.image_files[self.box_images[row]] if self.image_files else str(self.file)
        return file, f"{self.noun} {self.numbers[row]}"
