"""Masks at test, brought to the edges of the image by a CRF: exactly on a small map, or approximately at full size.

A gradient passes through neither. Which of them, if any, is a setting and no matter of what is installed: masks should
not differ between machines.
"""

from __future__ import annotations

import importlib.util
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from boxcycle.methods.ws_jds import crf

Refinement = Literal["none", "small", "full"]
CELLS = 64  # of the longer side, for "small": time and memory grow with the square of the number of cells
INSTALL = "pip install 'boxcycle[crf]'"


def check(how: Refinement) -> None:
    """Raises ``ValueError`` if what it takes is not installed."""
    if how == "full" and importlib.util.find_spec("pydensecrf") is None:
        raise ValueError(f"detector.crf=full needs pydensecrf2: {INSTALL}")


def refined(image: Tensor, masks: Tensor, how: Refinement) -> Tensor:
    """The masks of the classes of an image as a CRF corrects them to its edges. [WS-JDS section 4.2]

    Shapes: image [3, H, W] in [0, 1], masks [K, H, W] in [0, 1]; returns [K, H, W] in [0, 1].
    """
    if how == "none" or not len(masks):
        return masks
    return _small(image, masks) if how == "small" else _full(image, masks)


def _small(image: Tensor, masks: Tensor) -> Tensor:
    cells = crf.shrunk(masks, CELLS)
    found = crf.boundary_targets(adaptive_avg_pool2d(255 * image, (cells.shape[1], cells.shape[2])), cells)
    return interpolate(found[None], masks.shape[1:], mode="bilinear")[0]


def _full(image: Tensor, masks: Tensor) -> Tensor:
    """Krähenbühl and Koltun's approximate filters, with the weights and deviations of ``crf``."""
    from pydensecrf.densecrf import DenseCRF2D

    height, width = masks.shape[1:]
    scale = max(height, width) / crf.REFERENCE
    unary = -crf.with_background(masks).clamp(min=1e-6).log()
    pixels = (255 * image).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
    field = DenseCRF2D(width, height, len(unary))
    field.setUnaryEnergy(np.ascontiguousarray(unary.flatten(1).cpu().numpy(), dtype=np.float32))
    field.addPairwiseGaussian(sxy=crf.NEAR * scale, compat=crf.GAUSSIAN)
    field.addPairwiseBilateral(
        sxy=crf.PLACE * scale,
        srgb=crf.COLOUR,
        rgbim=np.ascontiguousarray(pixels.cpu().numpy()),
        compat=crf.BILATERAL,
    )
    found = np.array(field.inference(crf.ITERATIONS), dtype=np.float32).reshape(-1, height, width)
    return torch.from_numpy(found[1:]).to(masks)
