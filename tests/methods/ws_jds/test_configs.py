"""Every settings file loads, builds and takes a step, and says where each value of the paper comes from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from boxcycle.config import load_config
from boxcycle.engine.schedule import learning_rate
from boxcycle.methods.ws_jds.train import Config, build

from .inputs import picture, tagged

FOLDER = Path(__file__).parents[3] / "configs" / "ws_jds"
FILES = sorted(FOLDER.glob("*.yaml"))
GUIDED = [file for file in FILES if not file.stem.endswith("wsddn")]
PAPER = [file for file in FILES if file.name.startswith("voc")]


def load(file: Path, *words: str) -> Config:
    return load_config(Config, overrides=[f"config={file}", *words])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_tiny_version_takes_a_step_and_detects(file: Path, tiny: str) -> None:
    torch.set_num_threads(1)
    small = ("detector.weights=none", "detector.frozen=0", "detector.width=16", "detector.crf=none")
    model = build(load(file, f"detector.backbone={tiny}", *small), ("cup", "plate", "ball"))
    losses = model.train().losses([picture(1)], [tagged(1, [1, 0, 1])])
    assert all(value.isfinite() for value in losses.values())
    assert len(model.eval().predict([picture(1)])[0]["boxes"]) <= 100


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_name_and_the_first_lines_say_what_is_in_the_file(file: Path) -> None:
    config = load(file)
    assert (config.guidance.variant == "parallel") == file.stem.endswith("wsddn")
    assert (config.guidance.segmentation == 0) == file.stem.endswith("wsddn")
    assert config.detector.backbone == ("vgg16" if file in PAPER else "efficientnet_lite0")
    assert f"boxcycle train ws_jds config=configs/ws_jds/{file.name}" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("file", GUIDED, ids=lambda file: file.stem)
def test_the_baseline_differs_in_guidance_only(file: Path) -> None:
    ours, baseline = load(file), load(file.with_name(f"{file.stem}-wsddn.yaml"))
    assert ours.model_dump(exclude={"guidance"}) == baseline.model_dump(exclude={"guidance"})


@pytest.mark.parametrize("file", PAPER, ids=lambda file: file.stem)
def test_every_value_of_the_paper_has_its_source(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()[4:]
    values = [line for line in lines if re.match(r"\s+\w+: \S", line)]
    assert len(values) > 30
    ours = {"schedule", "path", "eval_every", "save_every"}
    unsourced = [
        line
        for line in values
        if line.split(":")[0].strip() not in ours and not re.search(r"# .*(paper|release|published|ImageNet)", line)
    ]
    assert unsourced == []


def test_the_learning_rate_falls_after_twenty_of_thirty_epochs() -> None:
    fit = load(FOLDER / "voc07-vgg16.yaml").fit
    assert fit.steps == 30 * 5011 // 128 + 1
    assert learning_rate(fit, 782) == pytest.approx(1e-3)
    assert learning_rate(fit, 784) == pytest.approx(1e-4)


def test_the_table_lists_every_file_and_its_figure() -> None:
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\]\(([\w-]+\.yaml)\)", table)) == [file.name for file in FILES]
    for file in PAPER:
        figure = re.search(r"AP50 ([\d.]+) on", file.read_text(encoding="utf-8"))
        assert figure
        row = next(line for line in table.splitlines() if f"({file.name})" in line)
        assert f"| {figure[1]} (" in row
