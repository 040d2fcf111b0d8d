"""The page and the pictures of groups of runs."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from PIL import Image

from boxcycle.data.index import Index
from boxcycle.evaluation.errors import ERRORS
from boxcycle.evaluation.groups import Group, Labels, Measured, Point
from boxcycle.report.groups import difference_table, group_table, write_group_report
from boxcycle.report.html import Interval, WithSpread, format_cell, kind_of_cell
from boxcycle.report.label_curves import MARKS, label_charts, write_pictures


def measured(seed: int, ap50: float, labels: Labels, rounds: int = 0) -> Measured:
    def point(share: float) -> Point:
        return Point(
            Labels(labels.boxes * share, labels.tags, labels.minutes * share), {"AP50": ap50 * share, "AP": 5.0}
        )

    errors = {kind: float(number) for number, kind in enumerate(ERRORS)}
    course = [point((i + 1) / rounds) for i in range(rounds)]
    return Measured(f"runs/{seed}", seed, point(1), course, errors, {"<b>cat</b>": ap50, "dog & fox": math.nan})


@pytest.fixture
def groups() -> list[Group]:
    return [
        Group("supervised <1>", [measured(s, 30.0 + s, Labels(120)) for s in range(4)]),
        Group("mtl_ssl", [measured(s, 32.0 + s + s % 2, Labels(120)) for s in range(4)]),
        Group("ssm", [measured(s, 40.0 + s, Labels(200, 0, 12), rounds=4) for s in range(2)]),
        Group("ws_jds", [measured(0, 12.0, Labels(0, 150))]),
    ]


def rows(page: str) -> dict[str, list[str]]:
    found = [re.findall(r">([^<>]+)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", page, flags=re.S)]
    return {row[0]: row[1:] for row in reversed(found) if row}  # of rows with one name, that of the first table


def test_the_page_says_what_was_spent_and_what_it_gave(groups: list[Group], index: Index, tmp_path: Path) -> None:
    write_group_report(tmp_path / "r.html", groups, index, {"Settings of mtl_ssl": "fit.lr: 0.1"})
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    by_name = rows(page)
    assert by_name["supervised &lt;1&gt;"][:4] == ["4", "120", "0", "–"]
    assert by_name["supervised &lt;1&gt;"][5] == "31.5 ± 1.3"
    assert by_name["ssm"][:4] == ["2", "200", "0", "12"]
    assert by_name["ws_jds"][:3] == ["1", "0", "150"]
    assert by_name["&lt;b&gt;cat&lt;/b&gt;"][0] == "31.5 ± 1.3"
    assert by_name["dog &amp; fox"] == ["–"] * 4
    assert "+2.5 ± 0.9" in page  # differences 2, 3, 2, 3: deviation 0.577, t(3) = 3.182, over sqrt(4)
    assert page.count("<svg") == 4  # boxes, tags, minutes, errors
    assert not re.search(r"(?:src|href)=.https?:|<script", page)


def test_differences_without_shared_seeds_are_left_out(groups: list[Group]) -> None:
    assert [row[0] for row in difference_table(groups).rows] == ["mtl_ssl", "ssm", "ws_jds"]
    apart = [Group("a", [measured(0, 1.0, Labels(1))]), Group("b", [measured(1, 1.0, Labels(1))])]
    assert difference_table(apart).rows == []
    assert len(group_table(apart).rows) == 2


def test_cells_of_spreads_and_intervals() -> None:
    assert format_cell(WithSpread(31.44, 1.26)) == "31.4 ± 1.3"
    assert format_cell(WithSpread(31.44, math.nan)) == "31.4"
    assert format_cell(WithSpread(math.nan, math.nan)) == "–"
    assert format_cell(Interval(-1.25, 0.5)) == "−1.2 ± 0.5"
    assert format_cell(Interval(1.25, math.inf)) == "+1.2"
    assert [kind_of_cell(Interval(1.0, half)) for half in (0.5, 1.5)] == ["gain", ""]
    assert kind_of_cell(Interval(-1.0, 0.5)) == "loss"


def test_a_chart_for_each_kind_of_label_that_was_spent(groups: list[Group]) -> None:
    assert [title.partition(" against ")[2].split()[0] for title in label_charts(groups)] == [
        "boxes",
        "tags",
        "minutes",
    ]
    assert list(label_charts(groups[:1])) == ["AP50 against boxes given by a person"]


def test_pictures_are_files_of_their_own(groups: list[Group], tmp_path: Path) -> None:
    png, svg = write_pictures(tmp_path, groups)
    assert Image.open(png).size[0] >= 1000
    text = svg.read_text(encoding="utf-8")
    assert "prefers-color-scheme:dark" in text
    assert text.count("currentColor") > 5
    assert all(name in text for name in ("mtl_ssl", "supervised &lt;1&gt;"))


def test_more_groups_than_colours_still_differ() -> None:
    many = [Group(f"group {n}", [measured(0, 10.0 + n, Labels(n + 1))]) for n in range(len(MARKS) + 3)]
    charts = label_charts(many)
    assert all(f"group {n}" in charts["AP50 against boxes given by a person"] for n in range(len(many)))


def test_figures_that_nobody_knows_leave_the_page_whole(index: Index, tmp_path: Path) -> None:
    nothing = Measured("runs/x", 0, Point(Labels(0, 0), {}))
    write_group_report(tmp_path / "r.html", [Group("x", [nothing])], index, {})
    assert "–" in (tmp_path / "r.html").read_text(encoding="utf-8")
    write_pictures(tmp_path, [Group("x", [nothing])])
