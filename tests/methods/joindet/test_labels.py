"""Object priors against worked examples, a count of sub-cells, and the limits that the paper states."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from boxcycle.methods.joindet import labels

EXAMPLES = json.loads((Path(__file__).parent / "examples.json").read_text())
NO_BOXES, NO_SCORES = torch.zeros(0, 4), torch.zeros(0)


def examples(kind: str) -> list:
    return [pytest.param(case, id=case["name"]) for case in EXAMPLES[kind]]


def items(rows: list) -> tuple[Tensor, Tensor]:
    boxes = torch.tensor([box for box, _ in rows], dtype=torch.float64).reshape(-1, 4)
    return boxes, torch.tensor([score for _, score in rows], dtype=torch.float64)


def sorted_rows(boxes: Tensor) -> Tensor:
    return torch.tensor(sorted(boxes.tolist())).reshape(-1, 4)


def random_boxes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator)
    return torch.cat([corners.amin(1), corners.amax(1)], 1), torch.rand(count, generator=generator)


@pytest.mark.parametrize("case", examples("region"))
def test_region_examples(case: dict) -> None:
    attention, valid = torch.tensor(case["M"]), case["valid"]
    valid = valid and (valid[0], valid[1])
    mask = labels.foreground(attention, valid)
    assert mask.int().tolist() == case["expect"]["mask"]
    if case["conn"] == 4:
        height, width = valid or attention.shape
        min_area = (case["min_cells"] - 0.5) / (height * width)
        found = labels.region_priors(attention, valid=valid, min_area=min_area, max_regions=None)
        torch.testing.assert_close(sorted_rows(found), sorted_rows(torch.tensor(case["expect"]["boxes"])))


def test_cells_that_touch_at_a_corner_are_apart() -> None:
    found = labels.region_priors(torch.eye(4), min_area=0)
    torch.testing.assert_close(found, torch.tensor([[k, k, k + 1, k + 1] for k in range(4)]) / 4)


def test_largest_regions_come_first_and_small_ones_are_left_out() -> None:
    attention = torch.zeros(10, 10)
    attention[0, 0], attention[2:5, 2:5], attention[8, 7:9] = 1, 1, 1
    found = labels.region_priors(attention, min_area=0.02)
    torch.testing.assert_close(found, torch.tensor([[0.2, 0.2, 0.5, 0.5], [0.7, 0.8, 0.9, 0.9]]))
    assert len(labels.region_priors(attention, min_area=0)) == 3
    torch.testing.assert_close(labels.region_priors(attention, min_area=0, max_regions=1), found[:1])


def test_a_constant_map_has_no_regions() -> None:
    assert labels.region_priors(torch.zeros(4, 5)).shape == (0, 4)


def test_flipping_a_map_flips_its_regions() -> None:
    attention = torch.rand(9, 12, generator=torch.Generator().manual_seed(0))
    found, flipped = (labels.region_priors(one, min_area=0, max_regions=None) for one in (attention, attention.flip(1)))
    torch.testing.assert_close(
        sorted_rows(flipped[:, [2, 1, 0, 3]] * torch.tensor([-1, 1, -1, 1]) + torch.tensor([1, 0, 1, 0])),
        sorted_rows(found),
    )


@pytest.mark.parametrize("case", examples("instance"))
def test_instance_examples(case: dict) -> None:
    boxes, logits = torch.tensor(case["boxes"], dtype=torch.float32), torch.tensor(case["logits"])
    mask, wanted = torch.tensor(case["mask"]).bool(), case["expect"]
    share = labels.foreground_share(boxes.clamp(0, 1), mask)
    for mine, row in zip(share.tolist(), wanted, strict=True):
        assert mine == pytest.approx(row["area_ratio"] or 0.0, abs=1e-5)
    found, scores = labels.instance_priors(boxes, logits, mask, threshold=case["t"])
    keep = torch.tensor([row["keep"] for row in wanted])
    torch.testing.assert_close(found, boxes[keep].clamp(0, 1))
    torch.testing.assert_close(scores, torch.tensor([row["score"] for row in wanted])[keep])


def test_foreground_share_equals_counting_fine_cells() -> None:
    generator = torch.Generator().manual_seed(3)
    mask = torch.rand(5, 7, generator=generator) > 0.5
    fine = mask.repeat_interleave(8, 0).repeat_interleave(8, 1)  # 40 x 56
    corners = (torch.rand(20, 2, 2, generator=generator) * torch.tensor([55.0, 39.0])).floor()
    boxes = torch.cat([corners.amin(1), corners.amax(1) + 1], 1)
    counted = [fine[int(y1) : int(y2), int(x1) : int(x2)].float().mean() for x1, y1, x2, y2 in boxes]
    found = labels.foreground_share(boxes / torch.tensor([56, 40, 56, 40]), mask)
    torch.testing.assert_close(found, torch.stack(counted))


@pytest.mark.parametrize("case", examples("box_smooth"))
def test_box_smooth_examples(case: dict) -> None:
    found = labels.smooth_boxes(*items(case["prev"]), *items(case["cur"]), case["m"], case["iou_thr"], case["cap"])
    wanted = case["expect"]
    torch.testing.assert_close(found[0], torch.tensor(wanted["boxes"], dtype=torch.float64).reshape(-1, 4))
    torch.testing.assert_close(found[1], torch.tensor(wanted["scores"], dtype=torch.float64))


def test_box_smooth_by_hand() -> None:
    """Two boxes of weights 0.45 * 1 and 0.55 * 0.8 that overlap by nine tenths."""
    previous, current = torch.tensor([[0.0, 0, 0.8, 0.8]]), torch.tensor([[0.04, 0, 0.84, 0.8]])
    boxes, scores = labels.smooth_boxes(previous, torch.tensor([1.0]), current, torch.tensor([0.8]))
    shift = 0.55 * 0.8 * 0.04 / (0.45 + 0.55 * 0.8)
    torch.testing.assert_close(boxes, torch.tensor([[shift, 0, 0.8 + shift, 0.8]]))
    torch.testing.assert_close(scores, torch.tensor([0.9]))


def test_momentum_one_keeps_the_old_and_zero_takes_the_new() -> None:
    """Of sets whose boxes do not overlap among themselves; the paper's two limits."""
    old, new = torch.tensor([[0.0, 0, 0.3, 0.3], [0.5, 0.5, 0.9, 0.9]]), torch.tensor([[0.02, 0, 0.3, 0.3]])
    given = (old, torch.tensor([0.9, 0.8]), new, torch.tensor([0.7]))
    torch.testing.assert_close(labels.smooth_boxes(*given, momentum=1.0), (old, torch.tensor([0.9, 0.8])))
    torch.testing.assert_close(labels.smooth_boxes(*given, momentum=0.0), (new, torch.tensor([0.7])))


def test_box_smooth_does_not_depend_on_the_order_of_its_boxes() -> None:
    old, new = random_boxes(12, 0), random_boxes(9, 1)
    one = labels.smooth_boxes(*old, *new)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(labels.smooth_boxes(old[0][order], old[1][order], *new), one)
    assert len(one[0]) < 21


def test_box_smooth_of_nothing_and_of_boxes_without_area_or_score() -> None:
    for given in (
        (NO_BOXES, NO_SCORES),
        (torch.tensor([[0.5, 0.5, 0.5, 0.9]]), torch.ones(1)),
        (torch.rand(1, 4), torch.zeros(1)),
    ):
        boxes, scores = labels.smooth_boxes(*given, NO_BOXES, NO_SCORES)
        assert boxes.shape == (0, 4)
        assert scores.shape == (0,)
