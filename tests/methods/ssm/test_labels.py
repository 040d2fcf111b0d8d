"""Consistency of candidates: examples worked by hand, a slow second implementation, invariances."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.ops import box_iou

from boxcycle.methods.ssm.labels import FIELDS, binary_losses, consistency_score, joined, unmeasured
from boxcycle.types import Detections

from .cases import detections, make

EXAMPLES: dict[str, Any] = json.loads(Path(__file__).with_name("examples.json").read_text(encoding="utf-8"))
IMAGES = EXAMPLES["G07"]["input"]["images"]
FORMS = ("matched", "max", "literal5", "literal6", "vote")


def score(images: Sequence[Any], label: int, form: str = "matched") -> float:
    boxes = torch.tensor([box for box, _ in images], dtype=torch.float32).reshape(-1, 4)
    return float(consistency_score(boxes, [detections(rows) for _, rows in images], label, form=form))  # type: ignore[arg-type]


def slow_score(images: Sequence[Any], label: int, form: str) -> float:
    """One image and one detection at a time, in plain numbers."""
    values = []
    for (x1, y1, x2, y2), rows in images:
        matched, every, best = [], [], (-1.0, 0.0)
        for (u1, v1, u2, v2), probs in rows:
            shared = max(0, min(x2, u2) - max(x1, u1)) * max(0, min(y2, v2) - max(y1, v1))
            iou = shared / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared)
            every.append(probs[label])
            matched += [probs[label]] if iou >= 0.5 else []
            best = max(best, (probs[label], iou)) if probs[label] > best[0] else best
        values.append(
            {
                "matched": sum(matched) / max(len(matched), 1),
                "max": max([0.0, *matched]),
                "literal5": sum(matched) / max(len(every), 1),
                "literal6": sum(every) / max(len(every), 1),
                "vote": best[0] if best[0] > 0.5 and best[1] > 0.5 else 0.0,
            }[form]
        )
    agree = [value for value in values if value]
    if form == "vote":
        return sum(agree) / len(agree) if 2 * len(agree) > len(values) else 0.0
    return sum(values) / len(values)


def draw_images(seed: int, count: int = 5) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    images = []
    for _ in range(count):
        low = torch.rand(2, generator=generator) * 40
        pasted = [*low.tolist(), *(low + 20 + 20 * torch.rand(2, generator=generator)).tolist()]
        rows = []
        for _ in range(int(torch.randint(0, 6, (), generator=generator))):
            box = torch.tensor(pasted) + 6 * torch.randn(4, generator=generator)
            rows.append((box.tolist(), torch.randn(4, generator=generator).mul(2).softmax(0).tolist()))
        images.append((pasted, rows))
    return images


def test_iou_is_that_of_continuous_boxes() -> None:
    pairs = torch.tensor(EXAMPLES["G01"]["input"]["pairs"], dtype=torch.float64)
    found = box_iou(pairs[:, 0], pairs[:, 1]).diagonal()
    assert found.tolist() == pytest.approx(EXAMPLES["G01"]["expected"]["iou"], abs=1e-9)
    assert (found >= 0.5).int().tolist() == EXAMPLES["G01"]["expected"]["match_ge_0.5"]


def test_equation_5_as_printed() -> None:
    given = EXAMPLES["G03"]["input"]
    f = given["lambda"] * score(given["images"], given["j"], "literal5")
    assert f == pytest.approx(EXAMPLES["G03"]["expected"]["f"], abs=1e-9)
    assert given["lambda"] * score(given["images"], given["j"]) == pytest.approx(0.9 * (0.9 + 0.8) / 2)


@pytest.mark.parametrize("form", ["matched", "max", "literal5", "vote"])
def test_nothing_found_there_counts_as_zero(form: str) -> None:
    images = EXAMPLES["G05"]["input"]["images"]
    assert score(images, 1, form) == 0
    assert score([[images[0][0], []]], 1, form) == 0


def test_equation_6_as_printed_ignores_where_detections_are() -> None:
    assert score(IMAGES, 1, "literal6") == pytest.approx(EXAMPLES["G07"]["expected"]["s_literal6"], abs=1e-9)


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_score_by_matched_detections(name: str) -> None:
    order = next(chosen for its, _, chosen in EXAMPLES["G19"]["input"]["cands"] if its == name)
    expected = EXAMPLES["G19"]["expected"][name]
    assert score([IMAGES[i] for i in order], expected["j_star"]) == pytest.approx(expected["s"], abs=1e-9)


def test_votes_need_more_than_half() -> None:
    yes = [[0, 0, 10, 10], [[[0, 0, 10, 10], [0.1, 0.8, 0.1, 0.0]]]]
    half = [[0, 0, 10, 10], [[[0, 0, 10, 5], [0.1, 0.8, 0.1, 0.0]]]]  # IoU exactly 0.5 is not above it
    assert score([yes, yes, half], 1, "vote") == pytest.approx(0.8)
    assert score([yes, half], 1, "vote") == 0
    assert score([half], 1, "matched") == pytest.approx(0.8)


@pytest.mark.parametrize("form", FORMS)
def test_equals_a_slow_implementation(form: str) -> None:
    for seed in range(20):
        images = draw_images(seed)
        for label in range(4):
            assert score(images, label, form) == pytest.approx(slow_score(images, label, form), abs=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_order_of_images_and_detections_does_not_matter(form: str) -> None:
    images = draw_images(3)
    turned = [(box, rows[::-1]) for box, rows in images[::-1]]
    assert score(turned, 2, form) == pytest.approx(score(images, 2, form), abs=1e-12)


def test_without_any_image_it_is_unknown() -> None:
    assert math.isnan(score([], 1))


def test_literal_forms_fall_with_the_number_of_other_boxes_and_matched_does_not() -> None:
    crowd = [[[100.0 + i, 100, 120 + i, 120], [0.97, 0.01, 0.01, 0.01]] for i in range(300)]
    alone = [[[10, 10, 50, 50], [[[10, 10, 50, 50], [0.05, 0.9, 0.03, 0.02]]]]]
    among = [[alone[0][0], alone[0][1] + crowd]]
    assert score(among, 1) == score(alone, 1) == pytest.approx(0.9)
    assert score(among, 1, "literal5") < 0.01


def test_binary_losses() -> None:
    given, expected = EXAMPLES["G09"]["input"], EXAMPLES["G09"]["expected"]
    losses = binary_losses(torch.tensor(given["phi"], dtype=torch.float64), torch.tensor(given["y"]) > 0)
    assert losses.tolist() == pytest.approx(expected["ell"], abs=1e-9)
    certain = binary_losses(torch.tensor([0.0, 1.0]), torch.tensor([True, False]))
    assert certain.isfinite().all()


def test_rows_move_together() -> None:
    three = make([[0.1, 0.9, 0, 0], [0.2, 0, 0.8, 0], [0.3, 0, 0, 0.7]], [0.3, 0.1, 0.2])
    order = three.ranked(three.consistency)
    assert order.tolist() == [1, 2, 0]
    turned = three[order]
    assert turned.image_ids.tolist() == [1, 2, 0]
    assert turned.labels.tolist() == [2, 3, 1]
    assert turned.consistency.tolist() == [0.1, 0.2, 0.3]


def test_ties_are_settled_by_image_and_box_whatever_the_order() -> None:
    boxes = torch.tensor([[5.0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 8, 9]])
    one = unmeasured(7, boxes, torch.full((3, 4), 0.25))
    other = unmeasured(2, boxes[:1], torch.full((1, 4), 0.25))
    both = joined([one, other], 3)
    assert both[both.ranked(torch.zeros(4))].boxes.tolist() == boxes[[0, 2, 1, 0]].tolist()
    turned = joined([other, one[[2, 0, 1]]], 3)
    first, again = (its[its.ranked(its.consistency)] for its in (both, turned))
    assert all(getattr(first, name).nan_to_num(-1).equal(getattr(again, name).nan_to_num(-1)) for name in FIELDS)


def test_no_candidates() -> None:
    none = joined([], 3)
    assert len(none) == 0
    assert none.labels.tolist() == []
    assert none.probs.shape == (0, 4)
    assert none.ranked(none.consistency).tolist() == []


def test_detections_that_no_one_made() -> None:
    nothing: Detections = detections([])
    assert float(consistency_score(torch.tensor([[0.0, 0, 9, 9]]), [nothing], 2, form="literal6")) == 0
