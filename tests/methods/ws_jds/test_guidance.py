"""What the branches teach each other: right where the teacher is right, nothing where it is unsure."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torchvision.ops import box_iou

from boxcycle.methods.ws_jds import guidance, labels
from boxcycle.methods.ws_jds.guidance import Scores, Seen
from boxcycle.methods.ws_jds.network import GuidanceConfig
from boxcycle.types import ImageList

from .conftest import MakeDetector
from .inputs import picture, tagged

SIZE = (96, 128)
STRIDE = 16
OBJECT = [40.0, 24.0, 88.0, 72.0]


def candidates() -> Tensor:
    """The object's box, its parts and boxes around it, the whole image."""
    x1, y1, x2, y2 = OBJECT
    around = [[x1 - d, y1 - d, x2 + d, y2 + d] for d in (0, -16, -12, -8, 8, 12, 16, 20, 24)]
    beside = [[0.0, 0.0, 40.0, 40.0], [80.0, 60.0, 128.0, 96.0], [0.0, 0.0, 128.0, 96.0]]
    return torch.tensor(around + beside)


def seen(*, masks: Tensor | None = None, maps: Tensor | None = None, score: float = 0.9, tag: float = 1.0) -> Seen:
    """An image of one class whose segmentation says ``masks`` [1, H, W], at a stride of 16."""
    boxes = candidates()
    joint = torch.full((len(boxes), 1), score / len(boxes))
    cells = avg_pool2d((torch.zeros(1, *SIZE) if masks is None else masks)[None], STRIDE, ceil_mode=True)[0]
    logits = torch.logit(cells, eps=1e-4)
    scores = Scores(joint, torch.ones_like(joint), joint.sum(0))
    return Seen(picture(1, SIZE), torch.tensor([tag]), boxes, scores, logits, maps, STRIDE)


def square() -> Tensor:
    mask = torch.zeros(1, *SIZE)
    mask[:, int(OBJECT[1]) : int(OBJECT[3]), int(OBJECT[0]) : int(OBJECT[2])] = 1
    return mask


def best_overlap(its: Seen, threshold: float) -> float:
    """IoU of the proposal of the highest weight with the object."""
    weights = guidance.weigh(its, guidance.mask_cells(its), GuidanceConfig(threshold=threshold))
    return float(box_iou(its.boxes[weights[:, 0].argmax()][None], torch.tensor([OBJECT])))


def test_a_right_segmentation_chooses_the_object() -> None:
    """Cells of 16 pixels are drawn out where they are enlarged: their edge is at one half, not at a tenth."""
    its = seen(masks=square())
    assert best_overlap(its, 0.5) > 0.9
    assert best_overlap(its, 0.1) < 0.7


def test_a_right_map_teaches_the_object_and_its_surroundings() -> None:
    its = seen(maps=square())
    found = guidance.seeds(its, GuidanceConfig())
    truth = avg_pool2d(square()[None], STRIDE)[0]
    assert (truth[found == 1] > 0).all()
    assert (truth[found == 0] == 0).all()
    assert (found == 1).sum() == (truth >= 0.3).sum()


def test_maps_of_what_decides_lie_where_it_is() -> None:
    """The gradient of scores that look inside a box is inside that box."""
    images = picture(3, SIZE)[None].requires_grad_()
    x1, y1, x2, y2 = (int(edge) for edge in OBJECT)
    joint = (images[..., y1:y2, x1:x2] ** 2).mean() * torch.tensor([[0.5], [0.3], [0.2], [0.1]])
    scores = Scores(joint, torch.ones_like(joint), torch.ones(1))
    [found] = guidance.localise([scores], ImageList(images, [SIZE]), [torch.ones(1)], GuidanceConfig())
    assert found.amax() == 1
    assert not found[square() == 0].any()


@pytest.mark.parametrize("score", [0.0, 0.29])
def test_below_the_gate_there_is_neither_map_nor_weight(score: float) -> None:
    settings = GuidanceConfig(gate=0.3)
    images = picture(3, SIZE)[None].requires_grad_()
    joint = images.mean().reshape(1, 1)
    scores = Scores(joint, torch.ones_like(joint), torch.tensor([score]))
    [found] = guidance.localise([scores], ImageList(images, [SIZE]), [torch.ones(1)], settings)
    assert not found.any()
    its = seen(maps=found, score=score)
    assert guidance.seeds(its, settings).eq(labels.IGNORED).all()
    loss = guidance.guided_loss(its, guidance.map_cells(its), settings)
    torch.testing.assert_close(loss, guidance.plain_loss(its), atol=1e-4, rtol=1e-4)


def test_the_surer_the_image_score_the_more_it_guides() -> None:
    """W is blended with 1: at a score of 0 guidance leaves the loss as it is."""
    settings = GuidanceConfig()
    gains = []
    for score in (1e-4, 0.5, 0.99):
        its = seen(masks=square(), score=score)
        guided = guidance.guided_loss(its, guidance.mask_cells(its), settings)
        gains.append(float(guided - guidance.plain_loss(its)))
    assert abs(gains[0]) < 1e-3
    assert gains[0] < gains[1] < gains[2]


def test_enlarged_cells_stay_where_they_are() -> None:
    """An image of 40 pixels has cells for 48: what lies beyond it is cut off, not squeezed in."""
    cells = torch.arange(3.0).reshape(1, 1, 3)
    found = guidance.enlarged(cells, 16, (16, 40), mode="nearest")
    assert found[0, 0].tolist() == [0.0] * 16 + [1.0] * 16 + [2.0] * 8


def test_an_absent_class_is_never_guided() -> None:
    its = seen(masks=square(), tag=0.0)
    assert guidance.weigh(its, guidance.mask_cells(its), GuidanceConfig()).eq(1).all()
    assert math.isfinite(float(guidance.boundary_loss(its)))


@pytest.mark.parametrize("variant", ["parallel", "to_segmentation", "to_detection", "both"])
def test_images_are_explained_in_every_variant(make_detector: MakeDetector, variant: str) -> None:
    model = make_detector(variant=variant).eval()
    with torch.no_grad():
        [its] = model.explain([picture(1)], [tagged(1, [1, 0, 1])])
    assert its.maps is not None
    assert its.maps.amax((1, 2)).tolist() == [1, 0, 1]
    assert all(parameter.grad is None for parameter in model.parameters())
