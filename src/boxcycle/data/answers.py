"""From what several people did to one answer for each question, and to all answers that a run has had."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torchvision.ops import box_iou

from boxcycle.data.answer_log import LOG, Event, read_log, standing
from boxcycle.data.pool import SAME
from boxcycle.data.questions import ANSWERS, QUESTIONS, Answer, Box, read_lines


def answers_of(events: Iterable[Event]) -> list[Answer]:
    """One answer for each question that was decided, the boxes that were drawn, and which images are finished.

    Of several annotators the majority decides, by class ("no object" is one), and its boxes are averaged; a tie is a
    skip. A drawn box that an object of its class already has, by half (IoU), is left out. Seconds are those of all.
    """
    counted = standing(events)
    verdicts: dict[str, list[Event]] = defaultdict(list)
    for event in counted:
        if event.action not in ("draw", "finish"):
            verdicts[event.question].append(event)
    answers = [decided(given) for given in verdicts.values()]
    for event in counted:
        if event.action == "draw" and not _is_known(event, answers):
            answers.append(_answer(event))
    finished = {event.image_id: event for event in counted if event.action == "finish"}
    return answers + [_answer(event) for event in finished.values()]


def decided(verdicts: Sequence[Event]) -> Answer:
    """What the majority of the verdicts on one question says; skips are no votes."""
    seconds = sum(event.seconds for event in verdicts)
    votes = [event for event in verdicts if event.action != "skip"]
    leading = Counter(event.label for event in votes).most_common(2)
    if not votes or (len(leading) == 2 and leading[0][1] == leading[1][1]):
        return Answer(question=verdicts[0].question, image_id=verdicts[0].image_id, action="skip", seconds=seconds)
    winners = [event for event in votes if event.label == leading[0][0]]
    update = {"box": _mean([event.box for event in winners if event.box is not None]), "seconds": seconds}
    return _answer(winners[0]).model_copy(update=update)


def read_answers(folder: Path) -> list[Answer]:
    """The answers to the questions in a folder: those that a run has taken in, which are in a file of lines, else those
    of the log; none where there is neither.
    """
    file, log = folder / ANSWERS, folder / LOG
    given = read_lines(file, Answer) if file.is_file() else []
    return given or (answers_of(read_log(log)) if log.is_file() else [])


def question_folders(run: Path) -> list[Path]:
    """The folders of a run in which questions were asked, the oldest first."""
    folders = [file.parent for file in run.glob(f"*/{QUESTIONS}")]
    return sorted(folders, key=lambda folder: (folder / QUESTIONS).stat().st_mtime_ns)


def _mean(boxes: Sequence[Box]) -> Box | None:
    return tuple(sum(sides) / len(sides) for sides in zip(*boxes, strict=True)) if boxes else None  # type: ignore[return-value]


def _is_known(event: Event, answers: Sequence[Answer]) -> bool:
    others = [a.box for a in answers if a.image_id == event.image_id and a.label == event.label and a.box is not None]
    iou = box_iou(torch.tensor([event.box], dtype=torch.float64), torch.tensor(others, dtype=torch.float64).view(-1, 4))
    return bool((iou >= SAME).any())


def _answer(event: Event) -> Answer:
    return Answer.model_validate(event.model_dump(include=set(Answer.model_fields)))
