"""What the site makes from the code itself, so that it cannot be out of date: every option, every check of data.

Links that leave the documents for a file of the repository become the name of that file: the site has no such page.
"""

from __future__ import annotations

import importlib
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from boxcycle.config import config_keys
from boxcycle.data.check import CHECKS
from boxcycle.methods import METHODS, PRETRAINING

# verb -> where its settings stand; tests/test_docs.py compares this with the command line
VERBS = {
    "demo": "boxcycle.methods.demo:DemoConfig",
    "doctor": "boxcycle.data.doctor:DoctorConfig",
    "convert": "boxcycle.data.convert:ConvertConfig",
    "split": "boxcycle.data.splits:SplitConfig",
    "eval": "boxcycle.methods.evaluate:EvalConfig",
    "compare": "boxcycle.methods.compare:CompareConfig",
    "predict": "boxcycle.methods.predict:PredictConfig",
    "export": "boxcycle.export:ExportConfig",
    "mine": "boxcycle.methods.ssm.mine:MineConfig",
    "annotate": "boxcycle.annotate.run:AnnotateConfig",
    "label": "boxcycle.methods.label:LabelConfig",
}
HEAD = "| key | default | takes | |\n|---|---|---|---|"


def models() -> Iterator[tuple[str, type[BaseModel]]]:
    """Every verb, and every method of `train` and `pretrain`, with the model of its settings."""
    for verb, place in VERBS.items():
        module, _, name = place.partition(":")
        yield verb, getattr(importlib.import_module(module), name)
    for name, method in METHODS.items():
        yield f"{'pretrain' if name in PRETRAINING else 'train'} {name}", method.Config


def options_page() -> str:
    """The page of every option, from the models that the command line itself reads."""
    parts = [
        "# Every option\n\nMade from the code: the keys of each verb as `boxcycle VERB --help` lists them. Give them "
        "as `key=value`, as `--key value`, or in a YAML file with `config=FILE`; a key that does not exist is refused "
        "with the name of the nearest that does. `data=PATH` is short for `data.path=PATH`."
    ]
    for verb, model in models():
        rows = [row(key) for key in config_keys(model) if key.section is None]
        parts.append(f"## boxcycle {verb}\n\n{HEAD}\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def row(key: Any) -> str:
    """A line of the table: key, default, kind, description."""
    default = f"`{key.default}`" if key.default not in ("", "required") else key.default or "empty"
    cells = (f"`{key.name}`", default, key.kind, key.description)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def checks_page() -> str:
    """The page of everything that readers and doctor look for, from the table that they use."""
    rows = [
        f"| `{name}` | {check.severity} | {check.meaning} | {check.effect} | {('reader', 'doctor')[check.by_doctor]} |"
        for name, check in CHECKS.items()
    ]
    head = "| check | severity | what it finds | what happens | who looks |\n|---|---|---|---|---|"
    text = (
        "# What is checked in data\n\nMade from the code. Readers and `boxcycle doctor` share one policy: an error "
        "ends the reading, after everything else was looked at too; a repair is counted; nothing is left out without a "
        "line that says so. `data.bad_boxes=error` makes errors of the warnings that drop objects."
    )
    return f"{text}\n\n{head}\n" + "\n".join(rows) + "\n"


PAGES = {"options.md": options_page, "checks.md": checks_page}


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made."""
    from mkdocs.structure.files import File

    for name, make in PAGES.items():
        files.append(File.generated(config, name, content=make()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Let links to files outside the documents stand as their names."""
    folder = posixpath.dirname(page.file.src_uri)

    def plain(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", folder, match[2].partition("#")[0]))
        inside = target.startswith("docs/") or "://" in match[2] or match[2].startswith("#")
        return (
            match[0] if inside or not (Path(config.docs_dir).parent / target).exists() else f"{match[1]} (`{target}`)"
        )

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", plain, markdown)
