"""The label equations against worked examples, a slow count of sub-pixels, and symmetries that they must have."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import horizontal_flip
from torchvision.tv_tensors import BoundingBoxes

from boxcycle.methods.mtl_ssl import labels

EXAMPLES = json.loads((Path(__file__).parent / "examples.json").read_text())


def examples(task: str) -> list:
    found = [pytest.param(case, id=case["id"]) for case in EXAMPLES if case["task"] == task]
    assert found, f"no worked example of {task}"
    return found


def boxes_and_labels(case: dict) -> tuple[Tensor, Tensor]:
    rows = torch.tensor(case["boxes_xyxy_class"], dtype=torch.float32).reshape(-1, 5)
    return rows[:, :4], rows[:, 4].long()


def random_boxes(count: int, size: tuple[int, int], seed: int, classes: int = 4) -> tuple[Tensor, Tensor]:
    """Boxes with corners on whole pixels, so that counting pixels is exact."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator) * torch.tensor([size[1] - 1.0, size[0] - 1.0])
    low, high = corners.amin(1).floor(), corners.amax(1).floor() + 1
    return torch.cat([low, high], 1), torch.randint(1, classes + 1, (count,), generator=generator)


@pytest.mark.parametrize("case", examples("multi_object"))
def test_multi_object_examples(case: dict) -> None:
    boxes, classes = boxes_and_labels(case)
    window = torch.tensor([case["window_xyxy"]], dtype=torch.float32)
    expected, count = case["expected"], case["num_classes"]
    parts = labels.window_parts(window, boxes, classes, count)[0]
    assert parts.tolist() == pytest.approx(expected["fractions"], abs=1e-5)
    label = labels.multi_object_labels(window, boxes, classes, count)[0]
    assert label.tolist() == pytest.approx(expected["label_sqrt"], abs=1e-5)
    linear = labels.multi_object_labels(window, boxes, classes, count, square_root=False)[0]
    assert linear.tolist() == pytest.approx(expected["label_linear"], abs=1e-5)


@pytest.mark.parametrize("count", [1, 3, 20, 60])
def test_multi_object_parts_equal_counted_pixels(count: int) -> None:
    size = (40, 60)
    boxes, classes = random_boxes(count, size, seed=count)
    windows, _ = random_boxes(16, size, seed=100 + count)
    parts = labels.window_parts(windows, boxes, classes, 4)
    image = torch.zeros(5, *size, dtype=torch.bool)
    for (x1, y1, x2, y2), label in zip(boxes.int().tolist(), classes.tolist(), strict=True):
        image[label, y1:y2, x1:x2] = True
    image[0] = ~image[1:].any(0)
    for window, row in zip(windows.int().tolist(), parts, strict=True):
        x1, y1, x2, y2 = window
        counted = image[:, y1:y2, x1:x2].flatten(1).float().mean(1)
        assert row.tolist() == pytest.approx(counted.tolist(), abs=1e-5)


def test_multi_object_labels_are_distributions_that_scale_and_order_do_not_change() -> None:
    boxes, classes = random_boxes(12, (100, 150), seed=1)
    windows, _ = random_boxes(8, (100, 150), seed=2)
    expected = labels.multi_object_labels(windows, boxes, classes, 4)
    assert expected.sum(1).tolist() == pytest.approx([1.0] * 8)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(labels.multi_object_labels(windows, boxes[order], classes[order], 4), expected)
    torch.testing.assert_close(
        labels.multi_object_labels(windows * 3.7, boxes * 3.7, classes, 4), expected, atol=1e-5, rtol=0
    )


def test_regions_of_unknown_class_are_no_objects() -> None:
    window, box = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 5, 10]])
    assert labels.multi_object_labels(window, box, torch.tensor([0]), 2).tolist() == [[1, 0, 0]]
    assert labels.closeness_labels(box.expand(2, 4), torch.tensor([1, 0]), (10, 10), 2).tolist() == [
        [1, 0, 0],
        [0, 1, 0],
    ]


