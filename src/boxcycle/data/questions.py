"""What a person is asked about images, and what they answer.

Questions and answers are lines of JSON; classes stand in them by name, boxes are xyxy in the pixels of the image file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict

QUESTIONS = "questions.jsonl"  # in the folder of a round or of a mining pass
ANSWERS = "answers.jsonl"

Box = tuple[float, float, float, float]
Action = Literal["accept", "adjust", "relabel", "draw", "reject", "finish", "skip"]
Record = TypeVar("Record", bound=BaseModel)


class Paste(BaseModel):
    """One finding of a candidate elsewhere: the annotated image it was pasted into, where, and what came of it.

    ``box`` is in the pixels of that image's file; ``found`` is the probability of the class there, 0 if it was missed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_id: int
    box: Box
    found: float


class Question(BaseModel):
    """Is this box a ``label``? Or, without a box: what does this image show?"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    image_id: int
    file_name: str
    box: Box | None = None
    label: str = ""
    classes: dict[str, float] = {}  # the likeliest, with their probabilities
    consistency: float | None = None  # None: not measured
    pastes: tuple[Paste, ...] = ()  # by which it was measured, where that was kept


class Answer(BaseModel):
    """One action of a person on one question, with the seconds that it took.

    accept: box and class are right; adjust: another box; relabel: another class; draw: a box that nobody suggested;
    reject: no object; finish: the image has no other objects; skip: no opinion.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    question: str
    image_id: int
    action: Action
    label: str = ""
    box: Box | None = None
    seconds: float = 0.0


def read_lines(file: Path, kind: type[Record]) -> list[Record]:
    """The records of a file of lines. Raises ``ValueError``, naming file and line, for one that is none."""
    records = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            records.append(kind.model_validate_json(line))
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{file}, line {number} is no {kind.__name__.lower()}: {reason}") from None
    return records
