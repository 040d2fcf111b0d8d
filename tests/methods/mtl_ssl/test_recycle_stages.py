"""torchvision's detectors in stages: levels of a pyramid, heads that are copies of its own, regions in our order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

import boxcycle
from boxcycle.models.torchvision_stages import Pyramid, PyramidRegionHead, Sampled

from .torchvision_samples import CHANNELS, SMALL, samples, tiny_detector


def test_regions_are_pooled_from_the_level_of_their_size_and_the_whole_image_from_the_coarsest() -> None:
    levels = {str(n): torch.full((1, 1, 512 // 2 ** (n + 2), 512 // 2 ** (n + 2)), float(n)) for n in range(4)}
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    maps = Pyramid(levels | {"pool": torch.zeros(1, 1, 8, 8)}, [(512, 512)], pool)
    # FPN's rule: level floor(4 + log2(side / 224)) of 2..5; 112 -> 3, 224 -> 4, 448 and above -> 5
    boxes = torch.tensor([[0, 0, 512, 512], [0, 0, 20, 20], [100, 100, 212, 212], [50, 50, 274, 274.0]])
    assert maps.pooled([boxes]).amax((1, 2, 3)).tolist() == [3, 0, 1, 2]
    assert list(maps.levels) == ["0", "1", "2", "3"]


def test_a_pyramid_without_gradient() -> None:
    model = boxcycle.recycle(tiny_detector())
    every = dict(model.detector.backbone(torch.rand(1, 3, 64, 64)))
    maps = Pyramid(every, [(64, 64)], model.detector.roi_heads.box_roi_pool)
    assert every["0"].requires_grad
    assert not any(level.requires_grad for level in maps.detach().every.values())
    assert maps.detach().every["3"].equal(every["3"])


def test_the_foreground_task_teaches_every_level_that_regions_are_pooled_from() -> None:
    images, targets = samples()
    model = boxcycle.recycle(tiny_detector(), stop_gradient=False, **SMALL).train()
    model(images, targets)["loss_foreground"].backward()
    for block in model.detector.backbone.fpn.layer_blocks:
        assert block[0].weight.grad.abs().sum() > 0


def test_a_backbone_of_one_level_works_too() -> None:
    torch.manual_seed(0)
    trunk: Any = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, 8, 1), nn.ReLU())
    trunk.out_channels = CHANNELS
    single = {
        "rpn_anchor_generator": AnchorGenerator(((16, 32),), ((1.0,),)),
        "box_roi_pool": MultiScaleRoIAlign(["0"], 7, 2),
    }
    options = {"box_head": TwoMLPHead(CHANNELS * 49, 16), "box_predictor": FastRCNNPredictor(16, 4)}
    model = boxcycle.recycle(detection.FasterRCNN(trunk, min_size=64, max_size=96, **single, **options), **SMALL)
    images, targets = samples()
    assert all(value.isfinite() for value in model.train()(images, targets).values())
    assert len(model.eval()(images)) == 3


def test_heads_start_as_copies_of_the_box_head_and_are_trained_apart() -> None:
    model = boxcycle.recycle(tiny_detector(), **SMALL).eval()
    maps = Pyramid(
        dict(model.detector.backbone(torch.rand(1, 3, 64, 64))), [(64, 64)], MultiScaleRoIAlign("0123", 7, 2)
    )
    boxes = [torch.tensor([[0.0, 0, 30, 40], [5, 5, 60, 20]])]
    heads = model.detector.roi_heads
    expected = heads.box_predictor(heads.box_head(maps.pooled(boxes)))[0]
    for head in (model.window_head, model.closeness_head):
        assert head(maps, boxes).equal(expected)
        assert head.classify(head.prepare(maps), boxes).equal(expected)
    with torch.no_grad():
        model.window_head.classifier.bias += 1
    assert model.closeness_head(maps, boxes).equal(expected)
    assert heads.box_predictor(heads.box_head(maps.pooled(boxes)))[0].equal(expected)


def test_a_copied_head_draws_nothing_and_keeps_the_statistics_of_its_norms() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(49), nn.Dropout(), nn.Linear(49, 4))
    head = PyramidRegionHead(flat, nn.Linear(4, 4)).train()
    maps = Pyramid({"0": torch.rand(1, 1, 16, 16)}, [(64, 64)], MultiScaleRoIAlign(["0"], 7, 2))
    state = torch.get_rng_state()
    box = torch.tensor([[0.0, 0, 30, 40]])
    torch.testing.assert_close(head(maps, [box]), head(maps, [torch.cat([box, box + 9])])[:1])
    assert torch.get_rng_state().equal(state)
    assert head.stage[1].num_batches_tracked == 0
    assert flat.training
    assert flat[3].weight.data_ptr() != head.stage[3].weight.data_ptr()


def test_objects_come_first_and_rows_lead_back() -> None:
    lists = ([0, 2, 0, 1], [3, 0])
    numbers = [torch.arange(4), torch.arange(2) + 10]
    boxes = [number[:, None].expand(-1, 4).float() for number in numbers]
    rois, rows = Sampled(boxes, numbers, [torch.tensor(labels) for labels in lists], boxes).objects_first()
    assert rows.tolist() == [1, 3, 0, 2, 4, 5]
    assert rois.labels.tolist() == [2, 1, 0, 0, 3, 0]
    assert rois.matched.tolist() == [1, 3, 0, 2, 10, 11]
    assert [regions[:, 0].tolist() for regions in rois.boxes] == [[1, 3, 0, 2], [10, 11]]
    assert rois.share.tolist() == pytest.approx([1 / 6] * 6)
