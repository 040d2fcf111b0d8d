"""The set loss: against brute force, by hand, and what must not change it."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou, sigmoid_focal_loss

from boxcycle.models.detr_losses import (
    SetLossConfig,
    Wanted,
    focal_loss,
    foreground_probs,
    match_sets,
    set_losses,
    wanted_of,
)
from boxcycle.ops.set_matching import match
from boxcycle.types import Target

FOCAL, SOFTMAX = SetLossConfig(), SetLossConfig(classification="softmax")
NONE = torch.zeros(0, 4)


def draw(layers: int, batch: int, queries: int, columns: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(layers, batch, queries, columns, generator=generator)
    centres = 0.2 + 0.6 * torch.rand(layers, batch, queries, 2, generator=generator)
    sides = 0.05 + 0.3 * torch.rand(layers, batch, queries, 2, generator=generator)
    return logits, torch.cat([centres, sides], -1)


def wanted(boxes: list[list[float]], labels: list[int], weight: list[float] | None = None) -> Wanted:
    return Wanted(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(weight or [1.0] * len(labels)),
        NONE,
    )


WANTED = [
    wanted([[0.3, 0.3, 0.2, 0.2], [0.6, 0.5, 0.3, 0.1], [0.5, 0.7, 0.2, 0.5]], [1, 3, 1]),
    wanted([], []),
    wanted([[0.5, 0.5, 0.9, 0.8]], [2]),
]


def pair_cost(logits: Tensor, box: Tensor, its: Wanted, row: int, config: SetLossConfig) -> float:
    """Cost of one query and one box, from scalars."""
    label = int(its.labels[row])
    p = float(foreground_probs(logits, config.classification)[label - 1])
    cost = 2 * (0.25 * (1 - p) ** 2 * -math.log(p) - 0.75 * p**2 * -math.log(1 - p))
    cost += 5 * float((box - its.boxes[row]).abs().sum())
    corners = (box_convert(one[None], "cxcywh", "xyxy") for one in (box, its.boxes[row]))
    return cost - 2 * float(generalized_box_iou(*corners))


@pytest.mark.parametrize("config", [FOCAL, SOFTMAX])
def test_matching_is_the_cheapest_of_all(config: SetLossConfig) -> None:
    logits, boxes = draw(2, 3, 5, 3 + (config is SOFTMAX))
    found = match_sets(logits, boxes, WANTED, config)
    first = [0, 3, 3]
    for layer, image in itertools.product(range(2), range(3)):
        its = WANTED[image]
        costs = [
            (
                sum(
                    pair_cost(logits[layer, image, q], boxes[layer, image, q], its, n, config) for n, q in enumerate(qs)
                ),
                qs,
            )
            for qs in itertools.permutations(range(5), len(its.labels))
        ]
        here = (found.layer == layer) & (found.image == image)
        assert (found.box[here] - first[image]).tolist() == list(range(len(its.labels)))
        assert tuple(found.query[here].tolist()) == min(costs)[1]


def test_more_boxes_than_queries_and_numbers_that_are_none() -> None:
    rows, columns = match(torch.tensor([[3.0, 1.0, 2.0]]))
    assert (rows.tolist(), columns.tolist()) == ([0], [1])
    rows, columns = match(torch.tensor([[math.nan, 1.0], [1.0, math.inf]]))
    assert (rows.tolist(), columns.tolist()) == ([1, 0], [0, 1])
    assert [len(one) for one in match(torch.zeros(4, 0))] == [0, 0]


@pytest.mark.parametrize("config", [FOCAL, SOFTMAX])
def test_losses_equal_a_loop(config: SetLossConfig) -> None:
    logits, boxes = draw(2, 3, 5, 3 + (config is SOFTMAX))
    matched = match_sets(logits, boxes, WANTED, config)
    found = set_losses(logits, boxes, WANTED, matched, config)
    all_boxes, all_labels = torch.cat([its.boxes for its in WANTED]), torch.cat([its.labels for its in WANTED])
    for layer in range(2):
        sums = {"class": 0.0, "box": 0.0, "giou": 0.0}
        for image, its in enumerate(WANTED):
            count = max(len(its.labels), 1)
            labels = [0] * 5
            for one_layer, one_image, query, box in zip(*(row.tolist() for row in matched), strict=True):
                if (one_layer, one_image) == (layer, image):
                    labels[query] = int(all_labels[box])
                    mine, other = boxes[layer, image, query][None], all_boxes[box][None]
                    sums["box"] += float((mine - other).abs().sum()) / count / 3
                    corners = (box_convert(one, "cxcywh", "xyxy") for one in (mine, other))
                    sums["giou"] += (1 - float(generalized_box_iou(*corners))) / count / 3
            for query, label in enumerate(labels):
                row = logits[layer, image, query]
                if config is FOCAL:
                    p = row.sigmoid().tolist()
                    each = [
                        -0.25 * (1 - one) ** 2 * math.log(one) if k == label else -0.75 * one**2 * math.log(1 - one)
                        for k, one in enumerate(p, start=1)
                    ]
                else:
                    one = float(row.softmax(-1)[label])
                    each = [-(0.25 if label else 0.75) * (1 - one) ** 2 * math.log(one)]
                sums["class"] += sum(each) / count / 3
        for name, value in sums.items():
            assert float(found[name][layer]) == pytest.approx(value, rel=1e-5), name


def test_the_loss_of_a_batch_is_the_mean_of_the_losses_of_its_images() -> None:
    logits, boxes = draw(2, 3, 5, 3)
    whole = set_losses(logits, boxes, WANTED, match_sets(logits, boxes, WANTED, FOCAL), FOCAL)
    alone = []
    for image in range(3):
        part = (logits[:, image : image + 1], boxes[:, image : image + 1], WANTED[image : image + 1])
        alone.append(set_losses(*part, match_sets(*part, FOCAL), FOCAL))
    for name, value in whole.items():
        torch.testing.assert_close(value, sum(losses[name] for losses in alone) / 3)


def test_the_order_of_queries_and_of_boxes_does_not_matter() -> None:
    logits, boxes = draw(1, 1, 5, 3)
    its = WANTED[0]
    one = set_losses(logits, boxes, [its], match_sets(logits, boxes, [its], FOCAL), FOCAL)
    order, other = torch.tensor([3, 1, 4, 0, 2]), torch.tensor([2, 0, 1])
    its = Wanted(its.boxes[other], its.labels[other], its.weight, NONE)
    given = (logits[:, :, order], boxes[:, :, order])
    two = set_losses(*given, [its], match_sets(*given, [its], FOCAL), FOCAL)
    for name, value in one.items():
        torch.testing.assert_close(value, two[name])


def test_focal_loss_is_torchvisions() -> None:
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)) * 4
    labels = torch.tensor([0, 1, 2, 3, 0, 0, 3])
    one_hot = torch.nn.functional.one_hot(labels, 4)[:, 1:].float()
    torch.testing.assert_close(focal_loss(logits, labels, FOCAL), sigmoid_focal_loss(logits, one_hot).sum(1))


def test_softmax_of_two_is_a_sigmoid_of_the_difference() -> None:
    logits = torch.randn(7, 2, generator=torch.Generator().manual_seed(0)) * 4
    labels = torch.tensor([0, 1, 0, 1, 0, 0, 1])
    difference = logits[:, 1:] - logits[:, :1]
    torch.testing.assert_close(focal_loss(logits, labels, SOFTMAX), focal_loss(difference, labels, FOCAL))


def test_focal_loss_of_a_large_logit_has_a_finite_gradient() -> None:
    for config, columns in ((FOCAL, 1), (SOFTMAX, 2)):
        logits = torch.tensor([[200.0, -200.0][:columns]] * 2, requires_grad=True)
        focal_loss(logits, torch.tensor([0, 1]), config).sum().backward()
        assert logits.grad.isfinite().all()


def test_weights_multiply_the_losses_of_their_boxes() -> None:
    logits, boxes = draw(1, 1, 4, 3)
    its = WANTED[0]
    by_weight = []
    for weight in (1.0, 0.0, 3.0):
        one = its._replace(weight=torch.tensor([1.0, weight, 1.0]))
        by_weight.append(set_losses(logits, boxes, [one], match_sets(logits, boxes, [one], FOCAL), FOCAL))
    for name in ("class", "box", "giou"):
        one, none, three = (losses[name] for losses in by_weight)
        torch.testing.assert_close(three - none, 3 * (one - none))
        assert one > none


def test_without_boxes_every_query_is_background() -> None:
    logits, boxes = draw(1, 1, 4, 3)
    boxes.requires_grad_()
    losses = set_losses(logits, boxes, [WANTED[1]], match_sets(logits, boxes, [WANTED[1]], FOCAL), FOCAL)
    torch.testing.assert_close(losses["class"][0], sigmoid_focal_loss(logits[0, 0], torch.zeros(4, 3)).sum())
    assert losses["box"].sum() == losses["giou"].sum() == 0
    (losses["box"] + losses["giou"]).sum().backward()
    assert boxes.grad.equal(torch.zeros_like(boxes))


def test_what_lies_in_an_ignore_region_is_neither_object_nor_background() -> None:
    target = Target(
        boxes=torch.tensor([[0.0, 0, 40, 40], [60, 10, 80, 50]]),
        labels=torch.tensor([0, 2]),
        iscrowd=torch.tensor([True, False]),
    )
    its = wanted_of(target, (100, 200))
    torch.testing.assert_close(its.boxes, torch.tensor([[0.35, 0.3, 0.1, 0.4]]))
    torch.testing.assert_close(its.ignore, torch.tensor([[0.0, 0, 0.2, 0.4]]))
    boxes = torch.tensor([[0.1, 0.2, 0.1, 0.1], [0.35, 0.3, 0.1, 0.4], [0.7, 0.7, 0.1, 0.1]])[None, None]
    losses = []
    for first in (-4.0, 4.0):
        logits = torch.tensor([[first] * 3, [-2.0, 2, -2], [-1.0] * 3])[None, None]
        losses.append(set_losses(logits, boxes, [its], match_sets(logits, boxes, [its], FOCAL), FOCAL)["class"])
    torch.testing.assert_close(losses[0], losses[1])
