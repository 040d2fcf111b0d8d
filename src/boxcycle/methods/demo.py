"""`boxcycle demo`: supervised beside mtl_ssl on the same scenes in the same order, and a report to open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from boxcycle.data.config import DataConfig, open_split
from boxcycle.data.index import Index
from boxcycle.data.scenes import SceneConfig, make_scenes
from boxcycle.data.transforms import ResizeConfig
from boxcycle.engine.config import FitConfig
from boxcycle.methods import METHODS
from boxcycle.methods.experiment import TrainConfig
from boxcycle.models.config import DetectorConfig
from boxcycle.models.two_stage import RegionConfig
from boxcycle.report.comparison import write_comparison
from boxcycle.report.run import read_run

ARMS = ("supervised", "mtl_ssl")


class DemoConfig(BaseModel):
    """Size of the demonstration; the defaults take a few minutes on two cores."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Path = Field(Path("runs/demo"), description="folder for the scenes, both runs and the report")
    images: int = Field(100, ge=8, description="training images; half as many are evaluated")
    size: int = Field(256, ge=64, description="pixels of the longer side")
    steps: int = Field(200, ge=1, description="steps of each of the two runs")
    seed: int = Field(0, ge=0, description="seeds the scenes, the order and all draws")
    overwrite: bool = Field(True, description="throw away an earlier demonstration")


def demo(config: DemoConfig) -> None:
    """Generate scenes, train both arms, print their rows, and write the comparison."""
    scenes = make_scenes(
        config.run / f"scenes-{config.size}-{config.images}-{config.seed}",
        SceneConfig(images=config.images, size=config.size, seed=config.seed),
    )
    arms = {method: arm(method, scenes, config) for method in ARMS}
    folders = {method: METHODS[method].train(settings) for method, settings in arms.items()}
    data = arms[ARMS[0]].data
    index = open_split(data, data.val)
    report = config.run / "report.html"
    write_comparison(report, folders, index, title="Supervised beside MTL-SSL on generated scenes")
    _print_rows(folders, index)
    print("\nOne pair of runs this short says nothing about the methods; docs/reproduce/mtl-ssl.md does.")
    print(f"Report: {report}")


def arm(method: str, scenes: Path, config: DemoConfig) -> TrainConfig:
    """The configuration of one of the two runs: equal but for the method."""
    settings: dict[str, Any] = {
        "data": DataConfig(path=scenes, resize=ResizeConfig(short=config.size, long=config.size), cache=True),
        "detector": DetectorConfig(proposals=100, roi_size=4, regions=RegionConfig(sampled=32)),
        "fit": FitConfig(steps=config.steps, seed=config.seed, workers=0, eval_every=0, save_every=0),
        "run": config.run / method,
        "overwrite": config.overwrite,
    }
    if method == "mtl_ssl":
        settings["tasks"] = {"windows": 16, "refined": 8}  # to 32 sampled regions about what the paper's 64 are to 256
    return METHODS[method].Config(**settings)


def _print_rows(folders: dict[str, Path], index: Index) -> None:
    from rich.console import Console
    from rich.table import Table

    names = ("AP", "AP50", "AP75")
    table = Table("method", *names, "images/s", title=f"{len(index)} scenes, percent", show_edge=False)
    for method, folder in folders.items():
        run = read_run(folder, index, method)
        table.add_row(method, *(f"{run.metrics.summary[name]:.1f}" for name in names), f"{run.images_per_second:.1f}")
    Console().print(table)
