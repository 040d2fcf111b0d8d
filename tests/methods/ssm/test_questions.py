"""Questions, answers and the oracle: each action on a case made for it, cost, errors, files."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boxcycle.data.index import Index
from boxcycle.data.pool import Pool, regions
from boxcycle.data.questions import Answer, Question, read_lines
from boxcycle.methods.ssm.questions import (
    CostConfig,
    Oracle,
    answered_regions,
    box_questions,
    image_questions,
    write_lines,
)

from .cases import COLOURS, make, make_index


@pytest.fixture
def truth(tmp_path: Path) -> Index:
    """Image 10 is labelled; 11 shows red and green, 12 nothing."""
    return make_index(tmp_path, [[(0, 0, 20, 20, 3, 0.9)], [(0, 0, 20, 20, 1, 0.9), (30, 30, 50, 50, 2, 0.9)], []])


@pytest.fixture
def pool(truth: Index) -> Pool:
    return Pool.start(truth, np.array([0]))


def ask(box: tuple[float, ...], label: str = "red", name: str = "q") -> Question:
    return Question(id=name, image_id=11, file_name="1.png", box=box, label=label)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("question", "action", "label", "box", "seconds"),
    [
        (ask((0, 0, 20, 19)), "accept", "red", (0, 0, 20, 19), 2),
        (ask((0, 0, 20, 12)), "adjust", "red", (0, 0, 20, 20), 7),
        (ask((0, 0, 20, 19), "blue"), "relabel", "red", (0, 0, 20, 19), 4),
        (ask((0, 0, 20, 12), "blue"), "relabel", "red", (0, 0, 20, 20), 11),
        (ask((0, 0, 20, 9)), "reject", "", (0, 0, 20, 9), 2),
        (ask((0, 0, 20, 10)), "adjust", "red", (0, 0, 20, 20), 7),  # IoU exactly 0.5 is the object
    ],
)
def test_an_answer_for_each_case(
    truth: Index, pool: Pool, question: Question, action: str, label: str, box: tuple[float, ...], seconds: float
) -> None:
    [answer] = Oracle(truth).answer([question], pool)
    assert (answer.action, answer.label, answer.box, answer.seconds) == (action, label, box, seconds)
    assert (answer.question, answer.image_id) == ("q", 11)


def test_a_whole_image_is_drawn_without_what_is_known(truth: Index, pool: Pool) -> None:
    oracle = Oracle(truth, CostConfig(draw=20))
    whole = image_questions([11, 12], truth, "r0")
    answers = oracle.answer([ask((0, 0, 20, 20)), *whole], pool)
    assert [answer.action for answer in answers] == ["accept", "draw", "finish", "finish"]
    assert (answers[1].label, answers[1].box, answers[1].seconds) == ("green", (30, 30, 50, 50), 20)
    told = pool.with_human(*answered_regions(answers, COLOURS))
    assert told.complete.all()
    assert told.training_index().boxes.tolist() == truth.boxes.tolist()
    assert told.training_index().labels.tolist() == truth.labels.tolist()


def test_one_object_is_given_once(truth: Index, pool: Pool) -> None:
    low, high = ask((0, 0, 20, 11), name="a"), ask((0, 9, 20, 20), name="b")
    assert [answer.action for answer in Oracle(truth).answer([low, high], pool)] == ["adjust", "reject"]
    told = pool.with_human(regions([11], [[0, 0, 20, 20]], [1]))
    assert [answer.action for answer in Oracle(truth).answer([low], told)] == ["reject"]


def test_what_the_oracle_does_not_know_it_skips(truth: Index, pool: Pool) -> None:
    blank = replace(truth, annotated=np.array([True, False, True]))
    [answer] = Oracle(blank).answer([ask((0, 0, 20, 20))], pool)
    assert (answer.action, answer.seconds) == ("skip", 0)
    settled, finished = answered_regions([answer], COLOURS)
    assert (len(settled.labels), finished) == (0, [])


def test_errors_come_at_their_rate_and_are_errors(truth: Index, pool: Pool) -> None:
    careful, careless, always = (Oracle(truth, error_rate=rate, seed=3) for rate in (0.0, 0.2, 1.0))
    questions = [ask((0, 0, 20, 20), name=f"q{number}") for number in range(500)]
    wrong = [careless.answer([question], pool) != careful.answer([question], pool) for question in questions]
    assert 0.13 < np.mean(wrong) < 0.27
    assert [answer.action for answer in always.answer(questions[:1], pool)] == ["reject"]
    assert [answer.action for answer in always.answer([ask((60, 0, 64, 4))], pool)] == ["accept"]
    again = Oracle(truth, error_rate=0.2, seed=3)
    assert [again.answer([q], pool) != careful.answer([q], pool) for q in questions[::-1]] == wrong[::-1]


def test_answers_become_regions(truth: Index) -> None:
    answers = [
        Answer(question="a", image_id=11, action="accept", label="green", box=(0, 0, 5, 5)),
        Answer(question="b", image_id=12, action="reject", box=(1, 1, 5, 5)),
        Answer(question="c", image_id=12, action="finish"),
    ]
    settled, finished = answered_regions(answers, COLOURS)
    assert settled.image_ids.tolist() == [11, 12]
    assert settled.labels.tolist() == [2, 0]
    assert finished == [12]
    with pytest.raises(ValueError, match="has class 'pink'"):
        answered_regions([answers[0].model_copy(update={"label": "pink"})], COLOURS)


def test_questions_say_what_is_doubtful(truth: Index, tmp_path: Path) -> None:
    two = make([[0.1, 0.2, 0.4, 0.3], [0.2, 0.5, 0.2, 0.1]], [0.05, math.nan])
    two = replace(two, image_ids=two.image_ids + 11)
    first, second = box_questions(two, truth, "r1")
    assert (first.id, first.image_id, first.file_name, first.label) == ("r1-0", 11, "1.png", "green")
    assert list(first.classes) == ["green", "blue", "red"]
    assert (first.consistency, second.consistency) == (0.05, None)
    file = tmp_path / "questions.jsonl"
    write_lines(file, [first, second])
    assert json.loads(file.read_text().splitlines()[0])["box"] == [0, 0, 10, 10]
    assert read_lines(file, Question) == [first, second]
    file.write_text('{"id": 3}\n')
    with pytest.raises(ValueError, match="line 1 is no question"):
        read_lines(file, Question)


def test_how_many_pseudo_boxes_are_right(truth: Index) -> None:
    oracle = Oracle(truth)
    boxes = [[0, 0, 20, 18], [0, 0, 20, 20], [30, 30, 50, 50]]
    assert oracle.right(regions([11, 11, 12], boxes, [1, 2, 2])) == pytest.approx(1 / 3)
    assert math.isnan(oracle.right(regions()))
