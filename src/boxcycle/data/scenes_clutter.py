"""Things of a generated scene that are not annotated: they fill the place, and hide parts of the objects."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from boxcycle.data.scenes_brush import Brush, Random, Thing, any_colour, grey, hsv, times, wobbly, wood


def draw_plate(brush: Brush, rng: Random) -> None:
    colour = grey(rng, (0.8, 0.97)) if rng.random() < 0.7 else any_colour(rng)
    brush.ellipse(0, 0, 1, 1, colour)
    brush.ellipse(0.15, 0.14, 0.85, 0.82, times(colour, 0.88))
    brush.ellipse(0.17, 0.18, 0.83, 0.82, times(colour, 0.95))


def draw_board(brush: Brush, rng: Random) -> None:
    brush.rectangle(0, 0, 1, 1, wood(rng), radius=0.06)


def draw_jar(brush: Brush, rng: Random) -> None:
    glass, lid = hsv(rng, (20, 220), (0.05, 0.5), (0.4, 0.85)), any_colour(rng)
    brush.rectangle(0, 0.14, 1, 1, glass, radius=0.12)
    brush.rectangle(0.1, 0, 0.9, 0.16, lid, radius=0.04)
    brush.rectangle(0.05, 0.4, 0.95, 0.75, grey(rng, (0.7, 0.95)))


def draw_bottle(brush: Brush, rng: Random) -> None:
    colour = hsv(rng, (30, 150), (0.3, 0.8), (0.2, 0.6))
    brush.rectangle(0.36, 0, 0.64, 0.4, colour)
    brush.rectangle(0, 0.3, 1, 1, colour, radius=0.25)
    brush.rectangle(0.02, 0.5, 0.98, 0.8, grey(rng, (0.6, 0.95)))


def draw_cloth(brush: Brush, rng: Random) -> None:
    colour, stripe = any_colour(rng), any_colour(rng)
    brush.polygon([(x * 0.96 + 0.02, y * 0.96 + 0.02) for x, y in wobbly(rng, 9, 0.12)], colour)
    for x in rng.uniform(0.25, 0.75, 3):
        brush.line([(x, 0.25), (x, 0.75)], 0.03, stripe)


def draw_box(brush: Brush, rng: Random) -> None:
    colour = hsv(rng, (20, 45), (0.2, 0.6), (0.4, 0.8)) if rng.random() < 0.5 else any_colour(rng)
    brush.rectangle(0, 0.12, 1, 1, colour)
    brush.polygon([(0, 0.12), (0.12, 0), (0.92, 0), (1, 0.12)], times(colour, 1.2))
    brush.rectangle(0.25, 0.4, 0.75, 0.7, any_colour(rng))


def draw_keyboard(brush: Brush, rng: Random) -> None:
    body = grey(rng, (0.1, 0.35)) if rng.random() < 0.6 else grey(rng, (0.7, 0.95))
    keys = times(body, 1.6) if sum(body) < 380 else times(body, 0.75)
    brush.rectangle(0, 0, 1, 1, body, radius=0.02)
    for y in np.linspace(0.1, 0.74, 4):
        for x in np.linspace(0.03, 0.91, 13):
            brush.rectangle(x, y, x + 0.045, y + 0.15, keys)


def draw_screen(brush: Brush, rng: Random) -> None:
    frame, picture = grey(rng, (0.08, 0.3)), hsv(rng, (180, 260), (0.1, 0.7), (0.3, 0.95))
    brush.rectangle(0.42, 0.75, 0.58, 0.97, frame)
    brush.rectangle(0.28, 0.95, 0.72, 1, frame)
    brush.rectangle(0, 0, 1, 0.82, frame, radius=0.02)
    brush.rectangle(0.03, 0.04, 0.97, 0.76, picture)
    for y in rng.uniform(0.1, 0.7, 4):
        brush.rectangle(0.08, y, rng.uniform(0.2, 0.9), y + 0.04, times(picture, rng.uniform(0.5, 1.4)))


def draw_paper(brush: Brush, rng: Random) -> None:
    colour = grey(rng, (0.82, 0.98))
    brush.rectangle(0, 0, 1, 1, colour)
    for y in np.linspace(0.12, 0.85, 8):
        brush.line([(0.1, y), (rng.uniform(0.5, 0.9), y)], 0.008, times(colour, 0.65))


def draw_stick(brush: Brush, rng: Random) -> None:
    colour = any_colour(rng)
    brush.rectangle(0, 0.1, 0.92, 0.9, colour)
    brush.polygon([(0.9, 0.1), (1, 0.5), (0.9, 0.9)], times(colour, 0.5))


def draw_phone(brush: Brush, rng: Random) -> None:
    brush.rectangle(0, 0, 1, 1, grey(rng, (0.05, 0.3)), radius=0.08)
    brush.rectangle(0.06, 0.06, 0.94, 0.94, hsv(rng, (190, 260), (0.1, 0.6), (0.1, 0.6)))


def draw_post(brush: Brush, rng: Random) -> None:
    colour = grey(rng, (0.15, 0.6)) if rng.random() < 0.5 else wood(rng)
    brush.rectangle(0.3, 0.0, 0.7, 1, colour)
    if rng.random() < 0.5:
        brush.rectangle(0, 0.02, 1, 0.1, times(colour, 0.8))


def draw_bin(brush: Brush, rng: Random) -> None:
    colour = hsv(rng, (80, 230), (0.1, 0.7), (0.15, 0.5))
    brush.polygon([(0, 0.12), (1, 0.12), (0.88, 1), (0.12, 1)], colour)
    brush.rectangle(0, 0, 1, 0.14, times(colour, 0.7), radius=0.1)


def draw_leaves(brush: Brush, rng: Random) -> None:
    colour = hsv(rng, (70, 140), (0.3, 0.8), (0.15, 0.55))
    for _ in range(26):
        x, y, r = rng.uniform(0.14, 0.86), rng.uniform(0.14, 0.9), rng.uniform(0.07, 0.16)
        brush.ellipse(x - r, y - r, x + r, min(1, y + r), times(colour, rng.uniform(0.6, 1.3)))


def draw_puddle(brush: Brush, rng: Random) -> None:
    brush.polygon(wobbly(rng, 14, 0.15), hsv(rng, (190, 230), (0.05, 0.3), (0.35, 0.7)))


def draw_tussock(brush: Brush, rng: Random) -> None:
    colour = hsv(rng, (50, 120), (0.3, 0.8), (0.25, 0.65))
    for _ in range(30):
        root, tip = rng.uniform(0.3, 0.7), rng.uniform(0, 1)
        brush.line(
            [(root, 1), ((root + tip) / 2, 0.5), (tip, rng.uniform(0, 0.4))], 0.02, times(colour, rng.uniform(0.6, 1.3))
        )


def draw_flower(brush: Brush, rng: Random) -> None:
    brush.line([(0.5, 0.2), (0.45, 1)], 0.06, hsv(rng, (90, 130), (0.5, 0.8), (0.25, 0.5)))
    petals = hsv(rng, (260, 420), (0.2, 0.9), (0.7, 1))
    for angle in np.linspace(0, 2 * np.pi, 6, endpoint=False):
        x, y = 0.5 + 0.25 * np.cos(angle), 0.22 + 0.12 * np.sin(angle)
        brush.ellipse(x - 0.2, y - 0.1, x + 0.2, y + 0.1, petals)
    brush.ellipse(0.35, 0.15, 0.65, 0.29, (230, 190, 40))


def draw_trunk(brush: Brush, rng: Random) -> None:
    colour = hsv(rng, (15, 40), (0.2, 0.5), (0.2, 0.45))
    brush.polygon([(0.25, 0), (0.75, 0), (0.8, 0.85), (1, 1), (0, 1), (0.2, 0.85)], colour)
    for x in rng.uniform(0.28, 0.72, 5):
        brush.line([(x, rng.uniform(0, 0.4)), (x + 0.03, rng.uniform(0.5, 0.95))], 0.04, times(colour, 0.7))


def draw_bollard(brush: Brush, rng: Random) -> None:
    colour = grey(rng, (0.12, 0.5)) if rng.random() < 0.7 else hsv(rng, (0, 50), (0.5, 0.9), (0.4, 0.8))
    brush.rectangle(0.2, 0.15, 0.8, 1, colour)
    brush.ellipse(0, 0, 1, 0.36, times(colour, 1.2))


def draw_crate(brush: Brush, rng: Random) -> None:
    colour = wood(rng)
    brush.rectangle(0, 0, 1, 1, times(colour, 0.6))
    for y in np.linspace(0.03, 0.77, 4):
        brush.rectangle(0.02, y, 0.98, y + 0.19, times(colour, rng.uniform(0.85, 1.15)))


def draw_rope(brush: Brush, rng: Random) -> None:
    colour = hsv(rng, (30, 50), (0.2, 0.5), (0.5, 0.85))
    for inset in (0, 0.13, 0.26):
        brush.ring(inset, inset, 1 - inset, 1 - inset, 0.09, times(colour, 1 - inset))


def draw_gull(brush: Brush, rng: Random) -> None:
    colour = grey(rng, (0.75, 0.98))
    brush.ellipse(0.15, 0.35, 0.85, 0.95, colour)
    brush.ellipse(0.65, 0.1, 0.95, 0.55, colour)
    brush.polygon([(0.93, 0.3), (1, 0.36), (0.92, 0.42)], (230, 160, 40))
    brush.polygon([(0.2, 0.45), (0.65, 0.45), (0, 0.7)], times(colour, 0.6))


CLUTTER: Mapping[str, Thing] = {
    "plate": Thing(draw_plate, (0.2, 0.27), (0.98, 1.02), lying=True, rough=0.02),
    "board": Thing(draw_board, (0.3, 0.4), (1.4, 1.8), lying=True, rough=0.1),
    "jar": Thing(draw_jar, (0.1, 0.18), (0.5, 0.8), "drum"),
    "bottle": Thing(draw_bottle, (0.2, 0.3), (0.26, 0.34), "drum"),
    "cloth": Thing(draw_cloth, (0.2, 0.4), (1.0, 1.6), lying=True, rough=0.15),
    "box": Thing(draw_box, (0.1, 0.3), (0.7, 1.6)),
    "keyboard": Thing(draw_keyboard, (0.36, 0.45), (2.6, 3.2), lying=True),
    "screen": Thing(draw_screen, (0.32, 0.42), (1.2, 1.5), rough=0.02),
    "paper": Thing(draw_paper, (0.25, 0.3), (0.7, 1.4), lying=True, rough=0.02),
    "pen": Thing(draw_stick, (0.13, 0.16), (13.0, 18.0), lying=True),
    "phone": Thing(draw_phone, (0.14, 0.16), (1.9, 2.2), lying=True, rough=0.02),
    "post": Thing(draw_post, (1.6, 3.5), (0.05, 0.09), "drum"),
    "bin": Thing(draw_bin, (0.8, 1.1), (0.5, 0.75), "drum"),
    "bush": Thing(draw_leaves, (0.5, 1.4), (0.9, 1.9), "ball", rough=0.12),
    "puddle": Thing(draw_puddle, (0.8, 2.0), (1.4, 2.2), lying=True, rough=0.02),
    "tussock": Thing(draw_tussock, (0.12, 0.35), (0.8, 1.5), rough=0.2),
    "flower": Thing(draw_flower, (0.15, 0.35), (0.35, 0.5)),
    "trunk": Thing(draw_trunk, (2.5, 4.0), (0.12, 0.2), "drum", rough=0.15),
    "bollard": Thing(draw_bollard, (0.35, 0.6), (0.7, 1.0), "drum"),
    "crate": Thing(draw_crate, (0.4, 0.7), (0.9, 1.5), rough=0.15),
    "rope": Thing(draw_rope, (0.5, 0.9), (1.0, 1.3), lying=True, rough=0.2),
    "gull": Thing(draw_gull, (0.25, 0.4), (1.3, 1.7)),
}
