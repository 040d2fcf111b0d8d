"""The house rules that no other test would miss: import directions, short files, equations and their functions.

Everything is read from the source text, so that imports inside functions count and nothing has to be imported.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "boxcycle"

# room or file of the package -> what it may import; a method may import the shared files of its own room `methods` too
BASE = {"types", "ops", "config"}
MIDDLE = BASE | {"data", "models", "engine", "evaluation"}
TOP = MIDDLE | {"methods", "annotate", "report", "export"}
ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "yaml12": set(),
    "config": {"yaml12"},
    "engine": set(),
    "ops": {"types"},
    "models": {"types", "ops"},
    "data": BASE | {"yaml12"},
    "evaluation": BASE | {"data"},
    "report": MIDDLE,
    "annotate": MIDDLE,
    "export": MIDDLE,
    "methods": MIDDLE | {"report", "yaml12"},
    "cli": TOP,
    "__init__": TOP,
}
EVERYWHERE = {"__version__"}  # `from boxcycle import __version__`


def modules(package: Path) -> Iterator[tuple[str, Path]]:
    """(dotted name below the package, file) of every module; a package's __init__ has the name of its folder."""
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package).with_suffix("").parts
        yield ".".join(parts if len(parts) == 1 or parts[-1] != "__init__" else parts[:-1]), file


