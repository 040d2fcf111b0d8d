"""R_0 and its updates, image by image; the rules that are rivals of Box Smooth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from boxcycle.methods.joindet import labels, priors
from boxcycle.methods.joindet.priors import PriorConfig, first_view, next_view, search_priors
from boxcycle.models.deformable_detr import DeformableDETR, DetrConfig
from boxcycle.models.detr_losses import SetLossConfig

OLD = (torch.tensor([[0.1, 0.1, 0.4, 0.4], [0.6, 0.6, 0.9, 0.9]]), torch.tensor([0.9, 0.8]))
NEW = (torch.tensor([[0.6, 0.6, 0.9, 0.92], [0.0, 0.5, 0.3, 0.9]]), torch.tensor([0.3, 0.7]))


@pytest.fixture
def detector(tiny: str) -> DeformableDETR:
    torch.manual_seed(0)
    losses = SetLossConfig(classification="softmax")
    config = DetrConfig(
        backbone=tiny,
        weights="none",
        width=32,
        encoder_layers=1,
        decoder_layers=2,
        feed_forward=32,
        queries=20,
        losses=losses,
    )
    return DeformableDETR(1, config).eval()


def picture(height: int = 96, width: int = 128) -> Tensor:
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0)) * 0.1
    image[0, 20:70, 30:90] += 0.9
    return image


def say(detector: DeformableDETR, boxes: list[list[float]], sure: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the last layer's first queries say these boxes (cxcywh), and the others background."""
    decode = detector.decode

    def told(*given: Any) -> Any:
        output = decode(*given)
        output.boxes[-1, 0, : len(boxes)] = torch.tensor(boxes)
        output.logits[-1, 0] = torch.tensor([2.0, 0.0])
        output.logits[-1, 0, : len(boxes)] = torch.tensor([[0.0, 1.0] if yes else [1.0, 0.0] for yes in sure])
        return output

    monkeypatch.setattr(detector, "decode", told)


def see(monkeypatch: pytest.MonkeyPatch, attention: Tensor) -> None:
    """Let every map be this one."""
    found = priors.eigen_maps(torch.randn(1, 4, 6, 8, generator=torch.Generator().manual_seed(0)))[0]
    monkeypatch.setattr(priors, "eigen_maps", lambda *_, **__: [found._replace(attention=attention, degenerate=False)])


def left_half(height: int = 6, width: int = 8) -> Tensor:
    attention = torch.zeros(height, width)
    attention[:, : width // 2] = 1
    return attention


def test_suppression_ranks_every_new_box_before_every_old_one() -> None:
    boxes, scores = labels.suppress_boxes(*OLD, *NEW)
    assert boxes.equal(torch.stack([NEW[0][1], NEW[0][0], OLD[0][0]]))
    assert scores.equal(torch.tensor([0.7, 0.3, 0.9]))
    assert labels.suppress_boxes(*OLD, *NEW, max_boxes=1)[0].equal(NEW[0][1:])


def test_replacing_forgets_the_old() -> None:
    boxes, scores = labels.replace_boxes(*NEW)
    assert boxes.equal(NEW[0].flip(0))
    assert scores.equal(torch.tensor([0.7, 0.3]))
    assert labels.replace_boxes(*NEW, max_boxes=1)[0].equal(NEW[0][1:])


def test_random_boxes_lie_inside_and_are_drawn_by_the_generator() -> None:
    boxes, scores = labels.random_boxes(200, torch.Generator().manual_seed(1))
    assert boxes.equal(labels.random_boxes(200, torch.Generator().manual_seed(1))[0])
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 0.1 - 1e-6).all()
    assert scores.equal(torch.ones(200))


def test_selective_search_is_ranked_coarse_first_but_not_strictly() -> None:
    whole = [[0, 0, 100, 50]]
    found = np.array(whole + [[0, 0, 100 - k, 50] for k in range(1, 61)], dtype=np.float32)
    boxes, scores = search_priors(found, (50, 100), 30, torch.Generator().manual_seed(0))
    assert boxes.shape == (30, 4)
    assert scores.equal(torch.ones(30))
    assert (boxes[:, 2] < 1).all(), "the whole image is no prior"
    assert boxes[:, 2].mean() > 1 - 30 / 100, "large ones come first more often"
    ranks = boxes[:, 2]
    assert not ranks.equal(ranks.sort(descending=True).values)
    assert len(search_priors(found[:1], (50, 100), 30, torch.Generator())[0]) == 0


