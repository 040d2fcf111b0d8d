from __future__ import annotations

import pytest
import torch
from torch.nn import functional as nn_functional
from torchvision import tv_tensors
from torchvision.transforms import v2

from boxcycle.data.transforms import ResizeConfig, make_transform, per_box, resize, resized_size, to_original


def sample(boxes: list[list[float]], size: tuple[int, int]) -> tuple[tv_tensors.Image, dict[str, torch.Tensor]]:
    image = tv_tensors.Image(torch.randint(0, 256, (3, *size), dtype=torch.uint8))
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    wrapped = tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=size)
    area = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    return image, {"boxes": wrapped, "labels": torch.arange(1, len(boxes) + 1), "area": area}


def square_root_label(window: list[float], box: list[float], num_classes: int, label: int) -> list[float]:
    """The multi-object label of a window that meets one box only, by hand."""
    sides = [max(0.0, min(window[i + 2], box[i + 2]) - max(window[i], box[i])) for i in (0, 1)]
    share = sides[0] * sides[1] / ((window[2] - window[0]) * (window[3] - window[1]))
    roots = [0.0] * (num_classes + 1)
    roots[0], roots[label] = (1 - share) ** 0.5, share**0.5
    return [root / sum(roots) for root in roots]


def test_flip_of_box_window_and_mask_together() -> None:
    """Worked example X01: image 120 x 90 (width x height), one box of class 1 of 2."""
    image, target = sample([[5, 10, 45, 80], [0, 0, 60, 90]], (90, 120))  # the second box plays the window
    mask = torch.zeros(1, 90, 120, dtype=torch.bool)
    mask[0, 10:80, 5:45] = True
    target["masks"] = tv_tensors.Mask(mask)
    flip = make_transform(ResizeConfig(flip=1.0), train=True).random
    assert flip is not None
    flipped_image, flipped = flip(image, target)
    assert flipped["boxes"].tolist() == [[75, 10, 115, 80], [60, 0, 120, 90]]
    assert torch.equal(flipped["masks"], mask.flip(-1))
    assert torch.equal(flipped_image, image.flip(-1))
    expected = pytest.approx([0.490738, 0.509262, 0.0], abs=1e-6)
    assert square_root_label([0, 0, 60, 90], [5, 10, 45, 80], 2, 1) == expected
    assert square_root_label(flipped["boxes"][1].tolist(), flipped["boxes"][0].tolist(), 2, 1) == expected


@pytest.mark.parametrize(
    ("size", "short", "long", "expected"),
    [
        ((375, 500), 600, 1024, (600, 800)),
        ((500, 375), 600, 1024, (800, 600)),
        ((300, 1000), 600, 1024, (307, 1024)),  # 1024 / 1000 * 300 = 307.2
        ((240, 320), 192, 320, (192, 256)),
        ((100, 100), 320, 320, (320, 320)),
        ((1, 4000), 600, 1024, (1, 1024)),  # a side never vanishes
    ],
)
def test_shorter_side_unless_longer_exceeds(
    size: tuple[int, int], short: int, long: int, expected: tuple[int, int]
) -> None:
    assert resized_size(size, short, long) == expected


def test_resize_scales_each_axis_by_its_own_ratio() -> None:
    image, target = sample([[10, 20, 40, 95]], (101, 77))
    resized_image, resized = resize(image, target, (67, 50))
    assert resized_image.shape == (3, 67, 50)
    x, y = 50 / 77, 67 / 101
    assert resized["boxes"][0].tolist() == pytest.approx([10 * x, 20 * y, 40 * x, 95 * y], rel=1e-6)
    assert resized["area"].item() == pytest.approx(30 * 75 * x * y, rel=1e-6)
    assert target["area"].item() == 30 * 75  # the given target is left as it was


def test_resize_antialiases() -> None:
    image, target = sample([], (128, 96))
    shrunk, _ = resize(image, target, (32, 24))
    wanted = nn_functional.interpolate(image[None].float(), (32, 24), mode="bilinear", antialias=True)[0]
    assert (shrunk.float() - wanted).abs().max() <= 1.0  # uint8 rounding
    aliased = nn_functional.interpolate(image[None].float(), (32, 24), mode="bilinear")[0]
    assert (shrunk.float() - aliased).abs().mean() > 10


def test_mask_follows_its_box_through_resize_and_flip() -> None:
    image, target = sample([[8, 12, 40, 60]], (80, 64))
    mask = torch.zeros(1, 80, 64, dtype=torch.bool)
    mask[0, 12:60, 8:40] = True
    transform = make_transform(ResizeConfig(short=32, long=64, flip=1.0), train=True)
    assert transform.fixed is not None
    assert transform.random is not None
    _, moved = transform.random(*transform.fixed(image, target | {"masks": tv_tensors.Mask(mask)}))
    rows, columns = moved["masks"][0].nonzero().unbind(1)
    around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert [int(edge) for edge in around] == moved["boxes"][0].tolist() == [12, 6, 28, 30]


def test_evaluation_has_no_random_part() -> None:
    paper = ResizeConfig.model_validate("paper")
    assert make_transform(paper, train=False).random is None
    assert make_transform(ResizeConfig(flip=0), train=True).random is None
    assert (paper.short, paper.long) == (600, 1024)


def test_a_resize_may_be_the_name_of_a_preset():
    assert ResizeConfig.model_validate("small") == ResizeConfig(short=320, long=544)
    with pytest.raises(ValueError, match="no preset 'smal'; there is paper, small, tiny"):
        ResizeConfig.model_validate("smal")


@pytest.mark.parametrize("bad", [{"short": 0}, {"short": 600, "long": 599}, {"flip": 1.5}, {"shorter": 600}])
def test_refuses_impossible_sizes(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        ResizeConfig(**bad)


def test_rows_stay_aligned_when_a_filter_drops_boxes() -> None:
    """torchvision's own default leaves area and iscrowd at their old length."""
    image, target = sample([[0, 0, 10, 10], [5, 5, 5, 5], [20, 20, 30, 40]], (50, 50))
    target |= {"iscrowd": torch.tensor([False, True, True]), "difficult": torch.tensor([True, True, False])}
    target["masks"] = tv_tensors.Mask(torch.arange(3)[:, None, None].expand(3, 50, 50).clone())
    _, kept = v2.SanitizeBoundingBoxes(labels_getter=per_box)(image, target)
    assert kept["labels"].tolist() == [1, 3]
    assert kept["area"].tolist() == [100, 200]
    assert kept["iscrowd"].tolist() == [False, True]
    assert kept["difficult"].tolist() == [True, False]
    assert kept["masks"][:, 0, 0].tolist() == [0, 2]


def test_to_original_undoes_the_resize_of_a_non_square_image() -> None:
    image, target = sample([[10, 20, 40, 95], [0, 0, 77, 101]], (101, 77))
    _, resized = resize(image, target, (67, 50))
    back = to_original(resized["boxes"].as_subclass(torch.Tensor), (67, 50), (101, 77))
    assert torch.allclose(back, target["boxes"].as_subclass(torch.Tensor), atol=1e-4)


def test_to_original_clips() -> None:
    boxes = torch.tensor([[-3.0, -1.0, 60.0, 90.0]])
    assert to_original(boxes, (80, 50), (160, 200)).tolist() == [[0, 0, 200, 160]]
    assert to_original(torch.zeros(0, 4), (80, 50), (160, 200)).shape == (0, 4)
