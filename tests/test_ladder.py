"""The ladder of docs/ladder.md: its own commands, one after the other, on a few scenes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from boxcycle.data.scenes import SceneConfig, make_scenes
from boxcycle.methods.finished import read_finished
from command_line import boxcycle

PAGE = Path(__file__).parents[1] / "docs" / "ladder.md"
ELSEWHERE = ("boxcycle demo", "boxcycle annotate")  # tests/methods/test_demo.py, tests/annotate/test_run.py
SIZE = ["data.resize.short=64", "data.resize.long=64"]
FIT = [*SIZE, "fit.batch_size=2", "fit.workers=0", "fit.device=cpu", "detector.backbone=tiny", "detector.weights=none"]
REGIONS = ["detector.roi_size=4", "detector.proposals=20", "detector.regions.sampled=8"]
DETR = ["detector.width=32", "detector.encoder_layers=1", "detector.decoder_layers=1", "detector.feed_forward=32"]
SMALL = {
    "pretrain joindet": [*FIT, *DETR, "detector.queries=12"],
    "train detr": [*FIT, *DETR, "detector.queries=12"],
    "train ws_jds": [*FIT, "detector.roi_size=4", "detector.sampled=8", "detector.width=16", "proposals.limit=20"],
    "train supervised": [*FIT, *REGIONS],
    "train mtl_ssl": [*FIT, *REGIONS, "tasks.windows=4", "tasks.refined=4"],
    "train ssm": [*FIT, *REGIONS, "ssm.mining.targets=1", "ssm.rounds=1"],
    "mine run=": ["mining.targets=1", "device=cpu"],
    "label run=": ["device=cpu"],
}


def commands() -> list[str]:
    """The lines of the page's blocks that start with a verb, in their order."""
    blocks = re.findall(r"^```\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line.startswith("boxcycle ")]


def small(command: str) -> list[str]:
    """The words of a command after ``boxcycle``, at the size of a test."""
    short = re.sub(r"((?:fit|ssm)\.steps|priors\.every)=\d+", r"\1=1", command.replace(" data.resize=small", ""))
    more = next((words for start, words in SMALL.items() if command.startswith(f"boxcycle {start}")), [])
    if "ws_jds" in command:
        more = [*more, "proposals.workers=0", "proposals.cache=proposals"]
    return [*shlex.split(short)[1:], *more]


@pytest.mark.slow
@pytest.mark.usefixtures("quiet_place", "tiny")
def test_the_commands_of_the_page_run() -> None:
    pytest.importorskip("cv2", reason="needs the extra proposals")
    make_scenes(Path("my_data"), SceneConfig(size=64), {"train": 30, "val": 3})
    for command in commands():
        if not command.startswith(ELSEWHERE):
            boxcycle(*small(command))
    from_tags, asked, every = (read_finished(Path("runs", name)).sources() for name in ("from-tags", "asked", "all"))
    assert [source.tags for source in from_tags] == [True]
    assert len(asked) == 2, "the tags, and the boxes of the budget"
    assert len(every) == 3
    assert Path("runs/ladder/report.html").exists()
    assert Path("runs/few-detr/mined/questions.jsonl").exists()
