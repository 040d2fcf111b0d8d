"""Each kind of error by hand, a slow second implementation, and what must hold whatever is found."""

from __future__ import annotations

import numpy as np
import pytest

from boxcycle.evaluation.errors import ERRORS, ClassErrors, Kind, error_breakdown
from boxcycle.evaluation.images import best_min_score, score_images

BOX = [0, 0, 10, 10]


def kinds(make_index, make_predictions, truth, found, **marked) -> tuple[list[str], list[int]]:
    """The kind of each detection of one image, in its order, and the rows of the boxes that are missed."""
    index = make_index([truth], **marked)
    [image] = error_breakdown(index, make_predictions(index, [found]), min_score=0).images
    return [Kind(kind).name.lower() for kind in image.kinds], image.missed.tolist()


@pytest.mark.parametrize(
    ("truth", "found", "expected", "missed"),
    [
        ([(1, BOX)], [(1, 0.9, [0, 0, 10, 5])], ["right"], []),  # an IoU of 0.5 is enough
        ([(1, BOX)], [(1, 0.9, [0, 0, 10, 4.9])], ["localisation"], [0]),
        ([(1, BOX)], [(1, 0.9, [0, 0, 10, 1])], ["localisation"], [0]),  # as is 0.1 to be near
        ([(1, BOX)], [(1, 0.9, [0, 0, 10, 0.9])], ["background"], [0]),
        ([(1, BOX)], [(2, 0.9, BOX)], ["classification"], [0]),
        ([(1, BOX)], [(2, 0.9, [0, 0, 10, 2])], ["classification"], [0]),
        ([(1, BOX)], [(2, 0.9, [20, 20, 30, 30])], ["background"], [0]),
        ([(1, BOX)], [(1, 0.8, BOX), (1, 0.9, [0, 0, 10, 9])], ["redundancy", "right"], []),
        ([(1, BOX)], [(1, 0.9, BOX), (1, 0.9, BOX)], ["right", "redundancy"], []),  # of equal ones the first
        # a box of each class: the one that is overlapped more tells, the own class where they are equal
        ([(1, BOX), (2, [0, 6, 10, 16])], [(1, 0.9, [0, 7, 10, 16])], ["classification"], [0, 1]),
        ([(1, BOX), (2, [0, 8, 10, 18])], [(1, 0.9, [0, 4, 10, 14])], ["localisation"], [0, 1]),
        ([(1, BOX), (2, BOX)], [(2, 0.9, [0, 0, 10, 3])], ["localisation"], [0, 1]),
        ([(1, BOX), (2, BOX)], [(1, 0.9, BOX), (2, 0.8, BOX)], ["right", "right"], []),
        ([], [(1, 0.9, BOX)], ["background"], []),
        ([(1, BOX)], [], [], [0]),
        ([], [], [], []),
    ],
)
def test_kinds_by_hand(make_index, make_predictions, truth, found, expected, missed):
    assert kinds(make_index, make_predictions, truth, found) == (expected, missed)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ((1, 0.9, BOX), "ignored"),
        ((1, 0.9, [0, 0, 10, 4]), "background"),  # near a difficult box is near nothing
        ((2, 0.9, BOX), "background"),
    ],
)
def test_difficult_boxes_are_not_sought_and_explain_nothing(make_index, make_predictions, found, expected):
    assert kinds(make_index, make_predictions, [(1, BOX)], [found], difficult=[0]) == ([expected], [])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ((1, 0.9, [10, 10, 20, 20]), "ignored"),  # IoU 0.01, but all of it lies in the crowd
        ((1, 0.9, [95, 10, 105, 20]), "ignored"),  # half of it
        ((1, 0.9, [96, 10, 106, 20]), "background"),
        ((2, 0.9, [10, 10, 20, 20]), "background"),
    ],
)
def test_a_crowd_swallows_its_own_class(make_index, make_predictions, found, expected):
    assert kinds(make_index, make_predictions, [(1, [0, 0, 100, 100])], [found], crowd=[0]) == ([expected], [])


