"""`boxcycle annotate` as a user runs it, and the whole round: mine, answer over HTTP, take in, train again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from boxcycle.annotate.run import AnnotateConfig, check_host, find_questions, hosts, listen, run_annotate
from boxcycle.cli import app
from boxcycle.config import ConfigError
from boxcycle.data.answers import read_answers
from boxcycle.data.check import DataError
from boxcycle.data.questions import Answer, Question, read_lines
from boxcycle.data.read import read_split
from boxcycle.data.scenes import SceneConfig, make_scenes
from boxcycle.data.splits import write_budget
from boxcycle.methods import METHODS

SMALL = {
    "detector.weights": "none",
    "detector.roi_size": 4,
    "detector.proposals": 20,
    "detector.regions.sampled": 8,
    "data.resize.short": 64,
    "data.resize.long": 64,
    "fit.steps": 1,
    "fit.batch_size": 2,
    "fit.workers": 0,
    "fit.device": "cpu",
    "fit.lr": 1e-4,
}
MINING = {"mining.min_score": 0.02, "mining.min_side": 4, "questions.min_prob": 0.05, "mining.targets": 2}
CHOICE = {"strategy.mine": "confidence", "strategy.threshold": 0.05, "strategy.ask": "random", "questions.count": 4}


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    """Six scenes of which three are labelled, as settings."""
    torch.set_num_threads(1)
    folder = make_scenes(tmp_path / "scenes", SceneConfig(size=64), {"train": 6, "val": 2})
    budget, index = tmp_path / "budget.json", read_split(folder, "train")
    write_budget(budget, index, [0, 1, 2], source="", split="train", unit="images", amount=3, seed=0)  # type: ignore[arg-type]
    return {"data": folder, "data.budget": budget}


def boxcycle(*words: str, **settings: Any) -> str:
    """What a command prints; it must succeed."""
    result = CliRunner().invoke(app, [*words, *(f"{key}={value}" for key, value in settings.items())])
    assert result.exit_code == 0, result.stderr or result.exception
    return result.stdout


@contextmanager
def annotating(run: Path) -> Iterator[str]:
    """The address that `boxcycle annotate` prints; ended as by Ctrl-C, in order."""
    command = [sys.executable, "-m", "boxcycle.cli", "annotate", f"run={run}", "port=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    yield next(line.strip() for line in lines if line.startswith("http://127.0.0.1:"))
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    assert process.wait(30) == 0
    assert rest.startswith("answered: me ")
    assert "Traceback" not in rest


def send(address: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.loads(reply.read())


def answer_all(address: str) -> list[dict[str, Any]]:
    """Relabel the first question, reject the second, accept the others; finish the image of the last."""
    questions = send(address, "next?count=10")["questions"]
    classes = send(address, "state")["classes"]
    for number, question in enumerate(questions):
        what = {0: ("relabel", classes[-1]), 1: ("reject", "")}.get(number, ("accept", ""))
        body = {"id": f"a{number}", "question": question["id"], "action": what[0], "label": what[1], "seconds": 2}
        send(address, "answers", body)
    send(address, "answers", {"id": "f", "question": questions[-1]["id"], "action": "finish"})
    return questions


@pytest.mark.slow
def test_a_round_by_command_line(data: dict[str, Any], tiny: str, tmp_path: Path) -> None:
    run, backbone = tmp_path / "run", {"detector.backbone": tiny}
    boxcycle("train", "supervised", **data, **SMALL, **backbone, run=run)
    printed = boxcycle("mine", run=run, device="cpu", **MINING, **CHOICE)
    assert f"4 questions; to answer them: boxcycle annotate run={run}" in printed
    with annotating(run) as address:
        assert len(answer_all(address)) == 4
        with pytest.raises(urllib.error.HTTPError, match="403"):
            send(re.sub(r"/[^/]+/$", "/wrong/", address), "state")
    answers = read_answers(run / "mined")
    assert [answer.action for answer in answers] == ["relabel", "reject", "accept", "accept", "finish"]
    printed = boxcycle("mine", run=run, device="cpu", **MINING, **CHOICE)
    assert "people said so far: 3 boxes, 1 regions without an object, 1 finished images" in printed
    assert f"{run / 'mined-2' / 'questions.jsonl'}" in printed
    again = read_lines(run / "mined-2" / "questions.jsonl", Question)
    assert not {question.box for question in again} & {answer.box for answer in answers}
    assert answers[-1].image_id not in {question.image_id for question in again}
    ssm = {f"ssm.{key}": value for key, value in (MINING | CHOICE).items()}
    printed = boxcycle(
        "train", "ssm", **data, **SMALL, **backbone, **ssm, **{"ssm.mined": run, "ssm.rounds": 0}, run=tmp_path / "next"
    )
    assert "round 0: 3 boxes" in printed
    [row] = json.loads((tmp_path / "next" / "labels.json").read_text())
    assert row["human_boxes"] == 3
    assert row["pseudo_boxes"] > 0


@pytest.mark.slow
def test_a_run_that_asks_a_person(data: dict[str, Any], tiny: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ssm = {f"ssm.{key}": value for key, value in (MINING | CHOICE).items()}
    settings = data | SMALL | ssm | {"detector.backbone": tiny, "ssm.rounds": 1, "ssm.answers": "person", "run": run}
    asked = boxcycle("train", "ssm", **settings)
    waits = f"{run / 'round-0' / 'questions.jsonl'}: 4 questions wait; boxcycle annotate run={run}, then resume=true"
    assert waits in asked
    assert waits in boxcycle("train", "ssm", **settings, resume=True)  # nobody has answered yet
    with annotating(run) as address:
        answer_all(address)
    assert "round 1: 3 boxes from 4 questions" in boxcycle("train", "ssm", **settings, resume=True)
    kept = read_lines(run / "round-0" / "answers.jsonl", Answer)
    assert [answer.action for answer in kept] == ["relabel", "reject", "accept", "accept", "finish"]
    assert (run / "report.html").is_file()
    printed = boxcycle("mine", run=run, device="cpu", **MINING, **CHOICE)  # log and file are not counted twice
    assert "people said so far: 3 boxes, 1 regions" in printed
    assert find_questions(AnnotateConfig(run=run)) == run / "mined"


def test_a_mined_run_is_needed(data: dict[str, Any], tmp_path: Path) -> None:
    config = {"data": {"path": data["data"], "budget": data["data.budget"]}, "ssm": {"mined": tmp_path}}
    with pytest.raises(DataError, match="has no results of `boxcycle mine`"):
        METHODS["ssm"].train(METHODS["ssm"].Config.model_validate(config))


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no questions without answers"):
        run_annotate(AnnotateConfig(run=tmp_path))
    (tmp_path / "mined").mkdir()
    (tmp_path / "mined" / "questions.jsonl").write_text("")
    with pytest.raises(DataError, match=r"has no config\.yaml"):
        run_annotate(AnnotateConfig(run=tmp_path))
    with pytest.raises(DataError, match=r"has no questions\.jsonl"):
        find_questions(AnnotateConfig(run=tmp_path, questions=tmp_path))
    with listen("127.0.0.1", 0) as taken, pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1"):
        listen("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize(
    ("host", "expose", "sentence"),
    [
        ("127.0.0.1", False, None),
        ("localhost", False, None),
        ("192.168.1.5", False, "may be reached by other machines, unencrypted; if so: expose=true"),
        ("192.168.1.5", True, None),
        ("0.0.0.0", True, "is no address to open"),
    ],
)
def test_other_machines_reach_it_only_if_that_is_said(host: str, expose: bool, sentence: str | None) -> None:
    config = AnnotateConfig(run=Path("r"), host=host, expose=expose)
    if sentence is None:
        check_host(config)
    else:
        with pytest.raises(ConfigError, match=sentence):
            check_host(config)


@pytest.mark.parametrize("names", [(), ("a", "a"), (" ",)])
def test_annotators_have_names(names: Sequence[str]) -> None:
    with pytest.raises(ValueError, match="different names"):
        AnnotateConfig(run=Path("r"), annotators=tuple(names))
    with pytest.raises(ValueError, match="overlap=2 needs as many annotators; there are 1"):
        AnnotateConfig(run=Path("r"), overlap=2)


def test_what_a_browser_may_call_us() -> None:
    assert list(hosts("localhost", 80)) == ["127.0.0.1:80", "localhost:80", "[::1]:80"]
    assert list(hosts("192.168.1.5", 8765)) == ["192.168.1.5:8765"]
