"""Predictions: original pixels, the model's mode, and the file that gives back what was written."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from boxcycle.evaluation.coco import coco_metrics
from boxcycle.evaluation.predictions import Prediction, predict_dataset, read_predictions, write_predictions


class Images(torch.utils.data.Dataset):
    """Five images of 40 x 80 that were 100 x 160 (height x width) in their files."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, item: int):
        return torch.full((3, 40, 80), item / 10), {"image_id": 100 + item, "original_size": (100, 160)}


class Detector(nn.Module):
    """Finds one box in each image, none in the image that is 0.2; notes how it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.frozen = nn.BatchNorm2d(3).eval()
        self.calls: list[tuple[int, bool, bool]] = []

    def forward(self, images):
        self.calls.append((len(images), self.training, torch.is_grad_enabled()))
        return [self.detect(float(image.mean())) for image in images]

    def detect(self, brightness: float):
        count = 0 if abs(brightness - 0.2) < 1e-3 else 1
        box = torch.tensor([[8.0, 4.0, 90.0, 20.0]])[:count]  # reaches over the right border
        return {"boxes": box, "labels": torch.ones(count, dtype=torch.int64), "scores": torch.full((count,), 0.5)}


def test_boxes_come_back_in_original_pixels_in_the_order_of_the_data_set():
    predictions = predict_dataset(Detector(), Images(), batch_size=2)
    assert [found.image_id for found in predictions] == [100, 101, 102, 103, 104]
    np.testing.assert_allclose(predictions[0].boxes, [[16, 10, 160, 50]])
    assert predictions[2].boxes.shape == (0, 4)
    assert (predictions[0].boxes.dtype, predictions[0].labels.dtype) == (np.float32, np.int64)


def test_model_predicts_in_evaluation_mode_and_is_given_back_as_it_was():
    model = Detector().train()
    model.frozen.eval()
    predict_dataset(model, Images(), batch_size=3)
    assert model.calls == [(3, False, False), (2, False, False)]
    assert (model.training, model.layer.training, model.frozen.training) == (True, True, False)


def test_model_is_given_back_as_it_was_when_it_fails():
    model = Detector().train()
    model.detect = lambda brightness: 1 / 0
    with pytest.raises(ZeroDivisionError):
        predict_dataset(model, Images())
    assert model.training


def test_file_gives_back_what_was_written_bit_for_bit(draw_case, tmp_path):
    index, predictions = draw_case(4)
    rng = np.random.default_rng(0)
    predictions = [
        found._replace(scores=np.sort(rng.random(len(found.scores), np.float32))[::-1]) for found in predictions
    ]
    path = tmp_path / "predictions.json"
    write_predictions(path, index, predictions)
    again = read_predictions(path, index)
    for one, other in zip(predictions, again, strict=True):
        assert one.image_id == other.image_id
        for a, b in zip(one[1:], other[1:], strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
    assert coco_metrics(index, again).summary == coco_metrics(index, predictions).summary
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.json"]


def test_file_has_the_ids_of_the_data_set_file(make_index, make_predictions, tmp_path):
    index = make_index([[], []], num_classes=2, category_ids=np.array([18, 3]), image_ids=np.array([139, 42]))
    path = tmp_path / "predictions.json"
    write_predictions(path, index, make_predictions(index, [[(1, 0.3, [1, 2, 5, 10])], [(2, 0.25, [0, 0, 1.5, 1])]]))
    assert json.loads(path.read_text()) == [
        {"image_id": 139, "category_id": 18, "bbox": [1, 2, 4, 8], "score": 0.3},
        {"image_id": 42, "category_id": 3, "bbox": [0, 0, 1.5, 1], "score": 0.25},
    ]


def test_pycocotools_reads_the_file(draw_case, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    index, predictions = draw_case(6)
    write_predictions(tmp_path / "predictions.json", index, predictions)
    truth = coco.COCO()
    truth.dataset = {"images": [{"id": int(i)} for i in index.image_ids], "annotations": [], "categories": []}
    truth.createIndex()
    results = truth.loadRes(str(tmp_path / "predictions.json"))
    assert len(results.anns) == sum(len(found.scores) for found in predictions)


def test_reading_sorts_by_score_and_covers_images_without_detections(make_index, tmp_path):
    index = make_index([[], [], []])
    rows = [{"image_id": 15, "category_id": 7, "bbox": [0, 0, 2, 2], "score": score} for score in (0.1, 0.9, 0.5)]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(rows))
    predictions = read_predictions(path, index)
    assert [found.image_id for found in predictions] == [5, 15, 25]
    assert predictions[1].scores == pytest.approx([0.9, 0.5, 0.1])
    assert isinstance(predictions[0], Prediction)
    assert predictions[0].boxes.shape == (0, 4)


GOOD = {"image_id": 5, "category_id": 7, "bbox": [0, 0, 2, 2], "score": 0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{", "is no JSON file"),
        ("", "is no JSON file"),
        ('{"images": []}', "a list of detections; got a JSON dict"),
        (json.dumps([GOOD, 3]), "detection 1 must have image_id, category_id, bbox and score; got 3"),
        (json.dumps([GOOD, {"image_id": 5}]), "detection 1 must have image_id"),
        (json.dumps([GOOD | {"image_id": 6}]), "detection 0 is of image 6, which the data set lacks"),
        (json.dumps([GOOD | {"category_id": 1}]), r"detection 0 has category 1; the data set has \[7, 10\]"),
        (json.dumps([GOOD | {"bbox": [1, 2, 3]}]), "must have a bbox of four numbers"),
        (json.dumps([GOOD | {"score": None}]), "must have a bbox of four numbers, a score"),
        (json.dumps([GOOD | {"image_id": [5]}]), "detection 0 is of image"),
        (json.dumps([GOOD | {"image_id": "5"}]), "ids that are numbers"),
    ],
)
def test_broken_results_files_are_refused_in_one_sentence(make_index, tmp_path, text, message):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_predictions(path, make_index([[], []]))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
