"""A torchvision detector with MTL-SSL's tasks: what it was, it stays; it learns in torchvision's own loop."""

from __future__ import annotations

import copy
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

import boxcycle
from boxcycle.methods.mtl_ssl.recycle import RecycledDetector
from boxcycle.methods.mtl_ssl.tasks import Tasks
from boxcycle.models.config import DetectorConfig
from boxcycle.models.faster_rcnn import FasterRCNN
from boxcycle.models.torchvision_stages import Pyramid, PyramidRegionHead, Sampled

SMALL = {"windows": 8, "refined": 4, "foreground": 1.0}
CHANNELS = 8
KINDS = {"faster": detection.FasterRCNN, "mask": detection.MaskRCNN, "keypoint": detection.KeypointRCNN}
Sample = dict[str, Tensor]


def tiny_detector(kind: str = "faster", seed: int = 0, **options: Any) -> Any:
    """A detector of torchvision's with four pyramid levels (strides 4 to 32) and a pooled fifth; 3 classes."""
    torch.manual_seed(seed)
    stages = OrderedDict(
        (str(level), nn.Sequential(nn.Conv2d(inputs, 8, 3, stride, 1), nn.BatchNorm2d(8), nn.ReLU()))
        for level, (inputs, stride) in enumerate([(3, 4), (8, 2), (8, 2), (8, 2)])
    )
    names = {name: name for name in stages}
    trunk = BackboneWithFPN(nn.Sequential(stages), names, [8] * 4, CHANNELS, extra_blocks=LastLevelMaxPool())
    extra = {
        "faster": {},
        "mask": {"mask_head": MaskRCNNHeads(8, (8,), 1), "mask_predictor": MaskRCNNPredictor(8, 8, 4)},
        "keypoint": {"keypoint_head": KeypointRCNNHeads(8, (8,)), "keypoint_predictor": KeypointRCNNPredictor(8, 2)},
    }[kind]
    small: dict[str, Any] = {
        "min_size": 64,
        "max_size": 96,
        "rpn_anchor_generator": AnchorGenerator(tuple((8 * 2**i,) for i in range(5)), ((1.0,),) * 5),
        "box_head": TwoMLPHead(CHANNELS * 49, 16),
        "box_predictor": FastRCNNPredictor(16, 4),
        "rpn_post_nms_top_n_train": 40,
        "rpn_post_nms_top_n_test": 12,
        "box_batch_size_per_image": 16,
        "box_score_thresh": 0.0,
    }
    return KINDS[kind](trunk, **(small | extra | options))


