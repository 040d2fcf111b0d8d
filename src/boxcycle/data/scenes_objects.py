"""How the classes of a generated scene look: each drawn upright, side on, in unit coordinates, on a patch of its own.

Every drawing varies in shape, colour and pattern. Some pairs overlap on purpose, as they do in photographs: an orange
and a ball, a computer mouse and a stone, a spoon and an oar, a traffic cone and a buoy differ in detail that blur,
distance or an occluder takes away.
"""

from __future__ import annotations

import numpy as np

from boxcycle.data.scenes_brush import Brush, Random, Thing, any_colour, grey, hsv, times, wobbly, wood


def draw_cup(brush: Brush, rng: Random) -> None:
    colour = any_colour(rng) if rng.random() < 0.6 else grey(rng, (0.75, 0.95))
    taper, depth, right = rng.uniform(0, 0.12), rng.uniform(0.05, 0.13), rng.random() < 0.5
    left_edge, right_edge = (0.02, 0.74) if right else (0.26, 0.98)
    if rng.random() < 0.85:
        centre = right_edge if right else left_edge
        brush.ring(centre - 0.24, 0.25, centre + 0.24, 0.75, 0.08, times(colour, 0.8))
    brush.ellipse(left_edge + taper, 1 - 2 * depth, right_edge - taper, 1, times(colour, 0.85))
    sides = [(left_edge, depth), (right_edge, depth), (right_edge - taper, 1 - depth), (left_edge + taper, 1 - depth)]
    brush.polygon(sides, colour)
    if rng.random() < 0.4:
        top = rng.uniform(0.25, 0.6)
        brush.rectangle(left_edge + taper, top, right_edge - taper, top + rng.uniform(0.08, 0.25), any_colour(rng))
    brush.ellipse(left_edge, 0, right_edge, 2 * depth, times(colour, 1.15))
    inside = hsv(rng, (15, 35), (0.4, 0.9), (0.12, 0.4)) if rng.random() < 0.6 else times(colour, 0.6)
    brush.ellipse(left_edge + 0.05, 0.3 * depth, right_edge - 0.05, 1.8 * depth, inside)


def draw_orange(brush: Brush, rng: Random) -> None:
    colour = hsv(rng, (18, 42), (0.7, 0.98), (0.7, 1))
    top = 0.0
    if rng.random() < 0.25:
        top = 0.1
        leaf = hsv(rng, (90, 130), (0.5, 0.8), (0.3, 0.6))
        brush.polygon([(0.5, 0.13), (0.62, 0), (0.85, 0.02), (0.7, 0.12)], leaf)
    brush.ellipse(0, top, 1, 1, colour)
    x, y = rng.uniform(0.3, 0.7), rng.uniform(0.2, 0.6)
    brush.ellipse(x, y, x + 0.07, y + 0.06, times(colour, 0.6))


def draw_ball(brush: Brush, rng: Random) -> None:
    style = rng.choice(["seams", "patches", "plain", "halves"], p=[0.3, 0.3, 0.2, 0.2])
    warm = rng.random() < 0.45
    colour = hsv(rng, (10, 42), (0.65, 0.98), (0.6, 1)) if warm else any_colour(rng)
    if style == "patches":
        colour = grey(rng, (0.8, 0.97)) if rng.random() < 0.7 else colour
    brush.ellipse(0, 0, 1, 1, colour)
    second = times(colour, 0.35) if style == "seams" or rng.random() < 0.6 else any_colour(rng)
    if style == "seams":
        tilt = rng.uniform(-0.25, 0.25)
        brush.line([(0.5 + tilt, 0.03), (0.5 - tilt, 0.97)], 0.03, second)
        brush.arc(-0.55, 0.05, 0.35, 0.95, (-65, 65), 0.03, second)
        brush.arc(0.65, 0.05, 1.55, 0.95, (115, 245), 0.03, second)
    elif style == "patches":
        for x, y in ((0.5, 0.45), (0.15, 0.3), (0.8, 0.25), (0.25, 0.78), (0.74, 0.76)):
            x, y = x + rng.uniform(-0.06, 0.06), y + rng.uniform(-0.06, 0.06)
            brush.ellipse(x - 0.11, y - 0.11, x + 0.11, y + 0.11, second)
    elif style == "halves":
        brush.arc(0, 0, 1, 1, (rng.uniform(0, 180), rng.uniform(200, 340)), 0.22, second)


def draw_spoon(brush: Brush, rng: Random) -> None:
    colour = wood(rng) if rng.random() < 0.45 else grey(rng, (0.5, 0.9))
    bowl, thin = rng.uniform(0.24, 0.34), rng.uniform(0.18, 0.4)
    brush.polygon(
        [(bowl * 0.8, 0.5 - thin / 3), (1, 0.5 - thin / 2), (1, 0.5 + thin / 2), (bowl * 0.8, 0.5 + thin / 3)], colour
    )
    brush.ellipse(0.94, 0.5 - thin / 2, 1, 0.5 + thin / 2, colour)
    brush.ellipse(0, 0, bowl, 1, colour)
    brush.ellipse(0.03, 0.15, bowl - 0.04, 0.85, times(colour, rng.uniform(0.6, 0.85)))


