"""What the detector is shown of an image: its tags and proposals, checked, drawn for a step, at a scale, mirrored."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from boxcycle.data.proposals import ProposalConfig, find_proposals
from boxcycle.methods.ws_jds import labels
from boxcycle.ops.randomness import image_generator
from boxcycle.types import Detections, Target

PROPOSAL_STREAM = 3  # see ops.randomness: the draw of proposals that teach


def check_tags(target: Target, num_classes: int) -> Tensor:
    """The tags [K] of a target. Raises ``ValueError`` with one sentence if they are missing or cannot be."""
    name = f"image {target['image_id']}" if "image_id" in target else "the target"
    if "image_labels" not in target:
        raise ValueError(f"{name} has no image tags; expected 'image_labels' with a number for each class")
    tags = target["image_labels"]
    if tags.shape != (num_classes,):
        raise ValueError(f"image_labels of {name} must have shape [{num_classes}]; got {list(tags.shape)}")
    if not ((tags == 0) | (tags == 1)).all():
        raise ValueError(f"image_labels of {name} must be 0 (absent) or 1 (present); got {tags.tolist()}")
    return tags


def searched(image: Tensor, config: ProposalConfig) -> Tensor:
    """The proposals [P, 4] that a search finds in an image [3, H, W] in [0, 1], in its own pixels."""
    if config.method == "file":
        raise ValueError("proposals come from a file, which does not know this image; choose proposals.method=fast")
    pixels = (255 * image).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return torch.from_numpy(find_proposals(pixels, config))


def sampled(boxes: Tensor, target: Target, count: int) -> Tensor:
    """The proposals that teach: all of an image, or ``count`` of them, drawn anew in every step."""
    generator = image_generator(target, PROPOSAL_STREAM, boxes.device)
    order = torch.randperm(len(boxes), generator=generator, device=boxes.device)
    return boxes[order[:count]] if len(boxes) > count else boxes


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
