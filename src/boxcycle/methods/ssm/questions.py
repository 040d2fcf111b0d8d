"""Which questions come of candidates, what a pool learns from answers, and an oracle that answers from held-back
annotations.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torchvision.ops import box_iou

from boxcycle.data.index import Index
from boxcycle.data.pool import SAME, Pool, Regions, overlaps, regions
from boxcycle.data.questions import Answer, Box, Paste, Question
from boxcycle.engine.checkpoint import write_text
from boxcycle.methods.ssm.labels import Candidates

TIGHT = 0.75  # IoU from which a suggested box is left as it is
SHOWN = 3  # likeliest classes that a question names


class CostConfig(BaseModel):
    """Seconds of a person's time; rough figures for boxes drawn by their extreme points."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    accept: float = Field(2.0, ge=0, description="seconds to accept or reject a suggestion, or to finish an image")
    relabel: float = Field(4.0, ge=0, description="seconds to choose another class")
    adjust: float = Field(7.0, ge=0, description="seconds to correct a box")
    draw: float = Field(10.0, ge=0, description="seconds to draw a box and choose its class")


def box_questions(candidates: Candidates, index: Index, name: str) -> list[Question]:
    """One question for each candidate, in their order; ``name`` begins their ids."""
    positions = {int(image_id): position for position, image_id in enumerate(index.image_ids)}
    questions = []
    for number in range(len(candidates)):
        image_id, consistency = int(candidates.image_ids[number]), float(candidates.consistency[number])
        probs, labels = candidates.probs[number, 1:].topk(min(SHOWN, index.num_classes))
        classes = [index.class_names[label] for label in labels.tolist()]
        questions.append(
            Question(
                id=f"{name}-{number}",
                image_id=image_id,
                file_name=index.file_names[positions[image_id]],
                box=tuple(candidates.boxes[number].tolist()),
                label=classes[0],
                classes=dict(zip(classes, probs.tolist(), strict=True)),
                consistency=None if math.isnan(consistency) else consistency,
            )
        )
    return questions


def with_pastes(questions: Iterable[Question], pastes: Mapping[tuple[float, ...], tuple[Paste, ...]]) -> list[Question]:
    """The questions with the pastes of their boxes, by image id and box, where there are any."""
    return [
        question.model_copy(update={"pastes": pastes.get((question.image_id, *question.box), ())})
        if question.box is not None
        else question
        for question in questions
    ]


def image_questions(image_ids: Iterable[int], index: Index, name: str) -> list[Question]:
    """One question for each image: everything in it is to be drawn."""
    names = dict(zip(index.image_ids.tolist(), index.file_names, strict=True))
    return [
        Question(id=f"{name}-{number}", image_id=image_id, file_name=names[image_id])
        for number, image_id in enumerate(image_ids)
    ]


def answered_regions(answers: Iterable[Answer], class_names: Sequence[str]) -> tuple[Regions, list[int]]:
    """What the pool learns from answers: the regions that are settled (0: no object), and the ids of finished images.

    Raises ``ValueError`` for a class that the data lack.
    """
    label_of = {name: label for label, name in enumerate(class_names, start=1)} | {"": 0}
    settled, finished = [], []
    for answer in answers:
        if answer.action == "finish":
            finished.append(answer.image_id)
        elif answer.action != "skip" and answer.box is not None:
            if answer.label not in label_of:
                raise ValueError(f"answer to question {answer.question} has class '{answer.label}', not of the data")
            settled.append((answer.image_id, answer.box, label_of[answer.label]))
    return regions([row[0] for row in settled], [row[1] for row in settled], [row[2] for row in settled]), finished


