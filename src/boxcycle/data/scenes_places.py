"""Which things keep company in a generated scene: five places with their usual objects.

At each place things come in groups and stand beside what they belong to; once in a while one is where it does not
belong. The rules follow what photographs show. This table is the whole of it: nothing else in the generator knows which
classes go together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from boxcycle.data.scenes_brush import Range

Difficulty = Literal["easy", "hard"]


@dataclass(frozen=True)
class Place:
    """``top`` and ``horizon`` in image heights (a table is seen from above: its horizon lies over the image)."""

    top: Range  # where the ground begins
    horizon: Range | None  # None: where the ground begins
    camera: Mapping[Difficulty, Range]  # metres above the ground; the higher, the smaller everything is
    company: Mapping[str, float]  # how often each class is drawn
    groups: Mapping[str, float] = field(default_factory=dict)  # mean number of further ones of its kind beside it
    beside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # what it likes to stand next to
    upon: Mapping[str, str] = field(default_factory=dict)  # what it may stand on
    zones: Mapping[str, Range] = field(default_factory=dict)  # depths where it can be: 0 far end of the ground, 1 near
    clutter: tuple[str, ...] = ()  # unlabelled things of the place
    crowd: str = ""


QUAY = 0.72  # depth at which the harbour's water ends
AFLOAT = ("boat", "buoy", "gull")
ON_THE_QUAY = ("oar", "person", "stone", "cone", "ball", "bollard", "crate", "post", "rope")

PLACES = {
    "kitchen": Place(
        top=(0.08, 0.35),
        horizon=(-0.6, -0.1),
        camera={"easy": (0.32, 0.5), "hard": (0.5, 0.9)},
        company={"cup": 5, "orange": 5, "spoon": 4, "book": 0.5, "ball": 0.25, "mouse": 0.1},
        groups={"orange": 1.2, "cup": 0.4, "spoon": 0.3},
        beside={"spoon": ("cup", "plate"), "cup": ("plate", "spoon"), "orange": ("plate", "board")},
        upon={"spoon": "cup"},
        clutter=("plate", "board", "jar", "bottle", "cloth", "box"),
        crowd="orange",
    ),
    "desk": Place(
        top=(0.05, 0.35),
        horizon=(-0.6, -0.1),
        camera={"easy": (0.4, 0.6), "hard": (0.55, 1.0)},
        company={"mouse": 4.5, "book": 5, "cup": 3.5, "orange": 0.4, "spoon": 0.3, "stone": 0.15, "ball": 0.15},
        groups={"book": 0.8},
        beside={"mouse": ("keyboard", "screen"), "cup": ("keyboard", "book"), "book": ("book", "screen")},
        upon={"cup": "book", "spoon": "cup"},
        clutter=("keyboard", "screen", "paper", "pen", "phone", "box", "jar"),
    ),
    "street": Place(
        top=(0.32, 0.48),
        horizon=None,
        camera={"easy": (1.0, 1.5), "hard": (1.4, 2.4)},
        company={"car": 5, "cone": 4, "person": 4, "ball": 0.4, "stone": 0.3, "cup": 0.05, "orange": 0.1},
        groups={"cone": 1.6, "car": 0.6, "person": 0.6},
        beside={"cone": ("cone", "car"), "person": ("car", "person"), "ball": ("person",)},
        clutter=("post", "bin", "box", "bush", "puddle"),
        zones={"car": (0.1, 1.1), "person": (0.08, 1.1), "cone": (0.2, 1.02)},
        crowd="person",
    ),
    "meadow": Place(
        top=(0.3, 0.5),
        horizon=None,
        camera={"easy": (0.4, 0.75), "hard": (0.6, 1.4)},
        company={
            "ball": 4.5,
            "stone": 4.5,
            "person": 4,
            "car": 0.5,
            "cone": 0.4,
            "orange": 0.2,
            "book": 0.3,
            "cup": 0.2,
        },
        groups={"stone": 1.3, "person": 0.7},
        beside={"ball": ("person",), "person": ("person", "ball"), "stone": ("stone", "bush"), "book": ("person",)},
        clutter=("bush", "tussock", "flower", "post", "box", "trunk"),
        zones={"person": (0.06, 0.9), "ball": (0.25, 1.02), "stone": (0.2, 1.05), "car": (0.04, 0.25)},
        crowd="person",
    ),
    "harbour": Place(
        top=(0.28, 0.42),
        horizon=None,
        camera={"easy": (1.0, 1.5), "hard": (1.4, 2.4)},
        company={
            "boat": 5,
            "buoy": 4.5,
            "oar": 3.5,
            "person": 1.6,
            "stone": 0.6,
            "cone": 0.2,
            "ball": 0.3,
        },
        groups={"boat": 0.8, "buoy": 0.9, "oar": 0.5},
        beside={"buoy": ("boat", "buoy"), "oar": ("oar", "bollard", "person"), "person": ("oar", "bollard")},
        upon={"person": "boat"},
        clutter=("bollard", "crate", "post", "rope", "gull"),
        zones={
            "boat": (0.04, 0.5),
            "buoy": (0.12, 0.66),
            "gull": (0.12, 0.66),
            **dict.fromkeys(ON_THE_QUAY, (0.78, 1.05)),
        },
        crowd="boat",
    ),
}
