"""An index as training samples: decoded images with their targets, transformed together."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from boxcycle.data.check import DataError
from boxcycle.data.index import Index
from boxcycle.data.transforms import PER_BOX, Transform
from boxcycle.types import Target

UNREADABLE = (OSError, SyntaxError, ValueError, struct.error)  # what Pillow raises on bad files
# Parts the seed of the augmentation from that of the losses: from equal seeds they would draw correlated numbers.
AUGMENT = 0x9E3779B9


class SampleKey(NamedTuple):
    """Which image (its position in the index), and the seed of all that is random about this use of it."""

    image: int
    seed: int


class DetectionDataset(Dataset[tuple[Tensor, Target]]):
    """Images as float32 [3, H, W] in [0, 1] with their :class:`~boxcycle.types.Target`, in the image frame.

    A sample depends on its key alone: not on the order of calls, the process or torch's global random state. A plain
    ``int`` stands for ``SampleKey(image, seed=image)``. ``masks`` adds ``masks`` [N, H, W] where the index has
    segmentations; an object without one has its box as its mask. ``cache`` keeps what the fixed part of the transform
    gave (uint8) in memory, for small sets and many epochs; samples are the same with and without.
    ``proposals`` has regions [P, 4] (xyxy, original frame) for each image, in the order of the index; they become
    ``proposals`` of the targets.

    Raises :class:`DataError`, naming the file, for an image that cannot be read or whose size is not the index's.
    """

    def __init__(
        self,
        index: Index,
        transform: Transform | None = None,
        *,
        masks: bool = False,
        cache: bool = False,
        proposals: Sequence[NDArray[np.float32]] | None = None,
    ) -> None:
        self.index = index
        self.transform = transform or Transform()
        self.masks = masks and len(index.segmentations.bytes) > 0
        self.proposals = proposals
        self._kept: dict[int, tuple[tv_tensors.Image, dict[str, Any]]] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: int | SampleKey) -> tuple[Tensor, Target]:
        image_number, seed = key if isinstance(key, tuple) else (range(len(self))[key], range(len(self))[key])
        image, target = self._fixed_part(image_number)
        if self.transform.random is not None:
            image, target = _seeded(self.transform, image, target, seed)
            _check_rows(target, str(self.index.image_path(image_number)))
        target["seed"] = seed
        for field in ("boxes", "masks", "proposals"):
            if field in target:
                target[field] = target[field].as_subclass(Tensor)
        pixels = functional.to_dtype(image, torch.float32, scale=True).as_subclass(Tensor)
        return pixels, cast(Target, target)

    def _fixed_part(self, image_number: int) -> tuple[tv_tensors.Image, dict[str, Any]]:
        if self._kept is not None and image_number in self._kept:
            image, target = self._kept[image_number]
            return image, dict(target)
        image, target = self._load(image_number), self._target(image_number)
        if self.transform.fixed is not None:
            image, target = self.transform.fixed(image, target)
        if self._kept is not None:
            self._kept[image_number] = (image, dict(target))
        return image, target

    def _load(self, image_number: int) -> tv_tensors.Image:
        path = self.index.image_path(image_number)
        pixels = read_image(path)
        found, expected = pixels.shape[:2], tuple(self.index.image_sizes[image_number].tolist())
        if found != expected:
            raise DataError(f"{path} has {found} pixels (height, width), but the annotations say {expected}")
        # left as rows of RGB in memory, which torchvision resizes half as long as three planes, to the same pixels
        return tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))

    def _target(self, image_number: int) -> dict[str, Any]:
        index, rows = self.index, self.index.boxes_of(image_number)
        height, width = index.image_sizes[image_number].tolist()
        boxes = torch.from_numpy(index.boxes[rows]).float()
        target: dict[str, Any] = {
            "boxes": _boxes(boxes, height, width),
            "labels": torch.from_numpy(index.labels[rows].copy()),
            "image_id": int(index.image_ids[image_number]),
            "area": torch.from_numpy(index.areas[rows]).float(),
            "iscrowd": torch.from_numpy(index.iscrowd[rows].copy()),
            "difficult": torch.from_numpy(index.difficult[rows].copy()),
            "annotated": bool(index.annotated[image_number]),
            "original_size": (height, width),
        }
        known = index.tagged[image_number] or index.annotated[image_number]
        if known:  # otherwise absent tags are not known to be absent
            target["image_labels"] = torch.zeros(index.num_classes)
            target["image_labels"][torch.from_numpy(index.tags_of(image_number)) - 1] = 1
        if index.partly_verified[image_number]:
            target["unverified"] = torch.from_numpy(index.unverified_of(image_number))
        if index.sources is not None:
            target["source"] = torch.from_numpy(index.sources[rows].copy())
        if index.weights is not None:
            target["weight"] = torch.from_numpy(index.weights[rows].copy())
        if self.proposals is not None:
            target["proposals"] = _boxes(torch.from_numpy(self.proposals[image_number]).float(), height, width)
        if self.masks:
            target["masks"] = tv_tensors.Mask(self._masks(image_number, height, width))
        return target

    def _masks(self, image_number: int, height: int, width: int) -> Tensor:
        from boxcycle.data.masks import decode

        rows = self.index.boxes_of(image_number)
        masks = np.zeros((rows.stop - rows.start, height, width), dtype=bool)
        for mask, row in zip(masks, range(rows.start, rows.stop), strict=True):
            segmentation = self.index.segmentations[row]
            if segmentation:
                mask[:] = decode(segmentation, height, width)
            else:
                x1, y1, x2, y2 = np.round(self.index.boxes[row]).astype(int)
                mask[y1:y2, x1:x2] = True
        return torch.from_numpy(masks)


def _boxes(boxes: Tensor, height: int, width: int) -> tv_tensors.BoundingBoxes:
    return tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width))  # type: ignore[call-overload,no-any-return]


def read_image(path: Path) -> NDArray[np.uint8]:
    """The file's pixels as RGB uint8 [H, W, 3].

    They stay as stored: an EXIF rotation is not applied, since annotations do not know of it. Grey values are repeated,
    16-bit ones lose their low byte, transparency is dropped. Raises :class:`DataError` naming the file.
    """
    try:
        with Image.open(path) as file:
            file.load()
            if file.mode == "F":
                raise ValueError("its pixels are floating-point numbers of unknown range")
            if file.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would cut off at 255
                grey = np.clip(np.asarray(file).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
                return np.repeat(grey[:, :, None], 3, axis=2)
            opaque = file.convert("RGBA") if "transparency" in file.info else file
            return np.array(opaque if opaque.mode == "RGB" else opaque.convert("RGB"))
    except FileNotFoundError:
        raise DataError(f"image file {path} does not exist") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6  # Pillow warns of half as many
        raise DataError(f"image file {path} has more than {limit:.0f} megapixels; cut it into tiles") from None
    except UNREADABLE as error:
        raise DataError(f"image file {path} cannot be read: {error}") from None


def _seeded(transform: Transform, image: tv_tensors.Image, target: dict[str, Any], seed: int) -> Any:
    assert transform.random is not None, "asked to augment without a random step"
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed ^ AUGMENT)  # torch.manual_seed would also reseed the accelerators
        return transform.random(image, target)


def _check_rows(target: dict[str, Any], name: str) -> None:
    for field in PER_BOX:
        if field in target and len(target[field]) != len(target["boxes"]):
            counts = f"{len(target['boxes'])} boxes but {len(target[field])} rows of '{field}'"
            raise ValueError(f"the random transform left {counts} for {name}; give its filter labels_getter=per_box")