class Oracle:
    """Answers as a careful person would who sees the annotations of ``truth``, or at times as a careless one.

    With probability ``error_rate`` the answer to a question about a box is wrong: what is an object of that class is
    rejected, anything else accepted. An answer depends on the question and the seed, not on the others.
    """

    def __init__(
        self, truth: Index, costs: CostConfig | None = None, *, error_rate: float = 0.0, seed: int = 0
    ) -> None:
        self.truth, self.costs = truth, costs or CostConfig()
        self.error_rate, self.seed = error_rate, seed
        self._positions = {int(image_id): position for position, image_id in enumerate(truth.image_ids)}

    def answer(self, questions: Iterable[Question], pool: Pool) -> list[Answer]:
        """Answers in the order of the questions; what ``pool`` or an earlier answer has settled is not drawn again."""
        answers: list[Answer] = []
        for question in questions:
            given = answered_regions(answers, self.truth.class_names)[0]
            unknown = self._unknown(question.image_id, pool.with_human(given).human_boxes())
            if unknown is None:
                answers.append(Answer(question=question.id, image_id=question.image_id, action="skip"))
            elif question.box is None:
                answers += self._finish(question, unknown)
            else:
                answers.append(self._judge(question, question.box, unknown))
        return answers

    def right(self, pseudo: Regions) -> float:
        """The part of pseudo boxes that have an annotated box of their class at IoU 0.5; NaN if there are none.

        Images whose annotations are not known are left out. For tables of experiments; nothing that trains may see it.
        """
        index = self.truth
        images = np.repeat(index.image_ids, np.diff(index.box_offsets))
        hits = []
        pseudo = pseudo.where(np.isin(pseudo.image_ids, index.image_ids[index.annotated]))
        for label in np.unique(pseudo.labels):
            rows = (index.labels == label) & ~index.iscrowd
            truth = regions(images[rows], index.boxes[rows], index.labels[rows])
            hits.append(overlaps(pseudo.where(pseudo.labels == label), truth))
        return float(np.concatenate(hits).mean()) if hits else math.nan

    def _unknown(self, image_id: int, known: Regions) -> Regions | None:
        """The objects of an image that nobody has given yet; None where the truth is not known."""
        position = self._positions[image_id]
        if not self.truth.annotated[position]:
            return None
        rows = self.truth.boxes_of(position)
        alone = ~self.truth.iscrowd[rows]
        boxes, labels = self.truth.boxes[rows][alone], self.truth.labels[rows][alone]
        objects = regions([image_id] * len(labels), boxes, labels)
        return objects.where(~overlaps(objects, known))

    def _judge(self, question: Question, box: Box, objects: Regions) -> Answer:
        iou = box_iou(torch.tensor([box], dtype=torch.float64), torch.from_numpy(objects.boxes))[0].numpy()
        name = np.array([self.truth.class_names[label - 1] for label in objects.labels], dtype=object)
        there = iou >= SAME
        alike = there & (name == question.label)
        if self._careless(question):
            action: Literal["accept", "reject"] = "reject" if alike.any() else "accept"
            return self._answer(question, action, "" if alike.any() else question.label, box, self.costs.accept)
        if not there.any():
            return self._answer(question, "reject", "", box, self.costs.accept)
        best = int(np.where(alike if alike.any() else there, iou, -1).argmax())
        tight = iou[best] >= TIGHT
        drawn: Box = box if tight else tuple(objects.boxes[best].tolist())
        if not alike.any():
            seconds = self.costs.relabel + (0 if tight else self.costs.adjust)
            return self._answer(question, "relabel", name[best], drawn, seconds)
        if tight:
            return self._answer(question, "accept", question.label, drawn, self.costs.accept)
        return self._answer(question, "adjust", question.label, drawn, self.costs.adjust)

    def _finish(self, question: Question, objects: Regions) -> list[Answer]:
        drawn = [
            self._answer(question, "draw", self.truth.class_names[label - 1], tuple(box.tolist()), self.costs.draw)
            for box, label in zip(objects.boxes, objects.labels, strict=True)
        ]
        return [*drawn, self._answer(question, "finish", "", None, self.costs.accept)]

    def _careless(self, question: Question) -> bool:
        return np.random.default_rng((self.seed, zlib.crc32(question.id.encode()))).random() < self.error_rate

    def _answer(self, question: Question, action: str, label: str, box: Box | None, seconds: float) -> Answer:
        return Answer.model_validate(
            {"question": question.id, "image_id": question.image_id, "action": action}
            | {"label": label, "box": box, "seconds": seconds}
        )


def write_lines(file: Path, records: Iterable[BaseModel]) -> None:
    """One line of JSON for each record; the file appears whole or not at all."""
    text = "".join(record.model_dump_json() + "\n" for record in records)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text)
