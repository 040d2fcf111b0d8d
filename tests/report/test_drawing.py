"""Boxes lie on the pixels that they should, and texts inside the image and beside each other."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageColor

from boxcycle.report import drawing
from boxcycle.report.drawing import Marks, class_colour, draw_marks, load_font, shortened


def marks(*boxes, labels=None, texts=None, dashed=False) -> Marks:
    count = len(boxes)
    rows = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    return Marks(rows, np.array(labels or [1] * count, dtype=np.int64), tuple(texts or [""] * count), dashed)


def painted(picture: Image.Image, ground: int = 128) -> set[tuple[int, int]]:
    """(x, y) of the pixels that are not the ground's."""
    ys, xs = np.nonzero((np.asarray(picture) != ground).any(2))
    return set(zip(xs.tolist(), ys.tolist(), strict=True))


def grey(height: int = 40, width: int = 60) -> np.ndarray:
    return np.full((height, width, 3), 128, dtype=np.uint8)


def frame(left: int, top: int, right: int, bottom: int, width: int) -> set[tuple[int, int]]:
    """The pixels of a frame, from the definition."""
    inner = range(left + width, right - width), range(top + width, bottom - width)
    return {(x, y) for x in range(left, right) for y in range(top, bottom) if x not in inner[0] or y not in inner[1]}


@pytest.mark.parametrize("dashed", [False, True])
def test_a_box_from_10_to_20_covers_pixels_10_to_19(dashed):
    picture = draw_marks(grey(), marks([10, 10, 20, 20], dashed=dashed), longest=60)
    assert picture.size == (60, 40)
    assert painted(picture) == frame(10, 10, 20, 20, 2)


def test_x_and_y_are_not_swapped():
    assert painted(draw_marks(grey(), marks([30, 5, 58, 12]), longest=60)) == frame(30, 5, 58, 12, 2)


def test_enlarged_images_take_their_boxes_along():
    picture = draw_marks(grey(), marks([10, 5, 20, 20]))
    assert picture.size == (480, 320)  # the whole factor that brings 60 to 480
    assert painted(picture) == frame(80, 40, 160, 160, 2)


def test_reduced_images_take_their_boxes_along():
    picture = draw_marks(grey(400, 1000), marks([100, 100, 300, 200]), longest=500)
    assert picture.size == (500, 200)
    assert painted(picture) == frame(50, 50, 150, 100, 2)


def test_width_and_height_have_factors_of_their_own_after_rounding():
    picture = draw_marks(grey(25, 1000), marks([0, 0, 1000, 18]), longest=100)
    assert picture.size == (100, 2)
    assert painted(picture) == frame(0, 0, 100, 1, 2)  # 18 * 2 / 25, where 18 * 100 / 1000 would round to 2


def test_a_picture_that_will_be_shown_smaller_has_thicker_lines():
    picture = draw_marks(grey(400, 1000), marks([100, 100, 300, 200]), longest=1000, shown=250)
    assert painted(picture) == frame(100, 100, 300, 200, 8)


def test_edges_are_rounded_half_up_on_both_sides():
    assert painted(draw_marks(grey(), marks([9.5, 9.4, 20.5, 20.4]), longest=60)) == frame(10, 9, 21, 20, 2)


@pytest.mark.parametrize("box", [[10.1, 10.1, 10.2, 10.2], [59.9, 39.9, 60, 40], [70, 50, 80, 60], [-9, -9, -5, -5]])
def test_boxes_below_a_pixel_or_outside_leave_a_mark_inside(box):
    assert len(painted(draw_marks(grey(), marks(box), longest=60))) == 1


def test_a_box_over_the_border_is_clipped():
    assert painted(draw_marks(grey(), marks([50, 30, 90, 90]), longest=60)) == frame(50, 30, 60, 40, 2)


def test_dashed_lines_have_the_colour_of_the_class_and_dark_gaps():
    picture = draw_marks(grey(), marks([5, 5, 55, 35], labels=[3], dashed=True), longest=60)
    colours = {tuple(pixel) for pixel in np.asarray(picture).reshape(-1, 3).tolist()}
    assert colours == {(128, 128, 128), ImageColor.getrgb(class_colour(3)), (26, 26, 26)}


def test_the_best_detection_lies_on_top():
    picture = draw_marks(grey(), marks([10, 10, 30, 30], [10, 10, 30, 30], labels=[1, 2]), longest=60)
    assert picture.getpixel((10, 10)) == ImageColor.getrgb(class_colour(1))


def test_texts_lie_inside_the_image_and_beside_each_other(monkeypatch):
    chips, real = [], drawing._place

    def note(*arguments):
        chips.append(real(*arguments))
        return chips[-1]

    monkeypatch.setattr(drawing, "_place", note)
    rng = np.random.default_rng(0)
    for _ in range(20):
        corners = rng.uniform(-5, 60, (12, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(1, 40, (12, 2))], axis=1)
        chips.clear()
        picture = draw_marks(grey(), marks(*boxes, texts=["a long name 0.99"] * 12))
        placed = [chip for chip in chips if chip]
        assert placed
        for left, top, right, bottom in placed:
            assert 0 <= left < right <= picture.width
            assert 0 <= top < bottom <= picture.height
        for i, a in enumerate(placed):
            for b in placed[:i]:
                assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


@pytest.mark.parametrize("text", ["person 0.98", "größer als 0.5", "кошка", "two\nlines", "x" * 500])
def test_any_text_is_drawn(text):
    with_text = painted(draw_marks(grey(), marks([0, 0, 60, 40], texts=[text])))
    assert len(with_text) > len(painted(draw_marks(grey(), marks([0, 0, 60, 40]))))


def test_long_texts_are_cut():
    font = load_font(12)
    assert shortened("a name", font, 200) == "a name"
    cut = shortened("a very long name of a class", font, 80)
    assert cut.endswith("…")
    assert font.getlength(cut) <= 80


def test_nothing_to_draw_leaves_the_image_alone():
    pixels = np.random.default_rng(0).integers(0, 255, (500, 300, 3), dtype=np.uint8)
    kept = pixels.copy()
    np.testing.assert_array_equal(np.asarray(draw_marks(pixels, marks())), kept)
    draw_marks(pixels, marks([5, 5, 50, 50], texts=["a"]))
    np.testing.assert_array_equal(pixels, kept)


def test_neighbouring_classes_have_different_colours():
    assert len({class_colour(label) for label in range(1, 8)}) == 7
    assert class_colour(8) == class_colour(1)
