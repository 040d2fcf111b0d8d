"""Two runs beside each other: differences, and pictures that are not picked to please."""

from __future__ import annotations

import re

import pytest

from boxcycle.report.comparison import write_comparison


@pytest.fixture
def page(index, detect, make_run, tmp_path):
    """The second run finds a box in image 0 that the first one misses, and misses one in image 1."""
    folders = {
        "plain": make_run("plain", detect(missed={(0, 0), (3, 0)})),
        "ours <3": make_run("ours", detect(missed={(1, 0)})),
    }
    write_comparison(tmp_path / "comparison.html", folders, index, title="A & B", pictures=2)
    return (tmp_path / "comparison.html").read_text()


def rows(page: str) -> list[list[str]]:
    return [re.findall(r">([^<>]+)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", page, flags=re.S)]


def test_differences_are_against_the_first_run(page):
    by_name = {row[0]: row[1:] for row in reversed(rows(page))}  # the first table of two that name the runs
    plain, ours = (by_name[name] for name in ("plain", "ours &lt;3"))
    change = by_name["ours &lt;3 minus plain"]
    for before, after, difference in zip(plain[:3], ours[:3], change[:3], strict=True):
        assert float(after) - float(before) == pytest.approx(float(difference.replace("−", "-")), abs=0.11)
    assert plain[-1] == "3.0"
    cat, dog = by_name["&lt;b&gt;cat&lt;/b&gt;"], by_name["dog &amp; fox"]
    assert (cat[0], dog[0]) == ("2", "3")
    assert (cat[-1], dog[-1]) == ("0.0", "+33.7")  # one more of three found: 34 of 101 points at full precision


def test_pictures_show_gain_loss_and_images_at_random(page):
    shown = re.findall(r"<h3>([^<]*\.png)</h3>", page)
    assert shown[:2] == [
        "ours &lt;3 has 1 error fewer than plain: 3.png",
        "ours &lt;3 has 1 error fewer than plain: 0.png",
    ]
    assert len(shown) == len({title.split(": ")[1] for title in shown})
    assert page.count("<figcaption>ground truth") == len(shown)
    assert shown[2] == "ours &lt;3 has 1 error more than plain: 1.png"
    assert "<figcaption>plain: 1 right, 1 missed" in page


def test_page_says_that_one_run_each_proves_little(page):
    assert "can be chance" in page
    assert "<title>A &amp; B</title>" in page
    assert page.count("<summary>") == 4


def test_the_same_runs_give_the_same_page(index, detect, make_run, tmp_path):
    folders = {"a": make_run("a", detect()), "b": make_run("b", detect())}
    for name in ("one.html", "two.html"):
        write_comparison(tmp_path / name, folders, index)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert "fewer than" not in (tmp_path / "one.html").read_text()


def test_errors_are_counted_and_fewer_is_better(page):
    errors = {row[0]: row[1:] for row in rows(page)}  # the last table that names the runs
    assert errors["plain"] == ["0", "0", "0", "0", "2", "2"]
    assert errors["ours &lt;3"] == ["0", "0", "0", "0", "1", "1"]
    assert errors["ours &lt;3 minus plain"] == ["0", "0", "0", "0", "−1", "−1"]
    assert errors["ours &lt;3 minus plain: dog &amp; fox"] == ["0", "0", "0", "0", "−1", "−1"]
    assert "ours &lt;3 minus plain: &lt;b&gt;cat&lt;/b&gt;" not in errors, "one found, one lost: no difference"
    assert '<td class="gain">−1</td>' in page


def test_three_runs(index, detect, make_run, tmp_path):
    folders = {name: make_run(name, detect(missed={(0, 0)} if name == "a" else frozenset())) for name in "abc"}
    write_comparison(tmp_path / "three.html", folders, index)
    assert {"b minus a", "c minus a"} <= {row[0] for row in rows((tmp_path / "three.html").read_text())}


def test_one_run_is_no_comparison(index, detect, make_run, tmp_path):
    with pytest.raises(ValueError, match="two runs or more; got 1"):
        write_comparison(tmp_path / "x.html", {"a": make_run("a", detect())}, index)
