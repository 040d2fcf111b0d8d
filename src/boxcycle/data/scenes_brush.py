"""What the things of a generated scene are drawn with: a brush in unit coordinates, colours, and irregular outlines."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Range = tuple[float, float]
Point = tuple[float, float]
Random = np.random.Generator


class Brush:
    """A transparent patch of width x height pixels, drawn on in coordinates from 0 to 1 (x right, y down)."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.image = Image.new("RGBA", (width, height))
        self._draw = ImageDraw.Draw(self.image)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        self._draw.polygon([(x * self.width, y * self.height) for x, y in points], fill=colour)

    def ellipse(self, x1: float, y1: float, x2: float, y2: float, colour: Colour) -> None:
        self._draw.ellipse(self._box(x1, y1, x2, y2), fill=colour)

    def ring(self, x1: float, y1: float, x2: float, y2: float, thickness: float, colour: Colour) -> None:
        """An ellipse's outline; ``thickness`` in patch widths."""
        self._draw.ellipse(self._box(x1, y1, x2, y2), outline=colour, width=max(1, round(thickness * self.width)))

    def rectangle(self, x1: float, y1: float, x2: float, y2: float, colour: Colour, radius: float = 0) -> None:
        """``radius`` of the corners in patch widths."""
        self._draw.rounded_rectangle(self._box(x1, y1, x2, y2), radius * self.width, fill=colour)

    def line(self, points: Sequence[Point], thickness: float, colour: Colour) -> None:
        """``thickness`` in patch widths; ends are round."""
        width = max(1, round(thickness * self.width))
        corners = [(x * self.width, y * self.height) for x, y in points]
        self._draw.line(corners, fill=colour, width=width, joint="curve")
        for x, y in (corners[0], corners[-1]):
            self._draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=colour)

    def arc(self, x1: float, y1: float, x2: float, y2: float, degrees: Range, thickness: float, colour: Colour) -> None:
        width = max(1, round(thickness * self.width))
        self._draw.arc(self._box(x1, y1, x2, y2), *degrees, fill=colour, width=width)

    def _box(self, x1: float, y1: float, x2: float, y2: float) -> tuple[float, float, float, float]:
        left, right = sorted((x1 * (self.width - 1), x2 * (self.width - 1)))
        top, bottom = sorted((y1 * (self.height - 1), y2 * (self.height - 1)))
        return left, top, right, bottom


@dataclass(frozen=True)
class Thing:
    """``height`` in metres (of a lying thing its length), ``aspect`` = width / height of what is drawn."""

    draw: Callable[[Brush, Random], None]
    height: Range
    aspect: Range
    form: Literal["ball", "drum", "flat"] = "flat"  # how light falls on it
    lying: bool = False  # on the ground: turned any way, and flattened by the view from the side
    leaning: float = 0.0  # how often a thing that otherwise lies stands upright against something
    rough: float = 0.03  # strength of its surface texture


def hsv(rng: Random, hue: Range, saturation: Range, value: Range) -> Colour:
    """A colour drawn from ranges in degrees, and 0..1 twice."""
    red, green, blue = colorsys.hsv_to_rgb(rng.uniform(*hue) / 360 % 1, rng.uniform(*saturation), rng.uniform(*value))
    return round(red * 255), round(green * 255), round(blue * 255)


def any_colour(rng: Random) -> Colour:
    return hsv(rng, (0, 360), (0.05, 0.9), (0.2, 0.95))


def grey(rng: Random, value: Range = (0.15, 0.9)) -> Colour:
    return hsv(rng, (0, 360), (0, 0.12), value)


def wood(rng: Random) -> Colour:
    return hsv(rng, (18, 40), (0.3, 0.7), (0.35, 0.8))


def times(colour: Colour, factor: float) -> Colour:
    """Darker (factor below 1) or lighter."""
    red, green, blue = (min(255, round(channel * factor)) for channel in colour)
    return red, green, blue


def wobbly(rng: Random, corners: int, roughness: float) -> list[Point]:
    """A closed irregular outline that fills the unit square."""
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False) + rng.uniform(-0.4, 0.4, corners) / corners
    radius = 1 + rng.uniform(-roughness, roughness, corners)
    points = np.stack([np.cos(angles) * radius, np.sin(angles) * radius], axis=1)
    low, high = points.min(axis=0), points.max(axis=0)
    return [(float(x), float(y)) for x, y in (points - low) / (high - low)]