def draw_oar(brush: Brush, rng: Random) -> None:
    colour = wood(rng) if rng.random() < 0.7 else grey(rng, (0.5, 0.9))
    blade, thin = rng.uniform(0.22, 0.34), rng.uniform(0.2, 0.36)
    paint = colour if rng.random() < 0.6 else any_colour(rng)
    brush.rectangle(blade * 0.8, 0.5 - thin / 2, 0.985, 0.5 + thin / 2, colour)
    brush.polygon(
        [(0, 0.1), (0.03, 0), (blade * 0.75, 0.08), (blade * 1.2, 0.5), (blade * 0.75, 0.92), (0.03, 1), (0, 0.9)],
        paint,
    )
    brush.line([(0.02, 0.5), (blade, 0.5)], 0.008, times(paint, 0.75))
    brush.rectangle(0.88, 0.5 - thin * 0.7, 0.98, 0.5 + thin * 0.7, times(colour, 0.7))


def draw_mouse(brush: Brush, rng: Random) -> None:
    colour = grey(rng, (0.12, 0.45)) if rng.random() < 0.7 else grey(rng, (0.7, 0.92))
    line = times(colour, 0.55 if sum(colour) > 200 else 1.7)
    brush.rectangle(0, 0.02, 1, 0.98, colour, radius=rng.uniform(0.26, 0.33))
    brush.ellipse(0.3, 0, 1, 1, colour)
    seam = rng.uniform(0.36, 0.44)
    brush.line([(seam, 0.04), (seam, 0.96)], 0.02, line)
    brush.line([(0.02, 0.5), (seam, 0.5)], 0.02, line)
    brush.ellipse(0.14, 0.4, 0.3, 0.6, times(line, 0.8))


def draw_stone(brush: Brush, rng: Random) -> None:
    colour = grey(rng, (0.2, 0.7)) if rng.random() < 0.7 else hsv(rng, (20, 45), (0.1, 0.35), (0.3, 0.65))
    brush.polygon(wobbly(rng, int(rng.integers(9, 16)), rng.uniform(0.03, 0.14)), colour)
    for _ in range(int(rng.integers(0, 4))):
        x, y = rng.uniform(0.2, 0.7, 2)
        brush.line([(x, y), (x + rng.uniform(-0.2, 0.25), y + rng.uniform(-0.1, 0.2))], 0.02, times(colour, 0.7))


def draw_book(brush: Brush, rng: Random) -> None:
    colour, pages = any_colour(rng), grey(rng, (0.8, 0.97))
    if rng.random() < 0.2:  # open
        brush.polygon([(0, 0.1), (0.5, 0), (1, 0.1), (1, 1), (0.5, 0.92), (0, 1)], pages)
        brush.line([(0.5, 0), (0.5, 0.92)], 0.02, times(pages, 0.6))
        for y in np.linspace(0.2, 0.8, 7):
            brush.line([(0.08, y), (0.44, y - 0.04)], 0.008, times(pages, 0.7))
            brush.line([(0.56, y - 0.04), (0.92, y)], 0.008, times(pages, 0.7))
        return
    thick = rng.uniform(0.06, 0.16)
    brush.rectangle(0, 0, 1, 1, times(colour, 0.7))
    brush.rectangle(0.03, 1 - thick, 1, 1 - thick * 0.2, pages)
    brush.rectangle(0, 0, 1, 1 - thick, colour)
    brush.rectangle(0, 0, 0.06, 1 - thick, times(colour, 0.75))
    title = any_colour(rng)
    for y in rng.uniform(0.12, 0.6, int(rng.integers(1, 4))):
        brush.rectangle(rng.uniform(0.15, 0.3), y, rng.uniform(0.6, 0.9), y + rng.uniform(0.03, 0.15), title)


def draw_car(brush: Brush, rng: Random) -> None:
    (_car_side if brush.width > 1.6 * brush.height else _car_front)(brush, rng)


