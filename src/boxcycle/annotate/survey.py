"""Who is asked what: questions, the answers so far, and leases that give several annotators different questions."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import nsmallest
from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from boxcycle.data.answer_log import AnswerLog, Event, standing
from boxcycle.data.questions import Action, Answer, Box, Question

LEASE = 600.0  # seconds that a question stays with the annotator who was shown it
REMEMBERED = 30  # latest answers by which an annotator's pace is measured
SMALLEST = 1.0  # pixels of a box's side


class Given(BaseModel):
    """What an annotator's page sends: an event without what the server knows itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[\w-]{1,64}$")
    question: str = Field(max_length=200)
    action: Action | Literal["undo"]
    label: str = Field("", max_length=200)
    box: Box | None = None
    seconds: float = Field(0.0, ge=0, le=3600)
    undoes: str = Field("", max_length=64)


class Survey:
    """Questions to several annotators; threads may share it.

    ``overlap`` people are asked each question, and one more where they disagree evenly. ``sizes`` has the (height,
    width) of each image, ``known`` what was answered in earlier rounds. A lease is lost with the process, an answer
    never: it is in ``log`` before :meth:`record` returns. What an answer changes is noted when it comes, for the
    questions about its image alone, so that asking what is left costs little however many questions there are.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        log: AnswerLog,
        class_names: Sequence[str],
        sizes: Mapping[int, tuple[int, int]],
        *,
        overlap: int = 1,
        known: Iterable[Answer] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.questions = {question.id: question for question in questions}
        self.log, self.class_names, self.sizes = log, tuple(class_names), sizes
        self.overlap, self.clock = overlap, clock
        self.known: dict[int, list[Answer]] = defaultdict(list)
        for answer in known:
            self.known[answer.image_id].append(answer)
        self._lock = threading.RLock()
        self._leases: dict[tuple[str, str], float] = {}  # (question, annotator) -> when it ends
        self._events: dict[str, Event] = {}
        self._of_image: dict[int, list[Event]] = defaultdict(list)
        self._counted: dict[int, list[Event]] = defaultdict(list)
        self._seconds: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=REMEMBERED))  # by annotator
        self._place = {id: place for place, id in enumerate(self.questions)}
        self._about: dict[int, list[Question]] = defaultdict(list)  # an image
        self._missing: dict[str, int] = {}  # votes that an open question still needs
        self._judged: dict[str, set[str]] = defaultdict(set)  # questions that an annotator has answered
        for question in self.questions.values():
            self._about[question.image_id].append(question)
            self._settle(question)
        for event in log.events():
            self._count(event)

    def record(self, annotator: str, given: Given) -> Event:
        """Store an answer; one that was stored before is not stored again.

        Raises ``ValueError``, with a sentence for the annotator, for an answer that cannot be one.
        """
        with self._lock:
            known = self._events.get(given.id)
            event = known or self._event(annotator, given)
            if (event.annotator, event.question, event.action) != (annotator, given.question, given.action):
                raise ValueError(f"the id {given.id} belongs to another answer")
            if known is None and self.log.append(event):
                self._count(event)
            if event.action == "undo":  # it is shown again, and nobody else should get it meanwhile
                self._leases[event.question, annotator] = self.clock() + LEASE
            elif event.action != "draw":
                self._leases.pop((event.question, annotator), None)
        return event

    def check(self, annotator: str, given: Given) -> None:
        """Raise what :meth:`record` would raise, and store nothing."""
        with self._lock:
            if given.id not in self._events:
                self._event(annotator, given)

    def offered(self, annotator: str, count: int) -> list[Question]:
        """The next questions of an annotator, at most ``count``, leased: rather those that are leased already."""
        with self._lock:
            free = self._open_to(annotator)
            held = free & {id for id, name in self._leases if name == annotator}
            chosen = nsmallest(count, held, key=self._place.__getitem__)
            chosen += nsmallest(count - len(chosen), free - held, key=self._place.__getitem__)
            self._leases |= dict.fromkeys(((id, annotator) for id in chosen), self.clock() + LEASE)
            return [self.questions[id] for id in sorted(chosen, key=self._place.__getitem__)]

    def is_open(self, question: Question, annotator: str | None = None) -> bool:
        """Whether the question is still to be answered: at all, or by this annotator and not by somebody else now."""
        with self._lock:
            return question.id in (self._missing if annotator is None else self._open_to(annotator))

    def events_of(self, annotator: str) -> list[Event]:
        """What an annotator did and did not take back, in the order of the log."""
        with self._lock:
            counted = {event.id for events in self._counted.values() for event in events}
            return [event for event in self._events.values() if event.annotator == annotator and event.id in counted]

    def pace(self, annotator: str) -> float | None:
        """Seconds that an annotator's latest answers took, their median; None before the first."""
        with self._lock:
            return median(self._seconds[annotator]) if self._seconds[annotator] else None

    def left(self, annotator: str) -> int:
        """How many questions an annotator could still be asked, those left out that others have before them now."""
        with self._lock:
            return len(self._open_to(annotator))

    def boxes_of(self, image_id: int, besides: str) -> list[tuple[str, Box]]:
        """Classes and boxes that people said are in an image, in earlier rounds and in this one, without one's own."""
        with self._lock:
            now = [event for event in self._counted[image_id] if event.annotator != besides]
            given: list[Answer | Event] = [*self.known[image_id], *now]
            return [(each.label, each.box) for each in given if each.label and each.box is not None]

    def _open_to(self, annotator: str) -> set[str]:
        """The questions that an annotator could be asked now; leases that have ended are forgotten."""
        now = self.clock()
        self._leases = {lease: end for lease, end in self._leases.items() if end > now}
        others = Counter(id for id, name in self._leases if name != annotator)
        taken = {id for id, count in others.items() if count >= self._missing.get(id, 0)}
        return self._missing.keys() - self._judged[annotator] - taken

    def _count(self, event: Event) -> None:
        """Note what an event says of its image: who has answered which question, and what is still open."""
        self._events[event.id] = event
        if event.seconds > 0:
            self._seconds[event.annotator].append(event.seconds)
        self._of_image[event.image_id].append(event)
        self._counted[event.image_id] = standing(self._of_image[event.image_id])
        for question in self._about[event.image_id]:
            self._settle(question)

    def _settle(self, question: Question) -> None:
        """Note who has answered a question, and how many votes it still needs: none where its image is finished."""
        counted = self._counted[question.image_id]
        verdicts = [its for its in counted if its.question == question.id and its.action not in ("draw", "finish")]
        judges = {event.annotator for event in verdicts}
        for annotator in judges | self._judged.keys():
            (self._judged[annotator].add if annotator in judges else self._judged[annotator].discard)(question.id)
        missing = 0 if any(its.action == "finish" for its in counted) else self._votes_missing(verdicts)
        if missing:
            self._missing[question.id] = missing
        else:
            self._missing.pop(question.id, None)

    def _votes_missing(self, verdicts: Sequence[Event]) -> int:
        """How many more people are to judge: as many as were wanted, and one where those who did disagree evenly."""
        votes = Counter(event.label for event in verdicts if event.action != "skip")
        if votes.total() < self.overlap:
            return self.overlap - votes.total()
        best = votes.most_common(2)
        return int(len(best) == 2 and best[0][1] == best[1][1])

    def _event(self, annotator: str, given: Given) -> Event:
        question = self.questions.get(given.question)
        if question is None:
            raise ValueError(f"there is no question '{given.question}'")
        label, box = self._content(annotator, question, given)
        return Event(
            id=given.id,
            annotator=annotator,
            question=question.id,
            image_id=question.image_id,
            action=given.action,
            label=label,
            box=box,
            seconds=given.seconds,
            undoes=given.undoes,
        )

    def _content(self, annotator: str, question: Question, given: Given) -> tuple[str, Box | None]:
        """Class and box of an event, whatever else was sent."""
        if given.action == "undo":
            taken_back = self._events.get(given.undoes)
            if taken_back is None or (taken_back.annotator, taken_back.question) != (annotator, question.id):
                raise ValueError(f"there is nothing with the id '{given.undoes}' to take back")
            return "", None
        if given.action in ("finish", "skip"):
            return "", None
        if given.action != "draw" and question.box is None:
            raise ValueError(f"question '{question.id}' is about a whole image: draw, finish or skip")
        if given.action == "reject":
            return "", question.box
        if given.action == "accept":
            return question.label, question.box
        label = given.label or question.label
        if label not in self.class_names:
            raise ValueError(f"'{label}' is no class of the data")
        return label, self._inside(given.box or question.box, question.image_id)

    def _inside(self, box: Box | None, image_id: int) -> Box:
        """The part of a box that lies in its image."""
        height, width = self.sizes[image_id]
        if box is None or not all(map(math.isfinite, box)):
            raise ValueError(f"a box of four finite numbers is needed; got {box}")
        x1, x2 = (min(max(side, 0.0), float(width)) for side in box[::2])
        y1, y2 = (min(max(side, 0.0), float(height)) for side in box[1::2])
        if x2 - x1 < SMALLEST or y2 - y1 < SMALLEST:
            raise ValueError(f"the box {box} has no area inside its image of {width} x {height} pixels")
        return x1, y1, x2, y2
