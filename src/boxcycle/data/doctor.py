"""``boxcycle doctor``: everything that is wrong with a data set, split by split, object by object, pixel by pixel."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from boxcycle.data.build import listed
from boxcycle.data.check import CHECKS, DataError, Finding, Report, Severity, count_dropped
from boxcycle.data.doctor_images import ImageFacts, check_images, look_at
from boxcycle.data.index import Index
from boxcycle.data.read import AnyFormat, detect_format, find_splits, load_split

APART = (("train", "val"), ("train", "test"), ("val", "test"))  # splits that may not share a picture
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
NAMES = {"small": "small boxes", "medium": "medium boxes", "large": "large boxes", "dropped": "boxes dropped"}
NOTHING = {"boxes": 0, "images": 0, "tags": 0}
EXAMPLES = 10  # findings of a check that the text shows; --json has all


@dataclass(frozen=True)
class Examination:
    """What the doctor found: format ("" if unknown), what each split that can be read holds, and all findings."""

    path: Path
    format: str
    splits: dict[str, dict[str, Any]]
    findings: list[Finding]

    def count(self, severity: Severity) -> int:
        """How many objects have a finding of that severity."""
        return sum(finding.count for finding in self.findings if finding.severity == severity)


def doctor(path: Path | str, format: str = "auto") -> list[Finding]:
    """All findings about all splits of a data set; nothing is raised for bad data, and nothing stops at the first."""
    return examine(Path(path), format).findings


def examine(path: Path, format: str = "auto", *, progress: bool = False) -> Examination:
    """Read every split, decode every image once, and compare the splits with each other."""
    report = Report(limit=None)
    indices: dict[str, Index] = {}
    dropped: dict[str, int] = {}
    try:
        format = detect_format(path) if format == "auto" else format
        names = list(find_splits(path, format))
    except DataError as error:
        report.include(error)
        return Examination(path, "" if format == "auto" else format, {}, report.findings)
    for name in names:
        before = count_dropped(report.findings)
        known = next(iter(indices.values())).class_names if indices else None
        try:
            indices[name] = load_split(path, name, report, format=format, class_names=known)
        except DataError as error:
            report.include(error)
            continue
        dropped[name] = count_dropped(report.findings) - before
        _check_classes(name, indices[name], report)
    facts = look_at((index.image_path(i) for index in indices.values() for i in range(len(index))), progress=progress)
    for index in indices.values():
        check_images(index, facts, report)
    _check_overlap(indices, facts, report)
    splits = {name: {**summarise(index), "dropped": dropped[name]} for name, index in indices.items()}
    return Examination(path, format, splits, report.findings)


def summarise(index: Index) -> dict[str, Any]:
    """What a split holds: images, boxes by COCO's sizes (below 32 and 96 pixels squared), boxes and images by class."""
    counts = np.diff(index.box_offsets)
    images = np.repeat(np.arange(len(index)), counts)
    small, medium = index.areas < 32**2, index.areas < 96**2
    return {
        "images": len(index),
        "not_annotated": int((~index.annotated).sum()),
        "without_objects": int((index.annotated & (counts == 0)).sum()),
        "tagged": int(index.tagged.sum()),
        "partly_verified": int(index.partly_verified.sum()),
        "boxes": len(index.boxes),
        "crowds": int(index.iscrowd.sum()),
        "difficult": int(index.difficult.sum()),
        "segmentations": sum(bool(text) for text in index.segmentations),
        "sizes": {
            "small": int(small.sum()),
            "medium": int((medium & ~small).sum()),
            "large": int((~medium).sum()),
        },
        "classes": {
            name: {
                "boxes": int((index.labels == label).sum()),
                "images": len(np.unique(images[index.labels == label])),
                "tags": int((index.tags == label).sum()),
            }
            for label, name in enumerate(index.class_names, start=1)
        },
    }


def _check_classes(name: str, index: Index, report: Report) -> None:
    if not index.annotated.any():
        return
    present = np.bincount(index.labels, minlength=index.num_classes + 1)[1:]
    without = [index.class_names[label] for label in np.flatnonzero(present == 0)]
    if without:
        message = f"no box of the class{'es' * (len(without) > 1)} {listed(without)}"
        report.add("class-without-boxes", index.root, f"split {name}", message, count=len(without))


