"""The server: what it shows, what it refuses, and that nothing it has acknowledged is lost."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from boxcycle.annotate.guard import LARGEST_BODY
from boxcycle.data.answer_log import LOG, read_log
from boxcycle.data.index import Index, Strings

from .conftest import Serve, make_questions

ODD = "<img src=x onerror=alert(1)>"


def test_a_question_its_image_and_its_answer(serve: Serve, index: Index) -> None:
    served = serve()
    state = served.get("state")
    assert (state["annotator"], state["done"]) == ("anna", [])
    assert state["progress"] == {"total": 40, "left": 40, "pace": None}
    [question] = served.get("next")["questions"]
    assert question["id"] == "q0"
    assert question["size"] == index.image_sizes[0].tolist()[::-1]
    assert question["pastes"] == [0.12, 0.0, 0.71]
    status, headers, content = served.ask("GET", "images/q0")
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    assert content == index.image_path(0).read_bytes()
    assert served.ask("GET", "pastes/q0/2")[1]["content-type"] == "image/jpeg"
    reply = served.post("a", "accept", "q0", seconds=4)
    assert reply == {"stored": "a", "progress": {"total": 40, "left": 39, "pace": 4}}
    assert served.post("a", "accept", "q0", seconds=4) == reply
    assert [event.id for event in served.log.events()] == ["a"]
    assert served.get("questions/q0", token="token-of-ben")["known"] == [
        {"label": question["label"], "box": question["box"]}
    ]
    assert served.get("questions/q0")["known"] == []  # one's own are in the state
    assert [event["id"] for event in served.get("state")["done"]] == ["a"]


def test_images_that_a_browser_would_turn_or_not_show_are_encoded_anew(
    serve: Serve, index: Index, tmp_path: Path
) -> None:
    turned = Image.new("RGB", (20, 10), "red")
    exif = turned.getexif()
    exif[0x0112] = 6  # a quarter turn, which is not applied: boxes are those of the stored pixels
    turned.save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", (20, 10), "red").save(tmp_path / "plain.tiff")
    names = Strings(["turned.jpg", "plain.tiff", *list(index.file_names)[2:]])
    served = serve(data=replace(index, root=tmp_path, file_names=names))
    images = {question.image_id: id for id, question in served.survey.questions.items()}
    for image_id in index.image_ids[:2].tolist():
        _, headers, content = served.ask("GET", f"images/{images[image_id]}")
        (tmp_path / "got.png").write_bytes(content)
        assert headers["content-type"] == "image/png"
        assert Image.open(tmp_path / "got.png").size == (20, 10)


@pytest.mark.parametrize("token", ["", "wrong", "token-of-ann", "token-of-anna2", "%C3%A9"])
@pytest.mark.parametrize("path", ["", "state", "next", "page.js", "images/q0", "answers"])
def test_no_or_a_wrong_token(serve: Serve, token: str, path: str) -> None:
    served = serve()
    for method in ("GET", "POST"):
        status, _, content = served.ask(method, path, token=token)
        assert (status, json.loads(content)["detail"]) == (403, "the address lacks the token of this start")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:{port}"}, 421),
        ({"Host": "127.0.0.1"}, 421),
        ({"Host": "127.0.0.1:1"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "https://127.0.0.1:{port}"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:{port}"}, 200),
        ({"Host": "localhost:{port}"}, 200),
    ],
)
def test_a_foreign_host_or_origin(serve: Serve, headers: dict[str, str], status: int) -> None:
    served = serve()
    sent = {name: value.replace("{port}", str(served.port)) for name, value in headers.items()}
    body = {"id": "a", "action": "skip", "question": "q0"}
    assert served.ask("POST", "answers", body, **sent)[0] == status
    assert len(served.log.events()) == (status == 200)


@pytest.mark.parametrize(
    "path",
    [
        "../../../../etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "images/../../server.py",
        "images/..%2f..%2f..%2fetc%2fpasswd",
        "images/%2e%2e",
        "images//etc/passwd",
        "images/train_000000.jpg",
        "pastes/q0/..%2f0",
        "page/page.js",
        "server.py",
        "images/q0%00",
    ],
)
def test_no_path_reaches_the_file_system(serve: Serve, path: str) -> None:
    served = serve()
    status, headers, content = served.ask("GET", path)
    assert status in (403, 404, 422), content
    assert headers["content-type"] == "application/json"
    assert b"root:" not in content


def test_large_bodies_and_what_is_no_answer(serve: Serve) -> None:
    served = serve()
    assert served.ask("POST", "answers", b"x" * (LARGEST_BODY + 1))[0] == 413
    assert served.ask("POST", "answers", b"{}", Content_Length="999999999")[0] == 413
    assert served.ask("POST", "answers", b"0\r\n\r\n", Transfer_Encoding="chunked")[0] in (400, 411)
    good = {"id": "a", "action": "skip", "question": "q0"}
    for change in (
        {"action": "delete"},
        {"id": "../a"},
        {"id": ""},
        {"annotator": "ben"},
        {"seconds": -1},
        {"box": [0, 0, 1]},
        {"question": "q" * 300},
        {"question": "nobody"},
        {"action": "relabel", "label": ODD},
    ):
        status, _, content = served.ask("POST", "answers", good | change)
        assert (status, served.log.events()) == (422, []), content
    assert served.ask("POST", "answers", b"[1, 2")[0] == 422
    assert served.ask("PUT", "answers", good)[0] == 405
    assert served.ask("GET", "pastes/q0/3")[0] == 404


def test_html_in_names_stays_text(serve: Serve, index: Index) -> None:
    """Names travel as JSON with its type, never in HTML; the page is the same whatever the names are."""
    plain = serve().ask("GET", "")[2]
    odd = replace(index, class_names=(ODD, *index.class_names[1:]))
    questions = [q.model_copy(update={"file_name": ODD, "label": ODD}) for q in make_questions(odd, 2)]
    served = serve(questions, data=odd)
    status, headers, content = served.ask("GET", "")
    assert (status, content, headers["content-type"]) == (200, plain, "text/html; charset=utf-8")
    status, headers, content = served.ask("GET", "next")
    assert headers["content-type"] == "application/json"
    assert json.loads(content)["questions"][0]["name"] == ODD


@pytest.mark.parametrize("path", ["", "page.js", "page.css", "state", "images/q0", "nothing"])
def test_every_reply_says_what_a_browser_may_do(serve: Serve, path: str) -> None:
    _, headers, _ = serve().ask("GET", path)
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_the_page_loads_nothing_from_elsewhere_and_has_no_script_in_it() -> None:
    import re

    import boxcycle.annotate

    folder = Path(boxcycle.annotate.__file__).parent / "page"
    for file in folder.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "//" not in re.sub(r"^\s*//.*|\s// .*", "", text, flags=re.M), file.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), file.name
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"<script[^>]*>[^<]|\son\w+=|\sstyle=|<style", page)


# --- kills

CHILD = """
import socket, sys
from pathlib import Path
import uvicorn
from boxcycle.annotate.pictures import Pictures
from boxcycle.annotate.server import make_app
from boxcycle.annotate.survey import Survey
from boxcycle.data.answer_log import AnswerLog
from boxcycle.data.questions import Question
questions = [Question(id=f"q{n}", image_id=n, file_name="a", box=(0, 0, 9, 9), label="cup") for n in range(3000)]
survey = Survey(questions, AnswerLog(Path(sys.argv[1])), ["cup"], {n: (9, 9) for n in range(3000)})
app = make_app(survey, Pictures({}), {"t": "anna"}, [f"127.0.0.1:{sys.argv[2]}"], "")
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
"""


def post_until_killed(port: int, waiting: list[str], acknowledged: list[str]) -> None:
    """Send answers as a page does: the same one again until it is acknowledged."""
    while waiting:
        body = json.dumps({"id": waiting[0], "action": "accept", "question": f"q{waiting[0].rpartition('-')[2]}"})
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("POST", "/t/answers", body, {"Content-Type": "application/json"})
            if connection.getresponse().status == 200:
                acknowledged.append(waiting.pop(0))
        except OSError:
            return
        except http.client.HTTPException:
            return


def killed_again_and_again(folder: Path, times: int) -> None:
    """Kill a server in the middle of answers; after each kill, all that it acknowledged must be there, once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    waiting = {name: [f"{name}-{number}" for number in range(start, 3000, 4)] for start, name in enumerate("abcd")}
    acknowledged: dict[str, list[str]] = {name: [] for name in waiting}
    chance = random.Random(0)
    for turn in range(times):
        command = [sys.executable, "-c", CHILD, str(folder / LOG), str(port)]
        child = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
        wait_for(port, child)
        before = sum(map(len, acknowledged.values()))
        senders = [
            threading.Thread(target=post_until_killed, args=(port, waiting[name], acknowledged[name]))
            for name in waiting
        ]
        for sender in senders:
            sender.start()
        while sum(map(len, acknowledged.values())) < before + 5:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.1))
        child.send_signal(signal.SIGKILL)
        child.wait()
        for sender in senders:
            sender.join()
        stored = [event.id for event in read_log(folder / LOG)]
        told = {id for its in acknowledged.values() for id in its}
        assert len(stored) == len(set(stored)), turn
        assert told <= set(stored), turn


def wait_for(port: int, child: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert child.poll() is None
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError("the server did not start")


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    killed_again_and_again(tmp_path, 3)


@pytest.mark.slow
def test_what_was_acknowledged_survives_twenty_kills(tmp_path: Path) -> None:
    killed_again_and_again(tmp_path, 20)
