"""The words that every module shares: shape letters, targets, detections, batches.

Shape letters, used in every docstring of the package:

    B  images of a batch        N  annotated boxes of an image      P  proposals of an image
    R  sampled RoIs of a batch  M  windows of an image              Q  queries
    K  foreground classes       C  channels                         H, W  height and width

Boxes are ``xyxy``, absolute pixels, float32, half-open continuous coordinates (a box from 0 to 10 is 10 pixels wide).
Docstrings name their frame: *original* (the image file), or *image* (the tensor that the model is given, after resizing
and augmentation). Image sizes are ``(height, width)``. Labels are 1..K; 0 is background.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypedDict

if TYPE_CHECKING:
    from torch import Tensor


HUMAN, MINED = 0, 1  # sources of a box


class _RequiredTarget(TypedDict):
    boxes: Tensor  # [N, 4] float, xyxy
    labels: Tensor  # [N] int64 in 1..K; 0 only for an ignore region of unknown class


class Target(_RequiredTarget, total=False):
    """What is known about one image: torchvision's target dict and what few labels need beside it; image frame.

    ``boxes`` and ``labels`` are required, all else may be absent.
    """

    image_id: int
    area: Tensor  # [N] float32
    iscrowd: Tensor  # [N] bool: an ignore region, which teaches neither object nor background
    difficult: Tensor  # [N] bool, VOC: learnt from, left out of the score
    masks: Tensor  # [N, H, W] bool
    image_labels: Tensor  # [K] float32, the image's tags: 1 present, 0 absent
    source: Tensor  # [N] int64: 0 human, 1 mined (it teaches a class, not a place), 2 prior
    weight: Tensor  # [N] float32: multiplies the losses of the box
    unverified: Tensor  # [K] bool: classes nobody looked for, or not for all of them: the absence of a box says nothing
    annotated: bool  # False: nobody looked, which is not the same as an image without objects
    original_size: tuple[int, int]  # (height, width) of the image file
    proposals: Tensor  # [P, 4] xyxy: regions for detectors that do not propose themselves
    seed: int  # of all random draws of the image's losses: a step does not depend on batches, workers, processes


class Detections(TypedDict):
    """What a detector found in one image, best score first; image frame from a model, original frame in predictions."""

    boxes: Tensor  # [D, 4] xyxy
    labels: Tensor  # [D] int64 in 1..K
    scores: Tensor  # [D] in [0, 1]
    probs: Tensor  # [D, K+1]: the whole class distribution of each detection, background first


class ImageList(NamedTuple):
    """A batch of images of several sizes, padded at the right and bottom."""

    tensors: Tensor  # [B, 3, H, W], normalised, zero where padded
    sizes: list[tuple[int, int]]  # each image's own (height, width)


def check_target(target: Target, image_size: tuple[int, int], num_classes: int) -> None:
    """Raise ``ValueError`` with one sentence (image, box, expected, found) if a target cannot be learnt from.

    torchvision's detectors accept xywh passed as xyxy, boxes outside the image, and end in an IndexError on a label
    above K; all three are refused here, before a loss is computed.
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
