"""Where the things of a generated scene stand: what is drawn for its place, in perspective, beside what it belongs to.

Things look smaller the farther away they are, and each takes the least crowded of a few spots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from boxcycle.data.scenes_brush import Random, Range, Thing
from boxcycle.data.scenes_clutter import CLUTTER
from boxcycle.data.scenes_objects import CLASSES
from boxcycle.data.scenes_places import PLACES, Difficulty, Place

THINGS: Mapping[str, Thing] = {**CLASSES, **CLUTTER}


@dataclass(frozen=True)
class Item:
    """One thing of a scene: pixels of the image, y down. ``order`` is the depth by which it is painted, far to near."""

    name: str
    x: float  # middle of its foot
    foot: float
    length: float  # of Thing.height
    aspect: float
    turn: float  # standard normal: how it is turned, see angle
    mirrored: bool
    upright: bool
    order: float
    role: Literal["object", "crowd", "clutter"]

    @property
    def angle(self) -> float:
        """Degrees by which it is turned: a little if upright, steeply if leaning, any way if lying."""
        if not self.upright:
            return 180 * self.turn
        return 15 * self.turn + (90 if self.turn > 0 else -90) if THINGS[self.name].lying else 3 * self.turn

    @property
    def drawn_size(self) -> tuple[float, float]:
        """(width, height) before it is turned: what lies or leans is drawn lengthwise."""
        if THINGS[self.name].lying:
            return self.length, self.length / self.aspect
        return self.length * self.aspect, self.length

    @property
    def size(self) -> tuple[float, float]:
        """(width, height) that it takes up, roughly."""
        width, height = self.drawn_size
        return (height, width) if self.upright and THINGS[self.name].lying else (width, height)


@dataclass(frozen=True)
class Layout:
    """``size`` = (height, width); ``top``: the row where the ground begins; ``pitch``: how flat a lying thing looks."""

    place: str
    size: tuple[int, int]
    top: float
    horizon: float
    camera: float
    pitch: float
    items: tuple[Item, ...]


@dataclass(frozen=True)
class _Rule:
    count: tuple[int, int]  # objects of an image, both included
    clutter: tuple[int, int]
    sizes: Range  # wanted lengths in image diagonals / sqrt 2
    overlap: float  # largest accepted part of the smaller of two boxes


RULES: Mapping[Difficulty, _Rule] = {
    "easy": _Rule(count=(3, 7), clutter=(1, 3), sizes=(0.13, 0.5), overlap=0.2),
    "hard": _Rule(count=(3, 10), clutter=(4, 8), sizes=(0.06, 0.35), overlap=0.5),
}
CROWDED = 0.04  # part of the scenes with a crowd
TOGETHER = 0.65  # how often a thing stands beside what it belongs to, if that is there
LOOKING_DOWN = 0.2  # part of the outdoor scenes in which the ground fills the image


def lay_out(rng: Random, size: tuple[int, int], difficulty: Difficulty) -> Layout:
    """A scene of 2 to 10 objects (and perhaps a crowd) in an image of (height, width) pixels."""
    name = str(rng.choice(list(PLACES)))
    place, rule, height = PLACES[name], RULES[difficulty], size[0]
    top, camera = height * rng.uniform(*place.top), rng.uniform(*place.camera[difficulty])
    horizon = top if place.horizon is None else height * rng.uniform(*place.horizon)
    if place.horizon is None and rng.random() < LOOKING_DOWN:
        top, horizon, camera = 0.0, -height * rng.uniform(0.1, 0.5), 1.8 * camera
    pitch = float(np.clip(0.75 * (height / 2 - horizon) / height, 0.3, 0.85))
    builder = _Builder(rng, place, rule, Layout(name, size, top, horizon, camera, pitch, ()))
    clutter = int(rng.integers(*rule.clutter, endpoint=True))
    builder.add_clutter(clutter - clutter // 2, in_front=False)
    if place.crowd and rng.random() < CROWDED:
        builder.add_crowd(place.crowd)
    builder.add_objects(int(rng.integers(*rule.count, endpoint=True)))
    builder.add_clutter(clutter // 2, in_front=True)
    return replace(builder.layout, items=tuple(sorted(builder.items, key=lambda item: item.order)))


class _Builder:
    def __init__(self, rng: Random, place: Place, rule: _Rule, layout: Layout) -> None:
        self.rng, self.place, self.rule, self.layout = rng, place, rule, layout
        self.items: list[Item] = []
        self.scale = float(np.hypot(*layout.size) / np.sqrt(2))

    def add_objects(self, count: int) -> None:
        names, weights = list(self.place.company), np.array(list(self.place.company.values()))
        while count > 0:
            name = str(self.rng.choice(names, p=weights / weights.sum()))
            group = min(count, 1 + int(self.rng.poisson(self.place.groups.get(name, 0))))
            first = self._add(name, "object")
            for _ in range(group - 1):
                self._add(name, "object", anchor=first)
            count -= group

    def add_clutter(self, count: int, *, in_front: bool) -> None:
        for _ in range(count):
            name = str(self.rng.choice(self.place.clutter))
            if in_front and self.items:  # something that may hide a part of what stands behind it
                self._add(name, "clutter", anchor=self.items[int(self.rng.integers(len(self.items)))])
            else:
                self._add(name, "clutter")

    def add_crowd(self, name: str) -> None:
        """A dozen of them so close that nobody would draw a box for each."""
        low, high = self._feet(name)
        foot = low + 0.25 * (high - low)
        first = self._make(name, "crowd", self.rng.uniform(0.2, 0.8) * self.layout.size[1], foot)
        for _ in range(int(self.rng.integers(9, 15))):
            x = first.x + self.rng.normal(0, 2.2) * min(first.size)
            self.items.append(self._make(name, "crowd", x, foot + self.rng.normal(0, 0.1) * min(first.size)))

    def _add(self, name: str, role: Literal["object", "clutter"], anchor: Item | None = None) -> Item:
        """The least crowded of a few places where it could stand."""
        tries = [self._candidate(name, role, anchor) for _ in range(6)]
        overlaps = [max((_overlap(one, other) for other in self.items), default=0.0) for one in tries]
        accepted = [one for one, overlap in zip(tries, overlaps, strict=True) if overlap <= self.rule.overlap]
        chosen = accepted[0] if accepted else tries[int(np.argmin(overlaps))]
        self.items.append(chosen)
        return chosen

    def _candidate(self, name: str, role: Literal["object", "clutter"], anchor: Item | None) -> Item:
        if anchor is None and self.rng.random() < TOGETHER:
            anchor = self._companion(self.place.beside.get(name, ()))
        under = self._companion((self.place.upon.get(name, ""),))
        if under is not None and self.rng.random() < 0.4:
            return self._on_top(name, role, under)
        low, high = self._feet(name)
        if anchor is None:
            foot = self._wanted_foot(name, low, high)
            return self._make(name, role, self.rng.uniform(0.03, 0.97) * self.layout.size[1], foot)
        reach = 0.06 * (self.layout.size[0] - self.layout.top)
        foot = float(np.clip(anchor.foot + self.rng.normal(0, 1) * reach, low, high))
        item = self._make(name, role, anchor.x, foot)
        gap = (item.size[0] + anchor.size[0]) / 2 * self.rng.uniform(0.75, 1.7)
        return replace(item, x=anchor.x + gap * self.rng.choice([-1, 1]))

    def _companion(self, names: tuple[str, ...]) -> Item | None:
        there = [item for item in self.items if item.name in names and item.role != "crowd"]
        return there[int(self.rng.integers(len(there)))] if there else None

    def _on_top(self, name: str, role: Literal["object", "clutter"], under: Item) -> Item:
        """A cup on a book stands before it; a person in a boat stands behind its side."""
        x = under.x + self.rng.uniform(-0.25, 0.25) * under.size[0]
        rise = 0.3 * min(under.size) * (self.layout.pitch if THINGS[under.name].lying else 0.3)
        item = replace(self._make(name, role, x, under.foot - rise), upright=True)
        return replace(item, order=under.order + (1e-3 if THINGS[under.name].lying else -1e-3))

    def _feet(self, name: str) -> Range:
        """Rows on which it can stand."""
        ground = self.layout.size[0] - self.layout.top
        low, high = self.place.zones.get(name, (0.1, 1.0))
        return self.layout.top + low * ground, self.layout.top + high * ground

    def _wanted_foot(self, name: str, low: float, high: float) -> float:
        """The row where perspective gives it a size drawn log-uniformly: far ones are as frequent as near ones."""
        wanted = self.scale * np.exp(self.rng.uniform(*np.log(self.rule.sizes)))
        foot = self.layout.horizon + wanted * self.layout.camera / np.mean(THINGS[name].height)
        return float(foot) if low <= foot <= high else self.rng.uniform(low, high)

    def _make(self, name: str, role: Literal["object", "crowd", "clutter"], x: float, foot: float) -> Item:
        thing, rng = THINGS[name], self.rng
        pixels_per_metre = max(foot - self.layout.horizon, 1.0) / self.layout.camera
        length = rng.uniform(*thing.height) * pixels_per_metre
        upright, mirrored = not thing.lying or bool(rng.random() < thing.leaning), bool(rng.random() < 0.5)
        return Item(name, x, foot, length, rng.uniform(*thing.aspect), rng.normal(), mirrored, upright, foot, role)


def _overlap(one: Item, other: Item) -> float:
    """The part of the smaller box that the larger one covers."""
    (width, height), (other_width, other_height) = one.size, other.size
    across = (width + other_width) / 2 - abs(one.x - other.x)
    down = min(one.foot, other.foot) - max(one.foot - height, other.foot - other_height)
    shared = max(0.0, min(across, width, other_width)) * max(0.0, down)
    return shared / min(width * height, other_width * other_height)
