"""How the boxes that a detector made for itself have changed: one image a row, one update a column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxcycle.report.drawing import PALETTE, Marks, draw_marks
from boxcycle.report.html import Report, Row, write_report
from boxcycle.report.pictures import stack

KINDS = {"region": PALETTE[1], "instance": PALETTE[2], "prior": PALETTE[0]}
COLUMNS = 5  # updates of an image that are shown at most: the first, the last and some between
SHOWN = 420  # pixels at which a picture is seen, of its longer side
HEAT = 0.55  # how much of a pixel is the map's colour

Boxes = NDArray[np.floating]


def draw_view(
    pixels: NDArray[np.uint8],
    attention: NDArray[np.float32],
    found: Mapping[str, tuple[Boxes, Sequence[float]]],
) -> Image.Image:
    """The attention map over an image with the regions and instances found on it, and under it the priors made of them.

    Shapes: pixels [H, W, 3]; attention [h, w], of any size; ``found`` has boxes [N, 4] (xyxy, parts of the image) and
    scores for each of ``KINDS``.
    """
    above = {kind: boxes for kind, boxes in found.items() if kind != "prior"}
    below = {kind: boxes for kind, boxes in found.items() if kind == "prior"}
    pictures = [_draw(heat(pixels, attention), above), _draw(pixels, below)]
    return stack(pictures, gap=4)


def heat(pixels: NDArray[np.uint8], attention: NDArray[np.float32]) -> NDArray[np.uint8]:
    """An image in grey under the colours of a map, from its lowest to its highest value; a flat map has no colours."""
    grey = np.repeat(pixels.mean(2, keepdims=True), 3, axis=2)
    low, high = float(attention.min()), float(attention.max())
    if not high > low:
        return grey.astype(np.uint8)
    whole = Image.fromarray((255 * (attention - low) / (high - low)).astype(np.uint8))
    enlarged = np.asarray(whole.resize(pixels.shape[1::-1], Image.Resampling.NEAREST))
    colours = matplotlib.colormaps["viridis"](enlarged)[..., :3] * 255
    return np.clip((1 - HEAT) * grey + HEAT * colours, 0, 255).astype(np.uint8)


def write_priors_report(path: Path, title: str, images: dict[str, dict[int, tuple[str, Path]]]) -> None:
    """Write a page of pictures: for each image its updates by number, each with a caption and a picture's file."""
    rows = []
    for name, updates in images.items():
        rows.append(Row(name, [(f"R{n}: {updates[n][0]}", Image.open(updates[n][1])) for n in _some(updates)]))
    note = (
        "Above: the attention map, with the region and instance priors found on it. Below: the priors that are learnt."
    )
    lead = "What the detector learnt from, and found for itself, in images that nobody annotated."
    write_report(path, Report(title=title, lead=lead, pictures_note=note, legend=KINDS, pictures=rows))


def _some(numbers: Iterable[int]) -> list[int]:
    """All of a few numbers; of many, the first, the last and some that are evenly spread between."""
    every = sorted(numbers)
    count = min(COLUMNS, len(every))
    return [every[i * (len(every) - 1) // max(count - 1, 1)] for i in range(count)]


def _draw(pixels: NDArray[np.uint8], found: Mapping[str, tuple[Boxes, Sequence[float]]]) -> Image.Image:
    height, width = pixels.shape[:2]
    boxes = [boxes * np.array([width, height, width, height]) for boxes, _ in found.values()]
    texts = [f"{score:.2f}" for _, scores in found.values() for score in scores]
    colours = [KINDS[kind] for kind, (rows, _) in found.items() for _ in rows]
    every = np.concatenate([np.zeros((0, 4)), *boxes])
    labels = np.ones(len(every), dtype=np.int64)
    return draw_marks(pixels, Marks(every, labels, tuple(texts), False, tuple(colours)), longest=SHOWN)
