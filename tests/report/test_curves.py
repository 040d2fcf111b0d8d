"""Charts are sound SVG in the page's colours, and show what they are named after."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from boxcycle.evaluation.coco import ClassMetrics, CocoMetrics
from boxcycle.report.curves import ap_curves, compare_curves, line_chart, loss_curves, precision_recall_curves

ROWS = {
    step: {"loss": 10.0 / step, "rpn_box": 1.0, "class": 2.0, "class_accuracy": 0.5, "lr": 0.1, "memory_gb": 4.0}
    for step in range(1, 9)
} | {10: {"AP": 30.0, "AP50": 50.0, "APl": math.nan}}


def texts(svg: str) -> list[str]:
    """All that is written in a drawing; it must be sound XML."""
    elements = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(element.itertext()) for element in elements]


def metrics(count: int) -> CocoMetrics:
    rng = np.random.default_rng(0)
    curves = np.sort(rng.uniform(0, 100, (101, count)), axis=0)[::-1]
    rows = tuple(ClassMetrics(f"class {k}", 10.0 * k, 10.0 * k, 5) for k in range(count))
    return CocoMetrics({}, rows, curves)


def test_a_chart_takes_the_colours_of_the_page():
    svg = line_chart({"a": ([0, 1], [1, 2])}, x_label="step", y_label="loss")
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert "#010203" not in svg
    assert {"step", "loss"} <= set(texts(svg))


def test_the_same_curves_give_the_same_text():
    first, second = (line_chart({"a": ([0, 1], [1, 2])}, x_label="x", y_label="y") for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a & b", "$x_1^{2$", "größe", '"'])
def test_names_are_written_as_they_are(name):
    svg = line_chart({name: ([0, 1], [1, 2]), "other": ([0, 1], [2, 1])}, x_label="x", y_label="y")
    assert name in texts(svg)
    assert "<script>" not in svg


def test_gaps_and_empty_series():
    ElementTree.fromstring(line_chart({"a": ([1, 2, 3], [1, math.nan, 3]), "b": ([], [])}, x_label="x", y_label="y"))
    ElementTree.fromstring(line_chart({}, x_label="x", y_label="y"))


def test_columns_of_the_metrics_are_sorted_into_charts():
    charts = loss_curves(ROWS)
    assert list(charts) == ["Loss", "Parts of the loss", "Accuracy on sampled regions"]
    assert {"rpn_box", "class"} <= set(texts(charts["Parts of the loss"]))
    assert not {"lr", "AP", "loss"} & set(texts(charts["Parts of the loss"]))
    assert loss_curves({}) == {}


def test_no_part_of_the_loss_is_left_out():
    """mtl_ssl has nine: more than there are colours."""
    tasks = ("multi_object", "multi_object_divergence", "closeness", "foreground", "refinement")
    row = dict.fromkeys(("loss", "rpn_objectness", "rpn_box", "class", "box", *tasks, "class_accuracy"), 1.0)
    charts = loss_curves({1: row, 2: row})
    assert "Parts of the loss" not in charts
    assert {"rpn_objectness", "rpn_box", "class", "box"} <= set(texts(charts["Parts of the loss: detector"]))
    assert set(tasks) <= set(texts(charts["Parts of the loss: beside the detector"]))
    many = {1: {f"part {k}": 1.0 for k in range(16)}}
    charts = loss_curves(many)
    assert list(charts) == [f"Parts of the loss: beside the detector, {k} of 3" for k in (1, 2, 3)]
    assert set(many[1]) <= {text for chart in charts.values() for text in texts(chart)}


def test_average_precision_over_steps():
    assert {"AP", "AP50"} <= set(texts(ap_curves(ROWS)))
    assert "AP75" not in texts(ap_curves(ROWS))
    assert ap_curves({1: {"loss": 3.0}}) is None


def test_runs_in_one_chart():
    assert {"one", "two"} <= set(texts(compare_curves({"one": ROWS, "two": ROWS}, "loss")))
    assert "two" not in texts(compare_curves({"one": ROWS, "two": {1: {}}, "three": ROWS}, "AP"))
    assert compare_curves({"one": ROWS}, "nothing") is None


def test_precision_and_recall_of_few_and_of_many_classes():
    assert {"class 0", "class 2"} <= set(texts(precision_recall_curves({"run": metrics(3)})))
    many = set(texts(precision_recall_curves({"run": metrics(20)})))
    assert {"mean", "class 0 (worst)", "class 10 (median)", "class 19 (best)"} <= many
    assert {"one", "two"} <= set(texts(precision_recall_curves({"one": metrics(3), "two": metrics(3)})))


def test_precision_and_recall_without_ground_truth():
    nothing = CocoMetrics({}, (ClassMetrics("a", math.nan, math.nan, 0),), np.full((101, 1), np.nan))
    ElementTree.fromstring(precision_recall_curves({"run": nothing}))
    ElementTree.fromstring(precision_recall_curves({"one": nothing, "two": nothing}))
