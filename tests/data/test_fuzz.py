"""Annotation files in every kind of disorder: each is read without losing a box, or refused in one clear sentence.

Every example is a sound file of `small_sets` after a few mutations. What the mutated file holds is counted here once
more, with another parser where there is one, and must be in the index or in the report.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boxcycle.data.check import DataError, Finding, count_dropped
from boxcycle.data.index import Index
from boxcycle.data.read import read_split

from .broken_errors import JSON
from .small_sets import COCO, DELETE, YOLO_LABELS, changed, coco, put, tags, voc, voc_object, voc_xml, yolo

EXAMPLES = 400  # of each kind; derandomised, so that every run sees the same
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
seen: Counter[str] = Counter()  # inputs by kind and by how they ended

NUMBERS = ["nan", "-inf", "1e999", "-1", "0", "1e-320", "9" * 30, "9" * 5000, "0x10", "1_0", "٣", "", "null", "true"]
PIECES = [
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b"\r\n", b"\n", b"\r", b"\x0b", b"\xc2\x85", b"\xe2\x80\xa8", b"\x1b[31m"),
    *(b'"', b"'", b",", b";", b"|", b"{", b"}", b"[", b"]", b"<", b">", b"&", b"/", b"\\", b":", b"#", b"- ", b"\t"),
    *(b"&lt;", b"&#0;", b"&bomb;", b"<!-- ", b" -->", b"<![CDATA[", b"]]>", b"\\ud800", b"\\n", b"\\u0000"),
    *(b'<!DOCTYPE a [<!ENTITY b "x">]>', b'<?xml version="1.0" encoding="utf-16"?>', b"../", b"C:\\", b"x" * 5000),
    *(b"*a", b"&a ", b"? ", b"!!python/object/apply:os.system ", b"<<: ", b"%YAML 9\n---\n", b"\n---\n", b"[" * 5000),
]
ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-7", "cp037"]
MUTATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), st.floats(0, 1), st.integers(1, 255)),
        st.tuples(st.just("cut"), st.floats(0, 1), st.integers(0, 60)),
        st.tuples(st.just("end"), st.floats(0, 1), st.none()),
        st.tuples(st.just("repeat"), st.floats(0, 1), st.integers(1, 120)),
        st.tuples(st.just("insert"), st.floats(0, 1), st.sampled_from(PIECES)),
        st.tuples(st.just("number"), st.floats(0, 1), st.sampled_from(NUMBERS)),
        st.tuples(st.just("line twice"), st.floats(0, 1), st.none()),
        st.tuples(st.just("rename"), st.floats(0, 1), st.sampled_from(["object", "bndbox", "name", "x", "train"])),
        st.tuples(st.just("nest"), st.floats(0, 1), st.integers(1, 3)),
        st.tuples(st.just("encode"), st.just(0.0), st.sampled_from(ENCODINGS)),
    ),
    min_size=1,
    max_size=4,
)


def mutated(content: bytes, mutations: list[tuple[str, float, Any]]) -> bytes:
    """The content after each mutation (kind, place as a share of the length, how)."""
    for kind, share, how in mutations:
        place = round(share * len(content))
        if kind == "flip":
            content = content[:place] + bytes(byte ^ how for byte in content[place : place + 1]) + content[place + 1 :]
        elif kind == "cut":
            content = content[:place] + content[place + how :]
        elif kind == "end":
            content = content[:place]
        elif kind == "repeat":
            content = content[:place] + content[place : place + how] * 2 + content[place + how :]
        elif kind == "insert":
            content = content[:place] + how + content[place:]
        elif kind == "encode":
            content = content.decode("utf-8", "replace").encode(how, "replace")
        else:
            content = in_words(content, kind, share, how)
    return content


def in_words(content: bytes, kind: str, share: float, how: Any) -> bytes:
    """A number replaced, a line written twice, a word renamed everywhere, or an element put into others."""
    pattern = {"number": rb"-?\d+(\.\d+)?", "rename": rb"[a-z]{2,}", "nest": rb"<(\w+)>.*</\1>", "line twice": rb".+"}
    found = list(re.finditer(pattern[kind], content, re.S if kind == "nest" else 0))
    if not found:
        return content
    match = found[round(share * (len(found) - 1))]
    old = match[0]
    if kind == "rename":
        return content.replace(old, how.encode())
    new = {
        "number": lambda: how.encode(),
        "line twice": lambda: old + b"\n" + old,
        "nest": lambda: b"<object>" * how + old + b"</object>" * how,
    }[kind]()
    return content[: match.start()] + new + content[match.end() :]


def read(path: Path, kind: str) -> tuple[Index, list[Finding]] | None:
    """The split ``train`` and what was found; None if it was refused in one clear sentence. All else fails."""
    findings: list[Finding] = []
    refusal: DataError | None = None
    try:
        index = read_split(path, "train", findings=findings)
    except DataError as error:
        refusal = error
    if refusal is not None:
        seen[kind, "refused"] += 1
        assert str(refusal).isprintable(), refusal
        assert str(path if path.is_dir() else path.parent) in str(refusal)
        assert 20 < len(str(refusal)) < 2000
        assert refusal.finding in findings
        return None
    seen[kind, "read"] += 1
    assert all(str(finding).isprintable() and len(str(finding)) < 2000 for finding in findings)
    assert not [finding for finding in findings if finding.severity == "error"]
    assert index.box_offsets[-1] == len(index.boxes) == len(index.labels) == len(index.segmentations)
    sides = index.boxes[:, 2:] - index.boxes[:, :2]
    assert math.isfinite(index.boxes.sum())
    assert (sides > 0.9).all()
    return index, findings


def build_once(folder: Path, build: Callable[[Path], Path]) -> None:
    if not any(folder.iterdir()):
        build(folder)


def check_boxes(result: tuple[Index, list[Finding]] | None, expected: Callable[[], int]) -> None:
    if result is not None:
        index, findings = result
        assert len(index.boxes) + count_dropped(findings) == expected(), findings


# --- COCO


def annotations_in(content: bytes) -> int:
    """How many entries the lists of annotations have, of all keys of that name."""
    pairs = json.loads(content.decode("utf-8-sig"), object_pairs_hook=list)
    return sum(len(value) for key, value in pairs if key == "annotations")


@FUZZ
@given(mutations=MUTATIONS)
def test_coco_bytes(tmp_path: Path, mutations: list[tuple[str, float, Any]]) -> None:
    build_once(tmp_path, coco())
    content = mutated(json.dumps(COCO, indent=1).encode(), mutations)
    put(tmp_path, {JSON: content})
    check_boxes(read(tmp_path, "coco"), lambda: annotations_in(content))


JUNK = r"""
null; true; 0; -1; 3; 4; 9; 1e300; NaN; -Infinity; 1e999; 1000000000000000000000000000000; ""; "x"; "12"; "1e3"; "cat"
[]; [1]; {}; {"size": 1}; [[]]; [[[]]]; [1, 2, 3, 4]; ["1", "2", "3", "4"]; [5, 5, NaN, 1]; [0, 0, 1e308, 9]
[[1, 2, 3, 4, 5, 6]]; [[1, 2, 3, 4, 5, 1e7]]; [["a", "a", "a", "a", "a", "a"]]; [[true, true, true, true, true, true]]
{"size": [40, 60], "counts": [2400]}; {"size": [40, 60], "counts": "xx"}; {"size": [40, 60], "counts": "\u00e9"}
{"size": [40, 60], "counts": ""}; "../a.png"; "/a.png"; "a.png/"; "."; "a\u0000.png"; "\u202ea.png"; "a\nb"
"\u001b[31m"; ["cat"]; ["dog", 5]; [null]
"""
VALUES = [json.loads(value) for value in re.split(r";|\n", JUNK) if value] + [10**400, "x" * 5000, DELETE]
KEYS = ["segmentation", "difficult", "tags", "annotated", "supercategory", "area", "id", "name", "file_name", "iscrowd"]


def places(data: Any, prefix: str = "") -> list[str]:
    """Every dotted key of a JSON value, the place behind each list, and keys that objects may have beside theirs."""
    items = enumerate(data) if isinstance(data, list) else data.items() if isinstance(data, dict) else ()
    found = [key for name, value in items for key in (f"{prefix}{name}", *places(value, f"{prefix}{name}."))]
    more = ["+"] if isinstance(data, list) else KEYS if isinstance(data, dict) and prefix else []
    return sorted({*found, *(f"{prefix}{key}" for key in more)})


@FUZZ
@given(changes=st.lists(st.tuples(st.sampled_from(places(COCO)), st.sampled_from(VALUES)), min_size=1, max_size=4))
def test_coco_values(tmp_path: Path, changes: list[tuple[str, Any]]) -> None:
    build_once(tmp_path, coco())
    data = COCO
    for key, value in changes:
        try:
            data = changed(data, {key: value})
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            continue  # nothing is there to delete, or an earlier change took the place away
    put(tmp_path, {JSON: json.dumps(data)})
    check_boxes(read(tmp_path, "coco"), lambda: len(data["annotations"]))


# --- VOC

PARTS = "<part><name>ear</name><bndbox><xmin>12</xmin><ymin>12</ymin><xmax>15</xmax><ymax>15</ymax></bndbox></part>"
POLYGON = "<segmentation>[[10, 10, 30, 10, 30, 25, 10, 25]]</segmentation><id>4</id><area>300</area>"
A1 = voc_xml(voc_object(more=PARTS), voc_object("dog", (31, 6, 50.5, 25), POLYGON), stem="a1")


def objects_in(content: bytes) -> int:
    """Every <object> at any depth, and every box beside the one that each may have (those of parts are no objects)."""
    root = ElementTree.fromstring(content)
    boxes, parts = (sum(1 for _ in root.iter(tag)) for tag in ("bndbox", "part"))
    objects = list(root.iter("object"))
    without = sum(element.find("bndbox") is None for element in objects)
    in_parts = sum(1 for part in root.iter("part") for _ in part.iter("bndbox"))
    assert parts <= 4, "the mutations nest no parts"
    return boxes - in_parts + without


@FUZZ
@given(mutations=MUTATIONS)
def test_voc_bytes(tmp_path: Path, mutations: list[tuple[str, float, Any]]) -> None:
    build_once(tmp_path, voc())
    content = mutated(A1.replace("><", ">\n<").encode(), mutations)
    put(tmp_path, {"Annotations/a1.xml": content})
    check_boxes(read(tmp_path, "voc"), lambda: 1 + objects_in(content))


# --- YOLO


@FUZZ
@given(mutations=MUTATIONS)
def test_yolo_labels(tmp_path: Path, mutations: list[tuple[str, float, Any]]) -> None:
    build_once(tmp_path, yolo())
    content = mutated((YOLO_LABELS + "0 .1 .1 .9 .1 .9 .9\n1 .2 .2 .1 .1\n").encode(), mutations)
    put(tmp_path, {"labels/train/a.txt": content})
    lines = content.decode("utf-8-sig", "replace").splitlines()
    check_boxes(read(tmp_path, "yolo"), lambda: sum(bool(line.strip()) for line in lines))


DATA_YAML = "path: .\ntrain: images/train\nnames:\n  0: cat\n  1: dog\nnc: 2\ncategory_ids: [3, 7]\n"
LISTS = "path: .\ntrain:\n- images/train\n- more.txt\nnames: [cat, dog]\n"


@pytest.mark.parametrize("sound", [DATA_YAML, LISTS], ids=["mapping", "lists"])
@settings(FUZZ, max_examples=EXAMPLES // 2)
@given(mutations=MUTATIONS)
def test_yolo_yaml(tmp_path: Path, sound: str, mutations: list[tuple[str, float, Any]]) -> None:
    build_once(tmp_path, yolo({"more.txt": "./images/more/c.png\n", "labels/more/c.txt": YOLO_LABELS}))
    (tmp_path / "images" / "more").mkdir(exist_ok=True)
    (tmp_path / "images" / "more" / "c.png").write_bytes((tmp_path / "images" / "train" / "a.png").read_bytes())
    content = mutated(sound.encode(), mutations)
    put(tmp_path, {"data.yaml": content})
    result = read(tmp_path / "data.yaml", "yolo")
    if result is not None and b"#" not in content:  # a comment may take a whole source away
        named = ("images/train" in (text := content.decode("utf-8-sig"))) + ("more.txt" in text)
        if re.search(r"train:[^:]*more\.txt|train: images/train\b", text):
            assert len(result[0].boxes) >= 2 * named


# --- tags

TABLE = "file,tags,split\na.png,cat;dog,train\nb.png,cat,train\n"
ONE_HOT = "file,cat,dog\na.png,1,1\nb.png,0,1\n"


@pytest.mark.parametrize("sound", [TABLE, ONE_HOT], ids=["list", "columns"])
@settings(FUZZ, max_examples=EXAMPLES // 2)
@given(mutations=MUTATIONS)
def test_tags(tmp_path: Path, sound: str, mutations: list[tuple[str, float, Any]]) -> None:
    build_once(tmp_path, tags())
    content = mutated(sound.encode(), mutations)
    put(tmp_path, {"train.csv": content})
    result = read(tmp_path / "train.csv", "tags")
    if result is not None:
        _, *lines = [line for line in re.split(r"\r\n|\r|\n", content.decode("utf-8-sig")) if line]
        ours = [line for line in lines if sound is ONE_HOT or line.rpartition(",")[2].strip(' "') in ("train", "")]
        assert len(result[0]) >= len(ours)
        if sound is ONE_HOT and b'"' not in content:
            assert len(result[0].tags) == sum(line.count(",1") for line in lines)


def test_enough_was_tried() -> None:
    """Runs last in this file; a part of the file alone has nothing to say here."""
    kinds = {kind for kind, _ in seen}
    if kinds != {"coco", "voc", "yolo", "tags"}:
        pytest.skip("needs the tests above")
    assert sum(seen.values()) >= 2000
    for kind in kinds:
        assert min(seen[kind, "read"], seen[kind, "refused"]) > 30, (kind, seen)
