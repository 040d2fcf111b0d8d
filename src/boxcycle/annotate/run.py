"""`boxcycle annotate`: the page for the questions of a run, until Ctrl-C; or the questions for another tool."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from boxcycle.annotate.handover import hand_out, take_in
from boxcycle.annotate.pictures import Pictures
from boxcycle.annotate.survey import Survey
from boxcycle.config import ConfigError
from boxcycle.data.answer_log import LOG, AnswerLog
from boxcycle.data.answers import question_folders, read_answers
from boxcycle.data.check import DataError
from boxcycle.data.config import DataConfig, open_split
from boxcycle.data.index import Index
from boxcycle.data.questions import ANSWERS, QUESTIONS, Answer, Question, read_lines

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class AnnotateConfig(BaseModel):
    """Which questions are asked, whom, and where the page is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Path = Field(description="folder of a run with questions, of `boxcycle mine` or `boxcycle train ssm`")
    questions: Path | None = Field(None, description="folder within it; empty: the newest without answers.jsonl")
    annotators: tuple[str, ...] = Field(("me",), description="who answers; each gets an address and other questions")
    overlap: int = Field(1, ge=1, description="how many annotators are asked each question")
    port: int = Field(8765, ge=0, le=65535, description="0: any free one")
    host: str = Field("127.0.0.1", description="the address of this machine to listen on")
    expose: bool = Field(False, description="allow a host that other machines reach; nothing on the way is encrypted")
    export: Path | None = Field(
        None, description="no page: write the questions into this folder, for Label Studio and as COCO"
    )
    take: Path | None = Field(None, description="no page: take in answers, a JSON export of Label Studio or COCO")
    prefix: str = Field("/data/local-files/?d=", description="what Label Studio puts before the name of an image")

    @field_validator("annotators")
    @classmethod
    def _names_differ(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names or len(set(names)) < len(names) or not all(name.strip() for name in names):
            raise ValueError("annotators must be different names, at least one")
        return names

    @model_validator(mode="after")
    def _enough_annotators(self) -> AnnotateConfig:
        if self.overlap > len(self.annotators):
            raise ValueError(f"overlap={self.overlap} needs as many annotators; there are {len(self.annotators)}")
        return self


def run_annotate(config: AnnotateConfig) -> None:
    """Serve the page until Ctrl-C, or hand the questions to another tool, or take answers in from one."""
    folder = find_questions(config)
    index = open_index(config.run)
    log = AnswerLog(folder / LOG)
    try:
        survey = open_survey(folder, index, log, config)
        if config.export is not None:
            hand_out(config.export, survey, index, config.prefix)
        elif config.take is not None:
            take_in(config.take, survey)
        else:
            serve(config, folder, survey, index)
    finally:
        log.close()


def serve(config: AnnotateConfig, folder: Path, survey: Survey, index: Index) -> None:
    """Serve the page until Ctrl-C; every answer is on the disk before the page says so."""
    try:
        import uvicorn

        from boxcycle.annotate.server import make_app
    except ImportError as error:
        raise ConfigError(f"annotate needs {error.name}: pip install 'boxcycle[annotate]'") from None
    check_host(config)
    listening = listen(config.host, config.port)
    port = listening.getsockname()[1]
    tokens = {secrets.token_urlsafe(16): name for name in config.annotators}
    title = f"{config.run.resolve().name}, {folder.name}"
    pictures = Pictures({int(id): index.image_path(place) for place, id in enumerate(index.image_ids)})
    app = make_app(survey, pictures, tokens, [*hosts(config.host, port)], title)
    print(f"{folder / QUESTIONS}: {len(survey.questions)} questions. Ctrl-C ends; answers stay in {folder / LOG}")
    for token, name in tokens.items():
        address = f"http://{bracketed(config.host)}:{port}/{token}/"
        print(f"{name}: {address}" if len(tokens) > 1 else address, flush=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2))
    with suppress(KeyboardInterrupt):  # uvicorn has ended in order, and tells us how it was asked to
        server.run(sockets=[listening])
    print(summary(survey, config.annotators))


def check_host(config: AnnotateConfig) -> None:
    """Raise :class:`ConfigError` for an address that other machines reach, unless that is wanted and it is one."""
    if config.host in LOOPBACK:
        return
    if not config.expose:
        raise ConfigError(f"host={config.host} may be reached by other machines, unencrypted; if so: expose=true")
    if config.host in ("0.0.0.0", "::", "*", ""):
        raise ConfigError(f"host={config.host} is no address to open; give the one by which others reach this machine")


def find_questions(config: AnnotateConfig) -> Path:
    """The folder of the questions to ask. Raises :class:`DataError` if there is none."""
    if config.questions is not None:
        if not (config.questions / QUESTIONS).is_file():
            raise DataError(f"{config.questions} has no {QUESTIONS}")
        return config.questions
    folders = [folder for folder in question_folders(config.run) if not _has_lines(folder / ANSWERS)]
    if not folders:
        raise DataError(
            f"{config.run} has no questions without answers; `boxcycle mine run={config.run}` makes some, "
            "and so does `boxcycle train ssm` with ssm.answers=person"
        )
    return folders[-1]


def open_index(run: Path) -> Index:
    """The training split that a run learnt from, as its ``config.yaml`` says. Raises :class:`DataError` without one."""
    file = run / "config.yaml"
    if not file.is_file():
        raise DataError(f"{run} has no config.yaml; expected the folder of a run")
    data = DataConfig.model_validate(yaml.safe_load(file.read_text(encoding="utf-8"))["data"])
    return open_split(data, data.train)


def open_survey(folder: Path, index: Index, log: AnswerLog, config: AnnotateConfig) -> Survey:
    """The questions of a folder, with what was answered in it and in those before.

    Raises :class:`DataError` for a question about an image that the data lack.
    """
    questions = read_lines(folder / QUESTIONS, Question)
    sizes = {int(id): (int(h), int(w)) for id, (h, w) in zip(index.image_ids, index.image_sizes, strict=True)}
    strange = [question for question in questions if question.image_id not in sizes]
    if strange:
        raise DataError(f"{folder / QUESTIONS} asks about image {strange[0].image_id}, which the data lack")
    known = earlier_answers(config.run, folder)
    return Survey(questions, log, index.class_names, sizes, overlap=config.overlap, known=known)


def earlier_answers(run: Path, folder: Path) -> list[Answer]:
    """What was answered in the other folders of a run."""
    others = [other for other in question_folders(run) if other.resolve() != folder.resolve()]
    return [answer for other in others for answer in read_answers(other)]


def listen(host: str, port: int) -> socket.socket:
    """A socket at the address. Raises :class:`ConfigError` if it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # so that the printed address answers at once
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"cannot listen on {host}, port {port}: {error.strerror}; another port=... may be free"
        ) from None
    return listening


def hosts(host: str, port: int) -> Iterator[str]:
    """What a browser may name as Host of this server."""
    names: Sequence[str] = LOOPBACK if host in LOOPBACK else (host,)
    for name in names:
        yield f"{bracketed(name).lower()}:{port}"


def bracketed(host: str) -> str:
    """A host as it stands in an address."""
    return f"[{host}]" if ":" in host else host


def summary(survey: Survey, annotators: Sequence[str]) -> str:
    """What was answered, and what a user does next."""
    done = {name: len({event.question for event in survey.events_of(name)}) for name in annotators}
    who = ", ".join(f"{name} {count}" for name, count in done.items())
    open_ones = sum(survey.is_open(question) for question in survey.questions.values())
    return f"answered: {who}; {open_ones} of {len(survey.questions)} questions are open"


def _has_lines(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0
