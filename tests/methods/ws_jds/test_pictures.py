"""The picture of the guidance: a row for each present class, every panel of the image's own shape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from boxcycle.data.config import DataConfig
from boxcycle.data.read import read_split
from boxcycle.data.tags import without_boxes
from boxcycle.data.transforms import ResizeConfig
from boxcycle.methods.experiment import dataset_for
from boxcycle.methods.ws_jds import pictures
from boxcycle.methods.ws_jds.pictures import guidance_rows

from .conftest import MakeDetector
from .inputs import draw_proposals


@pytest.mark.parametrize(("segmentation", "panels"), [(1.0, 5), (0.0, 2)])
def test_a_row_for_each_present_class(
    make_detector: MakeDetector, scenes: Path, monkeypatch: pytest.MonkeyPatch, segmentation: float, panels: int
) -> None:
    index = replace(without_boxes(read_split(scenes, "train").subset([0, 1, 2])), class_names=("a", "b", "c"))
    index = replace(index, tags=np.array([1, 2, 3, 3]), tag_offsets=np.array([0, 3, 3, 4]), category_ids=np.arange(3))
    model = make_detector(variant="both" if segmentation else "parallel", segmentation=segmentation).train()
    monkeypatch.setattr(model, "proposals_of", lambda index: [draw_proposals(i, 9).numpy() for i in range(len(index))])
    data = DataConfig(path=scenes, resize=ResizeConfig(short=64, long=64))
    rows = guidance_rows(model, dataset_for(model, index, data))
    names = index.file_names
    assert [row.title for row in rows] == [f"Guidance: {names[i]}, {c}" for i, c in ((0, "a"), (0, "b"), (2, "c"))]
    assert {len(row.pictures) for row in rows} == {panels}
    for row in rows:
        assert len({picture.size for _, picture in row.pictures}) == 1
        assert row.pictures[0][0].startswith("localisation map, image score")
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_seeds_have_two_colours_and_the_rest_stays_grey() -> None:
    seeds = torch.tensor([[1, 0, -1]])
    found = pictures._seeds(np.full((16, 40, 3), 100, dtype=np.uint8), seeds, 16)
    orange, blue, grey = found[8, 8], found[8, 24], found[8, 36]
    assert orange[0] > orange[2]
    assert blue[2] > blue[0]
    assert len(set(grey.tolist())) == 1


def test_heat_rises_with_its_values() -> None:
    found = pictures._heat(np.zeros((8, 8, 3), dtype=np.uint8), torch.tensor([[0.0, 1.0]]).expand(2, 2)).astype(int)
    brightness = found.sum(-1)[0]
    assert (np.diff(brightness) >= 0).all()
    assert brightness[0] < brightness[3] < brightness[4] < brightness[7]
