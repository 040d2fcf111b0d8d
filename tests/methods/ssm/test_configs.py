"""The settings files load, build and say what the paper says."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxcycle.config import load_config
from boxcycle.methods import METHODS

FOLDER = Path(__file__).parents[3] / "configs" / "ssm"
FILES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_loads_builds_and_names_its_command_and_its_budget(file: Path, tiny: str) -> None:
    words = [f"config={file}", f"detector.backbone={tiny}", "detector.weights=none", "detector.frozen=0"]
    config = load_config(METHODS["ssm"].Config, overrides=words)
    METHODS["ssm"].build(config, ("cup", "plate"))
    text = file.read_text(encoding="utf-8")
    assert f"boxcycle train ssm config=configs/ssm/{file.name}" in text
    split = f"boxcycle split data={config.data.path}"
    assert split in text
    assert config.data.budget == Path(f"budgets/{config.data.train}.images-10pct.seed0.json")
    assert f"]({file.name})" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_papers_parameters() -> None:
    """{lambda, k, N, gamma, z} of section 4; gamma, the IoU of a match, is fixed at 0.5."""
    file = FOLDER / "voc07-rfcn-resnet101-ours.yaml"
    ssm = load_config(METHODS["ssm"].Config, overrides=[f"config={file}"]).ssm
    assert (ssm.mining.pace, ssm.strategy.top, ssm.mining.targets, ssm.questions.count) == (0.9, 500, 5, 100)
