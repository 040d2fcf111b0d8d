"""Questions for other tools, and the boxes that come back from them as answers to the questions.

Each box carries the id of its question. What comes back is compared with what was asked: the same box and class is an
acceptance, a missing one says that there is no object, and one without a question was drawn.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from boxcycle.annotate.survey import Given
from boxcycle.data.check import DataError
from boxcycle.data.index import Index
from boxcycle.data.questions import Box, Question
from boxcycle.engine.checkpoint import write_text

SAME_BOX = 0.05  # pixels of a side up to which a box counts as left alone: more than rounding, less than a mouse moves


class Region(NamedTuple):
    """A box of another tool, xyxy in the pixels of the image file; ``question``: whose it is, "" for a new one."""

    question: str
    label: str
    box: Box


class Returned(NamedTuple):
    """All boxes of one image as they came back; ``finished``: somebody says that there are no other objects."""

    annotator: str
    image_id: int
    regions: Sequence[Region]
    seconds: float = 0.0
    finished: bool = False


def by_image(questions: Iterable[Question]) -> dict[int, list[Question]]:
    """The questions about each image, in their order."""
    found: dict[int, list[Question]] = {}
    for question in questions:
        found.setdefault(question.image_id, []).append(question)
    return found


def answers_in(returned: Returned, questions: Sequence[Question]) -> list[Given]:
    """What the boxes of an image say about its ``questions``, at least one."""
    of = {region.question: region for region in returned.regions if region.question}
    asked = {question.id: question for question in questions}
    judged = [_judge(question, of.get(question.id)) for question in questions if question.box is not None]
    drawn = [region for region in returned.regions if region.question not in asked]
    judged += [{"question": questions[0].id, "action": "draw", "label": its.label, "box": its.box} for its in drawn]
    if returned.finished:
        judged.append({"question": questions[0].id, "action": "finish"})
    share = returned.seconds / max(len(judged), 1)
    return [Given.model_validate(said | {"id": _id_of(said, returned), "seconds": share}) for said in judged]


def write_coco(file: Path, questions: Sequence[Question], index: Index) -> None:
    """The questions as COCO annotations with ``score`` and ``attributes``, which readers that do not know them skip."""
    places = {int(id): place for place, id in enumerate(index.image_ids)}
    category = dict(zip(index.class_names, index.category_ids.tolist(), strict=True))
    asked = by_image(questions)
    images = [
        {"id": id, "file_name": index.file_names[places[id]]}
        | dict(zip(("height", "width"), index.image_sizes[places[id]].tolist(), strict=True))
        for id in asked
    ]
    boxed = [question for its in asked.values() for question in its if question.box is not None]
    annotations = [_annotation(number, question, category) for number, question in enumerate(boxed, start=1)]
    categories = [{"id": id, "name": name} for name, id in category.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_text(file, json.dumps(content, indent=1))


def read_coco(content: Mapping[str, Any], file: Path) -> list[Returned]:
    """The boxes of a COCO file that was made from the questions, by image. Raises :class:`DataError` if it is none."""
    try:
        names = {int(row["id"]): str(row["name"]) for row in content["categories"]}
        regions: dict[int, list[Region]] = {int(image["id"]): [] for image in content["images"]}
        for row in content["annotations"]:
            x, y, width, height = map(float, row["bbox"])
            question = str((row.get("attributes") or {}).get("qid", ""))
            region = Region(question, names[int(row["category_id"])], (x, y, x + width, y + height))
            regions[int(row["image_id"])].append(region)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file} is no COCO file of questions: {type(error).__name__} {error}") from None
    return [Returned("coco", id, its) for id, its in regions.items()]


def _judge(question: Question, region: Region | None) -> dict[str, Any]:
    assert question.box is not None  # only questions about boxes are judged
    if region is None:
        return {"question": question.id, "action": "reject"}
    moved = any(not math.isclose(*sides, abs_tol=SAME_BOX) for sides in zip(region.box, question.box, strict=True))
    action = "relabel" if region.label != question.label else "adjust" if moved else "accept"
    return {"question": question.id, "action": action, "label": region.label, "box": region.box}


def _id_of(said: Mapping[str, Any], returned: Returned) -> str:
    """An id that the same answer has when it is taken in again, so that it is stored once."""
    text = json.dumps([said, returned.annotator, returned.image_id])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _annotation(number: int, question: Question, category: Mapping[str, int]) -> dict[str, Any]:
    assert question.box is not None  # a question about an image has no annotation
    x1, y1, x2, y2 = question.box
    about = {"qid": question.id, "source": "model", "status": "question", "consistency": question.consistency}
    return {
        "id": number,
        "image_id": question.image_id,
        "category_id": category[question.label],
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": 0,
        "score": question.classes.get(question.label, 0.0),
        "attributes": about,
    }
