"""The page stands alone, is well formed, escapes what it is given, and writes numbers as people do."""

from __future__ import annotations

import base64
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from boxcycle.report.html import Change, Figure, Report, Row, Table, format_cell, write_report

EVIL = "<script>alert(\"x\")</script> & 'y'"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Outline(HTMLParser):
    """Checks that tags are closed in order; collects attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(page)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def page(tmp_path: Path) -> str:
    report = Report(
        title=EVIL,
        lead=EVIL,
        figures=[Figure("AP", 41.44, EVIL), Figure("gain", Change(-1.26))],
        warnings=[EVIL],
        tables=[Table(EVIL, ("a", EVIL, "b"), [(EVIL, math.nan, Change(2.0)), ("c", 1234, Change(-0.01))], EVIL)],
        charts={EVIL: '<svg viewBox="0 0 1 1"><path d="M0 0"/></svg>'},
        pictures_note=EVIL,
        legend={EVIL: "#0072B2"},
        pictures=[Row(EVIL, [(EVIL, Image.new("RGB", (30, 20), "red")), ("b", Image.new("L", (10, 10)))])],
        details={EVIL: EVIL},
    )
    write_report(tmp_path / "report.html", report)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_names_are_escaped_everywhere(page):
    outline = Outline(page)
    assert "script" not in outline.tags
    assert outline.text.count(EVIL) >= 12
    assert ("img", "alt", f"{EVIL}: {EVIL}") in outline.attributes


def test_page_needs_nothing_beside_it(page):
    outline = Outline(page)
    addresses = [value for _, name, value in outline.attributes if name in ("src", "href", "srcset", "data", "action")]
    assert len(addresses) == 2
    assert all(address.startswith("data:image/jpeg;base64,") for address in addresses)
    assert not re.search(r"@import|url\(", page)
    assert "prefers-color-scheme: dark" in page
    assert ("meta", "content", "width=device-width, initial-scale=1") in outline.attributes


def test_pictures_are_inside(page):
    address = next(value for tag, name, value in Outline(page).attributes if (tag, name) == ("img", "src"))
    picture = Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))
    assert (picture.format, picture.size, picture.mode) == ("JPEG", (30, 20), "RGB")
    red, green, blue = picture.getpixel((15, 10))
    assert red > 240
    assert max(green, blue) < 15


def test_numbers_and_changes(page):
    assert '<td class="gain">+2.0</td>' in page
    assert '<td class="">0.0</td>' in page
    assert '<td class="">–</td>' in page
    assert '<dd class="loss">−1.3<' in page
    assert ">41.4<" in page


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (41.449, "41.4"),
        (0.0, "0.0"),
        (-0.01, "0.0"),
        (math.nan, "–"),
        (None, "–"),
        (1234567, "1,234,567"),
        ("a, b", "a, b"),
        (Change(3.14), "+3.1"),
        (Change(-3.14), "−3.1"),
        (Change(0.04), "0.0"),
        (Change(-0.04), "0.0"),
        (Change(math.nan), "–"),
    ],
)
def test_cells(value, text):
    assert format_cell(value) == text


def test_an_empty_report_is_a_page(tmp_path):
    write_report(tmp_path / "empty.html", Report("title", "lead"))
    outline = Outline((tmp_path / "empty.html").read_text())
    assert not {"table", "img", "svg", "details", "dl", "section"} & set(outline.tags)
