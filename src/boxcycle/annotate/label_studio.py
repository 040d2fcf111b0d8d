"""Label Studio: questions as tasks with predictions, the labelling configuration, and its JSON export as answers.

Its boxes are percent of the image. All boxes of an image are one prediction, for of several it shows one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from boxcycle.annotate.exchange import Region, Returned, by_image
from boxcycle.data.check import DataError
from boxcycle.data.index import Index
from boxcycle.data.questions import Box, Question
from boxcycle.engine.checkpoint import write_text

BOXES, IMAGE, FINISHED = "label", "image", "finished"  # names that tasks and configuration share
DONE = "every object has a box"


def write_tasks(file: Path, questions: Sequence[Question], index: Index, prefix: str) -> None:
    """One task for each image; ``prefix`` before its name makes its address, as Label Studio serves local files."""
    sizes = {int(id): size.tolist() for id, size in zip(index.image_ids, index.image_sizes, strict=True)}
    tasks = [_task(its, sizes[image_id], prefix) for image_id, its in by_image(questions).items()]
    write_text(file, json.dumps(tasks, indent=1))


def write_config(file: Path, class_names: Sequence[str]) -> None:
    """The labelling configuration (Settings, Labeling Interface, Code) for the tasks."""
    labels = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in class_names)
    text = f"""<View>
  <Image name="{IMAGE}" value="$image" zoom="true"/>
  <RectangleLabels name="{BOXES}" toName="{IMAGE}" canRotate="false">
{labels}
  </RectangleLabels>
  <Choices name="{FINISHED}" toName="{IMAGE}" choice="multiple">
    <Choice value={quoteattr(DONE)}/>
  </Choices>
</View>
"""
    write_text(file, text)


def read_export(content: Sequence[Any], file: Path) -> list[Returned]:
    """The annotations of a JSON export, those that were cancelled left out.

    Raises :class:`DataError` for what is no export of our tasks, and for a rotated box.
    """
    try:
        return [
            _returned(int(task["data"]["image_id"]), annotation)
            for task in content
            for annotation in task["annotations"]
            if not annotation.get("was_cancelled")
        ]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(
            f"{file} is no JSON export of Label Studio of our tasks: {type(error).__name__} {error}"
        ) from None


def _task(questions: Sequence[Question], size: Sequence[int], prefix: str) -> dict[str, Any]:
    boxed = [question for question in questions if question.box is not None]
    data = {"image": prefix + questions[0].file_name, "image_id": questions[0].image_id}
    data["qid"] = ",".join(question.id for question in questions)
    task: dict[str, Any] = {"data": data}
    if boxed:
        doubts = [question.consistency for question in boxed if question.consistency is not None]
        result = [_result(question, question.box, size) for question in boxed if question.box is not None]
        task["predictions"] = [{"model_version": "boxcycle", "score": min(doubts, default=0.0), "result": result}]
    return task


def _result(question: Question, box: Box, size: Sequence[int]) -> dict[str, Any]:
    height, width = size
    x1, y1, x2, y2 = box
    percent = {"x": x1 / width, "y": y1 / height, "width": (x2 - x1) / width, "height": (y2 - y1) / height}
    value = {name: 100 * part for name, part in percent.items()} | {"rotation": 0, "rectanglelabels": [question.label]}
    return {
        "id": question.id,
        "type": "rectanglelabels",
        "from_name": BOXES,
        "to_name": IMAGE,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": question.classes.get(question.label, 0.0),
        "value": value,
    }


def _returned(image_id: int, annotation: Mapping[str, Any]) -> Returned:
    regions, finished = [], False
    for row in annotation["result"]:
        if row["type"] == "rectanglelabels":
            regions.append(_region(row))
        elif row["type"] == "choices":
            finished = DONE in row["value"]["choices"]
    seconds = min(float(annotation.get("lead_time") or 0), 3600)
    who = annotation.get("completed_by")  # a number, or an object in some exports
    name = f"label-studio-{who}" if isinstance(who, int) else "label-studio"
    return Returned(name, image_id, regions, seconds, finished)


def _region(row: Mapping[str, Any]) -> Region:
    value = row["value"]
    if value.get("rotation") or row.get("image_rotation"):
        raise ValueError(f"region {row['id']} is rotated, which a box here cannot be")
    width, height = row["original_width"] / 100, row["original_height"] / 100
    x, y = value["x"] * width, value["y"] * height
    box = (x, y, x + value["width"] * width, y + value["height"] * height)
    return Region(str(row["id"]), str(value["rectanglelabels"][0]), box)
