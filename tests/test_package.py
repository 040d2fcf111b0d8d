"""What a user installs: which files, under which licences, and how fast it answers."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import boxcycle

PACKAGE = Path(boxcycle.__file__).parent
# MPL-2.0 (tqdm, certifi) binds changes to its own files only, and reaches none of ours.
PERMISSIVE = re.compile(r"\b(?:Apache|BSD|0BSD|MIT|ISC|PSF|Python Software Foundation|Zlib|CC0|Unlicense|MPL)\b", re.I)
COPYLEFT = re.compile(r"\b[AL]?GPL|Affero|GNU (?:Lesser )?General Public|EUPL|SSPL|CC[- ]BY[- ](?:NC|SA)", re.I)
# The vendor's redistributable libraries, which torch's CUDA builds bring with them; a build without CUDA has none.
WITH_TORCH = re.compile(r"nvidia-|cuda-")


def needed(name: str, extras: set[str], seen: set[tuple[str, ...]]) -> Iterator[Distribution]:
    """Every distribution that ``name`` with these extras needs here, itself first; an error if one is not installed."""
    key = (re.sub(r"[-_.]+", "-", name).lower(), *sorted(extras))
    if key in seen:
        return
    seen.add(key)
    found = distribution(name)
    yield found
    for line in found.requires or []:
        requirement = Requirement(line)
        if any(not requirement.marker or requirement.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            yield from needed(requirement.name, requirement.extras, seen)


def licence(found: Distribution) -> str:
    """What a distribution says of its licence: expression, classifiers, field, else how its licence file begins."""
    metadata = found.metadata
    said = [
        metadata.get("License-Expression") or "",
        "; ".join(text for text in metadata.get_all("Classifier") or [] if text.startswith("License ::")),
        (metadata.get("License") or "").partition("\n")[0].replace("UNKNOWN", ""),
    ]
    files = [file for file in found.files or [] if re.search(r"(?:^|/)LICEN[CS]E[^/]*$", str(file))]
    return next((text for text in said if text), files[0].read_text()[:300] if files else "")


def is_acceptable(text: str) -> bool:
    """Whether one of the alternatives of a licence ("MIT OR GPL-3.0") is permissive and no part of it copyleft."""
    choices = re.split(r"\s+OR\s+", text)
    return any(PERMISSIVE.search(choice) and not COPYLEFT.search(choice) for choice in choices)


def test_every_dependency_is_permissively_licensed() -> None:
    extras = {"docs", "onnx", "proposals"}
    found = {each.metadata["Name"]: licence(each) for each in needed("boxcycle", extras, set())}
    assert {"boxcycle", "torch", "numpy", "pydantic"} <= set(found)
    judged = {name: text for name, text in found.items() if not WITH_TORCH.match(name.lower())}
    assert {name: text for name, text in judged.items() if not is_acceptable(text)} == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Apache-2.0", True),
        ("BSD-3-Clause AND MIT", True),
        ("AGPL-3.0-only", False),
        ("License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)", False),
        ("MIT OR GPL-2.0-or-later", True),
        ("MIT AND LGPL-2.1", False),
        ("CC-BY-NC-4.0", False),
        ("", False),
    ],
)
def test_licences_are_told_apart(text: str, expected: bool) -> None:
    assert is_acceptable(text) is expected


def test_a_missing_dependency_is_not_overlooked() -> None:
    with pytest.raises(PackageNotFoundError):
        list(needed("boxcycle-has-no-such-part", set(), set()))


def test_the_package_carries_its_types_and_templates() -> None:
    """hatch packs every file under the package that git does not ignore."""
    assert (PACKAGE / "py.typed").is_file()
    assert [file.name for file in PACKAGE.glob("report/*.j2")], "the report has no template"
    ask_git = ["git", "check-ignore", "--no-index", *map(str, PACKAGE.rglob("*.j2"))]
    assert not subprocess.run(ask_git, cwd=PACKAGE, capture_output=True, check=False).stdout


def test_version_is_the_same_everywhere() -> None:
    assert distribution("boxcycle").version == boxcycle.__version__
    citation = (PACKAGE.parents[1] / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {boxcycle.__version__}\n" in citation


def test_public_names_exist_and_are_imported_when_asked_for() -> None:
    for name in boxcycle.__all__:
        assert getattr(boxcycle, name) is not None
    assert set(boxcycle.__all__) <= set(dir(boxcycle))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        importlib.import_module("boxcycle").trian  # noqa: B018


def test_import_is_light() -> None:
    heavy = "('torch', 'numpy', 'matplotlib')"
    code = f"import sys, boxcycle, boxcycle.cli; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
