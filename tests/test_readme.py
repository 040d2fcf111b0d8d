"""What the documents show can be typed: code compiles, commands parse, links lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from boxcycle import cli
from boxcycle.config import load_config

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    path for path in sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md")) if path.name != "CHANGELOG.md"
]
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


def blocks(path: Path) -> list[tuple[str, str]]:
    """(language, text) of each fenced block."""
    return re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)


def commands(path: Path) -> list[str]:
    """Each line of a block, and each span of code, that calls boxcycle with real words; a final backslash goes on."""
    lines = [line for _, text in blocks(path) for line in text.replace("\\\n", " ").splitlines()]
    spans = re.findall(r"`(boxcycle [^`]*(?:=| METHOD| --)[^`]*)`", path.read_text(encoding="utf-8"))
    found = [line.removeprefix("$ ") for line in lines + spans if re.match(r"(\$ )?boxcycle ", line)]
    return [line for line in found if not re.search(r"\.\.\.|[A-Z]{4,}|key=value", line)]


def check_command(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Let the command line read a command, keys and values included, without running it; returns how many it read."""
    read = []

    def parse(context: object, model: type[BaseModel], job: object, verb: str = "") -> None:
        words = context.args  # type: ignore[attr-defined]
        read.append(verb)
        if "--help" not in words:
            load_config(model, overrides=words)

    monkeypatch.setattr(cli, "_call", parse)
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(cli.app, shlex.split(line, comments=True)[1:])
    assert result.exit_code == 0, f"{line}: {result.stderr or result.exception}"
    return len(read)


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_python_compiles_and_its_imports_exist(path: Path) -> None:
    for language, text in blocks(path):
        if language == "python":
            tree = ast.parse(text)
            imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
            exec(compile(ast.Module(imports, []), str(path), "exec"), {})


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_commands_parse(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in commands(path):
        check_command(line, monkeypatch)


def test_a_wrong_command_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_command("boxcycle train mtl_ssl data=d fit.steps=3  # a comment", monkeypatch) == 1
    for line in ("boxcycle trian", "boxcycle train mtlssl data=d", "boxcycle train mtl_ssl data=d fit.step=3"):
        with pytest.raises(AssertionError):
            check_command(line, monkeypatch)


def test_the_readme_shows_both_ways_in() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    assert text.index("make demo") < text.index("make test") < text.index("boxcycle train")
    assert len(commands(readme)) >= 5
    python = next(text for language, text in blocks(readme) if language == "python")
    assert sum(1 for line in python.splitlines() if line) <= 12


def test_targets_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {
        name for path in DOCUMENTS for name in re.findall(r"\bmake (demo|test|lint|clean)\b", path.read_text("utf-8"))
    }
    assert {"demo", "test"} <= named
    assert [name for name in named if not re.search(rf"^{name}:", makefile, re.M)] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    made = {ROOT / "docs" / name for name in ("options.md", "checks.md")}  # when the site is built
    places = {target: (path.parent / target).resolve() for target in targets}
    assert [target for target, place in places.items() if not place.exists() and place not in made] == []


def test_fields_of_configs_in_python_blocks_exist() -> None:
    """Keyword arguments of ``...Config(...)`` in the README are keys of that model."""
    from boxcycle.methods import mtl_ssl
    from boxcycle.methods.evaluate import EvalConfig
    from boxcycle.methods.predict import PredictConfig

    models = {"mtl_ssl.Config": mtl_ssl.Config, "EvalConfig": EvalConfig, "PredictConfig": PredictConfig}
    python = next(text for language, text in blocks(ROOT / "README.md") if language == "python")
    calls = [
        node for node in ast.walk(ast.parse(python)) if isinstance(node, ast.Call) and ast.unparse(node.func) in models
    ]
    assert len(calls) == 3
    for call in calls:
        assert {keyword.arg for keyword in call.keywords} <= set(models[ast.unparse(call.func)].model_fields)
