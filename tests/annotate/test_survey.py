"""Who is asked what: leases, overlap, undo, answers that cannot be."""

from __future__ import annotations

import math
import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from boxcycle.annotate.survey import LEASE, Given, Survey
from boxcycle.data.answer_log import LOG, AnswerLog, Event, standing
from boxcycle.data.questions import Answer, Question

Make = Callable[..., Survey]


class Clock:
    """Time that passes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def ask(id: str, image_id: int = 1, box: Any = (10, 10, 30, 30)) -> Question:
    return Question(id=id, image_id=image_id, file_name="a.jpg", box=box, label="cup" if box else "")


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A survey with questions a, b, c about two images of 100 x 60 pixels, and d about one of them as a whole."""

    def make(**options: Any) -> Survey:
        questions = [ask("a"), ask("b"), ask("c", 2), ask("d", 2, None)]
        log = AnswerLog(tmp_path / LOG)
        return Survey(questions, log, ("cup", "vase"), {1: (60, 100), 2: (60, 100)}, **options)

    return make


def give(survey: Survey, id: str, action: str, question: str, who: str = "anna", **content: Any) -> Any:
    return survey.record(who, Given.model_validate({"id": id, "action": action, "question": question} | content))


def ids(questions: list[Question]) -> list[str]:
    return [question.id for question in questions]


def test_two_annotators_get_different_questions(make: Make) -> None:
    survey = make()
    assert ids(survey.offered("anna", 2)) == ["a", "b"]
    assert ids(survey.offered("anna", 2)) == ["a", "b"]  # the same again, until they are answered
    assert ids(survey.offered("ben", 9)) == ["c", "d"]
    give(survey, "1", "accept", "a")
    assert ids(survey.offered("anna", 9)) == ["b"]
    assert (survey.left("anna"), survey.left("ben")) == (1, 2)


def test_a_lease_ends(make: Make) -> None:
    clock = Clock()
    survey = make(clock=clock)
    survey.offered("anna", 4)
    assert survey.offered("ben", 1) == []
    clock.now = LEASE + 1
    assert ids(survey.offered("ben", 1)) == ["a"]


def test_overlap_asks_several_and_one_more_where_they_disagree(make: Make) -> None:
    survey = make(overlap=2)
    a = survey.questions["a"]
    assert ids(survey.offered("anna", 1)) == ids(survey.offered("ben", 1)) == ["a"]
    assert not survey.is_open(a, "cleo")  # two have it before them
    give(survey, "1", "accept", "a", "anna")
    give(survey, "2", "reject", "a", "ben")
    assert survey.is_open(a)
    assert not survey.is_open(a, "anna")
    assert ids(survey.offered("cleo", 1)) == ["a"]
    give(survey, "3", "adjust", "a", "cleo", box=(10, 10, 30, 29))
    assert not survey.is_open(a)
    give(survey, "4", "undo", "a", "cleo", undoes="3")
    assert survey.is_open(a, "cleo")


def test_a_skip_is_no_vote(make: Make) -> None:
    survey = make()
    give(survey, "1", "skip", "a")
    assert not survey.is_open(survey.questions["a"], "anna")
    assert ids(survey.offered("ben", 1)) == ["a"]


def test_a_finished_image_is_asked_about_no_more(make: Make) -> None:
    survey = make()
    give(survey, "1", "draw", "d", box=(1, 1, 9, 9), label="vase")
    give(survey, "2", "finish", "d")
    assert ids(survey.offered("anna", 9)) == ["a", "b"]
    give(survey, "3", "undo", "d", undoes="2")
    assert ids(survey.offered("anna", 9)) == ["a", "b", "c", "d"]
    assert survey.boxes_of(2, besides="anna") == []
    assert survey.boxes_of(2, besides="ben") == [("vase", (1, 1, 9, 9))]


def test_answers_outlive_the_process(make: Make) -> None:
    survey = make()
    give(survey, "1", "reject", "a")
    give(survey, "2", "accept", "b", seconds=3)
    survey.log.close()
    again = make(known=[Answer(question="old", image_id=1, action="accept", label="cup", box=(0, 0, 5, 5))])
    assert ids(again.offered("anna", 9)) == ["c", "d"]
    assert [event.id for event in again.events_of("anna")] == ["1", "2"]
    assert again.pace("anna") == 3
    assert again.pace("ben") is None
    assert again.boxes_of(1, besides="anna") == [("cup", (0, 0, 5, 5))]


class Untouched(dict[str, Question]):
    """Questions that may be looked up one by one, and not all."""

    def refuse(self) -> Any:
        raise AssertionError("all questions were looked at")

    __iter__ = keys = values = items = refuse


def test_what_is_left_is_told_without_a_look_at_all_questions(make: Make) -> None:
    survey = make(overlap=2)
    survey.questions = Untouched(survey.questions)
    assert ids(survey.offered("anna", 2)) == ["a", "b"]
    give(survey, "1", "accept", "a")
    assert survey.left("anna") == 3
    assert survey.left("ben") == 4
    assert ids(survey.offered("ben", 9)) == ["a", "b", "c", "d"]
    assert survey.left("cleo") == 2  # a and b are before two people, or answered by one and before the other


