"""Where the segmentation should end: an exact fully connected CRF, for maps of at most a few thousand cells."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

# SEC's (Kolesnikov and Lampert, ECCV 2016) weights and deviations, of a map of 500 cells a side: a fifth of the cells
# is a deviation of a fifth of 80 in place and 13 grey levels in colour
BILATERAL, GAUSSIAN = 10.0, 3.0
PLACE, COLOUR, NEAR = 80.0, 13.0, 3.0
REFERENCE = 500.0
ITERATIONS = 10
LARGEST = 48  # cells of the longer side: kernels take the square of the number of cells in time and memory


def boundary_targets(image: Tensor, masks: Tensor) -> Tensor:
    """The masks of the present classes as a CRF corrects them to the edges of the image: a constant to learn.
    [WS-JDS section 3, constrain-to-boundary loss]

    Labels of the CRF are the classes and the background, 1 - max S, normalised in each cell.

    Shapes: image [3, H, W] in [0, 255], masks [K+, H, W] in [0, 1]; both small (see ``LARGEST``); returns [K+, H, W].
    """
    scale = max(masks.shape[1:]) / REFERENCE
    return mean_field(
        image.float(),
        with_background(masks.detach().float()),
        place=PLACE * scale,
        colour=COLOUR,
        near=NEAR * scale,
    )[1:]


def with_background(masks: Tensor) -> Tensor:
    """The background, 1 - max S, before the classes, of sum 1. Shapes: [K, H, W]; returns [1 + K, H, W]."""
    probabilities = torch.cat([1 - masks.amax(0, keepdim=True), masks])
    return probabilities / probabilities.sum(0).clamp(min=1e-6)


def shrunk(maps: Tensor, largest: int = LARGEST) -> Tensor:
    """Maps [C, H, W] whose longer side has at most ``largest`` cells, by means over areas."""
    height, width = maps.shape[1:]
    factor = min(1.0, largest / max(height, width))
    return adaptive_avg_pool2d(maps, (max(1, round(height * factor)), max(1, round(width * factor))))


def mean_field(
    image: Tensor,
    probabilities: Tensor,
    *,
    place: float,
    colour: float,
    near: float,
    bilateral: float = BILATERAL,
    gaussian: float = GAUSSIAN,
    iterations: int = ITERATIONS,
) -> Tensor:
    """Mean-field inference of a fully connected CRF with Potts costs, without approximation.
    [Krähenbühl and Koltun, NIPS 2011]

    Each cell is drawn to the labels of the cells that are near (deviation ``near``, weight ``gaussian``) and of those
    that are near and look alike (deviations ``place`` in cells and ``colour`` in grey levels, weight ``bilateral``).
    Kernels count the cell itself and are normalised from both sides.

    Shapes: image [3, H, W], probabilities [L, H, W] of sum 1; returns [L, H, W] of sum 1.
    """
    height, width = image.shape[1:]
    rows = torch.arange(height, device=image.device, dtype=image.dtype)
    columns = torch.arange(width, device=image.device, dtype=image.dtype)
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).flatten(1).T  # [N, 2]
    looks = torch.cat([places / place, image.flatten(1).T / colour], dim=1)  # [N, 5]
    drawn = bilateral * _kernel(looks) + gaussian * _kernel(places / near)
    unary = probabilities.flatten(1).clamp(min=1e-6).log()  # [L, N]
    found = unary.softmax(0)
    for _ in range(iterations):
        found = (unary + found @ drawn).softmax(0)
    return found.unflatten(1, (height, width))


def _kernel(points: Tensor) -> Tensor:
    """Gaussian kernel of points [N, D], each entry over the roots of its row's and its column's sum."""
    kernel = torch.cdist(points, points).square().mul(-0.5).exp()
    root = kernel.sum(1).rsqrt()
    return root[:, None] * kernel * root[None]
