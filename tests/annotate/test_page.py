"""The page in a real browser: answers by mouse and by keyboard, undo, reload, a server that goes away, two widths."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

from boxcycle.data.questions import Question

from .conftest import Serve, Served, make_questions

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("needs a Chromium: apt-get install chromium", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright.expect.set_options(timeout=20_000)  # milliseconds; machines may be busy
    with playwright.sync_playwright() as its:
        browser = its.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Any]:
    """Opens the page of a server; a script's error fails the test."""
    pages, faults = [], []

    def open_page(served: Served, width: int = 1280, height: int = 800) -> Any:
        page = browser.new_page(viewport={"width": width, "height": height})
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"http://127.0.0.1:{served.port}/token-of-anna/")
        page.locator("#question strong").wait_for()
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert faults == []


def saved(page: Any, served: Served, count: int) -> None:
    """Wait until the page says that all is saved; then the log must have that many events."""
    playwright.expect(page.locator("#saved")).to_have_text("✓ Saved")
    assert len(served.log.events()) == count


def shows(page: Any, done: int, total: int = 40) -> None:
    """Wait until so many questions are said to be answered, and the next one is there."""
    playwright.expect(page.locator("#count")).to_have_text(re.compile(rf"^{done} of {total}\b"))
    playwright.expect(page.locator("main")).to_have_attribute("aria-busy", "false")


def slowly(route: Any) -> None:
    """Let a request through after a while."""
    time.sleep(0.5)
    route.continue_()


def state_of(page: Any) -> Any:
    return page.locator("#question").inner_text()


def test_thirty_questions_by_keyboard_and_mouse(serve: Serve, open_page: Any) -> None:
    served = serve()
    page, keys = open_page(served), ["Enter", "r", "a", "2", "s"]
    for number in range(15):
        page.keyboard.press(keys[number % 5])
        shows(page, number + 1)
    for number in range(15, 29):
        page.locator(["#accept", "#reject", "#classes button:nth-of-type(3)", "#skip"][number % 4]).click()
        shows(page, number + 1)
    page.keyboard.press("u")
    shows(page, 28)
    page.locator("#undo").click()
    shows(page, 27)
    saved(page, served, 31)
    asked = state_of(page)
    page.reload()
    page.locator("#question strong").wait_for()
    assert state_of(page) == asked
    for number in range(27, 30):
        page.keyboard.press("Enter")
        shows(page, number + 1)
    saved(page, served, 34)
    events = served.log.events()
    assert [event.action for event in events[:5]] == ["accept", "reject", "accept", "relabel", "skip"]
    assert [event.action for event in events[29:31]] == ["undo", "undo"]
    assert {event.undoes for event in events[29:31]} == {events[27].id, events[28].id}
    counted = [event.question for event in served.survey.events_of("anna")]
    assert sorted(counted) == sorted(f"q{number}" for number in range(30))
    assert all(event.seconds > 0 for event in events if event.action != "undo")


def test_a_box_is_moved_by_arrows_and_by_mouse(serve: Serve, open_page: Any) -> None:
    served = serve()
    page = open_page(served)
    first, second, third = (served.survey.questions[f"q{number}"].box for number in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    page.keyboard.press("ArrowDown")
    page.keyboard.press("b")  # now the top left corner
    page.keyboard.press("ArrowRight")
    playwright.expect(page.locator("#accept span")).to_have_text("Save box")
    page.keyboard.press("Enter")
    shows(page, 1)
    handle = page.locator("[data-handle='4']").bounding_box()  # bottom right
    middle = [handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2]
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] - 20, middle[1] - 14, steps=4)
    page.mouse.up()
    page.keyboard.press("1")
    shows(page, 2)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    shows(page, 3)
    saved(page, served, 3)
    moved, dragged, untouched = served.log.events()
    assert (moved.action, moved.box) == ("adjust", (first[0] + 1, first[1] + 1, first[2], first[3] + 1))
    assert dragged.action == "adjust"
    assert dragged.box is not None
    assert dragged.box[:2] == second[:2]
    assert dragged.box[2] < second[2]
    assert dragged.box[3] < second[3]
    assert (untouched.action, untouched.box) == ("accept", third)


def test_four_extreme_points_by_mouse_and_by_keys(serve: Serve, open_page: Any) -> None:
    served = serve()
    page = open_page(served)
    width = served.get("questions/q0")["size"][0]
    page.keyboard.press("e")
    image = page.locator("#image").bounding_box()
    scale = image["width"] / width
    for x, y in ((40, 20), (30, 35), (50, 60), (70, 40)):
        page.mouse.click(image["x"] + x * scale, image["y"] + y * scale)
    page.keyboard.press("Enter")
    shows(page, 1)
    page.keyboard.press("e")
    for keys in (["Shift+ArrowLeft"], ["Shift+ArrowRight"] * 2, ["Shift+ArrowUp"], ["Shift+ArrowDown"] * 2):
        for key in keys:
            page.keyboard.press(key)
        page.keyboard.press("Space")
    page.keyboard.press("Enter")
    shows(page, 2)
    saved(page, served, 2)
    clicked, typed = served.log.events()
    assert clicked.action == typed.action == "adjust"
    assert clicked.box == pytest.approx((30, 20, 70, 60), abs=0.6)
    x, y = (side / 2 for side in served.get("questions/q1")["size"])
    assert typed.box == (x - 10, y - 10, x + 10, y + 10)


