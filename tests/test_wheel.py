"""The wheel and the source archive: they hold what a run needs, and work where no checkout is."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDED = ("boxcycle/py.typed", "boxcycle/report/report.html.j2", "boxcycle/methods/mtl_ssl/README.md")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both archives, built without a network."""
    pytest.importorskip("hatchling", reason="needs hatchling, the build backend")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT, check=True)
    return folder


def packed(names: list[str]) -> list[str]:
    """Those of the package, below ``boxcycle/``."""
    return [name[name.index("boxcycle/") :] for name in names if "boxcycle/" in name and "dist-info" not in name]


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    package = ROOT / "src" / "boxcycle"
    files = [file for file in package.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert {f"boxcycle/{file.relative_to(package).as_posix()}" for file in files} == set(packed(names))
    assert set(NEEDED) <= set(names)
    assert [name for name in names if name.endswith("licenses/LICENSE")]
    assert (
        "boxcycle = boxcycle.cli:main"
        in zipfile.ZipFile(wheel).read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    )


@pytest.mark.slow
def test_the_source_archive_holds_what_the_tests_need(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as held:
        names = {name.partition("/")[2] for name in held.getnames()}
    needed = {"pyproject.toml", "README.md", "LICENSE", "CITATION.cff", "mkdocs.yml", "docs/index.md", "Makefile"}
    assert needed | {"tests/test_wheel.py", "src/boxcycle/py.typed"} <= names


@pytest.mark.slow
def test_the_wheel_works_without_the_checkout(built: Path, tmp_path: Path) -> None:
    """Installed beside this environment's dependencies, and run from another folder."""
    (wheel,) = built.glob("*.whl")
    place, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(place)]
    subprocess.run([*install, str(wheel)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}

    def run(*words: str) -> str:
        command = [sys.executable, *words]
        return subprocess.run(
            command, cwd=elsewhere, env=environment, check=True, capture_output=True, text=True
        ).stdout

    assert run("-c", "import boxcycle; print(boxcycle.__file__)").strip() == str(place / "boxcycle" / "__init__.py")
    shown = run("-m", "boxcycle.cli", "demo", "images=8", "size=64", "steps=2")
    assert "supervised" in shown
    assert "mtl_ssl" in shown
    assert (elsewhere / "runs" / "demo" / "report.html").stat().st_size > 20_000
