"""Other tools: what goes out comes back within a hundredth of a pixel, and as the answer that it is."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from boxcycle.annotate.exchange import read_coco
from boxcycle.annotate.handover import COCO, CONFIG, TASKS, hand_out, take_in
from boxcycle.annotate.label_studio import read_export, write_config
from boxcycle.annotate.survey import Survey
from boxcycle.data.answer_log import LOG, AnswerLog, Event
from boxcycle.data.check import DataError
from boxcycle.data.index import Index
from boxcycle.data.questions import Question
from boxcycle.data.read import read_split

from .conftest import make_questions

PREFIX = "/data/local-files/?d="


@pytest.fixture
def survey(index: Index, tmp_path: Path) -> Survey:
    """Twelve questions with uneven boxes, and one about a whole image."""
    questions = [
        question.model_copy(update={"box": tuple(side + 1 / 3 if side < 100 else side for side in question.box)})  # type: ignore[union-attr]
        for question in make_questions(index, 12)
    ]
    whole = Question(id="whole", image_id=int(index.image_ids[-1]), file_name=index.file_names[len(index) - 1])
    sizes = {int(id): (int(h), int(w)) for id, (h, w) in zip(index.image_ids, index.image_sizes, strict=True)}
    return Survey([*questions, whole], AnswerLog(tmp_path / LOG), index.class_names, sizes)


def export(folder: Path) -> list[dict[str, Any]]:
    """The tasks as Label Studio exports them when everybody submits what was predicted."""
    tasks = json.loads((folder / TASKS).read_text())
    for number, task in enumerate(tasks):
        result = task.pop("predictions", [{"result": []}])[0]["result"]
        for region in result:
            region.pop("score")
        about = {"id": number, "was_cancelled": False, "lead_time": 6.0, "completed_by": 3}
        task["annotations"] = [about | {"result": result}]
    return tasks


def taken(content: Any, survey: Survey, folder: Path) -> dict[str, list[Event]]:
    """The events that a file gives, by question."""
    file = folder / "export.json"
    file.write_text(json.dumps(content))
    take_in(file, survey)
    found: dict[str, list[Event]] = {}
    for event in survey.log.events():
        found.setdefault(event.question, []).append(event)
    return found


def test_boxes_come_back_within_a_hundredth_of_a_pixel(survey: Survey, index: Index, tmp_path: Path) -> None:
    hand_out(tmp_path / "out", survey, index, PREFIX)
    coco = json.loads((tmp_path / "out" / COCO).read_text())
    for returned in (read_export(export(tmp_path / "out"), tmp_path), read_coco(coco, tmp_path)):
        regions = {region.question: region for its in returned for region in its.regions}
        assert set(regions) == set(survey.questions) - {"whole"}
        for id, region in regions.items():
            question = survey.questions[id]
            assert region.box == pytest.approx(question.box, abs=0.01)
            assert region.label == question.label


def test_tasks_are_what_label_studio_shows(survey: Survey, index: Index, tmp_path: Path) -> None:
    hand_out(tmp_path / "out", survey, index, PREFIX)
    tasks = json.loads((tmp_path / "out" / TASKS).read_text())
    root = ElementTree.parse(tmp_path / "out" / CONFIG).getroot()
    names = {element.get("name"): element for element in root}
    assert [label.get("value") for label in names["label"]] == list(index.class_names)
    assert all(len(task.get("predictions", [0])) == 1 for task in tasks)  # of several it shows one
    assert tasks[0]["data"]["image"] == PREFIX + index.file_names[0]
    regions = [region for task in tasks if "predictions" in task for region in task["predictions"][0]["result"]]
    assert len(regions) == 12
    for region in regions:
        assert names[region["from_name"]].get("toName") == region["to_name"] == "image"
        assert all(0 <= region["value"][side] <= 100 for side in ("x", "y", "width", "height"))


def test_what_comes_back_is_an_answer(survey: Survey, index: Index, tmp_path: Path) -> None:
    hand_out(tmp_path / "out", survey, index, PREFIX)
    tasks = export(tmp_path / "out")
    first = tasks[0]["annotations"][0]["result"]
    assert len(first) >= 3
    asked = [region["id"] for region in first]
    first[1]["value"]["rectanglelabels"] = [index.class_names[-1]]
    first[2]["value"]["width"] -= 2
    new = {"id": "x7Yz", "value": {**first[0]["value"], "x": 1, "y": 1, "width": 20, "height": 20}}
    first.append(first[0] | new)
    first.append({"type": "choices", "value": {"choices": ["every object has a box"]}})
    gone = tasks[1]["annotations"][0]["result"].pop()["id"]
    tasks[2]["annotations"][0]["was_cancelled"] = True
    found = taken(tasks, survey, tmp_path)
    assert [event.action for event in found[asked[0]]] == ["accept", "draw", "finish"]
    assert [event.action for event in found[asked[1]]] == ["relabel"]
    assert [event.action for event in found[asked[2]]] == ["adjust"]
    assert [event.action for event in found[gone]] == ["reject"]
    assert found[asked[0]][1].box == pytest.approx(
        (0.01 * index.image_sizes[0, 1], 0.01 * index.image_sizes[0, 0])
        + (0.21 * index.image_sizes[0, 1], 0.21 * index.image_sizes[0, 0])
    )
    assert not set(found) & {question.id for question in survey.questions.values() if question.image_id == 3}
    assert {event.annotator for events in found.values() for event in events} == {"label-studio-3"}
    assert sum(event.seconds for event in found[asked[0]]) + found[asked[1]][0].seconds < 6.01
    assert taken(tasks, survey, tmp_path) == found  # twice changes nothing


def test_coco_comes_back(survey: Survey, index: Index, tmp_path: Path) -> None:
    hand_out(tmp_path / "out", survey, index, PREFIX)
    coco = json.loads((tmp_path / "out" / COCO).read_text())
    assert {"score", "attributes"} <= set(coco["annotations"][0])
    assert coco["annotations"][0]["attributes"]["qid"] == "q0"
    coco["annotations"][0]["bbox"][2] += 3
    dropped = coco["annotations"].pop(1)["attributes"]["qid"]
    found = taken(coco, survey, tmp_path)
    assert [event.action for event in found["q0"]] == ["adjust"]
    assert [event.action for event in found[dropped]] == ["reject"]
    assert [event.action for event in found["q2"]] == ["accept"]


def test_plain_readers_of_coco_take_the_questions(survey: Survey, index: Index, tmp_path: Path) -> None:
    hand_out(tmp_path / "out", survey, index, PREFIX)
    (tmp_path / "set").mkdir()
    (tmp_path / "out" / COCO).rename(tmp_path / "set" / "train.json")
    for name in index.file_names:
        (tmp_path / "set" / name).write_bytes((index.root / name).read_bytes())
    again = read_split(tmp_path / "set", "train")
    assert len(again.boxes) == 12
    assert again.class_names == index.class_names


def test_names_are_escaped_in_the_configuration(tmp_path: Path) -> None:
    odd = "<b>\"cup\" & 'saucer'</b>"
    write_config(tmp_path / CONFIG, (odd, "vase"))
    root = ElementTree.parse(tmp_path / CONFIG).getroot()
    assert [label.get("value") for label in root[1]] == [odd, "vase"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("text", "neither a JSON export of Label Studio nor COCO"),
        ([{"data": {}}], "no JSON export of Label Studio of our tasks: KeyError 'annotations'"),
        ({"images": []}, "no COCO file of questions: KeyError 'categories'"),
        ([{"data": {"image_id": 77}, "annotations": [{"result": []}]}], "image 77, about which nothing was asked"),
    ],
)
def test_other_files_are_refused(survey: Survey, tmp_path: Path, content: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        taken(content, survey, tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rotation": 12}, "is rotated, which a box here cannot be"),
        ({"rectanglelabels": ["unknown"]}, "'unknown' is no class of the data"),
        ({"width": 0}, "has no area inside its image"),
    ],
)
def test_a_box_that_cannot_be_stores_nothing(
    survey: Survey, index: Index, tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    hand_out(tmp_path / "out", survey, index, PREFIX)
    tasks = export(tmp_path / "out")
    tasks[1]["annotations"][0]["result"][0]["value"] |= change
    with pytest.raises(DataError, match=sentence):
        taken(tasks, survey, tmp_path)
    assert survey.log.events() == []
