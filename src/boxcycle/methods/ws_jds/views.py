"""An image and its proposals as the detector is shown them: inside the image, at another scale, mirrored."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from boxcycle.methods.ws_jds import labels
from boxcycle.types import Detections


def inside(boxes: Tensor, image: Tensor) -> Tensor:
    """Boxes clipped to their image, without those that vanish; the whole image if none is left.

    Raises ``ValueError`` if they are no finite boxes.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not boxes.isfinite().all():
        raise ValueError(f"proposals must be finite boxes of shape [P, 4]; got shape {list(boxes.shape)}")
    height, width = image.shape[-2:]
    limit = boxes.new_tensor([width, height, width, height])
    kept = boxes.clamp(min=0).minimum(limit)
    kept = kept[((kept[:, 2:] - kept[:, :2]) > 0).all(1)]
    return kept if len(kept) else boxes.new_tensor([[0, 0, width, height]])


def view(image: Tensor, boxes: Tensor, scale: float, mirrored: bool) -> tuple[Tensor, Tensor]:
    """An image and its boxes at another scale, or mirrored."""
    height, width = image.shape[-2:]
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    if size != (height, width):
        image = interpolate(image[None], size, mode="bilinear", antialias=True)[0]
        boxes = boxes * boxes.new_tensor([size[1] / width, size[0] / height] * 2)
    if mirrored:
        x1, y1, x2, y2 = boxes.unbind(1)
        image, boxes = image.flip(-1), torch.stack([size[1] - x2, y1, size[1] - x1, y2], dim=1)
    return image, boxes


def instance_masks(maps: Tensor, found: Detections) -> Tensor:
    """The mask of each detection of an image. Shapes: maps [K, H, W] in [0, 1]; returns [D, H, W] bool."""
    pairs = zip(found["labels"].tolist(), found["boxes"].round().long(), strict=True)
    masks = [labels.instance_mask(maps[label - 1], box) for label, box in pairs]
    return torch.stack(masks) if masks else maps.new_zeros(0, *maps.shape[1:], dtype=torch.bool)
