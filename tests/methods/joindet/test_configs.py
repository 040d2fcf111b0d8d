"""Every settings file loads and says what its table says; schedules are the published epochs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from boxcycle.config import load_config
from boxcycle.engine.schedule import learning_rate
from boxcycle.methods import joindet

FOLDER = Path(__file__).parents[3] / "configs" / "joindet"
FILES = sorted(FOLDER.glob("*.yaml"))
PAPER = {"coco17": (118_287, 50, 10), "imagenet1k": (1_281_167, 5, 1), "imagenet100": (125_000, 50, 10)}


def load(file: Path) -> joindet.Config:
    return load_config(joindet.Config, overrides=[f"config={file}"])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_loads_and_shows_its_command(file: Path) -> None:
    assert load(file).detector.losses.classification == "softmax"
    assert f"boxcycle pretrain joindet config=configs/joindet/{file.name}" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAPER)
def test_epochs_are_the_published_ones(name: str) -> None:
    images, epochs, every = PAPER[name]
    config = load(FOLDER / f"{name}.yaml")
    an_epoch = images / config.fit.batch_size
    assert config.fit.steps == pytest.approx(epochs * an_epoch, abs=1)
    assert config.priors.every == pytest.approx(every * an_epoch, abs=1)
    assert learning_rate(config.fit, 0) == 2e-4
    assert learning_rate(config.fit, config.fit.steps - 1) == pytest.approx(2e-4 if name == "imagenet1k" else 2e-5)


@pytest.mark.parametrize("name", PAPER)
def test_every_value_of_the_paper_has_its_source(name: str) -> None:
    lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[4:]
    ours = {"schedule", "path", "eval_every", "save_every"}
    values = [line for line in lines if re.match(r"\s*\w+: \S", line) and line.split(":")[0].strip() not in ours]
    assert len(values) > 30
    assert [line for line in values if not re.search(r"# .*(paper|release)", line)] == []


def test_the_table_lists_every_file() -> None:
    listed = re.findall(r"\]\(([\w-]+\.yaml)\)", (FOLDER / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == [file.name for file in FILES]