def test_what_is_right_in_front_of_a_crowd_is_right(make_index, make_predictions):
    truth, found = [(1, [0, 0, 100, 100]), (1, BOX)], [(1, 0.9, BOX), (1, 0.8, BOX)]
    assert kinds(make_index, make_predictions, truth, found, crowd=[0]) == (["right", "redundancy"], [])


def test_counts_by_class(make_index, make_predictions):
    truth = [[(1, BOX), (2, [20, 20, 30, 30])], [], [(1, BOX)]]
    index = make_index(truth)
    found = [[(1, 0.9, BOX), (1, 0.8, BOX), (1, 0.7, [20, 20, 30, 30])], [(2, 0.6, BOX)], [(2, 0.1, BOX)]]
    breakdown = error_breakdown(index, make_predictions(index, found), min_score=0.5)
    assert breakdown.per_class == (
        ClassErrors("a", boxes=2, right=1, localisation=0, classification=1, redundancy=1, background=0, missed=1),
        ClassErrors("b", boxes=1, right=0, localisation=0, classification=0, redundancy=0, background=1, missed=1),
    )
    assert breakdown.total == ("all", 3, 1, 0, 1, 1, 1, 2)
    assert breakdown.total.errors == sum(image.errors for image in breakdown.images) == 5
    assert breakdown.images[0].counts == {
        "right": 1, "localisation": 0, "classification": 1, "redundancy": 1, "background": 0, "missed": 1
    }  # fmt: skip
    assert breakdown.record()["per_class"][1]["background"] == 1


def test_the_score_of_the_best_f1_is_the_default(draw_case):
    index, predictions = draw_case(3)
    chosen = error_breakdown(index, predictions)
    assert chosen.min_score == best_min_score(index, predictions)
    assert chosen.per_class == error_breakdown(index, predictions, min_score=chosen.min_score).per_class


def test_the_difference_of_two_runs(make_index, make_predictions):
    index = make_index([[(1, BOX), (2, [20, 20, 30, 30])]])
    old = error_breakdown(index, make_predictions(index, [[(1, 0.9, BOX), (1, 0.8, [50, 50, 60, 60])]]), min_score=0)
    new = error_breakdown(index, make_predictions(index, [[(1, 0.9, [0, 0, 10, 3]), (2, 0.8, BOX)]]), min_score=0)
    difference = new.minus(old)
    assert difference["all"] == dict(zip(ERRORS, (1, 1, 0, -1, 1), strict=True))
    assert difference["a"] == dict(zip(ERRORS, (1, 0, 0, -1, 1), strict=True))
    assert difference["b"] == dict(zip(ERRORS, (0, 1, 0, 0, 0), strict=True))
    assert set(old.minus(old)["all"].values()) == {0}
    other = make_index([[(1, BOX)]])
    with pytest.raises(ValueError, match="same images and classes"):
        new.minus(error_breakdown(other, make_predictions(other, [[]]), min_score=0))


def test_images_that_nobody_annotated_are_left_out(make_index, make_predictions):
    index = make_index([[(1, BOX)], []], annotated=np.array([True, False]))
    breakdown = error_breakdown(index, make_predictions(index, [[], [(1, 0.9, BOX)]]), min_score=0)
    assert breakdown.total.errors == breakdown.total.missed == 1


@pytest.mark.parametrize("seed", range(4))
def test_every_detection_has_one_kind_and_every_box_is_found_or_missed(draw_case, seed):
    index, predictions = draw_case(seed, images=40, difficult=0.1)
    breakdown = error_breakdown(index, predictions, min_score=0.3)
    for image in breakdown.images:
        rows = index.boxes_of(image.position)
        assert len(image.kinds) == (predictions[image.position].scores >= 0.3).sum()
        sought = (~index.difficult[rows] & ~index.iscrowd[rows]).sum()
        assert (image.kinds == Kind.RIGHT).sum() + len(image.missed) == sought
    assert breakdown.total.boxes == (~index.difficult & ~index.iscrowd).sum()
    assert len({kind for image in breakdown.images for kind in image.kinds.tolist()}) == len(Kind), "a kind is untested"


