"""What people answer, as events in SQLite: appended, never changed, on the disk before anybody is told so.

The state is a fold of the events. An undo is an event too, and a request that is sent twice is stored once, by an id
that the client made.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from boxcycle.data.questions import Action, Box

LOG = "answers.db"  # beside the questions
VERSION = 1  # of the table
TABLE = """
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, time TEXT NOT NULL, annotator TEXT NOT NULL,
    question TEXT NOT NULL, image_id INTEGER NOT NULL, action TEXT NOT NULL, label TEXT NOT NULL, box TEXT,
    seconds REAL NOT NULL, undoes TEXT NOT NULL);
CREATE TRIGGER IF NOT EXISTS kept BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE TRIGGER IF NOT EXISTS stays BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END;
"""
COLUMNS = ("id", "annotator", "question", "image_id", "action", "label", "box", "seconds", "undoes")


class Event(BaseModel):
    """What one annotator did about one question. ``undo`` takes back the event ``undoes``, of the same annotator."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[\w-]{1,64}$")
    annotator: str
    question: str
    image_id: int
    action: Action | Literal["undo"]
    label: str = ""
    box: Box | None = None
    seconds: float = 0.0
    undoes: str = ""


class AnswerLog:
    """The events of one file; threads may share it.

    Opening a file creates it. Raises ``ValueError`` for a file that is no such log, or one of another version.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self.close()
            raise ValueError(f"{file} is no log of answers: {error}") from None

    def append(self, event: Event) -> bool:
        """Store an event, on the disk when this returns; False if it was there already.

        Raises ``ValueError`` if another event has its id.
        """
        values = event.model_dump() | {"box": None if event.box is None else json.dumps(event.box)}
        row = [datetime.now(timezone.utc).isoformat(), *(values[name] for name in COLUMNS)]
        marks = ", ".join("?" * len(row))
        command = f"INSERT INTO events (time, {', '.join(COLUMNS)}) VALUES ({marks}) ON CONFLICT (id) DO NOTHING"
        with self._lock:
            stored = self._connection.execute(command, row).rowcount == 1
        if not stored and self.events(event.id) != [event]:
            raise ValueError(f"event {event.id} is already stored, with another content")
        return stored

    def events(self, id: str | None = None) -> list[Event]:
        """All events in the order in which they were stored, or the one of that id."""
        command = f"SELECT {', '.join(COLUMNS)} FROM events"
        with self._lock:
            found = self._connection.execute(
                *((command + " ORDER BY number",) if id is None else (command + " WHERE id = ?", (id,)))
            ).fetchall()
        return [_event(row) for row in found]

    def close(self) -> None:
        """Close the file; what was stored stays."""
        self._connection.close()

    def _prepare(self) -> None:
        run = self._connection.execute
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=FULL")  # a commit is flushed to the disk, and only then acknowledged
        run("PRAGMA busy_timeout=10000")
        [version] = run("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            raise ValueError(f"{self.file} has version {version} of the log of answers; expected {VERSION}")
        self._connection.executescript(f"{TABLE} PRAGMA user_version={VERSION};")


def standing(events: Iterable[Event]) -> list[Event]:
    """The events that count, in their order: not taken back, and of the verdicts on a question each annotator's last.

    Every drawn box counts; ``finish`` counts once for each annotator and image.
    """
    listed = list(events)
    undone = {event.undoes for event in listed if event.action == "undo"}
    kept: dict[tuple[str, ...], Event] = {}
    for event in listed:
        if event.action == "undo" or event.id in undone:
            continue
        subject = {"draw": event.id, "finish": str(event.image_id)}.get(event.action, event.question)
        key = (event.annotator, event.action if event.action in ("draw", "finish") else "verdict", subject)
        kept.pop(key, None)
        kept[key] = event
    return list(kept.values())


def read_log(file: Path) -> list[Event]:
    """The events of a log that exists. Raises ``FileNotFoundError`` if it does not."""
    if not file.is_file():
        raise FileNotFoundError(2, "no log of answers", str(file))
    log = AnswerLog(file)
    try:
        return log.events()
    finally:
        log.close()


def _event(row: Iterable[object]) -> Event:
    values = dict(zip(COLUMNS, row, strict=True))
    box = values["box"]
    return Event.model_validate(values | {"box": json.loads(box) if isinstance(box, str) else None})
