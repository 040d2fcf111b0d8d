"""The site: it builds without a warning, shows every option, runs what it shows, and quotes messages that exist."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from boxcycle.cli import app
from boxcycle.config import config_keys
from boxcycle.data.scenes import SceneConfig, make_scenes
from boxcycle.methods import METHODS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# blocks that need what a test would take minutes to make, and where the same is tested
ELSEWHERE = {"export.md": "tests/test_export.py"}
WITH_PYTHON = [
    page
    for page in sorted(DOCS.glob("**/*.md"))
    if "```python" in page.read_text(encoding="utf-8") and page.name not in ELSEWHERE
]


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("options", DOCS / "hooks" / "options.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_options_has_every_key_of_every_verb(hook: ModuleType) -> None:
    verbs = {command.callback.__name__ for command in app.registered_commands if command.callback}
    assert verbs - {"train", "pretrain"} <= set(hook.VERBS), "a verb is missing in docs/hooks/options.py"
    page = hook.options_page()
    assert [name for name in METHODS if not re.search(rf"\n## boxcycle (pre)?train {name}\n", page)] == []
    for verb, model in hook.models():
        part = page.partition(f"\n## boxcycle {verb}\n")[2].partition("\n## ")[0]
        assert [key.name for key in config_keys(model) if key.section is None and f"| `{key.name}` |" not in part] == []


def test_tables_have_as_many_cells_as_columns(hook: ModuleType) -> None:
    for page in (hook.options_page(), hook.checks_page()):
        for table in re.findall(r"(?:^\|.*\n)+", page, re.M):
            counts = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
            assert len(counts) == 1, table[:300]


def test_links_that_leave_the_documents_become_names(hook: ModuleType) -> None:
    class Page:
        class file:
            src_uri = "reproduce/x.md"

    class Config:
        docs_dir = str(DOCS)

    text = "[a](../../README.md) [b](../formats.md) [c](https://x.org) [d](#e) ![f](../assets/demo.png)"
    found = hook.on_page_markdown(text, Page, Config, None)
    assert found == "a (`README.md`) [b](../formats.md) [c](https://x.org) [d](#e) ![f](../assets/demo.png)"


def source_text() -> str:
    """All texts of the package, with the pieces of a sentence that stands on several lines put together."""
    found = []
    for file in sorted((ROOT / "src").glob("**/*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_messages_of_the_troubleshooting_page_exist() -> None:
    headings = re.findall(r"^### (.*)$", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"), re.M)
    messages = [message for heading in headings for message in re.findall(r"`([^`]+)`", heading)]
    assert len(messages) >= 20
    text = source_text()
    assert [message for message in messages if message not in text] == []


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One block after the other, beside a data set called my_data."""
    make_scenes(tmp_path / "my_data", SceneConfig(size=64), {"train": 30, "val": 3})
    monkeypatch.chdir(tmp_path)
    shared: dict[str, object] = {}
    for text in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        exec(compile(text, str(page), "exec"), shared)


def test_every_page_is_in_the_navigation() -> None:
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [page.relative_to(DOCS).as_posix() for page in DOCS.glob("**/*.md")]
    assert [page for page in pages if page not in listed and not page.startswith("decisions/0")] == []


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs_get_deps", reason="needs the extra docs")
    pytest.importorskip("mkdocstrings", reason="needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "options" / "index.html").read_text(encoding="utf-8")
    assert "fit.batch_size" in page
    assert "fonts.googleapis.com" not in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "read_split" in (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