def test_counts_are_those_of_images(draw_case):
    """Without crowds, which only the kinds judge as COCO does."""
    index, predictions = draw_case(5, crowd=0, difficult=0.1)
    breakdown = error_breakdown(index, predictions, min_score=0.4)
    for image, score in zip(breakdown.images, score_images(index, predictions, min_score=0.4), strict=True):
        assert (image.counts["right"], len(image.missed)) == (score.right, score.missed)
        assert image.errors == score.wrong + score.missed


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_detections_and_boxes_does_not_matter(draw_case, seed):
    """Scores all differ here: of equal ones the first is better."""
    index, predictions = draw_case(seed, difficult=0.1)
    rng = np.random.default_rng(seed)
    distinct = [found._replace(scores=rng.permutation(len(found.scores)) / 100 + 0.1) for found in predictions]
    orders = [rng.permutation(len(found.scores)) for found in distinct]
    shuffled = [
        found._replace(boxes=found.boxes[order], labels=found.labels[order], scores=found.scores[order])
        for found, order in zip(distinct, orders, strict=True)
    ]
    before = error_breakdown(index, distinct, min_score=0.2)
    after = error_breakdown(index, shuffled[::-1], min_score=0.2)
    assert before.per_class == after.per_class
    _reverse_boxes(index)
    assert error_breakdown(index, distinct, min_score=0.2).per_class == before.per_class


def _reverse_boxes(index) -> None:
    for field in ("boxes", "labels", "iscrowd", "difficult"):
        for position in range(len(index)):
            rows = index.boxes_of(position)
            getattr(index, field)[rows] = getattr(index, field)[rows][::-1].copy()


# --- the same again, slowly, box by box


def area(box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def shared(a, b) -> float:
    return area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])


def iou(a, b) -> float:
    return shared(a, b) / (area(a) + area(b) - shared(a, b))


def slow_kinds(index, position: int, found) -> tuple[list[Kind], set[int]]:
    rows = range(*index.boxes_of(position).indices(len(index.boxes)))
    taken: set[int] = set()
    result = {}
    for number in sorted(range(len(found.scores)), key=lambda i: -found.scores[i]):
        box, label = found.boxes[number].astype(float), found.labels[number]
        own = [row for row in rows if index.labels[row] == label]
        best = max(own, key=lambda row: iou(box, index.boxes[row]), default=None)
        if best is not None and iou(box, index.boxes[best]) >= 0.5:
            no_matter = index.difficult[best] or index.iscrowd[best]
            result[number] = Kind.IGNORED if no_matter else Kind.REDUNDANCY if best in taken else Kind.RIGHT
            taken.add(best)
        elif any(index.iscrowd[row] and shared(box, index.boxes[row]) >= 0.5 * area(box) for row in own):
            result[number] = Kind.IGNORED
        else:
            sought = [row for row in rows if not (index.difficult[row] or index.iscrowd[row])]
            nearest = max(sought, key=lambda row: (iou(box, index.boxes[row]), row in own), default=None)
            if nearest is None or iou(box, index.boxes[nearest]) < 0.1:
                result[number] = Kind.BACKGROUND
            else:
                result[number] = Kind.LOCALISATION if nearest in own else Kind.CLASSIFICATION
    missed = {row for row in rows if not (index.difficult[row] or index.iscrowd[row] or row in taken)}
    return [result[number] for number in range(len(found.scores))], missed


@pytest.mark.parametrize("seed", range(6))
def test_slow_implementation(draw_case, seed):
    index, predictions = draw_case(seed, images=8, num_classes=3, difficult=0.15)
    for image in error_breakdown(index, predictions, min_score=0).images:
        expected, missed = slow_kinds(index, image.position, predictions[image.position])
        assert image.kinds.tolist() == expected
        assert set(image.missed.tolist()) == missed
