"""The tasks in images in which somebody looked for some classes only."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from boxcycle.methods.mtl_ssl import labels, losses
from boxcycle.methods.mtl_ssl.config import TaskConfig
from boxcycle.methods.mtl_ssl.detector import MultiTaskDetector
from boxcycle.models.config import DetectorConfig
from boxcycle.models.faster_rcnn import FasterRCNN
from boxcycle.models.two_stage import RegionConfig
from boxcycle.ops.unverified import without_unverified
from small_images import IMAGES, partly_verified


def build(tiny: str, **tasks: object) -> MultiTaskDetector:
    torch.manual_seed(0)
    regions = RegionConfig(sampled=16, score_threshold=0.0)
    config = DetectorConfig(backbone=tiny, weights="none", proposals=20, regions=regions)
    settings = {"windows": 8, "refined": 4, "stop_gradient": False, "foreground": 1.0, "edges": 0.5}
    return MultiTaskDetector(FasterRCNN(3, config), TaskConfig(**settings | tasks))


class Watching:
    """A head's logits of the last call of ``classify``, with their gradients."""

    def __init__(self, head: object, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[Tensor] = []
        plain = head.classify  # type: ignore[attr-defined]

        def classify(prepared: Tensor, boxes: list[Tensor]) -> Tensor:
            logits = plain(prepared, boxes)
            if logits.requires_grad:
                logits.retain_grad()
                self.calls.append(logits)
            return logits

        monkeypatch.setattr(head, "classify", classify)


def test_multi_object_loss_by_hand() -> None:
    """A window that shows half background and half class 1; class 2 is verified, class 3 is not."""
    logits = torch.tensor([[0.0, math.log(2), math.log(5), 40.0]])
    wanted = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    told = without_unverified(logits, torch.tensor([[False, False, False, True]]), known=wanted > 0)
    expected = math.log(8) - 0.5 * math.log(2)
    assert losses.multi_object_loss(told, wanted).tolist() == pytest.approx([expected])


def test_a_class_that_the_label_shows_stays_though_it_is_not_verified() -> None:
    logits, wanted = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.2, 0.0, 0.8]])
    told = without_unverified(logits, torch.tensor([[False, True, True]]), known=wanted > 0)
    assert told[0, [0, 2]].equal(logits[0, [0, 2]])
    assert losses.multi_object_loss(told, wanted).tolist() == pytest.approx([math.log(math.e + math.e**3) - 2.6])


