"""What a detector says about a whole data set, in memory and as a COCO results file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from boxcycle.data.index import Index
from boxcycle.data.text import write_whole
from boxcycle.data.transforms import to_original
from boxcycle.types import Detections, Target

if TYPE_CHECKING:
    from boxcycle.data.dataset import DetectionDataset


class Prediction(NamedTuple):
    """The detections of one image, in the pixels of the image file.

    Shapes: ``boxes`` [D, 4] float32 xyxy, original frame; ``labels`` [D] int64 in 1..K; ``scores`` [D] float32.
    ``image_id`` is the data set's own.
    """

    image_id: int
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]


def predict_dataset(
    model: nn.Module,
    dataset: DetectionDataset,
    *,
    batch_size: int = 4,
    device: torch.device | str = "cpu",
) -> list[Prediction]:
    """Detect in every image of ``dataset``, in its order; boxes come back in original pixels.

    ``model`` is called as ``model(images)`` in evaluation mode, without gradients, or as ``model(images, targets)``
    with nothing but the proposals in its targets where the dataset has some; afterwards each of its modules is in the
    mode it was in.
    """
    predictions: list[Prediction] = []
    with evaluation_mode(model), torch.no_grad():
        for batch in DataLoader(dataset, batch_size, collate_fn=list):
            for (image, target), found in zip(batch, _detect(model, batch, device), strict=True):
                predictions.append(_in_original_pixels(image, target, found))
    return predictions


def _detect(model: nn.Module, batch: list[tuple[Tensor, Target]], device: torch.device | str) -> list[Detections]:
    images = [image.to(device, non_blocking=True) for image, _ in batch]
    if "proposals" not in batch[0][1]:
        return model(images)
    return model(images, [{"proposals": target["proposals"].to(device)} for _, target in batch])


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put ``model`` in evaluation mode for a while; then each of its modules is back in the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _in_original_pixels(image: Tensor, target: Target, found: Detections) -> Prediction:
    height, width = image.shape[-2:]
    boxes = to_original(found["boxes"].float().cpu(), (height, width), target["original_size"])
    return Prediction(
        image_id=int(target["image_id"]),
        boxes=boxes.numpy(),
        labels=found["labels"].cpu().numpy().astype(np.int64),
        scores=found["scores"].float().cpu().numpy(),
    )


def write_predictions(path: Path, index: Index, predictions: Sequence[Prediction]) -> None:
    """Write a COCO results file (image_id, category_id, bbox as xywh and score a detection), with the file's own ids.

    float32 boxes and scores come back from :func:`read_predictions` bit for bit, so that a figure computed from the
    file is the figure computed in memory. The file appears complete or not at all.
    """
    rows = [row for prediction in predictions for row in _result_rows(index, prediction)]
    write_whole(path, json.dumps(rows, separators=(",", ":")))


def _result_rows(index: Index, prediction: Prediction) -> Iterator[dict[str, Any]]:
    categories = index.category_ids[prediction.labels - 1]
    for box, category, score in zip(xywh(prediction.boxes), categories, prediction.scores, strict=True):
        yield {
            "image_id": int(prediction.image_id),
            "category_id": int(category),
            "bbox": box.tolist(),
            "score": float(str(score)),  # the shortest text that is this float32 again
        }


def xywh(boxes: NDArray[Any]) -> NDArray[np.float64]:
    """Boxes [N, 4] xyxy as x, y, width, height [N, 4]; exact for float32, whose differences fit a float64."""
    corners = boxes.astype(np.float64).reshape(-1, 2, 2)
    return np.concatenate([corners[:, 0], corners[:, 1] - corners[:, 0]], axis=1)


def read_predictions(path: Path, index: Index) -> list[Prediction]:
    """Read a COCO results file: one :class:`Prediction` for every image of ``index``, in its order, best score first.

    Raises:
        ValueError: if the file is no list of results, or names an image or a category that ``index`` lacks.
    """
    positions = {int(image_id): i for i, image_id in enumerate(index.image_ids)}
    labels = {int(category): label for label, category in enumerate(index.category_ids, start=1)}
    by_image: list[list[tuple[float, int, list[float]]]] = [[] for _ in range(len(index))]
    for number, row in enumerate(_load_rows(path)):
        try:
            image, label = positions[row["image_id"]], labels[row["category_id"]]
            x, y, width, height = map(float, row["bbox"])
            by_image[image].append((float(row["score"]), label, [x, y, x + width, y + height]))
        except (KeyError, TypeError, ValueError):
            raise ValueError(_what_is_wrong(path, number, row, positions, labels)) from None
    return [_prediction(int(image_id), found) for image_id, found in zip(index.image_ids, by_image, strict=True)]


def _prediction(image_id: int, found: list[tuple[float, int, list[float]]]) -> Prediction:
    found = sorted(found, key=lambda result: -result[0])
    return Prediction(
        image_id=image_id,
        boxes=np.array([box for _, _, box in found], dtype=np.float32).reshape(-1, 4),
        labels=np.array([label for _, label, _ in found], dtype=np.int64),
        scores=np.array([score for score, _, _ in found], dtype=np.float32),
    )


def _load_rows(path: Path) -> list[Any]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no UTF-8, or no JSON
        raise ValueError(f"{path} is no JSON file: {error}") from None
    if not isinstance(rows, list):
        raise ValueError(f"{path} must be a COCO results file, a list of detections; got a JSON {type(rows).__name__}")
    return rows


def _what_is_wrong(path: Path, number: int, row: Any, images: dict[int, int], labels: dict[int, int]) -> str:
    where = f"{path}: detection {number}"
    if not isinstance(row, dict) or not {"image_id", "category_id", "bbox", "score"} <= row.keys():
        return f"{where} must have image_id, category_id, bbox and score; got {str(row)[:80]}"
    if str(row["image_id"]) not in map(str, images):
        return f"{where} is of image {row['image_id']}, which the data set lacks"
    if str(row["category_id"]) not in map(str, labels):
        return f"{where} has category {row['category_id']}; the data set has {sorted(labels)}"
    return f"{where} must have a bbox of four numbers, a score and ids that are numbers; got {str(row)[:160]}"


def annotated_images(index: Index, predictions: Sequence[Prediction]) -> list[tuple[int, Prediction]]:
    """Positions of the images that somebody annotated, each with its prediction, after a look at every prediction.

    Raises:
        ValueError: if an annotated image has no prediction or two, a prediction is of an image that ``index`` lacks, or
            holds shapes, labels or numbers that cannot be.
    """
    by_id = {int(prediction.image_id): prediction for prediction in predictions}
    if len(by_id) < len(predictions):
        raise ValueError(f"{len(predictions) - len(by_id)} images are predicted more than once")
    unknown = by_id.keys() - set(index.image_ids.tolist())
    if unknown:
        raise ValueError(f"image {min(unknown)} is predicted but not in the data set ({len(unknown)} such images)")
    wanted = {int(position): int(index.image_ids[position]) for position in np.flatnonzero(index.annotated)}
    missing = [image_id for image_id in wanted.values() if image_id not in by_id]
    if missing:
        raise ValueError(f"image {missing[0]} has no prediction ({len(missing)} of {len(wanted)} images lack one)")
    for prediction in predictions:
        _check_prediction(prediction, index.num_classes)
    return [(position, by_id[image_id]) for position, image_id in wanted.items()]


def _check_prediction(prediction: Prediction, num_classes: int) -> None:
    boxes, labels, scores = prediction.boxes, prediction.labels, prediction.scores
    name = f"image {prediction.image_id}"
    if boxes.shape != (len(scores), 4) or labels.shape != scores.shape:
        shapes = f"{list(boxes.shape)}, {list(labels.shape)}, {list(scores.shape)}"
        raise ValueError(f"boxes, labels and scores predicted for {name} must be [D, 4], [D], [D]; got {shapes}")
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ValueError(f"boxes and scores predicted for {name} must be finite")
    wrong = labels[(labels < 1) | (labels > num_classes)]
    if len(wrong):
        raise ValueError(f"labels predicted for {name} must be in 1..{num_classes}; got {wrong[0]}")