def _car_side(brush: Brush, rng: Random) -> None:
    colour, glass, tyre = any_colour(rng), hsv(rng, (190, 220), (0.1, 0.4), (0.25, 0.6)), grey(rng, (0.08, 0.18))
    roof, bonnet, boot = rng.uniform(0.02, 0.08), rng.uniform(0.2, 0.3), rng.uniform(0.75, 0.95)
    cabin = [(bonnet, 0.42), (bonnet + 0.13, roof), (boot - 0.15, roof), (boot, 0.42)]
    brush.rectangle(0, 0.38, 1, 0.84, colour, radius=0.06)
    brush.polygon(cabin, colour)
    brush.polygon([(bonnet + 0.05, 0.4), (bonnet + 0.15, roof + 0.07), (0.49, roof + 0.07), (0.49, 0.4)], glass)
    brush.polygon([(0.53, 0.4), (0.53, roof + 0.07), (boot - 0.17, roof + 0.07), (boot - 0.06, 0.4)], glass)
    brush.line([(0.51, 0.44), (0.51, 0.78)], 0.006, times(colour, 0.6))
    for x in (0.2, 0.79):
        brush.ellipse(x - 0.095, 0.58, x + 0.095, 1, tyre)
        brush.ellipse(x - 0.05, 0.69, x + 0.05, 0.9, grey(rng, (0.5, 0.8)))
    brush.rectangle(0, 0.48, 0.04, 0.58, (250, 240, 200))
    brush.rectangle(0.965, 0.48, 1, 0.58, (190, 30, 30))


def _car_front(brush: Brush, rng: Random) -> None:
    colour, glass, tyre = any_colour(rng), hsv(rng, (190, 220), (0.1, 0.4), (0.2, 0.55)), grey(rng, (0.08, 0.18))
    lamp = (250, 240, 200) if rng.random() < 0.5 else (190, 30, 30)
    for x in (0.06, 0.76):
        brush.rectangle(x, 0.7, x + 0.18, 1, tyre)
    brush.polygon([(0.06, 0.45), (0.2, 0.02), (0.8, 0.02), (0.94, 0.45)], colour)
    brush.rectangle(0, 0.38, 1, 0.9, colour, radius=0.08)
    brush.polygon([(0.14, 0.42), (0.24, 0.08), (0.76, 0.08), (0.86, 0.42)], glass)
    brush.rectangle(0.3, 0.58, 0.7, 0.72, times(colour, 0.45))
    brush.ellipse(0.05, 0.5, 0.22, 0.64, lamp)
    brush.ellipse(0.78, 0.5, 0.95, 0.64, lamp)
    brush.rectangle(0.38, 0.76, 0.62, 0.85, (235, 235, 225))


def draw_cone(brush: Brush, rng: Random) -> None:
    colour, white = hsv(rng, (5, 25), (0.75, 0.98), (0.7, 1)), grey(rng, (0.8, 0.97))
    brush.rectangle(0, 0.9, 1, 1, times(colour, rng.uniform(0.3, 0.9)), radius=0.03)
    brush.polygon([(0.42, 0), (0.58, 0), (0.88, 0.92), (0.12, 0.92)], colour)
    for top in (0.3, 0.58)[: int(rng.integers(1, 3))]:
        bottom = top + rng.uniform(0.13, 0.18)
        near, far = 0.08 + 0.33 * top, 0.08 + 0.33 * bottom
        brush.polygon([(0.5 - near, top), (0.5 + near, top), (0.5 + far, bottom), (0.5 - far, bottom)], white)


def draw_buoy(brush: Brush, rng: Random) -> None:
    hues = ((0, 25), (0, 25), (45, 55), (130, 160))[int(rng.integers(4))]
    colour, white = hsv(rng, hues, (0.7, 0.98), (0.55, 1)), grey(rng, (0.75, 0.97))
    style = rng.choice(["cone", "can", "sphere"], p=[0.5, 0.25, 0.25])
    if style == "sphere":
        brush.line([(0.5, 0), (0.5, 0.3)], 0.06, grey(rng, (0.2, 0.5)))
        brush.ellipse(0.05, 0.15, 0.95, 1, colour)
        brush.rectangle(0.07, 0.5, 0.93, 0.62, white)
        return
    slope = 0.26 if style == "cone" else 0.06
    brush.ellipse(0, 0.76, 1, 1, times(colour, 0.7))
    brush.polygon([(0.2 + slope, 0.1), (0.8 - slope, 0.1), (0.86, 0.88), (0.14, 0.88)], colour)
    if rng.random() < 0.75:
        top, bottom = 0.36, 0.36 + rng.uniform(0.13, 0.2)
        near, far = 0.3 - slope * 0.6, 0.33 - slope * 0.35
        brush.polygon([(0.5 - near, top), (0.5 + near, top), (0.5 + far, bottom), (0.5 - far, bottom)], white)
    brush.ellipse(0.4, 0, 0.6, 0.13, grey(rng, (0.2, 0.9)))