def test_r_0_is_the_regions_of_the_backbone(detector: DeformableDETR) -> None:
    view = first_view(detector, picture(), PriorConfig())
    assert view.priors[0].equal(view.regions)
    assert len(view.regions) > 0
    assert view.priors[1].equal(torch.ones(len(view.regions)))
    assert len(view.instances[0]) == 0
    assert view.attention.shape == (6, 8)
    assert first_view(detector, picture(), PriorConfig(first_scale=2)).attention.shape == (12, 16)
    with torch.no_grad():
        for parameter in detector.transformer.parameters():
            parameter.zero_()
    assert first_view(detector, picture(), PriorConfig()).priors[0].equal(view.regions), "the transformer has no say"


def test_a_view_has_no_padding_and_parts_stay_parts() -> None:
    """Cells of padding would be the odd ones out, and so the foreground."""
    assert priors.whole_strides(picture(96, 128)).equal(picture(96, 128))
    assert priors.whole_strides(picture(120, 150)).shape == (3, 128, 160)
    assert priors.whole_strides(picture(10, 15)).shape == (3, 32, 32)
    assert priors.whole_strides(picture(96, 128), 2.0).shape == (3, 192, 256)
    image = torch.zeros(3, 90, 120)
    image[:, :45, 30:60] = 1
    found = priors.whole_strides(image)[0] > 0.5
    rows, columns = found.nonzero().unbind(1)
    assert [int(rows.min()), int(rows.max()) + 1] == [0, 48]
    assert [int(columns.min()), int(columns.max()) + 1] == [32, 64]


def test_instances_are_sure_and_lie_on_the_foreground(
    detector: DeformableDETR, monkeypatch: pytest.MonkeyPatch
) -> None:
    see(monkeypatch, left_half())
    boxes = [[0.2, 0.5, 0.2, 0.4], [0.8, 0.5, 0.2, 0.4], [0.3, 0.3, 0.2, 0.2], [0.45, 0.5, 0.3, 0.2]]
    say(detector, boxes, [True, True, False, True], monkeypatch)
    nothing = (torch.zeros(0, 4), torch.zeros(0))
    view = next_view(detector, picture(), nothing, PriorConfig())
    torch.testing.assert_close(view.instances[0], torch.tensor([[0.1, 0.3, 0.3, 0.7], [0.3, 0.4, 0.6, 0.6]]))
    torch.testing.assert_close(view.regions, torch.tensor([[0.0, 0, 0.5, 1]]))
    assert len(view.priors[0]) == 3
    everything = next_view(detector, picture(), nothing, PriorConfig(current="predictions"))
    assert len(everything.instances[0]) == 3, "foreground is not asked for"


@pytest.mark.parametrize(("current", "count"), [("both", 2), ("regions", 1), ("instances", 1), ("predictions", 1)])
def test_what_an_update_finds(
    detector: DeformableDETR, monkeypatch: pytest.MonkeyPatch, current: Any, count: int
) -> None:
    see(monkeypatch, left_half())
    say(detector, [[0.2, 0.5, 0.2, 0.4]], [True], monkeypatch)
    view = next_view(detector, picture(), OLD, PriorConfig(current=current, rule="replace"))
    assert len(view.priors[0]) == count


def test_an_update_smooths_the_priors_before(detector: DeformableDETR, monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, left_half())
    say(detector, [[0.26, 0.26, 0.3, 0.3]], [True], monkeypatch)
    view = next_view(detector, picture(), OLD, PriorConfig())
    region, score = torch.tensor([[0.0, 0, 0.5, 1]]), torch.ones(1)
    current = torch.cat([region, view.instances[0]]), torch.cat([score, torch.tensor([1.0]).sigmoid()])
    for found, wanted in zip(view.priors, labels.smooth_boxes(*OLD, *current), strict=True):
        torch.testing.assert_close(found, wanted)
    assert len(view.priors[0]) == 3, "the instance met the first of the old ones"


def test_without_a_map_the_priors_stay(detector: DeformableDETR) -> None:
    """An image of one colour: its tokens form no two groups."""
    with torch.no_grad():
        for parameter in detector.levels.parameters():
            parameter.zero_()
    view = next_view(detector, torch.zeros(3, 64, 64), OLD, PriorConfig())
    assert len(view.regions) == 0
    torch.testing.assert_close(view.priors[0], OLD[0])
    torch.testing.assert_close(view.priors[1], OLD[1])