def slowly_open(
    survey: Survey, events: list[Event], question: Question, annotator: str, leased: dict[tuple[str, str], float]
) -> bool:
    """The definition, from all events: not finished, not judged by this one, and votes missing for all who have it.

    ``leased``: when the lease of each question and annotator ends.
    """
    counted = standing(event for event in events if event.image_id == question.image_id)
    verdicts = [its for its in counted if its.question == question.id and its.action not in ("draw", "finish")]
    if any(its.action == "finish" for its in counted) or annotator in {its.annotator for its in verdicts}:
        return False
    votes = Counter(its.label for its in verdicts if its.action != "skip")
    tied = len(votes) > 1 and len(set(dict(votes.most_common(2)).values())) == 1
    missing = max(survey.overlap - votes.total(), int(tied))
    others = sum(end > survey.clock() for (id, name), end in leased.items() if id == question.id and name != annotator)
    return missing > others


@pytest.mark.parametrize("overlap", [1, 2, 3])
def test_what_is_open_follows_its_definition_whatever_people_do(make: Make, overlap: int) -> None:
    clock, draw = Clock(), random.Random(overlap)
    survey, people = make(overlap=overlap, clock=clock), ("anna", "ben", "cleo", "dora")
    leased: dict[tuple[str, str], float] = {}
    given: list[tuple[str, str, str]] = []  # id, annotator, question
    for number in range(100):
        clock.now += draw.choice([1, 1, 1, LEASE / 2])
        who, action = draw.choice(people), draw.choice(["accept", "reject", "skip", "finish", "undo", "offer", "offer"])
        question = draw.choice(["a", "b", "c"])
        mine = [(id, asked) for id, name, asked in given if name == who]
        if action == "offer":
            chosen = survey.offered(who, draw.randint(1, 3))
            assert all(slowly_open(survey, survey.log.events(), its, who, leased) for its in chosen)
            leased |= {(its.id, who): clock() + LEASE for its in chosen}
        elif action == "undo" and mine:
            id, asked = draw.choice(mine)
            give(survey, f"undo-{number}", "undo", asked, who, undoes=id)
            leased[asked, who] = clock() + LEASE
        elif action != "undo":
            give(survey, f"{number}", action, question, who)
            given.append((f"{number}", who, question))
            leased.pop((question, who), None)
        events = survey.log.events()
        for name in people:
            slow = [its.id for its in survey.questions.values() if slowly_open(survey, events, its, name, leased)]
            assert [id for id in survey.questions if survey.is_open(survey.questions[id], name)] == slow
            assert survey.left(name) == len(slow)


def test_what_is_stored_is_what_the_question_says(make: Make) -> None:
    survey = make()
    accepted = give(survey, "1", "accept", "a", label="vase", box=(0, 0, 1, 1))
    assert (accepted.label, accepted.box) == ("cup", (10, 10, 30, 30))
    assert give(survey, "2", "reject", "a", label="vase").label == ""
    moved = give(survey, "3", "relabel", "a", label="vase", box=(-5, 10, 400, 30))
    assert (moved.label, moved.box) == ("vase", (0, 10, 100, 30))  # what lies in the image
    assert give(survey, "3", "relabel", "a", label="vase", box=(-5, 10, 400, 30)) == moved
    assert len(survey.log.events()) == 3


@pytest.mark.parametrize(
    ("action", "question", "content", "sentence"),
    [
        ("accept", "z", {}, "there is no question 'z'"),
        ("relabel", "a", {"label": "<b>"}, "'<b>' is no class of the data"),
        ("adjust", "a", {"box": (math.nan, 0, 1, 1)}, "four finite numbers"),
        ("adjust", "a", {"box": (30, 10, 10, 30)}, "has no area inside its image of 100 x 60"),
        ("draw", "d", {"label": "cup"}, "four finite numbers"),
        ("accept", "d", {}, "about a whole image: draw, finish or skip"),
        ("undo", "a", {"undoes": "x"}, "nothing with the id 'x' to take back"),
        ("undo", "a", {"undoes": "bens"}, "nothing with the id 'bens' to take back"),
        ("accept", "a", {"id": "bens"}, "the id bens belongs to another answer"),
    ],
)
def test_what_can_be_no_answer(make: Make, action: str, question: str, content: dict[str, Any], sentence: str) -> None:
    survey = make()
    give(survey, "bens", "accept", "a", "ben")
    with pytest.raises(ValueError, match=sentence):
        give(survey, content.pop("id", "1"), action, question, **content)
    assert len(survey.log.events()) == 1


@pytest.mark.slow
def test_eight_annotators_at_once(tmp_path: Path) -> None:
    """None of 200 answers of each is lost; none is doubled, although each is sent twice; all questions differ."""
    questions = [ask(f"q{number}", number) for number in range(8 * 200)]
    log = AnswerLog(tmp_path / LOG)
    survey = Survey(questions, log, ("cup",), dict.fromkeys(range(1600), (60, 100)))
    sent: dict[str, list[str]] = {}

    def work(name: str) -> None:
        sent[name] = []
        while offered := survey.offered(name, 10):
            for question in offered[: 200 - len(sent[name])]:
                for _ in range(2):
                    give(survey, f"{name}-{question.id}", "accept", question.id, name)
                sent[name].append(question.id)
            if len(sent[name]) == 200:
                break

    workers = [threading.Thread(target=work, args=(f"n{number}",)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    stored = [(event.annotator, event.question) for event in log.events()]
    assert len(stored) == len(set(stored)) == 1600
    assert len({question for _, question in stored}) == 1600
    assert set(stored) == {(name, question) for name, its in sent.items() for question in its}
