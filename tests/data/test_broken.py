"""Every kind of bad input, in every format, ends in its clear sentence or its counted repair; none in a traceback."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from boxcycle.data.check import CHECKS, DataError, Finding
from boxcycle.data.doctor import doctor
from boxcycle.data.read import read_split

from .broken_errors import ERRORS, Row
from .broken_repairs import LOOKED_AT, REPAIRS


def read(path: Path) -> tuple[Any, list[Finding]]:
    findings: list[Finding] = []
    return read_split(path, "train", findings=findings), findings


def of(check: str, findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.check == check]


@pytest.mark.parametrize("row", ERRORS.values(), ids=ERRORS.keys())
def test_error_names_file_and_object(row: Row, tmp_path: Path) -> None:
    path = row.build(tmp_path)
    findings: list[Finding] = []
    with pytest.raises(DataError) as raised:
        read_split(path, "train", findings=findings)
    finding = raised.value.finding
    assert finding is not None
    assert finding in findings
    assert (finding.check, finding.severity) == (row.check, "error")
    assert row.says in finding.message
    assert finding.object.startswith(row.object)
    assert str(raised.value).startswith(str(finding))
    assert str(tmp_path) in finding.file
    assert "\n" not in str(raised.value)
    assert of(row.check, doctor(path)) or row.check == "split-missing"  # which the doctor does not ask for


@pytest.mark.parametrize("row", REPAIRS.values(), ids=REPAIRS.keys())
def test_repair_is_counted(row: Row, tmp_path: Path) -> None:
    path = row.build(tmp_path)
    index, findings = read(path)
    found = of(row.check, findings)
    assert found, findings
    assert found[0].severity == CHECKS[row.check].severity != "error"
    assert row.says in found[0].message
    assert found[0].object == row.object or not row.object
    assert sum(finding.count for finding in found) == row.count
    assert len(index.boxes) == row.boxes
    assert of(row.check, doctor(path)) == found


@pytest.mark.parametrize("name", [name for name, row in REPAIRS.items() if CHECKS[row.check].drops])
def test_dropped_boxes_can_be_refused(name: str, tmp_path: Path) -> None:
    path = REPAIRS[name].build(tmp_path)
    with pytest.raises(DataError, match="dropped"):
        read_split(path, "train", bad_boxes="error")


@pytest.mark.parametrize("row", LOOKED_AT.values(), ids=LOOKED_AT.keys())
def test_doctor_looks_at_images_and_between_splits(row: Row, tmp_path: Path) -> None:
    found = of(row.check, doctor(row.build(tmp_path)))
    assert len(found) == 1
    assert row.says in found[0].message
    assert found[0].object.startswith(row.object)
    assert found[0].severity == CHECKS[row.check].severity


def test_enough_broken_inputs() -> None:
    assert len(ERRORS) + len(REPAIRS) + len(LOOKED_AT) >= 100
    told = {row.check for table in (ERRORS, REPAIRS, LOOKED_AT) for row in table.values()}
    elsewhere = {"split-overlap", "image-huge", "class-left-out", "segment-unmatched", "format-cannot-hold"}
    assert told | elsewhere == set(CHECKS)
