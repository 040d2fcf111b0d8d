"""The report of a run says what its folder says, and shows the images that are best and worst."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from boxcycle.evaluation.predictions import Prediction
from boxcycle.report.run import read_run, write_run_report


def titles(page: str) -> list[str]:
    return re.findall(r"<h3>((?:Worst|Best)[^<]*)</h3>", page)


def test_everything_found(index, detect, make_run):
    folder = make_run("run", detect())
    path = write_run_report(folder, index)
    page = path.read_text()
    assert path == folder / "report.html"
    assert "4 images with 6 boxes of 2 classes" in page
    assert re.search(r"<dt>AP50</dt><dd[^>]*>100\.0<", page)
    assert "&lt;b&gt;cat&lt;/b&gt;" in page
    assert "<b>cat</b>" not in page
    assert "steps: 50" in page
    assert "&#34;python&#34;: &#34;3.12&#34;" in page
    assert page.count("<svg") == 6


def test_worst_images_come_first_and_none_twice(index, detect, make_run):
    folder = make_run("run", detect(missed={(0, 0), (3, 0), (3, 1)}))
    page = write_run_report(folder, index, pictures=2).read_text()
    assert titles(page) == [
        "Worst: 3.png, F1 0 %",
        "Worst: 0.png, F1 67 %",
        "Best: 1.png, F1 100 %",
        "Best: 2.png, F1 100 %",
    ]
    assert "run: 1 right, 0 wrong, 1 missed" in page


def test_more_pictures_than_images(index, detect, make_run):
    page = write_run_report(make_run("run", detect(missed={(0, 0)})), index, pictures=3).read_text()
    assert [title.split(":")[0] for title in titles(page)] == ["Worst", "Worst", "Worst", "Best"]
    assert len(set(re.findall(r"\d\.png", "".join(titles(page))))) == 4


def test_difficult_boxes_count_if_asked(index, detect, make_run):
    folder = make_run("run", detect(missed={(3, 2)}))
    assert read_run(folder, index).metrics.summary["AP50"] == pytest.approx(100)
    assert read_run(folder, index, difficult="use").metrics.summary["AP50"] < 100


def test_speed_is_the_median(index, detect, make_run):
    run = read_run(make_run("run", detect()), index)
    assert run.images_per_second == 3
    assert run.min_score == pytest.approx(0.9)
    assert math.isnan(replace(run, rows={}).images_per_second)


def test_only_predictions_are_needed(index, detect, make_run):
    folder = make_run("run", detect())
    for name in ("metrics.csv", "config.yaml", "env.json"):
        (folder / name).unlink()
    page = write_run_report(folder, index, title="mine").read_text()
    assert "<title>mine</title>" in page
    assert page.count("<svg") == 2
    assert "<details" not in page


def test_nothing_found_and_nothing_to_find(index, detect, make_run):
    nothing = [Prediction(found.image_id, found.boxes[:0], found.labels[:0], found.scores[:0]) for found in detect()]
    folder = make_run("run", nothing)
    assert re.search(r"<dt>AP50</dt><dd[^>]*>0\.0<", write_run_report(folder, index).read_text())
    bare = replace(
        index,
        box_offsets=np.zeros(5, dtype=np.int64),
        **{name: getattr(index, name)[:0] for name in ("boxes", "labels", "box_ids", "areas", "iscrowd", "difficult")},
    )
    page = write_run_report(folder, bare).read_text()
    assert re.search(r"<dt>AP50</dt><dd[^>]*>–<", page)
    assert "no ground truth (2 classes)" in page


def test_class_ids_that_disagree_are_said(index, detect, make_run):
    swapped = [found._replace(labels=3 - found.labels) for found in detect()]
    page = write_run_report(make_run("run", swapped), index).read_text()
    assert "your class ids disagree" in page


def test_many_classes_have_no_legend(index, detect, make_run):
    folder = make_run("run", detect())
    many = replace(index, class_names=tuple(f"class {k}" for k in range(20)), category_ids=np.arange(20) * 5 + 3)
    assert "background:#0072B2" not in write_run_report(folder, many).read_text()
    assert "background:#0072B2" in write_run_report(folder, index).read_text()
