"""The questions of a survey written for other tools, and their files taken in as answers."""

from __future__ import annotations

import json
from pathlib import Path

from boxcycle.annotate.exchange import answers_in, by_image, read_coco, write_coco
from boxcycle.annotate.label_studio import read_export, write_config, write_tasks
from boxcycle.annotate.survey import Survey
from boxcycle.data.check import DataError
from boxcycle.data.index import Index

TASKS, CONFIG, COCO = "label_studio.json", "label_studio.xml", "questions.coco.json"


def hand_out(folder: Path, survey: Survey, index: Index, prefix: str) -> None:
    """Write all questions that are still open: Label Studio's tasks and configuration, and COCO."""
    questions = [question for question in survey.questions.values() if survey.is_open(question)]
    folder.mkdir(parents=True, exist_ok=True)
    write_tasks(folder / TASKS, questions, index, prefix)
    write_config(folder / CONFIG, index.class_names)
    write_coco(folder / COCO, questions, index)
    print(f"{folder}: {len(questions)} questions about {len(by_image(questions))} images: {TASKS}, {CONFIG}, {COCO}")


def take_in(file: Path, survey: Survey) -> None:
    """Store what a file says about the questions, as answers; the same file twice changes nothing.

    Raises :class:`DataError`, and stores nothing, if it is of neither kind or has a box or a class that cannot be.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file} is not valid JSON: {error}") from None
    if not isinstance(content, list | dict):
        raise DataError(f"{file} is neither a JSON export of Label Studio nor COCO")
    returned = read_export(content, file) if isinstance(content, list) else read_coco(content, file)
    asked = by_image(survey.questions.values())
    strange = [its.image_id for its in returned if its.image_id not in asked]
    if strange:
        raise DataError(f"{file} has image {strange[0]}, about which nothing was asked")
    answers = [(its.annotator, given) for its in returned for given in answers_in(its, asked[its.image_id])]
    try:
        for annotator, given in answers:
            survey.check(annotator, given)
    except ValueError as error:
        raise DataError(f"{file}: {error}") from None
    before = len(survey.log.events())
    for annotator, given in answers:
        survey.record(annotator, given)
    print(
        f"{file}: {len(answers)} answers about {len(returned)} images, {len(survey.log.events()) - before} of them new"
    )