def draw_person(brush: Brush, rng: Random) -> None:
    skin = hsv(rng, (12, 32), (0.25, 0.65), (0.3, 0.95))
    shirt, trousers, hair = (
        any_colour(rng),
        hsv(rng, (0, 360), (0.05, 0.6), (0.1, 0.6)),
        hsv(rng, (15, 40), (0.1, 0.7), (0.05, 0.6)),
    )
    stride, swing, slim = rng.uniform(0.02, 0.3), rng.uniform(-0.3, 0.35), rng.uniform(0.15, 0.22)
    shoe = grey(rng, (0.05, 0.4))
    for side in (-1, 1):
        knee, foot = (0.5 + side * (0.1 + stride * 0.35), 0.76), (0.5 + side * (0.1 + stride * 0.8), 0.97)
        brush.line([(0.5 + side * 0.09, 0.52), knee, foot], 0.17, trousers)
        brush.line([foot, (foot[0] + 0.1, 0.98)], 0.13, shoe)
        hand = (0.5 + side * (slim + 0.1 + abs(swing) * 0.5), 0.52 - max(0, swing) * rng.uniform(0, 0.9))
        elbow = (0.5 + side * (slim + 0.13), 0.38)
        brush.line([(0.5 + side * slim, 0.22), elbow], 0.13, times(shirt, 0.9))
        brush.line([elbow, hand], 0.1, skin)
    brush.polygon([(0.5 - slim - 0.05, 0.17), (0.5 + slim + 0.05, 0.17), (0.5 + slim, 0.55), (0.5 - slim, 0.55)], shirt)
    brush.rectangle(0.44, 0.11, 0.56, 0.19, times(skin, 0.85))
    brush.ellipse(0.36, 0, 0.64, 0.145, hair)
    brush.ellipse(0.38, 0.03, 0.62, 0.15, skin)


def draw_boat(brush: Brush, rng: Random) -> None:
    hull = any_colour(rng) if rng.random() < 0.6 else grey(rng, (0.75, 0.97))
    if brush.width > 1.3 * brush.height:
        brush.polygon([(0.3, 0.5), (0.36, 0.08), (0.66, 0.08), (0.74, 0.5)], grey(rng, (0.6, 0.95)))
        brush.polygon(
            [(0.37, 0.35), (0.4, 0.16), (0.63, 0.16), (0.68, 0.35)], hsv(rng, (190, 220), (0.2, 0.5), (0.2, 0.5))
        )
        brush.polygon([(0, 0.42), (1, 0.42), (0.88, 1), (0.12, 1)], hull)
        brush.polygon([(0.03, 0.52), (0.97, 0.52), (0.95, 0.62), (0.05, 0.62)], times(hull, 0.7))
        return
    sail = grey(rng, (0.8, 0.99)) if rng.random() < 0.7 else any_colour(rng)
    mast, foot = rng.uniform(0.42, 0.55), rng.uniform(0.76, 0.8)
    brush.line([(mast, 0.0), (mast, 0.88)], 0.02, times(wood(rng), 0.7))
    brush.polygon([(mast + 0.02, 0.02), (mast + 0.02, foot), (rng.uniform(0.85, 0.98), foot)], sail)
    if rng.random() < 0.75:
        brush.polygon([(mast - 0.02, 0.1), (mast - 0.02, foot), (rng.uniform(0.04, 0.15), foot)], times(sail, 0.88))
    brush.polygon([(0, 0.84), (1, 0.84), (0.86, 1), (0.14, 1)], hull)
    brush.line([(0.02, 0.86), (0.98, 0.86)], 0.015, times(hull, 0.6))


CLASSES = {  # in the order of their labels
    "cup": Thing(draw_cup, (0.08, 0.12), (0.95, 1.25), "drum"),
    "orange": Thing(draw_orange, (0.07, 0.095), (0.95, 1.08), "ball", rough=0.05),
    "spoon": Thing(draw_spoon, (0.15, 0.24), (4.0, 5.5), "flat", lying=True, leaning=0.1),
    "mouse": Thing(draw_mouse, (0.09, 0.12), (1.5, 1.8), "ball", lying=True),
    "book": Thing(draw_book, (0.16, 0.26), (1.1, 1.5), "flat", lying=True),
    "car": Thing(draw_car, (1.35, 1.7), (1.1, 2.7), "flat", rough=0.02),
    "cone": Thing(draw_cone, (0.55, 0.85), (0.65, 0.8), "drum"),
    "person": Thing(draw_person, (1.45, 1.85), (0.34, 0.5), "flat", rough=0.05),
    "ball": Thing(draw_ball, (0.18, 0.26), (0.97, 1.03), "ball"),
    "stone": Thing(draw_stone, (0.12, 0.4), (1.2, 1.9), "ball", rough=0.1),
    "boat": Thing(draw_boat, (2.0, 5.0), (0.7, 1.8), "flat"),
    "buoy": Thing(draw_buoy, (0.7, 1.2), (0.6, 0.85), "drum"),
    "oar": Thing(draw_oar, (1.8, 2.5), (5.5, 7.5), "flat", lying=True, leaning=0.5),
}
