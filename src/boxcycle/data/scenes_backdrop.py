"""The places of the generated scenes without their things: walls, tables, streets, grass, water, skies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxcycle.data.scenes_brush import Brush, Colour, Random, any_colour, grey, hsv, times, wood
from boxcycle.data.scenes_layout import Layout
from boxcycle.data.scenes_places import QUAY

Pixels = NDArray[np.floating[Any]]  # [H, W, 3], 0..255


def paint_backdrop(layout: Layout, rng: Random) -> Pixels:
    """What stands behind everything: [H, W, 3], 0..255."""
    return PAINTERS[layout.place](layout, rng)


def noise(rng: Random, size: tuple[int, int], cell: tuple[float, float]) -> Pixels:
    """Smooth noise [H, W] of mean 0 and about unit spread, with bumps of about ``cell`` = (height, width) pixels."""
    height, width = size
    rows, columns = (max(2, int(np.ceil(side / step)) + 1) for side, step in zip(size, cell, strict=True))
    coarse = Image.fromarray(rng.standard_normal((rows, columns), dtype=np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def speckled(size: tuple[int, int], colour: Colour, texture: Pixels, strength: float) -> Pixels:
    """One colour, made lighter and darker by a texture [H, W]."""
    return np.asarray(colour, dtype=np.float32) * (1 + strength * texture)[:, :, None] * np.ones((*size, 1), np.float32)


def fade(size: tuple[int, int], top: Colour, bottom: Colour) -> Pixels:
    """From one colour to another, downwards."""
    t = np.linspace(0, 1, max(size[0], 1), dtype=np.float32)[:, None, None]
    row = np.asarray(top, dtype=np.float32) * (1 - t) + np.asarray(bottom, dtype=np.float32) * t
    return np.broadcast_to(row, (*size, 3)).copy()


def grain(size: tuple[int, int], rng: Random, colour: Colour) -> Pixels:
    """Planks of wood."""
    height, width = size
    fine, coarse = noise(rng, size, (1.5, width / 2)), noise(rng, size, (height / 8, width))
    boards = int(rng.integers(3, 9))
    edges = (np.arange(height) * boards / height) % 1 < boards / height * 1.2
    pixels = speckled(size, colour, 0.6 * fine + coarse, 0.08)
    return pixels * np.where(edges & (rng.random() < 0.6), 0.65, 1.0).astype(np.float32)[:, None, None]


def surface(size: tuple[int, int], rng: Random) -> Pixels:
    """A table top: wood, stone, paint or cloth."""
    kind = rng.choice(["wood", "stone", "plain", "checks"], p=[0.45, 0.2, 0.22, 0.13])
    if kind == "wood":
        return grain(size, rng, wood(rng))
    if kind == "stone":
        return speckled(size, grey(rng, (0.25, 0.85)), noise(rng, size, (2, 2)) + noise(rng, size, (14, 20)), 0.06)
    if kind == "plain":
        return speckled(size, grey(rng, (0.3, 0.95)), noise(rng, size, (30, 30)), 0.03)
    rows, columns = np.indices(size)
    step = rng.uniform(8, 22)
    checks = ((rows // (step * 0.6)).astype(int) + (columns // step).astype(int)) % 2
    return speckled(size, any_colour(rng), checks.astype(np.float32) - 0.5, 0.35)


def _stack(layout: Layout, far: Pixels, near: Pixels) -> Pixels:
    return np.concatenate([far, near])[: layout.size[0]]


def _parts(layout: Layout) -> tuple[tuple[int, int], tuple[int, int]]:
    """Sizes above and below the row where the ground begins."""
    height, width = layout.size
    top = int(np.clip(round(layout.top), 2, height - 2))
    return (top, width), (height - top, width)


def _blend(pixels: Pixels, brush: Brush) -> Pixels:
    """What the brush drew, over the pixels."""
    drawn = np.asarray(brush.image, dtype=np.float32)
    alpha = drawn[:, :, 3:] / 255
    return pixels * (1 - alpha) + drawn[:, :, :3] * alpha


def _room(layout: Layout, rng: Random, tiled: float) -> Pixels:
    above, below = _parts(layout)
    wall = speckled(above, hsv(rng, (0, 360), (0.02, 0.35), (0.4, 0.95)), noise(rng, above, (40, 40)), 0.04)
    if rng.random() < tiled:
        step = int(rng.integers(10, 26))
        wall[::step] *= 0.8
        wall[:, ::step] *= 0.8
    brush = Brush(above[1], above[0])
    for _ in range(int(rng.integers(0, 5))):  # frames, shelves, windows, cupboards
        x, y = rng.uniform(-0.1, 0.9), rng.uniform(-0.3, 0.7)
        colour = any_colour(rng) if rng.random() < 0.5 else grey(rng, (0.3, 0.95))
        x2, y2 = x + rng.uniform(0.1, 0.4), y + rng.uniform(0.2, 0.9)
        brush.rectangle(x, y, x2, y2, times(colour, 0.7))
        brush.rectangle(x + 0.012, y + 0.05, x2 - 0.012, y2 - 0.05, colour)
    table = surface(below, rng)
    table[: max(1, below[0] // 60)] *= 0.6
    return _stack(layout, _blend(wall, brush), table)


def paint_kitchen(layout: Layout, rng: Random) -> Pixels:
    return _room(layout, rng, tiled=0.55)


def paint_desk(layout: Layout, rng: Random) -> Pixels:
    return _room(layout, rng, tiled=0.05)


def _sky(size: tuple[int, int], rng: Random) -> Pixels:
    blue = rng.random() < 0.6
    top = hsv(rng, (200, 225), (0.3, 0.7), (0.55, 0.95)) if blue else hsv(rng, (190, 260), (0.02, 0.12), (0.55, 0.9))
    bottom = hsv(rng, (20, 220), (0.02, 0.2), (0.75, 1))
    pixels = fade(size, top, bottom)
    cloud = np.clip(noise(rng, size, (12, 40)) + 0.6 * noise(rng, size, (5, 14)) - 0.4, 0, 1)[:, :, None]
    return pixels * (1 - 0.7 * cloud) + 0.7 * cloud * rng.uniform(190, 250)


def _hills(pixels: Pixels, rng: Random, colour: Colour, height: float) -> None:
    """A skyline at the foot of ``pixels``, ``height`` of its rows high, drawn in place."""
    rows, columns = pixels.shape[:2]
    outline = noise(rng, (2, columns), (2, columns / 9))[0] + 0.4 * noise(rng, (2, columns), (2, 4))[0]
    tops = rows * (1 - height * np.clip(1 + 0.35 * outline, 0.1, 2))
    below = np.arange(rows)[:, None] >= tops
    shade = speckled((rows, columns), colour, noise(rng, (rows, columns), (3, 4)), 0.12)
    pixels[below] = shade[below]


def _houses(pixels: Pixels, rng: Random, height: float) -> Pixels:
    brush = Brush(pixels.shape[1], pixels.shape[0])
    x = rng.uniform(-0.2, 0)
    while x < 1:
        width, top = rng.uniform(0.12, 0.35), 1 - height * rng.uniform(0.5, 1.2)
        colour = hsv(rng, (0, 60), (0.05, 0.5), (0.35, 0.9))
        brush.rectangle(x, top, x + width, 1, colour)
        window = hsv(rng, (190, 240), (0.1, 0.5), (0.15, 0.6))
        for row in np.arange(top + 0.06, 0.9, 0.19):
            for column in np.arange(x + 0.025, x + width - 0.035, 0.06):
                brush.rectangle(column, row, column + 0.03, row + 0.11, window)
        x += width + (rng.uniform(0.02, 0.2) if rng.random() < 0.3 else 0)
    return _blend(pixels, brush)


def paint_street(layout: Layout, rng: Random) -> Pixels:
    above, below = _parts(layout)
    sky = _sky(above, rng)
    _hills(sky, rng, hsv(rng, (80, 140), (0.2, 0.6), (0.2, 0.5)), rng.uniform(0.1, 0.35))
    sky = _houses(sky, rng, rng.uniform(0.3, 1.0)) if rng.random() < 0.8 else sky
    road = speckled(below, grey(rng, (0.25, 0.6)), noise(rng, below, (1, 1)) + noise(rng, below, (6, 24)), 0.06)
    brush = Brush(below[1], below[0])
    kerb, slant, pavement = rng.uniform(0.06, 0.3), rng.uniform(-0.05, 0.05), grey(rng, (0.5, 0.8))
    brush.polygon([(0, 0), (1, 0), (1, kerb), (0, kerb + slant)], pavement)
    brush.polygon([(0, kerb + slant), (1, kerb), (1, kerb + 0.02), (0, kerb + slant + 0.02)], times(pavement, 0.6))
    vanishing, foot = rng.uniform(0.2, 0.8), rng.uniform(-0.3, 1.3)
    for start in np.arange(0.0, 1.0, 0.25):  # dashes of the lane, running to the horizon
        near, far = kerb + 0.05 + (1 - kerb) * (start + 0.12) ** 1.5, kerb + 0.05 + (1 - kerb) * start**1.5
        a, b = (vanishing + (foot - vanishing) * y for y in (far, near))
        brush.polygon([(a, far), (a + 0.02 * far, far), (b + 0.03 * near, near), (b, near)], grey(rng, (0.8, 0.95)))
    return _stack(layout, sky, _blend(road, brush))


def paint_meadow(layout: Layout, rng: Random) -> Pixels:
    above, below = _parts(layout)
    sky = _sky(above, rng)
    for height in sorted(rng.uniform(0.08, 0.5, int(rng.integers(1, 4))), reverse=True):
        _hills(sky, rng, hsv(rng, (70, 150), (0.2, 0.6), (0.2, 0.6)), height)
    dry = rng.random() < 0.3
    colour = hsv(rng, (35, 60), (0.3, 0.5), (0.45, 0.75)) if dry else hsv(rng, (70, 115), (0.4, 0.8), (0.3, 0.65))
    blades = noise(rng, below, (3, 1)) * np.linspace(0.4, 1.3, below[0], dtype=np.float32)[:, None]
    grass = speckled(below, colour, blades + noise(rng, below, (10, 30)), 0.12)
    if rng.random() < 0.3:  # a path
        brush, start = Brush(below[1], below[0]), rng.uniform(0.2, 0.8)
        end, broad = rng.uniform(0, 1), rng.uniform(0.1, 0.3)
        brush.polygon(
            [(start, 0), (start + 0.02, 0), (end + broad, 1), (end - broad, 1)],
            hsv(rng, (25, 45), (0.2, 0.45), (0.5, 0.8)),
        )
        grass = _blend(grass, brush) * (1 + 0.05 * noise(rng, below, (1.5, 1.5))[:, :, None])
    return _stack(layout, sky, grass)


def paint_harbour(layout: Layout, rng: Random) -> Pixels:
    above, below = _parts(layout)
    sky = _sky(above, rng)
    if rng.random() < 0.7:
        _hills(sky, rng, hsv(rng, (80, 220), (0.1, 0.4), (0.3, 0.6)), rng.uniform(0.08, 0.3))
    sky = _houses(sky, rng, rng.uniform(0.15, 0.4)) if rng.random() < 0.4 else sky
    wet = (max(2, round(below[0] * QUAY)), below[1])
    dry = (max(1, below[0] - wet[0]), below[1])
    far, near = hsv(rng, (170, 225), (0.15, 0.5), (0.5, 0.85)), hsv(rng, (170, 225), (0.3, 0.7), (0.2, 0.6))
    waves = sum(noise(rng, wet, (1 + step, 6 * step)) for step in (1, 2, 4))
    water = fade(wet, far, near) * (1 + 0.07 * waves * np.linspace(0.3, 1.2, wet[0])[:, None])[:, :, None]
    stone = rng.random() < 0.5
    quay = (
        speckled(dry, grey(rng, (0.35, 0.75)), noise(rng, dry, (1, 1)) + noise(rng, dry, (5, 16)), 0.07)
        if stone
        else grain(dry, rng, wood(rng))
    )
    quay[: max(1, dry[0] // 12)] *= 0.55
    return _stack(layout, sky, np.concatenate([water.astype(np.float32), quay]))


PAINTERS: Mapping[str, Callable[[Layout, Random], Pixels]] = {
    "kitchen": paint_kitchen,
    "desk": paint_desk,
    "street": paint_street,
    "meadow": paint_meadow,
    "harbour": paint_harbour,
}