def test_an_image_is_finished(serve: Serve, open_page: Any) -> None:
    served = serve()
    page = open_page(served)
    page.keyboard.press("f")
    page.keyboard.press("f")
    playwright.expect(page.locator("#hint")).to_have_text("Say first what the orange box shows.")
    page.keyboard.press("Enter")
    page.keyboard.press("d")
    for key in ("ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown"):
        page.keyboard.press(f"Shift+{key}")
        page.keyboard.press("Space")
    playwright.expect(page.locator("#question")).to_have_text("What is the object that you drew?")
    page.keyboard.type("oa")
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#finished")).to_be_visible()
    page.route("**/answers", slowly)  # the next questions are asked for before the server knows of the end
    page.keyboard.press("f")
    playwright.expect(page.locator("#question strong")).not_to_be_empty()
    saved(page, served, 3)
    assert [event.action for event in served.log.events()] == ["accept", "draw", "finish"]
    assert served.log.events()[1].label in ("boat", "oar")
    image = served.survey.questions["q0"].image_id
    same = [question for question in served.survey.questions.values() if question.image_id == image]
    shows(page, len(same))


def test_a_question_about_a_whole_image(serve: Serve, index: Any, browser: Any) -> None:
    served = serve([Question(id="w", image_id=int(index.image_ids[0]), file_name=index.file_names[0])])
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{served.port}/token-of-anna/")
    playwright.expect(page.locator("#question")).to_have_text("Draw every object that has no box yet")
    page.keyboard.press("f")
    playwright.expect(page.locator("#question")).to_contain_text("Every question is answered.")
    saved(page, served, 1)
    page.close()


def test_answers_wait_until_the_server_is_there_again(serve: Serve, open_page: Any) -> None:
    served = serve()
    page = open_page(served)
    page.route("**/answers", lambda route: route.abort())
    page.keyboard.press("Enter")
    shows(page, 1)
    page.keyboard.press("r")
    playwright.expect(page.locator("#saved")).to_have_text("⚠ No connection: 2 answers wait here")
    assert served.log.events() == []
    page.reload()  # they wait in the browser
    page.locator("#question strong").wait_for()
    shows(page, 2)
    page.unroute("**/answers")
    saved(page, served, 2)


def test_html_in_names_is_shown_as_text(serve: Serve, open_page: Any, index: Any) -> None:
    from dataclasses import replace

    odd = "<img src=x onerror=alert(1)><b>cup</b>"
    data = replace(index, class_names=(odd, *index.class_names[1:]))
    questions = [q.model_copy(update={"file_name": odd, "label": odd}) for q in make_questions(data, 3)]
    page = open_page(serve([q.model_copy(update={"classes": {odd: 0.4}}) for q in questions], data=data))
    assert page.locator("#question strong").inner_text() == odd
    assert page.locator("#name").inner_text() == odd
    assert page.locator("main b, aside img[src=x]").count() == 0
    assert page.locator("#classes button").first.inner_text().endswith(f"{odd}\n40%")


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_all_fits_and_is_named(serve: Serve, open_page: Any, width: int, height: int) -> None:
    page = open_page(serve(), width, height)
    wide = page.locator("html").evaluate("its => its.scrollWidth")
    assert wide == width
    for id in ("accept", "reject"):
        box = page.locator(f"#{id}").bounding_box()
        assert 0 <= box["y"] <= height - box["height"]
    nameless = page.locator("button, input, progress, [role=application]").evaluate_all(
        "all => all.filter(its => !(its.getAttribute('aria-label') || its.textContent.trim())).map(its => its.id)"
    )
    assert nameless == []
    page.keyboard.press("?")
    playwright.expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    playwright.expect(page.locator("#keys")).not_to_be_visible()


def test_a_key_in_between_does_not_answer_the_question_before_again(serve: Serve, open_page: Any) -> None:
    served = serve()
    page = open_page(served)
    page.route("**/next*", slowly)
    for _ in range(12):
        page.keyboard.press("r")
    playwright.expect(page.locator("main")).to_have_attribute("aria-busy", "false")
    playwright.expect(page.locator("#saved")).to_have_text("✓ Saved")
    questions = [event.question for event in served.log.events()]
    assert len(questions) == len(set(questions)) >= 3


def test_a_late_reply_does_not_count_backwards(serve: Serve, open_page: Any) -> None:
    served, held = serve(), []
    page = open_page(served)
    page.route("**/next*", lambda route: held.append((route, route.fetch())))
    for number in range(3):
        page.keyboard.press("Enter")
        shows(page, number + 1)
    saved(page, served, 3)
    route, counted_before = held[0]  # asked for when the third question was shown
    with page.expect_response("**/next*"):
        route.fulfill(response=counted_before)
    page.wait_for_timeout(200)  # milliseconds; nothing is to happen
    shows(page, 3)


def test_zoom(serve: Serve, open_page: Any) -> None:
    page = open_page(serve())
    width = page.locator("#image").bounding_box()["width"]
    page.keyboard.press("+")
    assert page.locator("#image").bounding_box()["width"] == pytest.approx(1.4 * width, rel=0.01)
    page.mouse.move(300, 400)
    page.mouse.wheel(0, -400)
    page.wait_for_timeout(200)
    assert page.locator("#image").bounding_box()["width"] > 1.5 * width
    page.locator("#zoom-fit").click()
    assert page.locator("#image").bounding_box()["width"] == pytest.approx(width)


def test_previous_and_another_answer(serve: Serve, open_page: Any) -> None:
    served = serve()
    page = open_page(served)
    page.keyboard.press("Enter")
    shows(page, 1)
    page.keyboard.press("p")
    playwright.expect(page.locator("#answered")).to_have_text("You answered: yes. Another answer replaces it.")
    page.keyboard.press("r")
    saved(page, served, 2)
    assert [event.action for event in served.survey.events_of("anna")] == ["reject"]
    shows(page, 1)
