"""A served survey about generated scenes, and a client that speaks HTTP to it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from boxcycle.annotate.pictures import Pictures
from boxcycle.annotate.run import hosts, listen
from boxcycle.annotate.server import make_app
from boxcycle.annotate.survey import Survey
from boxcycle.data.answer_log import LOG, AnswerLog
from boxcycle.data.index import Index
from boxcycle.data.questions import Paste, Question
from boxcycle.data.read import read_split
from boxcycle.data.scenes import SceneConfig, make_scenes

TOKENS = {"token-of-anna": "anna", "token-of-ben": "ben"}


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Six scenes."""
    folder = make_scenes(tmp_path_factory.mktemp("data") / "scenes", SceneConfig(size=128), {"train": 6, "val": 1})
    return read_split(folder, "train")


def make_questions(index: Index, count: int) -> list[Question]:
    """Questions about the annotated boxes of an index, again and again, a little off."""
    questions = []
    images = [image for image in range(len(index)) for _ in range(*index.boxes_of(image).indices(len(index.boxes)))]
    for number in range(count):
        row = number % len(images)
        x1, y1, x2, y2 = index.boxes[row].tolist()
        label = index.class_names[index.labels[row] - 1]
        other = index.class_names[index.labels[row] % index.num_classes]
        elsewhere = int(index.image_ids[(images[row] + 1) % len(index)])
        paste = Paste(image_id=elsewhere, box=(5, 5, 5 + (x2 - x1) / 2, 5 + (y2 - y1) / 2), found=0.12)
        questions.append(
            Question(
                id=f"q{number}",
                image_id=int(index.image_ids[images[row]]),
                file_name=index.file_names[images[row]],
                box=(max(x1 - 2, 0), y1, x2, y2),
                label=label,
                classes={label: 0.44, other: 0.31},
                consistency=0.08,
                pastes=(paste, paste.model_copy(update={"found": 0.0}), paste.model_copy(update={"found": 0.71})),
            )
        )
    return questions


class Served(NamedTuple):
    """A running server."""

    port: int
    survey: Survey
    log: AnswerLog

    def ask(
        self, method: str, path: str, body: Any = None, *, token: str = "token-of-anna", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the reply."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = {"Host": f"127.0.0.1:{self.port}"} | {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        if data is not None:
            sent = {"Content-Type": "application/json"} | sent
        connection.request(method, f"/{token}/{path}", data, sent)
        reply = connection.getresponse()
        content = reply.read()
        connection.close()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, content

    def get(self, path: str, **more: Any) -> Any:
        """The JSON of a reply that must be one."""
        status, _, content = self.ask("GET", path, **more)
        assert status == 200, content
        return json.loads(content)

    def post(self, id: str, action: str, question: str, **content: Any) -> dict[str, Any]:
        """Store an answer."""
        who = {"token": content.pop("token")} if "token" in content else {}
        body = {"id": id, "action": action, "question": question, **content}
        status, _, reply = self.ask("POST", "answers", body, **who)
        assert status == 200, reply
        return json.loads(reply)  # type: ignore[no-any-return]


Serve = Callable[..., Served]


@pytest.fixture
def serve(index: Index, tmp_path: Path) -> Iterator[Serve]:
    """Starts servers, and ends them after the test."""
    import uvicorn

    running = []

    def start(questions: list[Question] | None = None, *, data: Index = index, **options: Any) -> Served:
        log = AnswerLog(tmp_path / LOG)
        sizes = {int(id): (int(h), int(w)) for id, (h, w) in zip(data.image_ids, data.image_sizes, strict=True)}
        asked = make_questions(data, 40) if questions is None else questions
        survey = Survey(asked, log, data.class_names, sizes, **options)
        listening = listen("127.0.0.1", 0)
        port = listening.getsockname()[1]
        paths = {int(id): data.image_path(place) for place, id in enumerate(data.image_ids)}
        app = make_app(survey, Pictures(paths), TOKENS, [*hosts("127.0.0.1", port)], "scenes")
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        running.append((server, thread, log))
        return Served(port, survey, log)

    yield start
    for server, thread, log in running:
        server.should_exit = True
        thread.join(10)
        log.close()
