"""Boxes and their labels on the pixels of an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442")
"""Colours of the classes in turn: those of Okabe and Ito (2008), told apart with any kind of colour vision."""

SMALLEST = 480  # pixels of the longer side, below which an image is enlarged: labels stay readable
_BEHIND = "#1A1A1A"  # fills the gaps of dashed lines, so that they show on any ground

Rectangle = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom are the first pixel outside


@dataclass(frozen=True)
class Marks:
    """Boxes to draw on one image, and what to write on each.

    Shapes: ``boxes`` [N, 4] xyxy, original frame; ``labels`` [N] in 1..K. ``dashed``: detections, best score first.
    ``colours``: of each box, where they are not to tell its class.
    """

    boxes: NDArray[np.floating]
    labels: NDArray[np.int64]
    texts: tuple[str, ...]
    dashed: bool
    colours: tuple[str, ...] | None = None

    def colour(self, number: int) -> str:
        """The colour of box ``number``."""
        return class_colour(int(self.labels[number])) if self.colours is None else self.colours[number]


def draw_marks(
    image: NDArray[np.uint8], marks: Marks, *, longest: int | None = None, shown: int | None = None
) -> Image.Image:
    """The image [H, W, 3] with ``marks`` on it.

    An image below 480 pixels is enlarged by a whole factor; ``longest`` brings the longer side to at most that many
    pixels. At factor 1 a box [10, 10, 20, 20] covers the pixels 10 to 19 and its line lies on the outermost of them.
    ``shown`` is the size in pixels at which the longer side will be seen, by default its own: lines and texts are drawn
    for that. A text that finds no free place is left out: the colour still tells the class.
    """
    canvas, scale = _scaled(image, longest)
    draw = ImageDraw.Draw(canvas)
    longer = max(canvas.size)
    shrink = longer / min(shown or longer, longer)
    width = round(shrink * max(2, longer / shrink / 400))
    rectangles = [_rectangle(box * scale, canvas.size) for box in marks.boxes]
    for number in reversed(range(len(rectangles))):  # the best ends on top
        _draw_frame(draw, rectangles[number], marks.colour(number), width, marks.dashed)
    font = load_font(round(shrink * min(24, max(11, longer / shrink / 50))))
    _draw_texts(draw, canvas.size, rectangles, marks, font)
    return canvas


def class_colour(label: int) -> str:
    """The colour of class ``label`` (1..K) in every picture; there are seven, then they come again."""
    return PALETTE[(label - 1) % len(PALETTE)]


def _scaled(image: NDArray[np.uint8], longest: int | None) -> tuple[Image.Image, NDArray[np.float64]]:
    """The image at the size to draw at, and the factors (x, y, x, y) that bring boxes there."""
    height, width = image.shape[:2]
    factor: float = -(-SMALLEST // max(height, width))
    if longest is not None:
        factor = min(factor, longest / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    picture = Image.fromarray(image)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    return picture, np.array(size * 2, dtype=np.float64) / (width, height, width, height)


def _rectangle(box: NDArray[np.floating], size: tuple[int, int]) -> Rectangle:
    """The pixels that a box covers, at least one, inside the image."""
    left, top, right, bottom = (int(edge) for edge in np.floor(box + 0.5))
    left, top = min(max(left, 0), size[0] - 1), min(max(top, 0), size[1] - 1)
    return left, top, min(max(right, left + 1), size[0]), min(max(bottom, top + 1), size[1])


def _draw_frame(draw: ImageDraw.ImageDraw, rectangle: Rectangle, colour: str, width: int, dashed: bool) -> None:
    left, top, right, bottom = rectangle
    x, y = min(right, left + width), min(bottom, top + width)
    for strip in (
        (left, top, right, y),
        (left, max(top, bottom - width), right, bottom),
        (left, top, x, bottom),
        (max(left, right - width), top, right, bottom),
    ):
        _fill(draw, strip, _BEHIND if dashed else colour)
        for dash in _dashes(strip, 4 * width, 2 * width) if dashed else ():
            _fill(draw, dash, colour)


def _dashes(strip: Rectangle, length: int, gap: int) -> Iterator[Rectangle]:
    left, top, right, bottom = strip
    if right - left >= bottom - top:
        for start in range(left, right, length + gap):
            yield start, top, min(start + length, right), bottom
    else:
        for start in range(top, bottom, length + gap):
            yield left, start, right, min(start + length, bottom)


def _fill(draw: ImageDraw.ImageDraw, rectangle: Rectangle, colour: str) -> None:
    left, top, right, bottom = rectangle
    draw.rectangle((left, top, right - 1, bottom - 1), fill=colour)  # Pillow's corners are inclusive


def _draw_texts(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    rectangles: Sequence[Rectangle],
    marks: Marks,
    font: ImageFont.FreeTypeFont,
) -> None:
    taken: list[Rectangle] = []
    for number, (rectangle, text) in enumerate(zip(rectangles, marks.texts, strict=True)):
        text = shortened(text, font, size[0] - 6)
        if not text:
            continue
        chip = _place(rectangle, (round(font.getlength(text)) + 6, sum(font.getmetrics()) + 2), size, taken)
        if chip:
            taken.append(chip)
            colour = marks.colour(number)
            _fill(draw, chip, colour)
            draw.text((chip[0] + 3, chip[1] + 1), text, font=font, fill=_ink(colour))


def _place(
    rectangle: Rectangle, chip: tuple[int, int], size: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle | None:
    """Where a label of ``chip`` (width, height) goes: above the box, below its top edge, under it, or nowhere."""
    left, top, right, bottom = rectangle
    width, height = chip
    for x, y in ((left, top - height), (left, top), (right - width, top), (left, bottom), (left, bottom - height)):
        x = max(0, min(x, size[0] - width))
        spot = x, y, x + width, y + height
        if 0 <= y <= size[1] - height and not any(_overlap(spot, other) for other in taken):
            return spot
    return None


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    text = " ".join(text.split())  # a line break has no width
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _ink(colour: str) -> str:
    """Black or white, whichever is read better on ``colour``."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 120 else "white"


@lru_cache
def load_font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: on every machine, with the letters of most languages."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
