"""Which data a run learns from, and how its images are prepared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from boxcycle.data.check import Finding
from boxcycle.data.index import Index
from boxcycle.data.read import AnyFormat, read_split
from boxcycle.data.transforms import ResizeConfig

LABELLED_BY = "labelled-by.json"  # in a data set whose boxes a run drew: `boxcycle label` names the run there


class DataConfig(BaseModel):
    """A data set on disk, its splits and the size of its images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path = Field(description="a folder, or a COCO .json, YOLO data.yaml or tags .csv")
    format: AnyFormat = Field("auto", description="auto: by what the folder holds")
    train: str = Field("train", description="the split that teaches")
    val: str = Field("val", description="the split that is evaluated")
    budget: Path | None = Field(None, description="a file of `boxcycle split`: learn from its labelled images only")
    classes: tuple[str, ...] = Field((), description="only these classes; empty: all")
    bad_boxes: Literal["drop", "error"] = Field(
        "drop", description="boxes that cannot be repaired are dropped and counted, or refused"
    )
    resize: ResizeConfig = ResizeConfig()
    cache: bool = Field(False, description="keep decoded images in memory")


def open_split(
    config: DataConfig,
    split: str,
    findings: list[Finding] | None = None,
    *,
    class_names: Sequence[str] | None = None,
) -> Index:
    """Read one split as the configuration says; repairs are added to ``findings``.

    ``class_names`` are those that a detector has learnt or is to learn: the split's are matched to them by name.
    Raises :class:`DataError`, also where the classes differ, with the difference.
    """
    return read_split(
        config.path,
        split,
        format=config.format,
        bad_boxes=config.bad_boxes,
        class_names=class_names,
        keep_classes=config.classes or None,
        findings=findings,
    )
