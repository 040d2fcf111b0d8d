"""Assignment and sampling, by hand."""

import torch

from boxcycle.ops.matching import IGNORED, assign, sample_balanced

BOXES = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]])


def test_assign_by_overlap() -> None:
    target = {"boxes": BOXES, "labels": torch.tensor([3, 1])}
    candidates = torch.tensor(
        [
            [0.0, 0, 10, 10],  # IoU 1 with the first
            [0, 0, 10, 20],  # 0.5
            [0, 0, 10, 25],  # 0.4: between the thresholds
            [50, 50, 60, 60],  # 0
            [20, 20, 30, 30],  # 0.25 with the second, and the best that it has
        ]
    )
    found = assign(candidates, target, positive_iou=0.5, negative_iou=0.3)
    assert found.labels.tolist() == [3, 3, IGNORED, 0, 0]
    assert found.matched.tolist()[:3] == [0, 0, 0]
    rescued = assign(candidates, target, positive_iou=0.5, negative_iou=0.3, best_for_each_box=True)
    assert rescued.labels.tolist() == [3, 3, IGNORED, 0, 1]
    assert rescued.matched[4] == 1


def test_a_box_that_nothing_touches_rescues_nothing() -> None:
    target = {"boxes": torch.tensor([[90.0, 90, 99, 99]]), "labels": torch.tensor([1])}
    found = assign(BOXES, target, positive_iou=0.7, negative_iou=0.3, best_for_each_box=True)
    assert found.labels.tolist() == [0, 0]


def test_ignore_regions_teach_neither_object_nor_background() -> None:
    target = {"boxes": BOXES, "labels": torch.tensor([3, 0]), "iscrowd": torch.tensor([False, True])}
    candidates = torch.tensor([[20.0, 20, 40, 40], [25, 25, 30, 30], [38, 38, 60, 60], [0, 0, 10, 10]])
    found = assign(candidates, target, positive_iou=0.5, negative_iou=0.5)
    assert found.labels.tolist() == [IGNORED, IGNORED, 0, 3]


def test_no_boxes_make_background_of_all() -> None:
    target = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    assert assign(BOXES, target, positive_iou=0.5, negative_iou=0.5).labels.tolist() == [0, 0]


def test_sampling_balances_and_repeats_with_the_seed() -> None:
    labels = torch.tensor([1] * 30 + [0] * 100 + [IGNORED] * 50)

    def draw(count: int) -> list[int]:
        return sample_balanced(labels, count, 0.25, torch.Generator().manual_seed(0)).tolist()

    rows = draw(40)
    assert rows == draw(40)
    assert len(set(rows)) == 40
    assert [labels[row].item() for row in rows] == [1] * 10 + [0] * 30
    assert len(draw(1000)) == 130  # all there are, the ignored never
    few = torch.tensor([1, 1, 0])
    assert sample_balanced(few, 8, 0.25, torch.Generator()).tolist()[:2] != [2]
    assert sorted(sample_balanced(few, 8, 0.25, torch.Generator()).tolist()) == [0, 1, 2]
