"""Charts, tables and marks of errors say what the breakdown says."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest

from boxcycle.evaluation.errors import ERRORS, ClassErrors, ErrorBreakdown, error_breakdown
from boxcycle.report.error_kinds import (
    COLOURS,
    class_bars,
    describe_errors,
    difference_table,
    error_marks,
    error_table,
    kind_bars,
)
from boxcycle.report.html import CountChange, format_cell, kind_of_cell


def breakdown(*rows: tuple[str, int]) -> ErrorBreakdown:
    """Classes with so many errors of each kind."""
    return ErrorBreakdown(0.5, tuple(ClassErrors(name, 9, 9 - count, *[count] * 5) for name, count in rows), ())


def texts(svg: str) -> list[str]:
    elements = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(element.itertext()) for element in elements]


def test_bars_of_classes():
    svg = class_bars(breakdown(("cat", 1), ("<b>dog</b>", 3), ("a name that is far too long for a chart", 2)))
    written = texts(svg)
    assert [name for name in written if name in ("cat", "<b>dog</b>", "a name that is fa…")] == [
        "<b>dog</b>",
        "a name that is fa…",
        "cat",
    ]
    assert set(ERRORS) <= set(written)
    assert all(COLOURS[kind].lower() in svg for kind in ERRORS)


def test_of_many_classes_the_worst_are_shown():
    written = texts(class_bars(breakdown(*((f"class {k}", k) for k in range(30)))))
    assert "class 29" in written
    assert "class 18" in written
    assert "class 17" not in written


@pytest.mark.parametrize("rows", [(), (("cat", 0),)])
def test_bars_without_errors(rows):
    ElementTree.fromstring(class_bars(breakdown(*rows)))
    ElementTree.fromstring(kind_bars({"one": breakdown(*rows)}))


def test_bars_of_runs():
    runs = {f"run {k}": breakdown(("cat", k)) for k in range(3)}
    assert {*runs, *ERRORS} <= set(texts(kind_bars(runs)))


def test_tables():
    one, other = breakdown(("cat", 1), ("dog", 3)), breakdown(("cat", 1), ("dog", 2))
    assert error_table(one).rows[-1] == ("all", 18, 14, 4, 4, 4, 4, 4)
    assert len(error_table(breakdown(("cat", 1))).rows) == 1
    rows = difference_table({"a": one, "b": other}).rows
    assert rows == [
        ("a", 4, 4, 4, 4, 4, 20),
        ("b", 3, 3, 3, 3, 3, 15),
        ("b minus a", -1, -1, -1, -1, -1, -5),
        ("b minus a: dog", -1, -1, -1, -1, -1, -5),
    ]


def test_fewer_errors_are_a_gain():
    assert [format_cell(CountChange(value)) for value in (-1200, 0, 3)] == ["−1,200", "0", "+3"]
    assert [kind_of_cell(CountChange(value)) for value in (-1, 0, 1)] == ["gain", "", "loss"]


def test_marks_name_the_kinds_and_errors_come_first(index, detect):
    predictions = detect(missed={(0, 0)})
    swapped = predictions[0]._replace(
        boxes=np.concatenate([predictions[0].boxes, predictions[0].boxes]),
        labels=np.array([2, 1]),
        scores=np.array([0.9, 0.8], dtype=np.float32),
    )
    judged = error_breakdown(index, [swapped, *predictions[1:]], min_score=0)
    marks = error_marks(index, judged.images[0])
    assert marks.texts == ("missed: <b>cat</b>", "classification: <b>cat</b>", "dog & fox")
    assert marks.boxes.tolist() == [[5, 5, 45, 35], [50, 20, 80, 50], [50, 20, 80, 50]]
    assert [marks.colour(k) for k in range(3)] == [COLOURS[k] for k in ("missed", "classification", "right")]
    assert describe_errors(judged.images[0]) == "1 right, 1 classification, 1 missed"
    assert describe_errors(judged.images[2]) == "0 right"


def test_marks_of_an_image_without_anything(index, detect):
    nothing = [replace_found(found) for found in detect()]
    judged = error_breakdown(replace(index, difficult=np.ones(6, dtype=bool)), nothing, min_score=0)
    assert all(len(error_marks(index, image).boxes) == 0 for image in judged.images)


def replace_found(found):
    return found._replace(boxes=found.boxes[:0], labels=found.labels[:0], scores=found.scores[:0])
