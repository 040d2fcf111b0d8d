"""From a layout to a photograph with its visible masks: patches, shading, shadows, painting far to near, the camera."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from boxcycle.data.scenes_backdrop import Pixels, noise, paint_backdrop
from boxcycle.data.scenes_brush import Brush, Random, Range
from boxcycle.data.scenes_layout import THINGS, Item, Layout
from boxcycle.data.scenes_places import AFLOAT, Difficulty

Mask = NDArray[np.bool_]

DETAIL = 3  # patches are drawn this many times larger, then shrunk: smooth edges
VISIBLE = 0.25  # objects of which less is seen are left out of the scene
SMALLEST = 4  # pixels of a visible box's side


class Rendered(NamedTuple):
    """``pixels`` uint8 [H, W, 3]; ``masks`` bool [N, H, W]: what is seen of each object; a crowd is one of them."""

    pixels: NDArray[np.uint8]
    masks: Mask
    names: tuple[str, ...]
    crowds: tuple[bool, ...]


@dataclass(frozen=True)
class Patch:
    """An item's pixels with their place in the image; alpha in 0..1."""

    item: Item
    left: int
    top: int
    colour: Pixels  # [h, w, 3]
    alpha: Pixels  # [h, w]

    def window(self, size: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Where it lies in an image of that size, and which part of it lies there."""
        spans = []
        for start, length, limit in zip((self.top, self.left), self.alpha.shape, size, strict=True):
            low, high = max(start, 0), max(min(start + length, limit), 0)
            spans.append((slice(low, max(high, low)), slice(low - start, max(high, low) - start)))
        return (spans[0][0], spans[1][0]), (spans[0][1], spans[1][1])


@dataclass(frozen=True)
class Weather:
    """The light of a scene and the faults of its camera."""

    direction: Range  # unit vector towards the light, x right, y down
    contrast: float  # of shading
    shadow: float
    gain: NDArray[np.float32]  # [3]
    haze: float  # how much the farthest things fade
    blur: float  # pixels at 192
    noise: float  # grey levels
    saturation: float
    motion: bool


@dataclass(frozen=True)
class _Faults:
    gain: Range
    tint: float
    haze: Range
    blur: Range
    noise: Range
    saturation: Range
    motion: float  # part of the scenes


FAULTS: Mapping[Difficulty, _Faults] = {
    "easy": _Faults(
        gain=(0.8, 1.1), tint=0.05, haze=(0, 0.3), blur=(0.2, 0.6), noise=(0.5, 3), saturation=(0.8, 1.1), motion=0
    ),
    "hard": _Faults(
        gain=(0.45, 1.1),
        tint=0.1,
        haze=(0.1, 0.6),
        blur=(0.4, 1.3),
        noise=(2, 10),
        saturation=(0.35, 1.05),
        motion=0.15,
    ),
}


def draw_weather(rng: Random, difficulty: Difficulty) -> Weather:
    faults, angle = FAULTS[difficulty], rng.uniform(-2.6, -0.5)
    tint = 1 + rng.normal(0, faults.tint) * np.array([1, 0.1, -1])
    return Weather(
        direction=(float(np.cos(angle)), float(np.sin(angle))),
        contrast=rng.uniform(0.15, 0.5),
        shadow=rng.uniform(0.15, 0.55),
        gain=(rng.uniform(*faults.gain) * tint).astype(np.float32),
        haze=rng.uniform(*faults.haze),
        blur=rng.uniform(*faults.blur),
        noise=rng.uniform(*faults.noise),
        saturation=rng.uniform(*faults.saturation),
        motion=bool(rng.random() < faults.motion),
    )


def render(layout: Layout, difficulty: Difficulty, rng: Random) -> Rendered:
    """The photograph of a layout. Objects that would hardly be seen are taken out of the scene, not left unlabelled."""
    weather = draw_weather(rng, difficulty)
    patches = [draw_patch(item, layout, weather, rng) for item in layout.items]
    patches = seen(patches, layout.size)
    pixels = paint_backdrop(layout, rng)
    for patch in patches:
        _cast_shadow(pixels, patch, weather)
        _paint(pixels, patch, patch.alpha)
    masks, names, crowds = _annotate(patches, layout.size)
    return Rendered(photograph(pixels, weather, rng), masks, names, crowds)


def draw_patch(item: Item, layout: Layout, weather: Weather, rng: Random) -> Patch:
    """An item drawn, lit, turned, and shrunk to its size; a lying one is flattened as the view from the side does."""
    thing, (width, height) = THINGS[item.name], item.drawn_size
    detail = DETAIL * max(1.0, 20 / max(width, height))
    brush = Brush(*(max(4, round(min(side * detail, 900))) for side in (width, height)))
    thing.draw(brush, rng)
    image = brush.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if item.mirrored else brush.image
    if abs(item.angle) > 1:
        image = image.rotate(item.angle, Image.Resampling.BILINEAR, expand=True)
    ratio = width / brush.width
    flatten = 1.0 if item.upright else layout.pitch
    flatten = max(flatten, 0.7) if item.name == "mouse" else flatten
    shape = (max(2, round(image.width * ratio)), max(2, round(image.height * ratio * flatten)))
    drawn = np.asarray(image.convert("RGBa").resize(shape, Image.Resampling.BOX).convert("RGBA"), dtype=np.float32)
    alpha = drawn[:, :, 3] / 255
    colour = drawn[:, :, :3] * _shading(thing.form, alpha.shape, weather)[:, :, None]
    colour *= 1 + thing.rough * noise(rng, alpha.shape, (1.5, 1.5))[:, :, None]
    distance = np.clip(1 - (item.foot - layout.top) / (layout.size[0] - layout.top) * 3, 0, 1)
    faded = weather.haze * distance if layout.horizon == layout.top else 0.0
    colour = colour * (1 - faded) + 200 * faded
    bottom = item.foot + (0 if item.upright else shape[1] / 2)
    return Patch(item, round(item.x - shape[0] / 2), round(bottom) - shape[1], colour.astype(np.float32), alpha)


def _shading(form: str, shape: tuple[int, ...], weather: Weather) -> Pixels:
    """How bright the surface is, [h, w] around 1: a ball, a drum with an upright axis, or a flat side."""
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    across, down = weather.direction
    if form == "ball":
        depth = np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))
        lit = across * x + down * y + 0.6 * depth
        return np.clip(1 - 0.4 * weather.contrast + 1.3 * weather.contrast * lit, 0.15, 1.6).astype(np.float32)
    if form == "drum":
        lit = across * x + 0.5 * np.sqrt(np.clip(1 - x**2, 0, 1))
        return np.clip(1 - 0.2 * weather.contrast + weather.contrast * lit, 0.2, 1.5).astype(np.float32)
    return np.clip(1 + 0.4 * weather.contrast * (across * x + down * y), 0.2, 1.5).astype(np.float32)


def seen(patches: list[Patch], size: tuple[int, int]) -> list[Patch]:
    """The patches without the objects that others or the border hide by more than ``1 - VISIBLE``, or that are tiny.

    Judged from near to far with all others in place: what is taken out only uncovers more of what remains.
    """
    covered = np.zeros(size, dtype=bool)
    kept = []
    for patch in reversed(patches):
        inside, part = patch.window(size)
        solid = patch.alpha > 0.5
        free = solid[part] & ~covered[inside]
        rows, columns = np.flatnonzero(free.any(axis=1)), np.flatnonzero(free.any(axis=0))
        if patch.item.role == "object":
            if free.sum() < VISIBLE * solid.sum() or not len(rows):
                continue
            if min(np.ptp(rows), np.ptp(columns)) + 1 < SMALLEST:
                continue
        covered[inside] |= solid[part]
        kept.append(patch)
    return kept[::-1]


def _paint(pixels: Pixels, patch: Patch, alpha: Pixels) -> None:
    inside, part = patch.window(pixels.shape[:2])
    share = alpha[part][:, :, None]
    pixels[inside] += (patch.colour[part] - pixels[inside]) * share


def _cast_shadow(pixels: Pixels, patch: Patch, weather: Weather) -> None:
    """A dark soft spot where it stands; on water its reflection."""
    height, width = patch.alpha.shape
    if patch.item.name in AFLOAT:
        mirrored = Patch(patch.item, patch.left, patch.top + height, patch.colour[::-1] * 0.7, patch.alpha[::-1] * 0.35)
        _paint(pixels, mirrored, mirrored.alpha * np.linspace(1, 0, height)[:, None])
        return
    lying = not patch.item.upright
    tall = height if lying else max(3, round(0.3 * width))
    y, x = np.mgrid[-1 : 1 : (tall + 4) * 1j, -1 : 1 : (width + 6) * 1j]
    spot = np.clip(1.2 - np.hypot(x, y), 0, 1) * weather.shadow
    if lying:
        spot = np.zeros((tall + 4, width + 6))
        spot[3:-1, 3:-3] = patch.alpha * weather.shadow
    shift = -weather.direction[0] * (0.15 * width if not lying else 2)
    top = patch.top if lying else patch.top + height - tall // 2 - 3
    shadow = Patch(
        patch.item, round(patch.left - 3 + shift), top, np.zeros((*spot.shape, 3), np.float32), spot.astype(np.float32)
    )
    _paint(pixels, shadow, shadow.alpha)


def _annotate(patches: list[Patch], size: tuple[int, int]) -> tuple[Mask, tuple[str, ...], tuple[bool, ...]]:
    """Who is in front at each pixel (at least half covering it), by object; the members of a crowd together."""
    owner = np.full(size, -1)
    labelled: list[tuple[str, bool]] = []
    for patch in patches:
        inside, part = patch.window(size)
        key = (patch.item.name, patch.item.role == "crowd")
        if patch.item.role == "clutter":
            number = -1
        elif key[1] and key in labelled:
            number = labelled.index(key)
        else:
            labelled.append(key)
            number = len(labelled) - 1
        owner[inside] = np.where(patch.alpha[part] > 0.5, number, owner[inside])
    masks = owner == np.arange(len(labelled))[:, None, None]
    there = masks.any(axis=(1, 2))
    chosen = [key for key, visible in zip(labelled, there, strict=True) if visible]
    return masks[there], tuple(name for name, _ in chosen), tuple(crowd for _, crowd in chosen)


def photograph(pixels: Pixels, weather: Weather, rng: Random) -> NDArray[np.uint8]:
    """Uneven light, then the lens (dark corners, blur, motion) and the sensor (dull colours, noise, clipping)."""
    height, width = size = pixels.shape[:2]
    uneven = 1 + 0.12 * noise(rng, size, (height / 2, width / 2))
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    corners = 1 - rng.uniform(0, 0.2) * (x**2 + y**2) / 2
    dull = pixels.mean(axis=2, keepdims=True)
    lit = (dull + weather.saturation * (pixels - dull)) * weather.gain * (uneven * corners)[:, :, None]
    image = Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(weather.blur * max(size) / 192))
    if weather.motion:
        image = image.filter(_motion(rng))
    grains = rng.normal(0, 1, size)[:, :, None] + 0.5 * rng.standard_normal((*size, 3), dtype=np.float32)
    return np.clip(np.asarray(image) + weather.noise * grains + 0.5, 0, 255).astype(np.uint8)


def _motion(rng: Random) -> ImageFilter.Kernel:
    """A streak of five pixels in one of four directions."""
    kernel = np.zeros((5, 5))
    steps = np.arange(5)
    rows, columns = ((np.full(5, 2), steps), (steps, np.full(5, 2)), (steps, steps), (steps, steps[::-1]))[
        int(rng.integers(4))
    ]
    kernel[rows, columns] = 1
    return ImageFilter.Kernel((5, 5), kernel.ravel().tolist())
