"""One split of a data set as a handful of flat arrays.

Every format is read into an :class:`Index` and written from one. Whatever belongs to boxes lies in arrays of all boxes
of all images, and ``box_offsets`` cuts them by image; texts lie in one byte buffer (:class:`Strings`). A forked loader
worker therefore touches no reference count of a Python object per image, and its memory stays flat.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Strings(Sequence[str]):
    """An immutable list of texts in two arrays: UTF-8 bytes, and the offsets that cut them."""

    def __init__(self, texts: Iterable[str]) -> None:
        encoded = [text.encode() for text in texts]
        self.bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self.offsets = offsets_of([len(text) for text in encoded])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, slice):
            return [self[i] for i in range(*item.indices(len(self)))]
        position = range(len(self))[item]  # IndexError and negative positions as a list has them
        return self.bytes[self.offsets[position] : self.offsets[position + 1]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))


class Verified(NamedTuple):
    """For which classes somebody looked, in images where that was not done for all of them (LVIS, Open Images).

    They are kept, and not those that nobody looked for: of a thousand classes an image verifies some twenty.
    """

    partly: NDArray[np.bool_]  # [I] False: every class is verified
    offsets: NDArray[np.int64]  # [I + 1]
    labels: NDArray[np.int64]  # [V] 1..K, ascending in each image: the verified classes where partly is True

    def subset(self, chosen: NDArray[np.int64]) -> Verified:
        """What is known of the images at the given positions, in that order."""
        counts = np.diff(self.offsets)[chosen]
        return Verified(self.partly[chosen], offsets_of(counts), self.labels[_rows(self.offsets, chosen)])

    def where(self, kept: NDArray[np.bool_]) -> Verified:
        """The same images, of which only those of the mask [I] keep what was said of them."""
        counts = np.diff(self.offsets)
        return Verified(self.partly & kept, offsets_of(np.where(kept, counts, 0)), self.labels[np.repeat(kept, counts)])


@dataclass(frozen=True, eq=False)
class Index:
    """One split: I images, N boxes over all of them, K classes. Frame of all boxes: original.

    Label k in 1..K is ``class_names[k - 1]``, and stands in the source file as ``category_ids[k - 1]``.
    """

    root: Path  # what file_names are relative to
    class_names: tuple[str, ...]
    category_ids: NDArray[np.int64]  # [K] the file's own
    image_ids: NDArray[np.int64]  # [I] the file's own, unique
    file_names: Strings  # [I] with forward slashes, relative to root
    image_sizes: NDArray[np.int32]  # [I, 2] (height, width)
    annotated: NDArray[np.bool_]  # [I] False: nobody looked (not the same as: no objects)
    box_offsets: NDArray[np.int64]  # [I + 1] boxes of image i are box_offsets[i]:box_offsets[i + 1]
    boxes: NDArray[np.float64]  # [N, 4] xyxy
    labels: NDArray[np.int64]  # [N] 1..K; 0 only for an ignore region (iscrowd) of unknown class
    box_ids: NDArray[np.int64]  # [N] the file's own annotation ids
    areas: NDArray[np.float64]  # [N] of the segment where there is one, else of the box
    iscrowd: NDArray[np.bool_]  # [N]
    difficult: NDArray[np.bool_]  # [N] VOC
    segmentations: Strings  # [N] JSON: COCO polygons or RLE; "" where there is none
    tagged: NDArray[np.bool_]  # [I] True: image tags are known
    tag_offsets: NDArray[np.int64]  # [I + 1]
    tags: NDArray[np.int64]  # [T] labels 1..K that the image contains, for tagged images
    sources: NDArray[np.int64] | None = None  # [N] who drew the box, as in types.Target; None: a person, all of them
    weights: NDArray[np.float32] | None = None  # [N] of the box in the losses; None: 1, all of them
    verified: Verified | None = None  # None: every class is verified in every image

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def image_path(self, image: int) -> Path:
        """The file of image number ``image`` (its position, 0..I-1)."""
        return self.root / self.file_names[image]

    def boxes_of(self, image: int) -> slice:
        """Where the boxes of image number ``image`` lie in the arrays of boxes."""
        return slice(int(self.box_offsets[image]), int(self.box_offsets[image + 1]))

    def tags_of(self, image: int) -> NDArray[np.int64]:
        """The tags (labels 1..K) of image number ``image``: its own if tagged, else those of its boxes."""
        if self.tagged[image]:
            return self.tags[self.tag_offsets[image] : self.tag_offsets[image + 1]]
        present = np.unique(self.labels[self.boxes_of(image)])
        return present[present > 0]

    @property
    def partly_verified(self) -> NDArray[np.bool_]:
        """[I] in which images there are classes that nobody looked for."""
        return np.zeros(len(self), dtype=bool) if self.verified is None else self.verified.partly

    def unverified_of(self, image: int) -> NDArray[np.bool_]:
        """[K] the classes whose absence from image number ``image`` says nothing; label k at position k - 1."""
        if self.verified is None or not self.verified.partly[image]:
            return np.zeros(self.num_classes, dtype=bool)
        unverified = np.ones(self.num_classes, dtype=bool)
        unverified[self.verified.labels[self.verified.offsets[image] : self.verified.offsets[image + 1]] - 1] = False
        return unverified

    def only_boxes(self, kept: NDArray[np.bool_]) -> Index:
        """All images, with the boxes of the mask [N] alone. Tags stay."""
        images = np.repeat(np.arange(len(self)), np.diff(self.box_offsets))
        return replace(
            self,
            box_offsets=offsets_of(np.bincount(images[kept], minlength=len(self))),
            boxes=self.boxes[kept],
            labels=self.labels[kept],
            box_ids=self.box_ids[kept],
            areas=self.areas[kept],
            iscrowd=self.iscrowd[kept],
            difficult=self.difficult[kept],
            segmentations=Strings(self.segmentations[row] for row in np.flatnonzero(kept)),
            sources=None if self.sources is None else self.sources[kept],
            weights=None if self.weights is None else self.weights[kept],
        )

    def subset(self, images: Sequence[int] | NDArray[np.int64]) -> Index:
        """The images at the given positions, in that order, with all that belongs to them. Classes stay."""
        chosen = np.asarray(images, dtype=np.int64)
        rows = _rows(self.box_offsets, chosen)
        tag_rows = _rows(self.tag_offsets, chosen)
        return Index(
            root=self.root,
            class_names=self.class_names,
            category_ids=self.category_ids,
            image_ids=self.image_ids[chosen],
            file_names=Strings(self.file_names[i] for i in chosen),
            image_sizes=self.image_sizes[chosen],
            annotated=self.annotated[chosen],
            box_offsets=offsets_of(np.diff(self.box_offsets)[chosen]),
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            box_ids=self.box_ids[rows],
            areas=self.areas[rows],
            iscrowd=self.iscrowd[rows],
            difficult=self.difficult[rows],
            segmentations=Strings(self.segmentations[i] for i in rows),
            tagged=self.tagged[chosen],
            tag_offsets=offsets_of(np.diff(self.tag_offsets)[chosen]),
            tags=self.tags[tag_rows],
            sources=None if self.sources is None else self.sources[rows],
            weights=None if self.weights is None else self.weights[rows],
            verified=None if self.verified is None else self.verified.subset(chosen),
        )


def offsets_of(counts: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the rows of each image begin, and where the last one's end, [I + 1], by their numbers [I]."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def _rows(offsets: NDArray[np.int64], chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    if not len(chosen):
        return np.zeros(0, dtype=np.int64)
    return np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in chosen])