def imports(file: Path, package: Path) -> Iterator[str]:
    """What a module imports of the package, dotted, wherever the import stands in it."""
    own = ("boxcycle", *file.relative_to(package).parent.parts)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(own[: len(own) - node.level + 1]) + "." if node.level else ""
            module = f"{base}{node.module or ''}".rstrip(".")
            names = [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in (
            "import_module",
            "__import__",
        ):
            names = [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
        else:
            continue
        yield from (name.removeprefix("boxcycle.") for name in names if f"{name}.".startswith("boxcycle."))


def methods_of(package: Path) -> set[str]:
    """The names in the literal METHODS of methods/__init__.py."""
    for node in ast.walk(ast.parse((package / "methods" / "__init__.py").read_text(encoding="utf-8"))):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "METHODS":
            return set(ast.literal_eval(ast.unparse(ast.List(elts=node.value.keys))))  # type: ignore[attr-defined]
    return set()


def forbidden_imports(package: Path) -> list[str]:
    """One line for each import that goes against the directions; AssertionError if there was nothing to judge."""
    methods, wrong, judged = methods_of(package), [], 0
    for name, file in modules(package):
        room, _, rest = name.partition(".")
        for imported in imports(file, package):
            judged += 1
            other, _, inner = imported.partition(".")
            stranger = other == room == "methods" and {rest.split(".")[0], inner.split(".")[0]} <= methods
            stranger = stranger and rest.split(".")[0] != inner.split(".")[0]
            if stranger or other not in {room} | ALLOWED.get(room, set()) | EVERYWHERE:
                wrong.append(f"{name} imports {imported}")
    assert judged, f"no import of the package found under {package}"
    return wrong


def test_imports_run_one_way_and_methods_are_strangers() -> None:
    assert forbidden_imports(PACKAGE) == []


def test_every_room_has_its_directions() -> None:
    rooms = {name.split(".")[0] for name, _ in modules(PACKAGE)}
    assert rooms <= set(ALLOWED), f"say in ALLOWED what {sorted(rooms - set(ALLOWED))} may import"
    assert methods_of(PACKAGE) >= {"supervised", "mtl_ssl"}


@pytest.mark.parametrize(
    ("module", "line", "fault"),
    [
        ("engine/fit.py", "from boxcycle.types import Target", "engine.fit imports types.Target"),
        ("engine/fit.py", "def f():\n    import boxcycle.data.index", "engine.fit imports data.index"),
        ("models/detector.py", "from ..data import index", "models.detector imports data.index"),
        ("data/index.py", "from boxcycle import methods", "data.index imports methods"),
        ("evaluation/coco.py", "from boxcycle.report.html import write", "evaluation.coco imports report.html.write"),
        ("ops/boxes.py", "from boxcycle.config import load_config", "ops.boxes imports config.load_config"),
        ("data/index.py", "import importlib\nimportlib.import_module('boxcycle.cli')", "data.index imports cli"),
        (
            "methods/one/train.py",
            "from boxcycle.methods.two import train",
            "methods.one.train imports methods.two.train",
        ),
        ("methods/two.py", "from .one import train", "methods.two imports methods.one.train"),
        ("fresh.py", "from boxcycle.types import Target", "fresh imports types.Target"),
    ],
)
def test_a_wrong_import_is_caught(tmp_path: Path, module: str, line: str, fault: str) -> None:
    write_tree(tmp_path)
    assert forbidden_imports(tmp_path) == []
    (tmp_path / module).write_text(line, encoding="utf-8")
    assert forbidden_imports(tmp_path) == [fault]


def test_a_tree_without_imports_is_no_proof(tmp_path: Path) -> None:
    write_tree(tmp_path)
    (tmp_path / "methods" / "one" / "train.py").write_text("import torch", encoding="utf-8")
    with pytest.raises(AssertionError, match="no import of the package found"):
        forbidden_imports(tmp_path)


def write_tree(package: Path) -> None:
    """A tiny package that keeps the rules."""
    for folder in ("engine", "models", "data", "evaluation", "ops", "methods/one"):
        (package / folder).mkdir(parents=True)
    (package / "methods" / "__init__.py").write_text("METHODS = {'one': one, 'two': two}", encoding="utf-8")
    good = "from boxcycle.methods.experiment import fit\nfrom .labels import windows\nfrom boxcycle import __version__"
    (package / "methods" / "one" / "train.py").write_text(good, encoding="utf-8")


def test_files_are_short_and_no_room_is_a_grab_bag() -> None:
    lengths = {name: len(file.read_text(encoding="utf-8").splitlines()) for name, file in modules(PACKAGE)}
    assert {name: lines for name, lines in lengths.items() if lines >= 400} == {}
    bags = re.compile(r"(^|[._])(utils?|common|helpers?|misc)([._]|$)")
    assert [name for name in lengths if bags.search(name)] == []
    assert len(lengths) > 20


# --- equations

EQUATION = re.compile(r"(?:Eq\.|Algorithm) \d+")
ROOMS = sorted(path.parent for path in PACKAGE.glob("methods/*/__init__.py"))


def table_pairs(room: Path) -> set[tuple[str, str]]:
    """(equation, file:function) of each row of the README's table with the columns Paper, Function, File."""
    pairs = set()
    for line in (room / "README.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) >= 3:
            functions, files = (re.findall(r"`([\w.]+)`", cell) for cell in cells[1:3])
            pairs |= {(equation, f"{files[0]}:{name}") for equation in EQUATION.findall(cells[0]) for name in functions}
    return pairs


def docstring_pairs(room: Path) -> set[tuple[str, str]]:
    """(equation, file:function) of each tag such as ``[MTL-SSL Eq. 3]`` in a docstring of the room."""
    pairs = set()
    for file in sorted(room.glob("*.py")):
        for name, node in definitions(ast.parse(file.read_text(encoding="utf-8")), ""):
            for tag in re.findall(r"\[[A-Z][\w-]+ ([^\]]+)\]", ast.get_docstring(node) or ""):
                pairs |= {(equation, f"{file.name}:{name}") for equation in EQUATION.findall(tag)}
    return pairs


def definitions(parent: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield prefix + node.name, node
            yield from definitions(node, f"{prefix}{node.name}.")


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_the_readme_of_a_method_and_its_docstrings_name_the_same_equations(room: Path) -> None:
    table, docstrings = table_pairs(room), docstring_pairs(room)
    assert table, f"{room}/README.md has no table of equations (columns Paper, Function, File)"
    assert sorted(table - docstrings) == [], "in the table, but no function of that name has a docstring with the tag"
    assert sorted(docstrings - table) == [], "in a docstring, but not in the table"


README = """
| Paper | Function | File |
|---|---|---|
| Eq. 1, Algorithm 2 | `f`, `A.g` | `x.py` |
| section 3 | `h` | `x.py` |
"""
MODULE = """
def f():
    "F. [AB-C Eq. 1] [AB-C Algorithm 2, line 3]"
class A:
    def g(self):
        "G. [AB-C Eq. 1]"
"""


def test_pairs_are_read_from_both_sides(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    (tmp_path / "x.py").write_text(MODULE, encoding="utf-8")
    both = {("Eq. 1", "x.py:f"), ("Algorithm 2", "x.py:f"), ("Eq. 1", "x.py:A.g")}
    assert docstring_pairs(tmp_path) == both
    assert table_pairs(tmp_path) == both | {("Algorithm 2", "x.py:A.g")}


def test_there_are_methods_with_equations() -> None:
    assert "mtl_ssl" in {room.name for room in ROOMS}
