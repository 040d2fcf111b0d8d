"""Every settings file loads, builds and takes a step, and says what its name and the table say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from boxcycle.config import ConfigError, load_config
from boxcycle.engine.schedule import learning_rate
from boxcycle.methods import METHODS
from boxcycle.methods.experiment import TrainConfig
from boxcycle.types import Target

FOLDER = Path(__file__).parents[3] / "configs" / "mtl_ssl"
FILES = sorted(FOLDER.glob("*.yaml"))
PAPER = [file for file in FILES if file.name.startswith(("voc", "coco"))]
IDS = [file.stem for file in FILES]
ARMS = {"baseline": "supervised", "ours": "mtl_ssl"}


def method(file: Path) -> str:
    return ARMS[file.stem.rpartition("-")[2]]


def load(file: Path, *words: str) -> TrainConfig:
    return load_config(METHODS[method(file)].Config, overrides=[f"config={file}", *words])


def build_tiny(file: Path, tiny: str) -> nn.Module:
    torch.manual_seed(0)
    config = load(file, f"detector.backbone={tiny}", "detector.weights=none", "detector.frozen=0")
    return METHODS[method(file)].build(config, ("cup", "plate"))


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_a_tiny_version_takes_a_step_and_detects(file: Path, tiny: str) -> None:
    model = build_tiny(file, tiny)
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    target = Target(boxes=torch.tensor([[4.0, 5, 40, 50]]), labels=torch.tensor([1]), seed=0)
    losses = model.losses([image], [target])
    assert all(value.isfinite() for value in losses.values())
    sum(model.loss_weights[name] * value for name, value in losses.items()).backward()
    with torch.no_grad():
        assert len(model.eval().predict([image])[0]["boxes"]) <= 300


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_the_name_and_the_first_lines_say_what_is_in_the_file(file: Path) -> None:
    config, parts = load(file), file.stem.split("-")
    assert config.detector.name == parts[1]
    assert config.detector.backbone == (parts[2] if file in PAPER else "efficientnet_lite0")
    folder = {"voc07": "VOC2007", "voc0712": "VOC0712", "coco17": "coco", "bccd": "bccd", "scenes": "scenes-256-100-0"}
    assert config.data.path.name == folder[parts[0]]
    command = f"boxcycle train {method(file)} config=configs/mtl_ssl/{file.name}"
    assert command in file.read_text(encoding="utf-8")


def test_the_file_of_one_arm_is_not_one_of_the_other() -> None:
    ours = next(file for file in PAPER if file.stem.endswith("ours"))
    with pytest.raises(ConfigError, match="no 'tasks'"):
        load_config(METHODS["supervised"].Config, overrides=[f"config={ours}"])


@pytest.mark.parametrize("file", [file for file in FILES if file.stem.endswith("ours")], ids=lambda file: file.stem)
def test_the_arms_differ_in_tasks_and_schedule_only(file: Path) -> None:
    baseline = load(file.with_name(file.name.replace("-ours", "-baseline")))
    ours = load(file)
    assert ours.data == baseline.data
    assert ours.detector == baseline.detector
    schedule = {"steps", "milestones"} if file in PAPER else set()
    assert ours.fit.model_dump(exclude=schedule) == baseline.fit.model_dump(exclude=schedule)


@pytest.mark.parametrize("file", PAPER, ids=lambda file: file.stem)
def test_every_value_of_the_paper_has_its_source(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()[4:]
    values = [line for line in lines if re.match(r"\s+\w+: \S", line) and not line.lstrip().startswith("#")]
    assert len(values) > 25
    ours = {"schedule", "path", "eval_every", "save_every"}  # how the learning rate is written down, and what is ours
    unsourced = [
        line
        for line in values
        if line.split(":")[0].strip() not in ours
        and not re.search(r"# .*(paper|release|published|baseline's|ImageNet)", line)
    ]
    assert unsourced == []


@pytest.mark.parametrize(
    ("name", "step", "rate"),
    [
        ("voc07-faster_rcnn-resnet101-baseline", 99_999, 1e-3),
        ("voc07-faster_rcnn-resnet101-baseline", 100_000, 1e-4),
        ("voc07-faster_rcnn-resnet101-ours", 120_000, 1e-5),
        ("voc07-rfcn-resnet101-ours", 177_720, 1e-6),
        ("voc0712-rfcn-resnet101-baseline", 280_000, 1e-5),
        ("coco17-faster_rcnn-resnet101-baseline", 899_999, 1e-4),
    ],
)
def test_learning_rates_are_the_published_ones(name: str, step: int, rate: float) -> None:
    assert learning_rate(load(FOLDER / f"{name}.yaml").fit, step) == pytest.approx(rate)


def test_the_table_lists_every_file_and_its_figure() -> None:
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"\]\(([\w-]+\.yaml)\)", table)
    assert sorted(listed) == [file.name for file in FILES]
    for file in PAPER:
        figure = re.search(r"AP(?:50)? ([\d.]+) on", file.read_text(encoding="utf-8"))
        assert figure
        row = next(line for line in table.splitlines() if f"({file.name})" in line)
        assert f"| {figure[1]} (" in row