def _check_overlap(indices: dict[str, Index], facts: dict[Path, ImageFacts], report: Report) -> None:
    for first, second in APART:
        if first not in indices or second not in indices:
            continue
        theirs = {digest: path for path, digest in _digests(indices[first], facts)}
        for path, digest in _digests(indices[second], facts):
            if digest in theirs:
                message = f"is in {second} and, as {theirs[digest]}, in {first}: figures on it would flatter"
                report.add("split-overlap", path, f"split {second}", message)


def _digests(index: Index, facts: dict[Path, ImageFacts]) -> list[tuple[Path, bytes]]:
    paths = [index.image_path(i) for i in range(len(index))]
    return [(path, facts[path].digest) for path in paths if facts[path].digest]


def to_json(examination: Examination) -> str:
    """The examination as JSON, every finding in full."""
    return json.dumps(
        {
            "path": str(examination.path),
            "format": examination.format,
            "counts": {severity: examination.count(severity) for severity in SEVERITIES},
            "splits": examination.splits,
            "findings": [asdict(finding) for finding in examination.findings],
        },
        indent=1,
    )


def print_text(examination: Examination) -> None:
    """The examination as tables for people: the splits, and each check with its first examples."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{examination.path}: {examination.format or 'no known format'}\n", markup=False)
    if examination.splits:
        console.print(_split_table(examination), "", _class_table(examination), sep="\n")
    colours = {"error": "red", "warning": "yellow", "info": "cyan"}
    for check, found in _by_check(examination.findings):
        count, severity = sum(finding.count for finding in found), found[0].severity
        heading = f"\n{severity} {check}: {count:,} x {CHECKS[check].meaning}; {CHECKS[check].effect}"
        console.print(Text(heading, style=colours[severity]))
        for finding in found[:EXAMPLES]:
            console.print(Text(f"  {finding}"))
        if len(found) > EXAMPLES:
            console.print(f"  and {len(found) - EXAMPLES:,} more (--json lists all)")
    counts = [f"{examination.count(severity):,} {severity}" for severity in SEVERITIES]
    console.print(f"\n{', '.join(counts)}" if examination.findings else "\nnothing found")


def _split_table(examination: Examination) -> Any:
    """What the splits hold, a row a count; counts that are zero everywhere are left out."""
    from rich.table import Table

    table = Table("", *examination.splits, box=None)
    held = [{**counts, **counts["sizes"]} for counts in examination.splits.values()]
    for key in (key for key, value in next(iter(held), {}).items() if isinstance(value, int)):
        if key in ("images", "boxes") or any(counts[key] for counts in held):
            table.add_row(NAMES.get(key, key.replace("_", " ")), *(f"{counts[key]:,}" for counts in held))
    return table


def _class_table(examination: Examination, most: int = 30) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table("boxes (images, tags) of", *examination.splits, box=None)
    total: Counter[str] = Counter()
    for held in examination.splits.values():
        total.update({name: counts["boxes"] + counts["tags"] for name, counts in held["classes"].items()})
    for name, _ in total.most_common(most):
        found = [held["classes"].get(name, NOTHING) for held in examination.splits.values()]
        cells = [f"{n['boxes']:,} ({n['images']:,}" + (f", {n['tags']:,})" if n["tags"] else ")") for n in found]
        table.add_row(Text(name), *cells)
    if len(total) > most:
        table.add_row(f"and {len(total) - most} rarer classes")
    return table


def _by_check(findings: Sequence[Finding]) -> list[tuple[str, list[Finding]]]:
    """Findings by check, errors first."""
    groups: dict[tuple[int, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((SEVERITIES.index(finding.severity), finding.check), []).append(finding)
    return [(check, groups[rank, check]) for rank, check in sorted(groups, key=lambda key: key[0])]


with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # pydantic's old method json(), which the key --json stands before

    class DoctorConfig(BaseModel):
        """Which data set to examine."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        data: Path = Field(description="a folder, or a COCO .json, YOLO data.yaml or tags .csv")
        format: AnyFormat = Field(default="auto", description="auto: by what the folder holds")
        json: bool = Field(default=False, description="print JSON with every finding")  # type: ignore[assignment]


def run_doctor(config: DoctorConfig) -> int:
    """Print what is wrong with a data set; returns the exit code, 1 if there are errors."""
    examination = examine(config.data, config.format, progress=not config.json)
    if config.json:
        print(to_json(examination))
    else:
        print_text(examination)
    return 1 if examination.count("error") else 0
