"""Mean IoU by hand, and through a model that draws what it is told."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from boxcycle.data.dataset import DetectionDataset
from boxcycle.data.index import Index, Strings
from boxcycle.data.masks import encode
from boxcycle.evaluation.segmentation import class_map, confusion, has_masks, mean_iou, segmentation_metrics, truth_map


def square(x1: int, y1: int, x2: int, y2: int, size: tuple[int, int] = (8, 10)) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def index_of(make_index, folder: Path, **changes: object) -> Index:
    """One image of 8 x 10 with a large object of class 1 and a small one of class 2 in it."""
    Image.new("RGB", (10, 8)).save(folder / "0.jpg")
    masks = [square(0, 0, 6, 6), square(2, 2, 4, 4)]
    fields = {
        "root": folder,
        "image_sizes": np.array([[8, 10]], dtype=np.int32),
        "segmentations": Strings(encode(mask) for mask in masks),
    }
    return make_index([[(1, [0, 0, 6, 6]), (2, [2, 2, 4, 4])]], **(fields | changes))


class Drawn(nn.Module):
    """Says of every image what it was made with, and keeps the proposals that it is given."""

    def __init__(self, masks: Tensor) -> None:
        super().__init__()
        self.drawn, self.given = masks, None

    def segment(self, images: list[Tensor], proposals: list[Tensor] | None = None) -> list[Tensor]:
        self.given = proposals
        return [self.drawn] * len(images)


def test_confusion_and_mean_by_hand() -> None:
    truth, found = np.array([[0, 1, 1, -1], [2, 2, 0, 0]]), np.array([[0, 1, 0, 1], [2, 1, 0, 0]])
    counts = confusion(truth, found, 3)
    assert counts.tolist() == [[3, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    result = mean_iou(counts, "abc", 1)
    assert result.per_class["background"] == pytest.approx(75)
    assert result.per_class["a"] == pytest.approx(100 / 3)
    assert result.per_class["b"] == pytest.approx(50)
    assert np.isnan(result.per_class["c"])
    assert result.mean == pytest.approx((75 + 100 / 3 + 50) / 3)


def test_small_objects_lie_over_large_ones_and_difficult_ones_are_void(make_index, tmp_path: Path) -> None:
    truth = truth_map(index_of(make_index, tmp_path), 0)
    assert (truth == 1).sum() == 32
    assert (truth == 2).sum() == 4
    assert (truth_map(index_of(make_index, tmp_path, difficult=[1]), 0) == -1).sum() == 4


def test_a_pixel_needs_more_than_a_half() -> None:
    masks = torch.tensor([[[0.5, 0.6], [0.2, 0.7]], [[0.1, 0.4], [0.3, 0.8]]])
    assert class_map(masks, (2, 2)).tolist() == [[0, 1], [0, 2]]


def test_a_perfect_model_has_all(make_index, tmp_path: Path) -> None:
    index = index_of(make_index, tmp_path)
    masks = torch.from_numpy(np.stack([square(0, 0, 6, 6) & ~square(2, 2, 4, 4), square(2, 2, 4, 4)])).float()
    model = Drawn(masks)
    proposals = [np.array([[0, 0, 5, 5]], dtype=np.float32)]
    result = segmentation_metrics(model, DetectionDataset(index, proposals=proposals))
    assert result.mean == 100
    assert result.images == 1
    assert model.given[0].tolist() == [[0, 0, 5, 5]]
    assert segmentation_metrics(Drawn(0 * masks), DetectionDataset(index)).per_class["a"] == 0


def test_images_without_masks_are_left_out(make_index, tmp_path: Path) -> None:
    index = index_of(make_index, tmp_path, segmentations=Strings([encode(square(0, 0, 6, 6)), ""]))
    assert not has_masks(index)
    result = segmentation_metrics(Drawn(torch.zeros(2, 8, 10)), DetectionDataset(index))
    assert result.images == 0
    assert np.isnan(result.mean)
