"""The words that every module shares: shape letters, targets, detections, batches.

Shape letters, used in every docstring of the package:

    B  images of a batch        N  annotated boxes of an image      P  proposals of an image
    R  sampled RoIs of a batch  M  windows of an image              Q  queries
    K  foreground classes       C  channels                         H, W  height and width

Boxes are ``xyxy``, absolute pixels, float32, half-open continuous coordinates (a box from 0 to 10 is 10 pixels wide).
Docstrings name
their frame: *original* (the image file), or *image* (the tensor that the model is given, after resizing and
augmentation). Image sizes
are ``(height, width)``. Labels are 1..K; 0 is background.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypedDict

if TYPE_CHECKING:
    from torch import Tensor


class _RequiredTarget(TypedDict):
    boxes: Tensor
    labels: Tensor


class Target(_RequiredTarget, total=False):
    """What is known about one image: torchvision's target dict and what few labels need beside it.

    Required: ``boxes`` [N, 4] xyxy, image frame; ``labels`` [N] int64 in 1..K (0 only for an ignore region of unknown
    class).

    Optional: ``image_id`` int; ``area`` [N] float32; ``iscrowd`` [N] bool: an ignore region, which teaches neither
    object nor
    background; ``difficult`` [N] bool (VOC: learnt from, left out of the score); ``masks`` [N, H, W] bool;
    ``image_labels`` [K] float32:
    the image's tags (1 present, 0 absent); ``source`` [N] int64: 0 human, 1 mined, 2 prior; ``weight`` [N] float32:
    multiplies the losses
    of the box; ``unverified`` [K] bool: classes that nobody looked for in the image, or of which not every object has a
    box: the absence of one (and its 0 in ``image_labels``) says nothing;
    ``annotated`` bool: False means that nobody looked, which is not the same as an image without objects;
    ``original_size`` (height, width) of the image file; ``proposals`` [P, 4] xyxy, image frame:
    regions for detectors that do not propose themselves; ``seed`` int: seeds every random draw of the losses of this
    image, so that a step
    does not depend on how images are spread over batches, workers and processes.
    """

    image_id: int
    area: Tensor
    iscrowd: Tensor
    difficult: Tensor
    masks: Tensor
    image_labels: Tensor
    source: Tensor
    weight: Tensor
    unverified: Tensor
    annotated: bool
    original_size: tuple[int, int]
    proposals: Tensor
    seed: int


class Detections(TypedDict):
    """What a detector found in one image, best score first.

    ``boxes`` [D, 4] xyxy (image frame from a model, original frame in predictions), ``labels`` [D] int64 in 1..K,
    ``scores`` [D] in
    [0, 1], ``probs`` [D, K+1]: the whole class distribution of each detection, background first.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    probs: Tensor


class ImageList(NamedTuple):
    """A padded batch: ``tensors`` [B, 3, H, W], normalised, zero where padded at the right and bottom; ``sizes``:
    each image's own (height, width).
    """

    tensors: Tensor
    sizes: list[tuple[int, int]]


def check_target(target: Target, image_size: tuple[int, int], num_classes: int) -> None:
    """Raise ``ValueError`` with one sentence (image, box, expected, found) if a target cannot be learnt from.

    torchvision's detectors accept xywh passed as xyxy, boxes outside the image, and end in an IndexError on a label
    above K; all three are
    refused here, before a loss is computed.
    """
    import torch

    name = f"image {target['image_id']}" if "image_id" in target else "the target"
    boxes, labels = target["boxes"], target["labels"]
    if boxes.ndim != 2 or boxes.shape[-1] != 4:
        raise ValueError(f"boxes of {name} must have shape [N, 4]; got {list(boxes.shape)}")
    if not boxes.is_floating_point():
        raise ValueError(f"boxes of {name} must be floating-point numbers; got {boxes.dtype}")
    if labels.shape != boxes.shape[:1]:
        raise ValueError(f"labels of {name} must have shape [{len(boxes)}], one for each box; got {list(labels.shape)}")
    if labels.dtype != torch.int64:
        raise ValueError(f"labels of {name} must be int64; got {labels.dtype}")
    if "unverified" in target:
        _check_unverified(target["unverified"], name, num_classes)
    if not len(boxes):
        return
    height, width = image_size
    limit = boxes.new_tensor([width, height, width, height]) + 1e-2  # float32 rounding of a resize
    checks = (
        (boxes.isfinite().all(1), "be finite"),
        ((boxes[:, 2:] > boxes[:, :2]).all(1), "have x1 < x2 and y1 < y2 (xyxy, not xywh)"),
        (((boxes >= -1e-2) & (boxes <= limit)).all(1), f"lie inside the image of {height} x {width} (height x width)"),
    )
    for holds, rule in checks:
        if not holds.all():
            bad = int((~holds).nonzero()[0])
            raise ValueError(f"boxes of {name} must {rule}; box {bad} is {boxes[bad].tolist()}")
    lowest = torch.where(target["iscrowd"].bool(), 0, 1) if "iscrowd" in target else torch.ones_like(labels)
    wrong = (labels < lowest) | (labels > num_classes)
    if wrong.any():
        bad = int(wrong.nonzero()[0])
        raise ValueError(
            f"labels of {name} must be in 1..{num_classes} (0 is background); box {bad} has label {int(labels[bad])}"
        )


def _check_unverified(unverified: Tensor, name: str, num_classes: int) -> None:
    import torch

    if unverified.shape != (num_classes,) or unverified.dtype != torch.bool:
        expected = f"have shape [{num_classes}], one for each class, and be bool"
        raise ValueError(f"unverified of {name} must {expected}; got {list(unverified.shape)}, {unverified.dtype}")
