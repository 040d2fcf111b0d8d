"""How the branches guide each other, in pictures: the map, the seeds, the masks, the weights, the detections."""

from __future__ import annotations

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from boxcycle.data.dataset import DetectionDataset
from boxcycle.evaluation.predictions import evaluation_mode
from boxcycle.methods.ws_jds import guidance, labels
from boxcycle.methods.ws_jds.detector import WeakDetector
from boxcycle.methods.ws_jds.guidance import Seen
from boxcycle.report.drawing import PALETTE, Marks, draw_marks
from boxcycle.report.html import Row
from boxcycle.types import Detections

IMAGES, CLASSES, BOXES = 4, 2, 3  # shown: images, classes of an image, boxes of a picture
BLUE, ORANGE, GREEN = PALETTE[0], PALETTE[1], PALETTE[2]
LONGEST, SHOWN = 480, 190  # pixels of a picture's longer side, and what is left of them beside five others

Pixels = NDArray[np.uint8]  # [H, W, 3]


def guidance_rows(model: WeakDetector, dataset: DetectionDataset) -> list[Row]:
    """A row of pictures for each present class of a few images, evenly spread over the dataset. [WS-JDS Fig. 4]

    Every picture is of the image as the model is given it. A detector without segmentation has two: map and detections.
    """
    rows, names = [], dataset.index.class_names
    with evaluation_mode(model):
        for position in np.unique(np.linspace(0, len(dataset) - 1, IMAGES).round().astype(int)).tolist():
            image, target = dataset[position]
            device = next(model.parameters()).device
            image, boxes = image.to(device), target["proposals"].to(device)
            [seen] = model.explain([image], [target | {"proposals": boxes}])  # type: ignore[list-item]
            [found] = model.predict([image], [boxes])
            for column in (seen.tags > 0).nonzero().flatten().tolist()[:CLASSES]:
                title = f"Guidance: {dataset.index.file_names[position]}, {names[column]}"
                rows.append(Row(title, _panels(model, seen, found, column)))
    return rows


def _panels(model: WeakDetector, seen: Seen, found: Detections, column: int) -> list[tuple[str, Image.Image]]:
    pixels = (255 * seen.image).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    score, settings = float(seen.scores.image[column].detach()), model.guidance
    map_of_class = labels.normalised(guidance.map_cells(seen)[column])
    named = f"localisation map, image score {score:.2f}" if map_of_class.any() else f"no map: image score {score:.2f}"
    panels = [(named, _picture(_heat(pixels, map_of_class)))]
    detected = "detections", _with_detections(pixels, found, column + 1)
    if model.segmenter is None:
        return [*panels, detected]
    masks = guidance.mask_cells(seen)
    weights = guidance.weigh(seen, masks, settings)[:, column]
    seeds = guidance.seeds(seen, settings)[column]
    return [
        *panels,
        ("seeds: orange the class, blue not", _picture(_seeds(pixels, seeds, seen.stride))),
        ("segmentation", _picture(_heat(pixels, masks[column]))),
        ("weights by it: green highest, blue lowest", _with_weights(pixels, seen.boxes, weights)),
        detected,
    ]


def _picture(pixels: Pixels) -> Image.Image:
    return draw_marks(pixels, _marks(torch.zeros(0, 4), [], [], dashed=False), longest=LONGEST, shown=SHOWN)


def _with_detections(pixels: Pixels, found: Detections, label: int) -> Image.Image:
    chosen = (found["labels"] == label).nonzero().flatten()[:BOXES]
    texts = [f"{score:.2f}" for score in found["scores"][chosen].tolist()]
    marks = _marks(found["boxes"][chosen], texts, [ORANGE] * len(texts), dashed=True)
    return draw_marks(pixels, marks, longest=LONGEST, shown=SHOWN)


def _with_weights(pixels: Pixels, boxes: Tensor, weights: Tensor) -> Image.Image:
    """The proposals of the highest and of the lowest weights."""
    order = weights.argsort(descending=True)
    chosen = torch.cat([order[:BOXES], order[BOXES:][-BOXES:]])
    texts = [f"{weight:.2f}" for weight in weights[chosen].tolist()]
    colours = [GREEN if place < BOXES else BLUE for place in range(len(chosen))]
    return draw_marks(pixels, _marks(boxes[chosen], texts, colours, dashed=False), longest=LONGEST, shown=SHOWN)


def _marks(boxes: Tensor, texts: list[str], colours: list[str], *, dashed: bool) -> Marks:
    return Marks(boxes.cpu().numpy(), np.ones(len(boxes), dtype=np.int64), tuple(texts), dashed, tuple(colours))


def _heat(pixels: Pixels, cells: Tensor) -> Pixels:
    """Cells of 4 x 4 pixels, in [0, 1], as colours over a faint picture."""
    values = guidance.enlarged(cells[None], guidance.FINE, pixels.shape[:2])[0]
    colours = matplotlib.colormaps["magma"](values.cpu().numpy())[..., :3]
    return _mixed(pixels, 255 * colours, 0.7)


def _seeds(pixels: Pixels, seeds: Tensor, stride: int) -> Pixels:
    """Cells that teach the class and its absence in two colours, the others faint."""
    picture = _mixed(pixels, np.full(pixels.shape, 255.0), 0.4)
    for value, colour in ((1, ORANGE), (0, BLUE)):
        where = guidance.enlarged((seeds == value).float()[None], stride, pixels.shape[:2], mode="nearest")[0]
        painted = _mixed(pixels, np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float64), 0.6)
        picture = np.where(where.cpu().numpy()[..., None] > 0, painted, picture)
    return picture


def _mixed(pixels: Pixels, colours: NDArray[np.float64], share: float) -> Pixels:
    grey = pixels.mean(-1, keepdims=True)
    return ((1 - share) * grey + share * colours).round().astype(np.uint8)
