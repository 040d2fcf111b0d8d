"""The local server: one static page, its questions, its images, and answers that are on the disk when it says so.

No path of a request reaches the file system: files of the page are a fixed list, images go by the id of a question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request, Response
from starlette.types import ASGIApp

from boxcycle.annotate.guard import Guard
from boxcycle.annotate.pictures import Pictures
from boxcycle.annotate.survey import Given, Survey
from boxcycle.data.answer_log import Event
from boxcycle.data.questions import Question

PAGE = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
} | {
    name: (name, "text/javascript; charset=utf-8")
    for name in ("page.js", "answers.js", "keys.js", "outbox.js", "panel.js", "stage.js")
}  # fmt: skip
KEPT = {"Cache-Control": "private, max-age=86400, immutable"}  # pictures of a token's address never change


def make_app(
    survey: Survey, pictures: Pictures, tokens: Mapping[str, str], hosts: Sequence[str], title: str
) -> ASGIApp:
    """The application behind its guard; ``tokens``: annotator by token, ``hosts``: Host headers that are ours."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _add_questions(app, survey, title)
    _add_pictures(app, survey, pictures)
    _add_page(app)
    return Guard(app, tokens=tokens, hosts=hosts)


def _add_questions(app: FastAPI, survey: Survey, title: str) -> None:
    """Questions go out, answers come in."""

    @app.get("/state")
    def state(request: Request) -> dict[str, Any]:
        name = request.state.annotator
        about = {"title": title, "annotator": name, "classes": survey.class_names, "progress": progress(survey, name)}
        return about | {"done": [told(event) for event in survey.events_of(name)]}

    @app.get("/next")
    def next_questions(request: Request, count: Annotated[int, Query(ge=1, le=10)] = 1) -> dict[str, Any]:
        name = request.state.annotator
        offered = [describe(survey, question, name) for question in survey.offered(name, count)]
        return {"questions": offered, "progress": progress(survey, name)}

    @app.get("/questions/{id}")
    def question(request: Request, id: str) -> dict[str, Any]:
        return describe(survey, _asked(survey, id), request.state.annotator)

    @app.post("/answers")
    def answer(request: Request, given: Given) -> dict[str, Any]:
        name = request.state.annotator
        try:
            event = survey.record(name, given)
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        return {"stored": event.id, "progress": progress(survey, name)}


def _add_pictures(app: FastAPI, survey: Survey, pictures: Pictures) -> None:
    """The images of questions, and the objects that were pasted elsewhere."""

    @app.get("/images/{id}")
    def image(id: str) -> Response:
        content, kind = pictures.whole(_asked(survey, id))
        return Response(content, media_type=kind, headers=KEPT)

    @app.get("/pastes/{id}/{number}")
    def paste(id: str, number: int) -> Response:
        asked = _asked(survey, id)
        if not 0 <= number < len(asked.pastes):
            raise HTTPException(404, f"question '{id}' has no paste {number}")
        return Response(pictures.paste(asked, number), media_type="image/jpeg", headers=KEPT)


def _add_page(app: FastAPI) -> None:
    """The page and its parts, read once; asked for last, since any name would match."""
    page = {name: (files(__package__).joinpath("page", file).read_bytes(), kind) for name, (file, kind) in PAGE.items()}

    @app.get("/{name}")
    def part_of_page(name: str) -> Response:
        if name not in page:
            raise HTTPException(404, "there is no such page")
        return Response(page[name][0], media_type=page[name][1])

    app.add_api_route("/", lambda: part_of_page(""), response_class=Response)


def _asked(survey: Survey, id: str) -> Question:
    if id not in survey.questions:
        raise HTTPException(404, f"there is no question '{id}'")
    return survey.questions[id]


def progress(survey: Survey, annotator: str) -> dict[str, Any]:
    """What is left for an annotator, and the seconds that an answer takes."""
    return {"total": len(survey.questions), "left": survey.left(annotator), "pace": survey.pace(annotator)}


def describe(survey: Survey, question: Question, annotator: str) -> dict[str, Any]:
    """A question as the page shows it: with its reasons, and what is known of its image."""
    height, width = survey.sizes[question.image_id]
    known = [{"label": label, "box": box} for label, box in survey.boxes_of(question.image_id, besides=annotator)]
    return {
        "id": question.id,
        "image": question.image_id,
        "name": question.file_name,
        "size": [width, height],
        "box": question.box,
        "label": question.label,
        "classes": list(question.classes.items()),
        "consistency": question.consistency,
        "pastes": [round(paste.found, 2) for paste in question.pastes],
        "known": known,
    }


def told(event: Event) -> dict[str, Any]:
    """An annotator's own event as the page keeps it."""
    return {"image": event.image_id} | event.model_dump(include={"id", "question", "action", "label", "box"})