def image(seed: int, height: int = 48, width: int = 64) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def target(boxes: list[list[float]], labels: list[int], height: int = 48, width: int = 64) -> Sample:
    """All that any of the detectors wants; torchvision's detectors leave alone what they do not know."""
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    masks = torch.zeros(len(boxes), height, width, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, corners.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    middle = (corners[:, None, :2] + corners[:, None, 2:]) / 2
    points = torch.cat([middle, torch.ones_like(middle[..., :1])], dim=2).repeat(1, 2, 1)
    return {"boxes": corners, "labels": torch.tensor(labels, dtype=torch.int64), "masks": masks, "keypoints": points}


def samples() -> tuple[list[Tensor], list[Sample]]:
    """Three images of two sizes; the second has no box."""
    images = [image(0), image(1, 60, 60), image(2)]
    boxes = [[4.0, 5, 40, 44], [30, 8, 62, 40]]
    return images, [target(boxes, [1, 3]), target([], [], 60, 60), target([[0, 0, 33, 33]], [2])]


def torchvision_loop(model: nn.Module, images: list[Tensor], targets: list[Sample], steps: int) -> list[float]:
    """As in torchvision's references: sum the losses, step; returns the sums."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.02, momentum=0.9, weight_decay=1e-4)
    model.train()
    sums = []
    for _ in range(steps):
        losses = sum(loss for loss in model(images, targets).values())
        optimizer.zero_grad()
        losses.backward()
        optimizer.step()
        sums.append(losses.item())
    return sums


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    theirs = other.state_dict()
    assert one.state_dict().keys() == theirs.keys()
    assert [name for name, value in one.state_dict().items() if not value.equal(theirs[name])] == []


def assert_same_detections(one: list[Sample], other: list[Sample]) -> None:
    assert any(len(found["boxes"]) for found in one)
    for first, second in zip(one, other, strict=True):
        assert first.keys() == second.keys()
        for name in first:
            assert first[name].equal(second[name]), name


# --- what it was, it stays


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_tasks_leave_the_detector_exactly_as_plain_training_does(kind: str) -> None:
    images, targets = samples()
    plain = tiny_detector(kind, min_size=(56, 64, 72))  # of several sizes the transform draws one
    model = boxcycle.recycle(copy.deepcopy(plain), stop_gradient=True, **SMALL)
    states = []
    for one in (plain, model):
        torch.manual_seed(7)
        torchvision_loop(one, images, targets, 4)
        states.append(torch.get_rng_state())
    assert_same_weights(plain, model.detector)
    assert states[0].equal(states[1])
    assert not model.window_head.classifier.weight.equal(plain.roi_heads.box_predictor.cls_score.weight)


def test_tasks_that_are_not_stopped_teach_the_detector() -> None:
    images, targets = samples()
    model = boxcycle.recycle(tiny_detector(), stop_gradient=False, **SMALL)
    for name in ("multi_object", "closeness", "foreground"):
        model.zero_grad()
        model.train()(images, targets)[f"loss_{name}"].backward()
        assert next(model.detector.backbone.parameters()).grad.abs().sum() > 0, name
    model.zero_grad()
    model(images, targets)["loss_refinement"].backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert touched == {"refiner.layer.weight", "refiner.layer.bias"}


@pytest.mark.parametrize("kind", KINDS)
def test_detections_have_torchvisions_form_and_are_the_plain_ones_where_nothing_is_refined(kind: str) -> None:
    images, _ = samples()
    model = boxcycle.recycle(tiny_detector(kind), **SMALL).eval()
    with torch.no_grad():
        plain = model.detector(images)
        refined = model(images)
        model.refines = False
        assert_same_detections(model(images), plain)
        model.refines = True
        model.refiner.layer.weight.zero_()
        assert_same_detections(model(images), plain)
    assert not refined[0]["scores"].equal(plain[0]["scores"])
    assert refined[0].keys() == plain[0].keys()
    for found, (height, width) in zip(refined, [(48, 64), (60, 60), (48, 64)], strict=True):
        assert (found["boxes"] <= torch.tensor([width, height, width, height]) + 1e-3).all()
        assert found["boxes"][:, 2].max() > 0.5 * width  # original pixels, not those of the resized image


def test_refined_classes_are_those_of_the_tasks_own_refinement() -> None:
    """The second way: score the detector's boxes by hand, from the head's logits of every window."""
    images = [image(3)]
    model = boxcycle.recycle(tiny_detector(), **SMALL).eval()
    seen: dict[str, Tensor] = {}
    heads = model.detector.roi_heads
    original = heads.postprocess_detections

    def spy(logits: Tensor, deltas: Tensor, proposals: list[Tensor], sizes: list[tuple[int, int]]) -> Any:
        seen.update(logits=logits, proposals=proposals[0], size=torch.tensor(sizes[0]))
        return original(logits, deltas, proposals, sizes)

    heads.postprocess_detections = spy
    with torch.no_grad():
        model(images)
        moved, _ = model.detector.transform(images)
        maps = Pyramid(dict(model.detector.backbone(moved.tensors)), moved.image_sizes, heads.box_roi_pool)
        boxes = seen["proposals"]
        plain = heads.box_predictor(heads.box_head(maps.pooled([boxes])))[0]
        height, width = moved.image_sizes[0]
        whole = torch.tensor([0.0, 0, width, height])
        mean = model.closeness_head(maps, [boxes]).mean(0)
        expected = []
        for box, logits in zip(boxes, plain, strict=True):
            windows = torch.stack([box + (whole - box) * step / 4 for step in range(5)])
            around = model.window_head(maps, [windows]).flatten()
            expected.append(logits + model.refiner.layer(torch.cat([logits, around, mean])))
    torch.testing.assert_close(seen["logits"], torch.stack(expected), atol=1e-4, rtol=1e-4)


# --- what it learns


@pytest.mark.parametrize("kind", ["faster", "mask"])
def test_it_learns_four_images_in_torchvisions_loop(kind: str) -> None:
    images, targets = samples()
    model = boxcycle.recycle(tiny_detector(kind), **SMALL)
    torch.manual_seed(0)
    sums = torchvision_loop(model, [*images, image(3)], [*targets, target([[10, 10, 30, 40]], [3])], 12)
    assert sum(sums[-3:]) < 0.8 * sum(sums[:3])


def test_losses_are_torchvisions_and_ours_multiplied_by_their_weights() -> None:
    images, targets = samples()
    found = {}
    for factor in (1.0, 0.25):
        weights = {"multi_object": factor, "closeness": factor, "foreground": factor, "refinement": factor}
        model = boxcycle.recycle(tiny_detector(), **(SMALL | weights)).train()
        torch.manual_seed(1)
        found[factor] = model(images, targets)
    torchvisions = ["loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"]
    ours = ["loss_multi_object", "loss_closeness", "loss_foreground", "loss_refinement"]
    assert list(found[1.0]) == torchvisions + ours
    for name in torchvisions:
        assert found[1.0][name].equal(found[0.25][name])
    for name in ours:
        torch.testing.assert_close(0.25 * found[1.0][name], found[0.25][name])


@pytest.mark.parametrize("off", ["multi_object", "closeness", "foreground", "refinement"])
def test_a_task_of_weight_zero_is_not_there(off: str) -> None:
    images, targets = samples()
    model = boxcycle.recycle(tiny_detector(), **(SMALL | {off: 0.0}))
    assert f"loss_{off}" not in model.train()(images, targets)
    model.eval()(images)


@pytest.mark.parametrize("case", ["boxes", "one box", "none"])
@pytest.mark.parametrize("kind", ["faster", "mask"])
def test_losses_are_finite_and_reach_every_parameter_with_and_without_boxes(kind: str, case: str) -> None:
    images, targets = samples()
    nothing = [target([], []), target([], [], 60, 60), target([], [])]
    chosen = {"boxes": targets, "one box": [*nothing[:2], targets[2]], "none": nothing}[case]
    model = boxcycle.recycle(tiny_detector(kind), **SMALL).train()
    losses = model(images, chosen)
    assert all(value.ndim == 0 and value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_tasks_see_boxes_of_the_resized_image_and_the_objects_that_regions_matched() -> None:
    """An image of 24 x 32 becomes 64 x 85: both sides are scaled, each by its own ratio."""
    model = boxcycle.recycle(tiny_detector(), **SMALL).train()
    seen: dict[str, Any] = {}

    def spy(self: Any, maps: Any, batch: Any, rois: Any, logits: Tensor, targets: Any) -> dict[str, Tensor]:
        seen.update(maps=maps, batch=batch, rois=rois, logits=logits, targets=targets)
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tasks, "task_losses", spy)
        model([image(0, 24, 32)], [target([[2, 3, 30, 20], [0, 0, 8, 8]], [2, 1], 24, 32)])
    assert seen["batch"].sizes == [(64, 85)]
    its, ratio = seen["targets"][0], torch.tensor([85 / 32, 64 / 24]).repeat(2)
    torch.testing.assert_close(its["boxes"], torch.tensor([[2.0, 3, 30, 20], [0, 0, 8, 8]]) * ratio)
    assert its["original_size"] == (24, 32)
    rois = seen["rois"]
    objects = int((rois.labels > 0).sum())
    assert objects >= 2
    assert (rois.labels[:objects] > 0).all()
    assert rois.labels[:objects].equal(its["labels"][rois.matched[:objects]])
    exact = [bool((rois.boxes[0][:objects] == box).all(1).any()) for box in its["boxes"]]
    assert exact == [True, True]  # torchvision appends the annotated boxes to the proposals
    assert float(rois.share.sum()) == pytest.approx(1)
    heads = model.detector.roi_heads
    torch.testing.assert_close(heads.box_predictor(heads.box_head(seen["maps"].pooled(rois.boxes)))[0], seen["logits"])


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


def test_windows_are_drawn_anew_in_every_step_or_from_the_targets_own_seed() -> None:
    images, targets = samples()
    model = boxcycle.recycle(tiny_detector(), **SMALL).train()
    found = [float(model(images, targets)["loss_multi_object"].detach()) for _ in range(2)]
    assert found[0] != found[1]
    assert int(model.draws) == 6
    seeded = [its | {"seed": number} for number, its in enumerate(targets)]  # as of the first step
    assert float(model(images, seeded)["loss_multi_object"].detach()) == found[0]


# --- the pyramid


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


# --- a module like any other


def test_it_is_saved_and_loaded_with_its_count_of_draws(tmp_path: Path) -> None:
    images, targets = samples()
    model = boxcycle.recycle(tiny_detector(), **SMALL)
    torchvision_loop(model, images, targets, 2)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    other = boxcycle.recycle(tiny_detector(seed=5), **SMALL)
    other.load_state_dict(torch.load(tmp_path / "weights.pth", weights_only=True))
    assert int(other.draws) == 6
    for one in (model, other):
        torch.manual_seed(3)
        torchvision_loop(one, images, targets, 1)
    assert_same_weights(model, other)
    plain = tiny_detector(seed=9)
    plain.load_state_dict(model.detector.state_dict())
    assert_same_weights(plain, model.detector)


def test_a_deep_copy_is_apart() -> None:
    images, targets = samples()
    model = boxcycle.recycle(tiny_detector(), **SMALL)
    twin = copy.deepcopy(model)
    torchvision_loop(twin, images, targets, 1)
    assert int(model.draws) == 0
    assert not twin.detector.rpn.head.cls_logits.weight.equal(model.detector.rpn.head.cls_logits.weight)
    assert twin.detector is not model.detector


def test_it_uses_the_detector_that_it_is_given() -> None:
    detector = tiny_detector().eval()
    state = torch.get_rng_state()
    model = boxcycle.recycle(detector)
    assert model.detector is detector
    assert not model.training
    assert not any(module.training for module in detector.modules())
    assert torch.get_rng_state().equal(state)
    assert model.to("cpu").train().training


def test_it_runs_under_autocast() -> None:
    images, targets = samples()
    model = boxcycle.recycle(tiny_detector(), **SMALL).train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(images, targets)
        sum(losses.values()).backward()
        found = model.eval()(images)
    assert all(value.isfinite() for value in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert len(found[0]["boxes"]) > 0


# --- sentences


class OwnPredictor(FastRCNNPredictor):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(2 * x), self.bbox_pred(x)


class OwnHeads(RoIHeads):
    def forward(self, *arguments: Any) -> Any:
        return super().forward(*arguments)


def with_own_heads() -> Any:
    detector = tiny_detector()
    detector.roi_heads.__class__ = OwnHeads
    return detector


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: "fasterrcnn", r"an RPN and RoI heads .* found builtins.str"),
        (lambda: detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None), "found .*retinanet.RetinaNet"),
        (lambda: detection.fcos_resnet50_fpn(weights=None, weights_backbone=None), "found .*fcos.FCOS"),
        (lambda: detection.ssd300_vgg16(weights=None, weights_backbone=None), "found .*ssd.SSD"),
        (lambda: tiny_detector(box_predictor=OwnPredictor(16, 4)), r"FastRCNNPredictor .* found .*OwnPredictor"),
        (with_own_heads, "RoIHeads .* found .*OwnHeads"),
        (lambda: nn.DataParallel(tiny_detector()), "found .*DataParallel"),
        (lambda: boxcycle.recycle(tiny_detector()), "found .*RecycledDetector"),
    ],
)
def test_other_detectors_are_refused(make: Any, sentence: str) -> None:
    with torch.device("meta"):
        detector = make()
    with pytest.raises(TypeError, match=sentence):
        boxcycle.recycle(detector)


def test_our_own_detector_is_refused_by_its_full_name(tiny: str) -> None:
    own = FasterRCNN(3, DetectorConfig(backbone=tiny, weights="none"))
    with pytest.raises(TypeError, match=r"found boxcycle\.models\.faster_rcnn\.FasterRCNN"):
        boxcycle.recycle(own)


@pytest.mark.parametrize(
    ("tasks", "sentence"),
    [
        ({"stop_gradiant": True}, "no 'stop_gradiant'; did you mean 'stop_gradient'"),
        ({"windows": 0}, "'windows' must be greater than 0; found 0"),
        ({"multi_object": 0, "closeness": 0}, "refinement needs multi_object or closeness"),
    ],
)
def test_wrong_settings_are_refused(tasks: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        boxcycle.recycle(tiny_detector(), **tasks)


def changed(**changes: Any) -> list[dict[str, Any]]:
    its = target([[4, 5, 40, 44]], [1]) | changes
    return [{name: value for name, value in its.items() if value is not None}]


@pytest.mark.parametrize(
    ("targets", "sentence"),
    [
        (None, "needs targets"),
        ([], "got 1 images and 0 targets"),
        (changed(labels=None), r"targets\[0\] must have the tensors boxes, labels, masks; it lacks \['labels'\]"),
        (changed(masks=None), r"it lacks \['masks'\]"),
        (changed(boxes=[[1, 2, 3, 4]]), r"it lacks \['boxes'\]"),
        (changed(labels=torch.tensor([4])), r"targets\[0\]: labels of the target must be in 1..3"),
        (changed(labels=torch.tensor([1.0])), "must be int64"),
        (changed(boxes=torch.tensor([[4.0, 5, 100, 44]]), image_id=torch.tensor([12])), "image 12 must lie inside"),
        (changed(boxes=torch.tensor([[40.0, 5, 30, 40]]), image_id=7), "of image 7 must have x1 < x2"),
        (changed(masks=torch.zeros(2, 48, 64)), r"masks of targets\[0\] must be \(1, 48, 64\); got \(2, 48, 64\)"),
    ],
)
def test_bad_targets_are_refused(targets: Any, sentence: str) -> None:
    model = boxcycle.recycle(tiny_detector("mask"), **SMALL).train()
    with pytest.raises(ValueError, match=sentence):
        model([image(0)], targets)


# --- torchvision's own


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "fasterrcnn_resnet50_fpn",
        "fasterrcnn_resnet50_fpn_v2",
        "fasterrcnn_mobilenet_v3_large_fpn",
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        "maskrcnn_resnet50_fpn",
        "maskrcnn_resnet50_fpn_v2",
        "keypointrcnn_resnet50_fpn",
    ],
)
def test_each_of_torchvisions_detectors_keeps_its_weights_and_predicts(name: str) -> None:
    torch.manual_seed(0)
    sizes = {"min_size": 64, "max_size": 64, "box_batch_size_per_image": 8}
    sizes |= {"rpn_post_nms_top_n_train": 20, "rpn_post_nms_top_n_test": 10, "box_score_thresh": 0.0}
    counts = {"num_keypoints": 2} if "keypoint" in name else {}
    plain = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=4, **counts, **sizes)
    images, targets = (values[:2] for values in samples())
    for norm in (module for module in plain.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.momentum = 1.0  # the statistics of one call: with those of random weights activations explode
    plain(images, targets)
    model = boxcycle.recycle(copy.deepcopy(plain), stop_gradient=True, **SMALL)
    model.refines = False
    with torch.no_grad():
        assert_same_detections(model.eval()(images), plain.eval()(images))
        model.refines = True
        assert model(images)[0].keys() == plain(images)[0].keys()
    for one in (plain, model):
        torch.manual_seed(7)
        torchvision_loop(one, images, targets, 2)
    assert_same_weights(plain, model.detector)


ROOT = Path(__file__).parents[3]
PAGES = [page for page in (ROOT / "README.md", ROOT / "docs" / "recycle.md") if "boxcycle.recycle(" in page.read_text()]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_example_runs(page: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    example = next(text for text in blocks if "boxcycle.recycle(" in text)
    names: dict[str, Any] = {}
    exec(compile(example, str(page), "exec"), names)
    assert isinstance(names["model"], RecycledDetector)
    assert names["found"][0].keys() == {"boxes", "labels", "scores"}