@pytest.mark.parametrize("case", examples("hflip_consistency"))
def test_flip_takes_image_boxes_windows_and_mask_together(case: dict) -> None:
    (boxes, classes), expected = boxes_and_labels(case), case["expected"]
    width, height = case["image_wh"]
    window = torch.tensor([case["window_xyxy"]], dtype=torch.float32)

    def flip(rows: Tensor) -> Tensor:
        return horizontal_flip(BoundingBoxes(rows, format="XYXY", canvas_size=(height, width))).as_subclass(Tensor)

    assert flip(boxes)[0].tolist() == expected["flipped_box"]
    assert flip(window)[0].tolist() == expected["flipped_window"]
    for some_window, some_boxes in ((window, boxes), (flip(window), flip(boxes))):
        label = labels.multi_object_labels(some_window, some_boxes, classes, 2)[0]
        assert label.tolist() == pytest.approx(expected["label_sqrt"], abs=1e-5)
    mask = labels.foreground_mask(boxes, (height, width), 16)
    torch.testing.assert_close(labels.foreground_mask(flip(boxes), (height, width), 16), mask.flip(1))


@pytest.mark.parametrize("case", examples("closeness"))
def test_closeness_examples(case: dict) -> None:
    boxes, classes = boxes_and_labels(case)
    width, height = case["image_wh"]
    for same_class, key in ((False, "labels"), (True, "same_class")):
        found = labels.closeness_labels(boxes, classes, (height, width), case["num_classes"], same_class=same_class)
        torch.testing.assert_close(found, torch.tensor(case["expected"][key]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("same_class", [False, True])
def test_closeness_equals_a_loop_over_boxes_and_classes(same_class: bool) -> None:
    size = (90, 130)
    boxes, classes = random_boxes(9, size, seed=5)
    found = labels.closeness_labels(boxes, classes, size, 6, same_class=same_class)
    centres = [((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in boxes.tolist()]
    for b, row in enumerate(found.tolist()):
        raw = [0.0] * 7
        for k in range(1, 7):
            others = [o for o in range(9) if o != b and classes[o] == k and (same_class or classes[b] != k)]
            if others:
                raw[k] = 1 - min(math.dist(centres[b], centres[o]) for o in others) / math.hypot(*size)
        raw[0] = float(sum(raw) == 0)
        assert row == pytest.approx([value / sum(raw) for value in raw], abs=1e-5)


def test_closeness_with_a_reach_by_hand() -> None:
    """A box of 10 x 40, so of size 20, beside one of class 2 at 30 pixels and two of class 3, the nearer at 60."""
    boxes = torch.tensor([[0.0, 0, 10, 40], [30, 0, 40, 40], [60, 0, 70, 40], [90, 0, 100, 40]])
    classes = torch.tensor([1, 2, 3, 3])
    found = labels.closeness_labels(boxes, classes, (500, 700), 4, reach=3.0)
    near, far = math.exp(-30 / 60), math.exp(-60 / 60)
    assert found[0].tolist() == pytest.approx([value / (1 + far) for value in (1 - near, 0, near, far, 0)])
    same = labels.closeness_labels(boxes, classes, (500, 700), 4, same_class=True, reach=3.0)
    assert same[3, 3] > same[3, 2] > same[3, 1] > 0


def test_closeness_with_a_reach_tells_near_from_far_and_knows_loneliness() -> None:
    boxes, classes = random_boxes(9, (90, 130), seed=5)
    found = labels.closeness_labels(boxes, classes, (90, 130), 6, reach=2.0)
    assert found.sum(1).tolist() == pytest.approx([1.0] * 9)
    larger = labels.closeness_labels(2 * boxes, classes, (180, 260), 6, reach=2.0)
    torch.testing.assert_close(larger, found)
    pair = torch.tensor([[0.0, 0, 2, 2], [4000, 4000, 4002, 4002]])
    far = labels.closeness_labels(pair, torch.tensor([1, 2]), (5000, 5000), 2, reach=2.0)
    assert far.tolist() == [[1, 0, 0], [1, 0, 0]]
    assert labels.closeness_labels(pair[:1], torch.tensor([1]), (9, 9), 2, reach=2.0).tolist() == [[1, 0, 0]]
    assert labels.closeness_labels(pair[:0], classes[:0], (9, 9), 2, reach=2.0).shape == (0, 3)


def test_foreground_of_masks_that_are_boxes_is_that_of_the_boxes() -> None:
    boxes, _ = random_boxes(3, (90, 130), seed=5)
    masks = torch.zeros(3, 90, 130, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    for grid in (8, 64):
        assert labels.foreground_of_masks(masks, grid).equal(labels.foreground_mask(boxes, (90, 130), grid))
    assert labels.foreground_of_masks(masks[:0], 8).equal(torch.zeros(8, 8))


def test_foreground_of_a_triangle_by_hand() -> None:
    triangle = torch.ones(1, 8, 8, dtype=torch.bool).tril()
    assert labels.foreground_of_masks(triangle, 4).equal(torch.ones(4, 4).tril())


@pytest.mark.parametrize("case", examples("foreground64"))
def test_foreground_examples(case: dict) -> None:
    boxes = torch.tensor(case["boxes_xyxy"], dtype=torch.float32).reshape(-1, 4)
    width, height = case["image_wh"]
    expected = case["expected"]
    assert labels.foreground_mask(boxes, (height, width), 64).sum() == expected["centre_rule_ones"]
    assert labels.foreground_mask(boxes, (height, width), 64, original=True).sum() == expected["ones"]
    weights = labels.foreground_weights(boxes, (height, width), 64)
    assert float(weights.min()) == pytest.approx(expected["weight_min"], abs=1e-5)
    assert float(weights.max()) == pytest.approx(expected["weight_max"], rel=1e-5)
    assert float(weights.mean()) == pytest.approx(1, abs=1e-5)
    covered = labels.foreground_mask(boxes, (height, width), 64 * 16).sum() / 16**2  # a finer grid counts coverage
    assert float(covered) == pytest.approx(expected["coverage_sum_16x16"], abs=1e-2)


@pytest.mark.parametrize("case", examples("window_sampler"))
def test_window_examples(case: dict) -> None:
    width, height = case["image_wh"]
    window = labels.windows_from_uniforms(torch.tensor([case["uniforms_h_w_cy_cx"]]), (height, width), 32)[0]
    assert window.tolist() == pytest.approx(case["expected"]["window_xyxy"], abs=1e-3)


@pytest.mark.parametrize("size", [(375, 500), (40, 300), (20, 10)])
def test_windows_touch_a_box_and_stay_inside(size: tuple[int, int]) -> None:
    boxes, _ = random_boxes(3, size, seed=4)
    windows = labels.sample_windows(boxes, size, 64, 32.0, torch.Generator().manual_seed(0))
    assert windows.shape == (64, 4)
    shortest = torch.tensor([min(32, size[1]), min(32, size[0])])
    assert (windows[:, 2:] - windows[:, :2] >= shortest - 1e-3).all()
    assert (windows >= 0).all()
    assert (windows[:, 2:] <= torch.tensor([size[1], size[0]])).all()
    parts = labels.window_parts(windows, boxes, torch.ones(3, dtype=torch.int64), 1)
    assert (parts[:, 1] > 0).all()


def test_windows_are_drawn_anew_and_repeat_with_the_seed() -> None:
    boxes, _ = random_boxes(3, (100, 100), seed=4)
    generator = torch.Generator().manual_seed(0)
    first, second = (labels.sample_windows(boxes, (100, 100), 8, 32.0, generator) for _ in range(2))
    again = labels.sample_windows(boxes, (100, 100), 8, 32.0, torch.Generator().manual_seed(0))
    assert not first.equal(second)
    assert first.equal(again)


def test_windows_where_luck_finds_none() -> None:
    speck = torch.tensor([[5.0, 5, 5.1, 5.1]])
    windows = labels.sample_windows(speck, (100_000, 100_000), 64, 32.0, torch.Generator().manual_seed(0))
    assert windows.shape == (64, 4)
    assert ((windows[:, :2] < 5.1) & (windows[:, 2:] > 5)).all()


def test_no_boxes() -> None:
    nothing, no_labels = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    assert labels.sample_windows(nothing, (50, 50), 8, 32.0, torch.Generator()).shape == (0, 4)
    assert labels.multi_object_labels(torch.tensor([[0.0, 0, 9, 9]]), nothing, no_labels, 2).tolist() == [[1, 0, 0]]
    assert labels.multi_object_labels(nothing, nothing, no_labels, 2).shape == (0, 3)
    assert labels.closeness_labels(nothing, no_labels, (50, 50), 2).shape == (0, 3)
    assert labels.foreground_mask(nothing, (50, 50), 8).sum() == 0
    assert labels.refinement_windows(nothing, (50, 50), 5).shape == (0, 5, 4)


def test_edge_distances_by_hand() -> None:
    """A grid of 2 x 2 over an image of 20 x 40 (height x width), so of centres at x 10, 30 and y 5, 15."""
    boxes = torch.tensor([[0.0, 0, 40, 20], [4, 2, 12, 8]])
    distances, owner = labels.edge_distances(boxes, (20, 40), 2)
    assert owner.tolist() == [[1, 0], [0, 0]]
    assert distances[:, 0, 0].tolist() == [6, 3, 2, 3]
    assert distances[:, 1, 1].tolist() == [30, 15, 10, 5]


def test_edge_distances_give_back_the_smallest_box_around_each_cell() -> None:
    size, grid = (90, 130), 16
    boxes, _ = random_boxes(9, size, seed=3)
    distances, owner = labels.edge_distances(boxes, size, grid)
    assert (owner >= 0).equal(labels.foreground_mask(boxes, size, grid) > 0)
    areas = ((boxes[:, 2:] - boxes[:, :2]).prod(1)).tolist()
    for row in range(grid):
        for column in range(grid):
            x, y = (column + 0.5) * 130 / grid, (row + 0.5) * 90 / grid
            around = [n for n, (x1, y1, x2, y2) in enumerate(boxes.tolist()) if x1 < x < x2 and y1 < y < y2]
            found = int(owner[row, column])
            assert (found >= 0) == bool(around)
            if around:
                assert found == min(around, key=lambda n: areas[n])
                left, top, right, bottom = distances[:, row, column].tolist()
                assert boxes[found].tolist() == pytest.approx([x - left, y - top, x + right, y + bottom], abs=1e-3)


def test_no_box_has_no_edges() -> None:
    distances, owner = labels.edge_distances(torch.zeros(0, 4), (20, 40), 4)
    assert owner.unique().tolist() == [-1]
    assert not distances.any()


@pytest.mark.parametrize("case", examples("refine_windows"))
def test_refinement_window_examples(case: dict) -> None:
    width, height = case["image_wh"]
    proposal = torch.tensor([case["proposal_xyxy"]], dtype=torch.float32)
    windows = labels.refinement_windows(proposal, (height, width), case["num_windows"])[0]
    torch.testing.assert_close(windows, torch.tensor(case["expected"]["windows_xyxy"]))


def test_labels_are_exact_under_autocast() -> None:
    windows, boxes, classes = torch.tensor([[0.0, 0, 97, 89]]), torch.tensor([[3.0, 5, 40, 71]]), torch.tensor([2])
    expected = labels.multi_object_labels(windows, boxes, classes, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert labels.multi_object_labels(windows, boxes, classes, 3).equal(expected)
