"""A torchvision detector with MTL-SSL's tasks: what it was, it stays; it learns in torchvision's own loop."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection

import boxcycle
from boxcycle.methods.mtl_ssl.recycle import RecycledDetector
from boxcycle.methods.mtl_ssl.tasks import Tasks
from boxcycle.models.torchvision_stages import Pyramid

from .torchvision_samples import (
    KINDS,
    SMALL,
    assert_same_detections,
    assert_same_weights,
    image,
    samples,
    target,
    tiny_detector,
    torchvision_loop,
)

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


def test_windows_are_drawn_anew_in_every_step_or_from_the_targets_own_seed() -> None:
    images, targets = samples()
    model = boxcycle.recycle(tiny_detector(), **SMALL).train()
    found = [float(model(images, targets)["loss_multi_object"].detach()) for _ in range(2)]
    assert found[0] != found[1]
    assert int(model.draws) == 6
    seeded = [its | {"seed": number} for number, its in enumerate(targets)]  # as of the first step
    assert float(model(images, seeded)["loss_multi_object"].detach()) == found[0]


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
