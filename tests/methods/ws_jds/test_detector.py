"""The weak detector: what it reads, who teaches whom, and inputs that must not break it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from boxcycle.data.proposals import ProposalConfig
from boxcycle.engine.config import FitConfig
from boxcycle.engine.optim import clip_gradients, make_optimizer, parameter_groups
from boxcycle.methods.ws_jds.detector import WeakDetector
from boxcycle.methods.ws_jds.views import searched
from boxcycle.types import Target

from .conftest import CLASSES, MakeDetector
from .inputs import draw_proposals, picture, tagged

VARIANTS = ("parallel", "to_segmentation", "to_detection", "both")


def total(model: WeakDetector, losses: dict[str, Tensor]) -> Tensor:
    return torch.stack([model.loss_weights[name] * value for name, value in losses.items()]).sum()


def gradients(model: WeakDetector, loss: Tensor) -> dict[str, float]:
    """Norm of the gradient of each part of the model."""
    model.zero_grad()
    loss.backward(retain_graph=True)
    parts: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        part = name.partition(".")[0]
        parts[part] = parts.get(part, 0.0) + float(parameter.grad.norm())
    return parts


def some() -> tuple[list[Tensor], list[Target]]:
    return [picture(1), picture(2, (48, 64))], [tagged(1, [1, 0, 1]), tagged(2, [0, 1, 0])]


class NoBoxes(dict):
    """A target in which reading what somebody annotated is an error."""

    def __getitem__(self, key: str) -> object:
        assert key not in ("boxes", "labels", "area", "masks", "iscrowd", "difficult"), f"training read '{key}'"
        return super().__getitem__(key)

    def values(self) -> None:
        raise AssertionError("training read every field of a target")


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_reads_no_box(make_detector: MakeDetector, variant: str) -> None:
    images, targets = some()
    boxes = {"boxes": torch.tensor([[1.0, 1.0, 9.0, 9.0]]), "labels": torch.tensor([2])}
    model = make_detector(variant=variant).train()
    without = model.losses(images, targets)
    watched = model.losses(images, [NoBoxes(target | boxes) for target in targets])  # type: ignore[misc]
    for name in without:
        assert without[name].equal(watched[name])


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_reach_what_they_are_to_teach(make_detector: MakeDetector, variant: str) -> None:
    images, targets = some()
    model = make_detector(variant=variant).train()
    losses = model(images, targets)
    assert losses.keys() == model.loss_weights.keys()
    assert all(value.isfinite() for value in [*losses.values(), *model.watched.values()])
    assert all(norm > 0 for norm in gradients(model, total(model, losses)).values())


@pytest.mark.parametrize("variant", ["to_detection", "both"])
def test_guidance_is_a_constant(make_detector: MakeDetector, variant: str) -> None:
    """The guided detection losses do not train the segmentation branch."""
    images, targets = some()
    model = make_detector(variant=variant).train()
    losses = model(images, targets)
    for name in losses.keys() & {"detection", "mask_detection"}:
        model.zero_grad()
        losses[name].backward(retain_graph=True)
        assert all(p.grad is None for p in model.segmenter.parameters())


def test_seeds_come_from_the_detection_and_weights_from_the_segmentation(make_detector: MakeDetector) -> None:
    """Another segmentation changes the guided detection; another detection changes the seeds."""
    images, targets = some()
    model = make_detector(variant="both").train()
    before = model.losses(images, targets)
    with torch.no_grad():
        for parameter in model.segmenter.parameters():
            parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    after = model.losses(images, targets)
    assert not after["mask_detection"].isclose(before["mask_detection"], rtol=1e-4)
    assert after["detection"].isclose(before["detection"], rtol=1e-5)
    with torch.no_grad():
        model.detection.regions.weight += torch.randn(model.detection.regions.weight.shape)
    assert not model.losses(images, targets)["segmentation"].isclose(after["segmentation"], rtol=1e-5)


def test_before_guidance_it_is_plain_wsddn_that_learns(make_detector: MakeDetector) -> None:
    images, targets = some()
    model = make_detector(variant="both", guided_after=1).train()
    first = model(images, targets)
    assert float(model.watched["guided"]) == 0
    assert first["detection"].equal(first["mask_detection"])
    norms = gradients(model, total(model, first))
    assert norms["detection"] > 0
    assert norms["segmenter"] == 0
    second = model(images, targets)
    assert float(model.watched["guided"]) == 1
    assert not second["detection"].isclose(second["mask_detection"], rtol=1e-6)


def test_the_schedule_is_part_of_the_weights(make_detector: MakeDetector) -> None:
    images, targets = some()
    model = make_detector(variant="parallel").train()
    model(images, targets)
    other = make_detector(variant="parallel")
    other.load_state_dict(model.state_dict())
    assert int(other.passes) == 1


def test_a_batch_has_the_mean_of_its_images_losses(make_detector: MakeDetector) -> None:
    images, targets = some()
    images[1] = picture(2)  # of one size: padding would differ
    model = make_detector(variant="both").train()
    together = model.losses(images, targets)
    alone = [model.losses([image], [target]) for image, target in zip(images, targets, strict=True)]
    for name, value in together.items():
        torch.testing.assert_close(value, (alone[0][name] + alone[1][name]) / 2, rtol=2e-4, atol=2e-5)


def test_padding_teaches_nothing(make_detector: MakeDetector) -> None:
    """Plain WSDDN sees the regions of an image, whatever lies beside it in the batch."""
    model = make_detector(variant="parallel", segmentation=0.0).train()
    small, large = (picture(2, (64, 64)), tagged(2, [0, 1, 0])), (picture(1, (128, 96)), tagged(1, [1, 0, 1]))
    small[1]["proposals"] = draw_proposals(2, 30, (40, 40))  # away from the border, where features see the padding
    with torch.no_grad():
        alone, other = (float(model.losses([image], [target])["detection"]) for image, target in (small, large))
        beside = float(model.losses([small[0], large[0]], [small[1], large[1]])["detection"])
    assert beside == pytest.approx((alone + other) / 2, rel=1e-3)


# --- tags

WRONG = [
    ({"image_labels": torch.tensor([1.0, 0.0])}, r"image_labels of image 7 must have shape \[3\]; got \[2\]"),
    ({"image_labels": torch.tensor([1.0, 0.5, 0.0])}, r"must be 0 \(absent\) or 1 \(present\); got \[1.0, 0.5, 0.0\]"),
    ({"image_labels": torch.tensor([1.0, float("nan"), 0.0])}, r"must be 0 \(absent\) or 1 \(present\)"),
    ({"image_labels": torch.tensor([1.0, -1.0, 0.0])}, r"must be 0 \(absent\) or 1 \(present\)"),
    ({"image_labels": None}, "image 7 has no image tags"),
    ({"proposals": torch.zeros(3, 5)}, r"proposals must be finite boxes of shape \[P, 4\]; got shape \[3, 5\]"),
    ({"proposals": torch.full((3, 4), float("nan"))}, "proposals must be finite boxes"),
]


@pytest.mark.parametrize(("change", "sentence"), WRONG)
def test_wrong_tags_and_proposals_are_refused(make_detector: MakeDetector, change: dict, sentence: str) -> None:
    target = {name: value for name, value in (tagged(7, [1, 0, 0]) | change).items() if value is not None}
    with pytest.raises(ValueError, match=sentence):
        make_detector().train()([picture(7)], [target])


@pytest.mark.parametrize("tags", [[0, 0, 0], [1, 1, 1], [0, 0, 1]])
@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("variant", VARIANTS)
def test_few_proposals_and_extreme_tags_give_finite_losses(
    make_detector: MakeDetector, variant: str, count: int, tags: list[float]
) -> None:
    model = make_detector(variant=variant).train()
    losses = model([picture(4)], [tagged(4, tags, count)])
    assert all(value.isfinite() for value in [*losses.values(), *model.watched.values()])
    assert all(torch.tensor(list(gradients(model, total(model, losses)).values())).isfinite())


def test_an_image_of_one_colour_and_one_pixel(make_detector: MakeDetector) -> None:
    model = make_detector(variant="both").train()
    targets = [tagged(1, [1, 0, 1], 0), tagged(2, [0, 1, 0], 0)]
    losses = model([torch.zeros(3, 40, 40), torch.ones(3, 1, 1)], targets)
    assert all(value.isfinite() for value in losses.values())


def test_without_proposals_they_are_searched_in_the_image(make_detector: MakeDetector) -> None:
    pytest.importorskip("cv2")
    image = torch.full((3, 64, 80), 0.2)
    image[0, 10:40, 20:60] = 0.9
    model = make_detector(variant="parallel").eval()
    found = model.predict([image])[0]
    given = model.predict([image], [searched(image, ProposalConfig())])[0]
    assert found["boxes"].equal(given["boxes"])
    assert len(found["boxes"]) > 1


# --- prediction


def test_scores_are_those_of_proposals_suppressed_class_by_class(make_detector: MakeDetector) -> None:
    model = make_detector(variant="parallel", nms_iou=1.0, score_threshold=0.0, detections=10_000).eval()
    boxes = draw_proposals(1, 12)
    found = model.predict([picture(1)], [boxes])[0]
    assert len(found["boxes"]) == 12 * 3
    assert (found["scores"].diff() <= 0).all()
    for label in (1, 2, 3):
        chosen = found["labels"] == label
        assert {tuple(box) for box in found["boxes"][chosen].tolist()} == {
            tuple(box) for box in boxes.minimum(torch.tensor([80.0, 64.0, 80.0, 64.0])).tolist()
        }
        assert 0 < float(found["scores"][chosen].sum()) < 1
    torch.testing.assert_close(found["probs"].sum(1), torch.ones(36))


def test_mirrored_views_make_prediction_blind_to_a_mirror(make_detector: MakeDetector) -> None:
    model = make_detector(variant="parallel", flip=True, nms_iou=1.0, score_threshold=0.0).eval()
    image, boxes = picture(3), draw_proposals(3, 8)
    x1, y1, x2, y2 = boxes.minimum(torch.tensor([80.0, 64.0, 80.0, 64.0])).unbind(1)
    mirrored = torch.stack([80 - x2, y1, 80 - x1, y2], 1)
    found, again = model.predict([image], [boxes])[0], model.predict([image.flip(-1)], [mirrored])[0]
    torch.testing.assert_close(found["scores"], again["scores"], atol=1e-5, rtol=1e-4)


def test_scales_are_averaged(make_detector: MakeDetector) -> None:
    boxes, settings = draw_proposals(3, 5), {"variant": "parallel", "nms_iou": 1.0, "score_threshold": 0.0}

    def scores(scales: tuple[float, ...]) -> Tensor:
        found = make_detector(scales=scales, **settings).eval().predict([picture(3)], [boxes])[0]
        order = sorted(range(15), key=lambda i: (int(found["labels"][i]), found["boxes"][i].tolist()))
        return found["scores"][order]

    torch.testing.assert_close(scores((1.0, 1.5)), (scores((1.0,)) + scores((1.5,))) / 2, atol=1e-6, rtol=1e-5)


def test_many_proposals_cost_little_memory(make_detector: MakeDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    """2,048 proposals go through the branch in parts."""
    model = make_detector(variant="parallel").eval()
    seen = []
    monkeypatch.setattr(
        model.detection, "_vectors", lambda maps, rows: seen.append(len(rows)) or torch.zeros(len(rows), 96)
    )
    model.detection.classes = model.detection.regions = torch.nn.Linear(96, 3)
    found = model.predict([picture(1)], [draw_proposals(1, 2048)])[0]
    assert seen == [512] * 4
    assert len(found["boxes"]) <= 100


def test_masks_lie_in_their_boxes(make_detector: MakeDetector) -> None:
    model = make_detector(variant="both", score_threshold=0.0).eval()
    with torch.no_grad():
        model.segmenter.arms[0][-1].weight += 1.0  # all cells of all classes
        model.detection.regions.weight.zero_()
        model.detection.classes.bias += torch.tensor([5.0, 0.0, 0.0])  # the first class is seen
    image, boxes = picture(1), torch.tensor([[8.0, 8.0, 40.0, 30.0], [50.0, 2.0, 70.0, 60.0]])
    found = model.predict([image], [boxes])
    [masks] = model.masks([image], found)
    assert masks.shape == (len(found[0]["labels"]), 64, 80)
    for mask, box, label in zip(masks, found[0]["boxes"], found[0]["labels"], strict=True):
        x1, y1, x2, y2 = box.round().int().tolist()
        assert mask[y1:y2, x1:x2].all() if label == 1 else not mask.any()
        assert int(mask.sum()) == (int(mask[y1:y2, x1:x2].sum()))


def test_plain_wsddn_has_no_segmentation(make_detector: MakeDetector) -> None:
    model = make_detector(variant="parallel", segmentation=0.0)
    assert model.loss_weights.keys() == {"detection"}
    with pytest.raises(ValueError, match="no segmentation branch"):
        model.segment([picture(1)])
    with pytest.raises(ValueError, match="variant=parallel"):
        make_detector(variant="both", segmentation=0.0)


def test_by_default_only_what_is_new_and_the_head_learn(make_detector: MakeDetector) -> None:
    model = make_detector(frozen=None)
    assert not any(parameter.requires_grad for parameter in model.backbone.trunk.parameters())
    assert all(parameter.requires_grad for parameter in model.detection.parameters())


@pytest.mark.parametrize("stride", [8, 16])
def test_masks_at_test_have_the_size_of_the_image_and_no_class_that_is_not_seen(
    make_detector: MakeDetector, stride: int
) -> None:
    for crf in ("none", "small"):
        model = make_detector(stride=stride, rates=(1, 2), crf=crf).eval()
        image = picture(0, (41, 70))
        [masks] = model.segment([image], [torch.tensor([[4.0, 4, 40, 30], [0, 0, 70, 41]])])
        assert masks.shape == (CLASSES, 41, 70)
        assert not masks.any()  # without training no class reaches one half
        model.detection.classes.bias.data[1] = 20  # now the second class does
        [masks] = model.segment([image], [torch.tensor([[4.0, 4, 40, 30], [0, 0, 70, 41]])])
        assert masks[1].max() > 0
        assert not masks[[0, 2]].any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_on_a_frozen_trunk_only_guidance_changes_the_detection(make_detector: MakeDetector, variant: str) -> None:
    """Segmentation and its gradients are clipped apart: without guidance of its own the detection is WSDDN's."""
    weights = []
    for changes in ({"variant": "parallel", "segmentation": 0.0}, {"variant": variant}):
        model = make_detector(frozen=None, **changes)
        groups = parameter_groups(model, FitConfig())
        optimizer = make_optimizer(groups, FitConfig())
        for step in range(3):
            model.zero_grad()
            losses = model([picture(0), picture(1)], [tagged(step, [1, 0, 1]), tagged(10 + step, [0, 1, 0])])
            total(model, losses).backward()
            clip_gradients(groups, "group", 0.1)
            optimizer.step()
        weights.append({name: tensor.clone() for name, tensor in model.detection.state_dict().items()})
    same = all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    assert same == (variant in ("parallel", "to_segmentation"))
