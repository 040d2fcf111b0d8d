"""Large-scale jitter: sizes, what a crop leaves of boxes, and that pixels and boxes move together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision import tv_tensors

from boxcycle.data.jitter import large_scale_jitter


def sample(height: int = 60, width: int = 80) -> tuple[tv_tensors.Image, dict[str, Any]]:
    """One bright rectangle on black, its box, and a box of another place."""
    pixels = torch.zeros(3, height, width, dtype=torch.uint8)
    pixels[:, 20:40, 10:50] = 255
    boxes = torch.tensor([[10.0, 20, 50, 40], [70, 0, 80, 10]])
    boxes = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width))
    return tv_tensors.Image(pixels), {"boxes": boxes, "labels": torch.tensor([1, 2]), "area": torch.ones(2)}


def jittered(seed: int, scales: tuple[float, float], canvas: int = 80) -> tuple[torch.Tensor, dict[str, Any]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return large_scale_jitter(canvas, scales)(*sample())


def test_scale_one_on_its_own_canvas_changes_nothing() -> None:
    image, target = jittered(0, (1.0, 1.0))
    assert image.equal(sample()[0])
    assert target["boxes"].tolist() == sample()[1]["boxes"].tolist()


def test_a_smaller_scale_keeps_everything_that_is_large_enough() -> None:
    image, target = jittered(0, (0.5, 0.5))
    assert image.shape == (3, 30, 40)
    assert target["boxes"].tolist() == [[5, 10, 25, 20], [35, 0, 40, 5]]
    image, target = jittered(0, (0.25, 0.25))
    assert target["labels"].tolist() == [1], "the other would have sides of 2.5 pixels"
    assert len(target["area"]) == 1


@pytest.mark.parametrize("seed", range(6))
def test_a_larger_scale_shows_a_part_and_boxes_move_with_the_pixels(seed: int) -> None:
    image, target = jittered(seed, (1.6, 1.6))
    assert image.shape == (3, 80, 80)
    seen = (image[0] > 128).nonzero()
    if 1 in target["labels"].tolist():
        x1, y1, x2, y2 = target["boxes"][target["labels"] == 1][0].tolist()
        (top, left), (bottom, right) = seen.amin(0).tolist(), (seen.amax(0) + 1).tolist()
        assert [left, top, right, bottom] == pytest.approx([x1, y1, x2, y2], abs=1.5)
    else:
        assert len(seen) < 0.12 * 64 * 32


def test_scales_are_drawn() -> None:
    assert len({jittered(seed, (0.2, 2.0))[0].shape for seed in range(12)}) > 5