@pytest.mark.parametrize(("background", "expected"), [(True, math.log(1 + 2 + 5)), (False, math.log(2 + 5))])
def test_closeness_loss_by_hand(background: bool, expected: float) -> None:
    """An object near one of class 2, of three classes, the third unverified; one without neighbours, all unverified."""
    logits = torch.tensor([[0.0, math.log(2), math.log(5), 70.0], [0.0, 1.0, 2.0, 3.0]])
    wanted = torch.tensor([[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    rows = torch.tensor([[False, False, False, True], [False, True, True, True]])
    told = without_unverified(logits, rows, known=wanted > 0)
    found = losses.closeness_loss(told, wanted, background=background).tolist()
    assert found == pytest.approx([expected - math.log(5), 0.0], abs=1e-6)


@pytest.mark.parametrize("heads", ["region", "dense", "shared"])
def test_targets_without_the_field_or_with_all_verified_give_the_same_bit_for_bit(tiny: str, heads: str) -> None:
    model = build(tiny, heads=heads)
    plain = model.losses(IMAGES, partly_verified(None, None, None))
    for verified in (partly_verified([], [], []), partly_verified(None, [], None)):
        found = model.losses(IMAGES, verified)
        assert found.keys() == plain.keys()
        for name, value in found.items():
            assert value.equal(plain[name]), name


def test_a_slow_second_implementation_of_the_window_loss(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Window by window, with the logits of unverified classes without a share cut out."""
    model, given = build(tiny), partly_verified([2, 3], None, [1, 3])
    seen, drawn = Watching(model.window_head, monkeypatch), []
    sample = labels.sample_windows
    monkeypatch.setattr(labels, "sample_windows", lambda *a: drawn.append(sample(*a)) or drawn[-1])
    found = model.losses(IMAGES, given)["multi_object"].detach()
    total, row = 0.0, 0
    for windows, its in zip(drawn, given, strict=True):
        hidden = its["unverified"].tolist() if "unverified" in its else [False] * 3
        shares = labels.multi_object_labels(windows, its["boxes"], its["labels"], 3)
        for share in shares:
            kept = [0] + [k for k in (1, 2, 3) if share[k] > 0 or not hidden[k - 1]]
            total -= float((share[kept] * seen.calls[0][row, kept].detach().log_softmax(0)).sum()) / (3 * len(windows))
            row += 1
    assert row == 16
    assert float(found) == pytest.approx(total, rel=1e-5)
    assert found < model.losses(IMAGES, partly_verified(None, None, None))["multi_object"]


@pytest.mark.parametrize("background", [True, False])
def test_a_slow_second_implementation_of_the_closeness_loss(
    tiny: str, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    """Object by object: two boxes that are near each other, in an image in which class 2 is unverified."""
    model, given = build(tiny, closeness_background=background), partly_verified([2], [1, 2, 3], None)
    seen = Watching(model.closeness_head, monkeypatch)
    found = model.losses(IMAGES, given)["closeness"].detach()
    sampled = model.detector.sample(
        model.detector.propose(model.detector.features(batch := model.detector.batch(IMAGES)), batch)[0], given
    )
    counts = [len(boxes) for boxes in sampled.boxes]
    total, row, first = 0.0, 0, 0 if background else 1
    per_image = zip(sampled.labels.split(counts), sampled.matched.split(counts), given, strict=True)
    for classes, matched, its in per_image:
        near = labels.closeness_labels(its["boxes"], its["labels"], (64, 64), 3)
        hidden = its["unverified"].tolist() if "unverified" in its else [False] * 3
        objects = (classes > 0).nonzero().flatten().tolist()
        for one in objects:
            share = near[matched[one]]
            kept = [k for k in range(first, 4) if k == 0 or share[k] > 0 or not hidden[k - 1]]
            log_probs = seen.calls[0][row, kept].detach().log_softmax(0)
            total -= float((share[kept] * log_probs).sum()) / (3 * len(objects))
            row += 1
    assert row >= 3
    assert float(found) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(("task", "head"), [("multi_object", "window_head"), ("closeness", "closeness_head")])
def test_hidden_logits_have_no_gradient(tiny: str, monkeypatch: pytest.MonkeyPatch, task: str, head: str) -> None:
    """Class 2 is unverified in the first image and has no box there; class 1 in the last, which shows class 2."""
    model, given = build(tiny), partly_verified([2], [1, 2, 3], [1])
    seen, sampled = Watching(getattr(model, head), monkeypatch), []
    sample = model.detector.sample
    monkeypatch.setattr(model.detector, "sample", lambda *a: sampled.append(sample(*a)) or sampled[-1])
    model.losses(IMAGES, given)[task].backward()
    objects = int((sampled[0].labels[: len(sampled[0].boxes[0])] > 0).sum())
    first = {"multi_object": 8, "closeness": objects}[task]
    gradient = seen.calls[0].grad
    assert gradient is not None
    assert len(gradient) > first > 0
    assert gradient[:first, 2].eq(0).all()
    assert gradient[:first][:, [0, 1, 3]].ne(0).all()
    assert gradient[first:, 1].eq(0).all()
    assert gradient[first:][:, [0, 2, 3]].ne(0).all()


def test_the_refinement_is_not_told_that_background_shows_no_unverified_class(tiny: str) -> None:
    model = build(tiny)
    found = model.losses(IMAGES, partly_verified([2, 1, 3], [1, 2, 3], [1, 2, 3]))
    plain = model.losses(IMAGES, partly_verified(None, None, None))
    assert 0 < found["refinement"] < plain["refinement"]
    model.zero_grad()
    model.losses(IMAGES[1:2], partly_verified(None, [2], None)[1:2])["refinement"].backward()
    gradient = model.refiner.layer.bias.grad  # of an image without objects: all of its regions are background
    assert gradient[2] == 0
    assert gradient[[0, 1, 3]].ne(0).all()


def test_foreground_edges_and_proposals_know_no_classes_and_stay(tiny: str) -> None:
    model = build(tiny)
    found, plain = (
        model.losses(IMAGES, given)
        for given in (partly_verified([1, 2, 3], [1], [2]), partly_verified(None, None, None))
    )
    for name in ("foreground", "edges", "rpn_objectness", "rpn_box", "box"):
        assert found[name].equal(plain[name]), name
    for name in ("multi_object", "closeness", "class", "refinement"):
        assert not found[name].equal(plain[name]), name


@pytest.mark.parametrize("order", [[1, 2, 0], [2, 1, 0]])
def test_classes_in_another_order(tiny: str, order: list[int]) -> None:
    """The same losses from a model whose classes, boxes and unverified classes are renumbered together."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[4.0, 5, 40, 50], [30, 8, 62, 60], [2, 2, 20, 20]])
    classes, unverified = torch.tensor([1, 3, 1]), torch.tensor([False, True, False])
    windows = labels.sample_windows(boxes, (64, 64), 8, 8.0, generator)
    logits = torch.randn(8, 4, generator=generator)
    found = []
    for columns in ([0, 1, 2, 3], [0] + [1 + k for k in order]):
        renumbered = torch.tensor([columns.index(int(label)) for label in classes])
        wanted = labels.multi_object_labels(windows, boxes, renumbered, 3)
        rows = torch.cat([torch.zeros(1, dtype=torch.bool), unverified])[columns].expand(8, -1)
        told = without_unverified(logits[:, columns], rows, known=wanted > 0)
        found.append(losses.multi_object_loss(told, wanted))
    torch.testing.assert_close(*found)


def test_every_parameter_has_a_gradient_where_nothing_is_verified(tiny: str) -> None:
    model = build(tiny)
    sum(model.losses(IMAGES, partly_verified([1, 2, 3], [1, 2, 3], [1, 2, 3])).values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
