"""The log of answers: what was stored stays, once; what counts of it; one answer from several people."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from boxcycle.data.answer_log import LOG, AnswerLog, Event, read_log, standing
from boxcycle.data.answers import answers_of, question_folders, read_answers
from boxcycle.data.questions import ANSWERS, Answer

BOX = (0.0, 0.0, 10.0, 10.0)


def event(id: str, action: str = "accept", question: str = "q", annotator: str = "anna", **more: Any) -> Event:
    values: dict[str, Any] = {"image_id": 7, "label": "" if action == "reject" else "cup", "box": BOX, "seconds": 2}
    if action in ("skip", "finish", "undo"):
        values |= {"label": "", "box": None}
    return Event.model_validate(
        values | {"id": id, "action": action, "question": question, "annotator": annotator} | more
    )


def test_what_was_stored_is_read_again(tmp_path: Path) -> None:
    stored = [event("a"), event("b", "draw", box=(1 / 3, 0.1, 5, 6)), event("c", "undo", undoes="b")]
    log = AnswerLog(tmp_path / LOG)
    assert [log.append(each) for each in stored] == [True] * 3
    log.close()
    assert read_log(tmp_path / LOG) == stored


def test_a_doubled_request_is_stored_once(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path / LOG)
    assert [log.append(event("a")), log.append(event("a"))] == [True, False]
    assert log.events() == [event("a")]
    with pytest.raises(ValueError, match="event a is already stored, with another content"):
        log.append(event("a", "reject"))


def test_every_commit_is_flushed_and_nothing_is_changed(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path / LOG)
    log.append(event("a"))
    ask = log._connection.execute
    assert ask("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ask("PRAGMA synchronous").fetchone() == (2,)  # FULL
    for command in ("UPDATE events SET label = 'x'", "DELETE FROM events"):
        with pytest.raises(sqlite3.IntegrityError, match="events are never"):
            ask(command)
    assert log.events() == [event("a")]


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no data base, but a text that is long enough to be taken for one" * 20)
    with pytest.raises(ValueError, match=r"text\.db is no log of answers"):
        AnswerLog(tmp_path / "text.db")
    sqlite3.connect(tmp_path / "later.db").execute("PRAGMA user_version=9").connection.close()
    with pytest.raises(ValueError, match="has version 9 of the log of answers; expected 1"):
        AnswerLog(tmp_path / "later.db")
    with pytest.raises(FileNotFoundError):
        read_log(tmp_path / "absent.db")
    assert not (tmp_path / "absent.db").exists()


def test_threads_lose_and_double_nothing(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path / LOG)

    def work(name: int) -> None:
        for number in range(50):
            each = event(f"{name}-{number}", annotator=str(name))
            log.append(each)
            log.append(each)

    workers = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    ids = [each.id for each in log.events()]
    assert len(ids) == len(set(ids)) == 200


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([event("a"), event("b", "reject")], ["b"]),  # the last verdict wins
        ([event("a"), event("b", "reject"), event("c", "undo", undoes="b")], ["a"]),
        ([event("a"), event("c", "undo", undoes="a")], []),
        ([event("a"), event("b", annotator="ben")], ["a", "b"]),
        ([event("a"), event("b", question="p")], ["a", "b"]),
        ([event("a", "draw"), event("b", "draw"), event("c")], ["a", "b", "c"]),  # drawn boxes add up
        ([event("a", "finish"), event("b", "finish", question="p")], ["b"]),
        ([event("a", "skip"), event("b")], ["b"]),
    ],
)
def test_what_counts(events: list[Event], expected: list[str]) -> None:
    assert [each.id for each in standing(events)] == expected


def test_the_majority_decides_by_class() -> None:
    given = [
        event("a"),
        event("b", "reject", annotator="ben"),
        event("c", "adjust", annotator="cleo", box=(2, 0, 12, 10), seconds=7),
        event("d", "skip", annotator="dora", seconds=1),
    ]
    assert answers_of(given) == [
        Answer(question="q", image_id=7, action="accept", label="cup", box=(1, 0, 11, 10), seconds=12)
    ]
    [tie] = answers_of(given[:2])
    assert (tie.action, tie.box, tie.seconds) == ("skip", None, 4)


def test_drawn_boxes_are_no_second_objects() -> None:
    given = [
        event("a", "draw", box=(20, 20, 30, 30)),
        event("b", "draw", box=(20, 20, 30, 29), annotator="ben"),  # the same object
        event("c", "draw", box=(20, 20, 30, 30), label="vase"),  # another class
        event("d"),
        event("e", "draw", box=(0, 0, 10, 9)),  # what the verdict is about
        event("f", "finish"),
        event("g", "finish", annotator="ben"),
    ]
    found = answers_of(given)
    assert [(answer.action, answer.label) for answer in found] == [
        ("accept", "cup"),
        ("draw", "cup"),
        ("draw", "vase"),
        ("finish", ""),
    ]


def test_folders_are_found_in_the_order_of_their_questions(tmp_path: Path) -> None:
    for seconds, name in enumerate(("mined", "round-0")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "questions.jsonl").write_text("")
        os.utime(tmp_path / name / "questions.jsonl", (seconds, seconds))
    assert [folder.name for folder in question_folders(tmp_path)] == ["mined", "round-0"]
    assert read_answers(tmp_path / "mined") == []
    log = AnswerLog(tmp_path / "mined" / LOG)
    log.append(event("a"))
    (tmp_path / "mined" / ANSWERS).write_text("")
    assert [answer.action for answer in read_answers(tmp_path / "mined")] == ["accept"]
    (tmp_path / "mined" / ANSWERS).write_text(Answer(question="x", image_id=7, action="finish").model_dump_json())
    assert [answer.action for answer in read_answers(tmp_path / "mined")] == ["finish"]  # taken in already
