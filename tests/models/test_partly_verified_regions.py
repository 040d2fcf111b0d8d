"""The detector's classes in images in which somebody looked for some of them only."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from boxcycle.models.config import DetectorConfig
from boxcycle.models.detectors import build_detector
from boxcycle.models.two_stage import RegionConfig, RoIs, class_loss, thin
from small_images import IMAGES, partly_verified


def build(tiny: str, name: str = "faster_rcnn") -> Any:
    torch.manual_seed(0)
    regions = RegionConfig(sampled=16, score_threshold=0.0)
    sizes = {"roi_size": 3} if name == "rfcn" else {}
    return build_detector(
        3, DetectorConfig(name=name, backbone=tiny, weights="none", proposals=20, regions=regions, **sizes)
    )


def rois(labels: list[int], unverified: Tensor | None) -> RoIs:
    count = len(labels)
    return RoIs(
        [torch.zeros(count, 4)],
        torch.tensor(labels),
        torch.zeros(count, dtype=torch.int64),
        torch.zeros(count, 4),
        torch.tensor(labels) > 0,
        torch.full((count,), 1 / count),
        unverified,
    )


def test_class_loss_by_hand() -> None:
    """Background, background and an object of class 1, of two classes of which the second is unverified."""
    logits = torch.tensor([[0.0, math.log(3), math.log(4)], [0.0, 0.0, 99.0], [0.0, math.log(3), math.log(4)]])
    unverified = torch.tensor([[False, False, True]] * 3)
    expected = (math.log(1 + 3) + math.log(1 + 1) + math.log(8 / 3)) / 3
    assert float(class_loss(logits, rois([0, 0, 1], unverified))) == pytest.approx(expected, abs=1e-6)


def test_an_object_of_an_unverified_class_learns_as_always() -> None:
    logits = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    everything = torch.tensor([[False, True, True, True]] * 2)
    assert class_loss(logits, rois([1, 3], everything)).equal(class_loss(logits, rois([1, 3], None)))


def test_thin_keeps_the_rows_together() -> None:
    unverified = torch.rand(9, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    some, rows = thin(rois([0] * 9, unverified), 4)
    assert some.unverified is not None
    assert some.unverified.equal(unverified[rows])
    assert thin(rois([0] * 9, None), 4)[0].unverified is None


@pytest.mark.parametrize("name", ["faster_rcnn", "rfcn"])
def test_losses_without_the_field_are_those_of_the_formula_bit_for_bit(tiny: str, name: str) -> None:
    detector = build(tiny, name)
    batch = detector.batch(IMAGES, partly_verified(None, None, None))
    maps = detector.features(batch)
    proposals, _ = detector.propose(maps, batch, partly_verified(None, None, None))
    sampled = detector.sample(proposals, partly_verified(None, None, None))
    assert sampled.unverified is None
    logits, deltas = detector.classify(maps, sampled.boxes)
    expected = (cross_entropy(logits, sampled.labels, reduction="none") * sampled.share).sum()
    assert detector.region_losses(logits, deltas, sampled)["class"].equal(expected)
    found = detector.losses(IMAGES, partly_verified(None, None, None))
    assert found["class"].equal(expected)
    for verified in (partly_verified([], [], []), partly_verified(None, [], None)):
        for key, value in detector.losses(IMAGES, verified).items():
            assert value.equal(found[key]), key


@pytest.mark.parametrize("name", ["faster_rcnn", "rfcn"])
def test_a_slow_second_implementation(tiny: str, name: str) -> None:
    """Region by region, with the logits of unverified classes cut out; nothing but the class loss changes."""
    detector, given = build(tiny, name), partly_verified([2, 3], None, [1, 2, 3])
    batch = detector.batch(IMAGES, given)
    maps = detector.features(batch)
    sampled = detector.sample(detector.propose(maps, batch, given)[0], given)
    logits, _ = detector.classify(maps, sampled.boxes)
    total, row = torch.zeros(()), 0
    for regions, its in zip(sampled.boxes, given, strict=True):
        hidden = its["unverified"].tolist() if "unverified" in its else [False] * 3
        for _ in regions:
            label = int(sampled.labels[row])
            kept = [0] + [k for k in (1, 2, 3) if label or not hidden[k - 1]]
            probs = logits[row, kept].softmax(0)
            total = total - probs[kept.index(label)].log() / (3 * len(regions))
            row += 1
    found, plain = detector.losses(IMAGES, given), detector.losses(IMAGES, partly_verified(None, None, None))
    torch.testing.assert_close(found["class"], total)
    assert found["class"] < plain["class"]
    for key in found.keys() - {"class"}:
        assert found[key].equal(plain[key]), key


def test_no_gradient_reaches_a_hidden_logit_of_background(tiny: str) -> None:
    detector, given = build(tiny), partly_verified([2], [1, 2, 3], None)
    batch = detector.batch(IMAGES, given)
    maps = detector.features(batch)
    sampled = detector.sample(detector.propose(maps, batch, given)[0], given)
    logits = detector.classify(maps, sampled.boxes)[0].detach().requires_grad_()
    class_loss(logits, sampled).backward()
    background, counts = sampled.labels == 0, [len(boxes) for boxes in sampled.boxes]
    first, second, third = logits.grad.split(counts)  # type: ignore[union-attr]
    known = background.split(counts)
    assert first[known[0], 2].eq(0).all()
    assert first[known[0]][:, [0, 1, 3]].ne(0).all()
    assert first[~known[0]].ne(0).all()
    assert second.eq(0).all()  # nothing is left but background
    assert third.ne(0).all()


@pytest.mark.parametrize("order", [[1, 2, 0], [2, 0, 1]])
def test_classes_in_another_order(order: list[int]) -> None:
    generator = torch.Generator().manual_seed(3)
    logits, labels = torch.randn(12, 4, generator=generator), torch.randint(0, 4, (12,), generator=generator).tolist()
    unverified = torch.cat([torch.zeros(12, 1), torch.rand(12, 3, generator=generator)], 1) > 0.5
    columns = [0] + [1 + k for k in order]
    moved = rois([columns.index(label) for label in labels], unverified[:, columns])
    torch.testing.assert_close(class_loss(logits[:, columns], moved), class_loss(logits, rois(labels, unverified)))


def test_every_parameter_has_a_gradient_where_nothing_is_verified(tiny: str) -> None:
    detector = build(tiny)
    sum(detector.losses(IMAGES, partly_verified([1, 2, 3], [1, 2, 3], [1, 2, 3])).values()).backward()
    assert all(parameter.grad is not None for parameter in detector.parameters() if parameter.requires_grad)
