from __future__ import annotations

import re
from pathlib import Path

import pytest

from boxcycle.data.check import CHECKS, DataError, Report, count_dropped

FORMATS_PAGE = Path(__file__).parents[2] / "docs" / "formats.md"


def test_a_finding_reads_as_one_sentence_with_file_and_object() -> None:
    report = Report()
    assert str(report.add("box-empty", "a.json", "annotation 3", "is thin")) == "a.json, annotation 3: is thin"
    assert str(report.add("file-empty", Path("a.json"), "", "is empty")) == "a.json: is empty"


def test_findings_beyond_the_limit_are_counted_not_kept() -> None:
    report = Report(limit=2)
    for row in range(5):
        report.add("box-empty", "a.json", f"annotation {row}", "is thin")
    report.add("box-outside", "a.json", "annotation 9", "is out")
    kept = [finding for finding in report.findings if finding.check == "box-empty"]
    assert [finding.object for finding in kept] == ["annotation 0", "annotation 1", ""]
    assert kept[-1].message.startswith("3 more like this")
    assert count_dropped(report.findings) == 6


@pytest.mark.parametrize("limit", [None, 0, 3, 7])
def test_rows_are_counted_in_full_and_described_only_if_kept(limit: int | None) -> None:
    report, described = Report(limit=limit), []

    def message(row: int) -> str:
        described.append(row)
        return f"row {row}"

    for rows in ([4, 5], [6, 7, 8]):
        report.add_rows("box-empty", rows, lambda row: ("a.json", f"annotation {row}"), message)
    assert sum(finding.count for finding in report.findings) == 5
    assert described == [4, 5, 6, 7, 8][: 5 if limit is None else limit]


def test_the_first_error_is_raised_with_the_number_of_the_others() -> None:
    report = Report(limit=2)
    report.add("box-empty", "a.json", "annotation 1", "is thin")
    report.raise_errors()  # a warning is none
    for row in range(5):
        report.add("class-unknown", "a.json", f"annotation {row}", "is of no class")
    with pytest.raises(DataError, match=r"^a.json, annotation 0: is of no class \(and 4 more errors; ") as raised:
        report.raise_errors()
    assert raised.value.finding == report.findings[1]


def test_strict_reports_make_errors_of_what_drops_boxes_and_of_nothing_else() -> None:
    report = Report(bad_boxes="error")
    for check in CHECKS:
        report.add(check, "", "", "")
    changed = {finding.check for finding in report.findings if finding.severity != CHECKS[finding.check].severity}
    assert changed == {"box-missing", "box-not-finite", "box-empty", "box-outside", "box-duplicate"}
    with pytest.raises(ValueError, match="bad_boxes must be 'drop' or 'error'; got 'keep'"):
        Report(bad_boxes="keep")  # type: ignore[arg-type]


def test_the_page_on_formats_lists_every_check_as_it_is() -> None:
    row = re.compile(r"^\| `([a-z-]+)` \| (\w+) \| (.*?) \| (.*?) \| (.*?) \|$", re.MULTILINE)
    rows = row.findall(FORMATS_PAGE.read_text(encoding="utf-8"))
    told = {check: (severity, meaning, effect, by) for check, severity, meaning, effect, by in rows}
    assert told == {
        name: (check.severity, check.meaning, check.effect, "doctor" if check.by_doctor else "reading")
        for name, check in CHECKS.items()
    }
