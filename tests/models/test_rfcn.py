"""R-FCN: position-sensitive votes by hand and by loops, one last stage for the whole map, no boxes at all."""

import copy
import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from boxcycle.models.backbone import build_backbone
from boxcycle.models.backbone_cuts import ARCHITECTURES
from boxcycle.models.config import DetectorConfig
from boxcycle.models.rfcn import RFCN, keep_cells, votes, votes_by_roi_align
from boxcycle.models.two_stage import RegionConfig
from boxcycle.types import Target
from small_images import EMPTY, IMAGES, TARGETS, image


@pytest.fixture
def detector(tiny: str) -> RFCN:
    torch.manual_seed(0)
    regions = RegionConfig(sampled=16, score_threshold=0.0)
    return RFCN(3, DetectorConfig(name="rfcn", backbone=tiny, weights="none", proposals=20, regions=regions))


def random_boxes(count: int, seed: int) -> Tensor:
    """Boxes [N, 4] in an image of 96 x 128 (height x width)."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator).sort(1).values * torch.tensor([128.0, 96.0])
    return corners.flatten(1)


# --- votes


def test_each_output_is_the_mean_of_its_own_maps() -> None:
    maps = torch.arange(8.0)[None, :, None, None].expand(1, 8, 4, 4)  # 2 outputs of 2 x 2 bins, constant maps 0..7
    found = votes(maps, [torch.tensor([[0.0, 0, 64, 64], [10, 3, 20, 40]])], bins=2, stride=16)
    assert found.tolist() == [[1.5, 5.5], [1.5, 5.5]]


@pytest.mark.parametrize(("lit", "expected"), [(0, 17 / 18), (1, 1 / 18)])
def test_a_bin_reads_its_own_part_of_its_own_map(lit: int, expected: float) -> None:
    """By hand: of 4 x 4 cells the left half is lit, all the way down, in the map of one bin of 2 x 2.

    The six points of a left bin lie -1/3, 0, 1/3, 2/3, 1 and 4/3 cells from the first cell's centre: five see 1 and the
    last 2/3, 17/18 in the mean. Those of a right bin lie at 5/3, 2, ...: the first sees 1/3, 1/18 in the mean.
    """
    maps = torch.zeros(1, 4, 4, 4)
    maps[0, lit, :, :2] = 1  # the maps of bins (0, 0), (0, 1), (1, 0), (1, 1) in this order
    found = votes(maps, [torch.tensor([[0.0, 0, 64, 64]])], bins=2, stride=16)
    assert float(found) == pytest.approx(expected / 4)


def slow_votes(maps: Tensor, boxes: list[Tensor], bins: int, stride: int) -> list[list[float]]:
    """Loops over regions, outputs, bins and points; a cell's value stands at its centre."""
    rows = []
    for number, regions in enumerate(boxes):
        for x1, y1, x2, y2 in regions.tolist():
            row = []
            for output in range(maps.shape[1] // bins**2):
                total = 0.0
                for i, j in itertools.product(range(bins), range(bins)):
                    plane = maps[number, output * bins**2 + i * bins + j]
                    for p, q in itertools.product(range(6), range(6)):
                        y = (y1 + (y2 - y1) * (i + (p + 0.5) / 6) / bins) / stride - 0.5
                        x = (x1 + (x2 - x1) * (j + (q + 0.5) / 6) / bins) / stride - 0.5
                        total += between_cells(plane, y, x)
                row.append(total / (36 * bins**2))
            rows.append(row)
    return rows


def between_cells(plane: Tensor, y: float, x: float) -> float:
    height, width = plane.shape
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = float(plane[top, left]) * (1 - (x - left)) + float(plane[top, right]) * (x - left)
    lower = float(plane[bottom, left]) * (1 - (x - left)) + float(plane[bottom, right]) * (x - left)
    return upper * (1 - (y - top)) + lower * (y - top)


@pytest.mark.parametrize("bins", [1, 2, 3])
def test_votes_equal_loops_over_bins_and_points(bins: int) -> None:
    maps = torch.randn(2, 2 * bins**2, 6, 8, generator=torch.Generator().manual_seed(1))
    boxes = [random_boxes(2, 2), random_boxes(3, 3)]
    found = votes(maps, boxes, bins, 16)
    torch.testing.assert_close(found, torch.tensor(slow_votes(maps, boxes, bins, 16)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("counts", [(3, 4), (0, 2), (0, 0)])
def test_the_form_for_export_gives_the_same_votes(counts: tuple[int, int]) -> None:
    maps = torch.randn(2, 5 * 9, 6, 8, generator=torch.Generator().manual_seed(0))
    boxes = [random_boxes(count, seed) for seed, count in enumerate(counts)]
    torch.testing.assert_close(votes_by_roi_align(maps, boxes, 3, 16), votes(maps, boxes, 3, 16))


def test_votes_follow_the_order_of_boxes_and_images() -> None:
    maps = torch.randn(2, 27, 6, 8, generator=torch.Generator().manual_seed(1))
    boxes, order = [random_boxes(5, 2), random_boxes(3, 3)], torch.tensor([3, 0, 4, 1, 2])
    found = votes(maps, boxes, 3, 16)
    permuted = votes(maps.flip(0), [boxes[1], boxes[0][order]], 3, 16)
    assert permuted.equal(torch.cat([found[5:], found[:5][order]]))


def test_votes_move_with_the_map() -> None:
    maps = torch.zeros(1, 9, 10, 10)
    maps[..., 2:6, 1:5] = torch.randn(1, 9, 4, 4, generator=torch.Generator().manual_seed(1))
    box = torch.tensor([[20.0, 36, 70, 90]])
    moved = votes(maps.roll((3, 4), (2, 3)), [box + torch.tensor([64.0, 48, 64, 48])], 3, 16)
    torch.testing.assert_close(moved, votes(maps, [box], 3, 16))


# --- the last stage over the whole map


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "vgg16"])
def test_the_last_stage_keeps_the_cells_of_every_backbone(name: str) -> None:
    backbone = build_backbone(name, weights="none")
    maps = torch.randn(1, backbone.trunk_channels, 5, 7)
    with torch.no_grad():
        assert keep_cells(backbone.head.body)(maps).shape == (1, backbone.head_channels, 5, 7)


def test_kept_cells_hold_what_the_strides_had_left() -> None:
    """A 3 x 3 kernel without padding at every other cell: its centres are cells 1, 3, 5."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(2, 3, 3, stride=2)), nn.Sequential(nn.MaxPool2d(3, stride=2))
    maps = torch.randn(1, 2, 7, 9)
    for layer in layers:
        strided = layer(maps)
        assert strided.shape[-2:] == (3, 4)
        torch.testing.assert_close(keep_cells(layer)(maps)[..., 1:6:2, 1:8:2], strided)


def test_a_last_stage_that_does_not_keep_cells_is_refused(detector: RFCN) -> None:
    detector.head.region.body = nn.Sequential(detector.head.region.body, nn.AdaptiveAvgPool2d(7))
    with pytest.raises(ValueError, match=r"R-FCN needs .* maps of \[4, 4\] cells .* gives \[7, 7\]: choose larger"):
        detector.losses(IMAGES, TARGETS)


# --- the head and the detector


def test_both_steps_of_the_region_head_are_the_detectors_logits(detector: RFCN) -> None:
    maps = detector.features(detector.batch(IMAGES))
    boxes = [torch.tensor([[4.0, 5, 40, 50], [0, 0, 64, 64]]), torch.zeros(0, 4), torch.tensor([[9.0, 9, 20, 60]])]
    logits, deltas = detector.classify(maps, boxes)
    assert logits.shape == (3, 4)
    assert deltas.shape == (3, 3, 4)
    region = detector.head.region
    assert region.prepare(maps).shape == (3, 4 * 9, 4, 4)
    for head in (region, copy.deepcopy(region)):
        assert head(maps, boxes).equal(logits)
        assert head.classify(head.prepare(maps), boxes).equal(logits)


def test_deltas_of_a_class_are_those_of_its_own_maps(detector: RFCN) -> None:
    maps = detector.features(detector.batch(IMAGES))
    boxes = [torch.tensor([[4.0, 5, 40, 50]])] * 3
    before = detector.classify(maps, boxes)[1]
    with torch.no_grad():
        detector.head.shifts.bias.view(3, 4, 9)[1, 2] += 1.0  # class 2, height, all nine bins
    change = detector.classify(maps, boxes)[1] - before
    torch.testing.assert_close(change[:, 1, 2], torch.ones(3))
    assert float(change.detach().abs().sum()) == pytest.approx(3, rel=1e-4)


@pytest.mark.parametrize("targets", [TARGETS, EMPTY], ids=["boxes", "empty"])
def test_every_parameter_has_a_gradient(detector: RFCN, targets: list[Target]) -> None:
    losses = detector.losses(IMAGES, targets)
    assert losses.keys() == detector.loss_weights.keys()
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    assert [name for name, p in detector.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_the_region_head_without_any_box_has_gradients_of_zero(detector: RFCN) -> None:
    maps = detector.features(detector.batch(IMAGES))
    logits, deltas = detector.classify(maps, [torch.zeros(0, 4)] * 3)
    assert (logits.shape, deltas.shape) == ((0, 4), (0, 3, 4))
    (logits.sum() + deltas.sum()).backward()
    assert all(p.grad is not None and not p.grad.any() for p in detector.head.parameters())


def test_the_loss_of_a_batch_is_the_mean_of_the_losses_of_its_images(detector: RFCN) -> None:
    together = detector.losses(IMAGES, TARGETS)
    alone = [detector.losses([one], [its]) for one, its in zip(IMAGES, TARGETS, strict=True)]
    for name, value in together.items():
        torch.testing.assert_close(value, sum(losses[name] for losses in alone) / 3, atol=1e-5, rtol=1e-4, msg=name)


def test_mixed_precision_pools_in_full(detector: RFCN) -> None:
    """torchvision's kernel knows no bfloat16, and does not bring scores and boxes to one type."""
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector.losses(IMAGES, TARGETS)
    sum(losses.values()).backward()
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())


def test_detections_lie_inside_the_image(detector: RFCN) -> None:
    with torch.no_grad():
        found = detector.eval().predict([image(64, 90, 1), image(33, 33, 2)])
    for detections, (height, width) in zip(found, [(64, 90), (33, 33)], strict=True):
        assert len(detections["boxes"]) > 0
        assert (detections["boxes"] >= 0).all()
        assert (detections["boxes"] <= torch.tensor([width, height, width, height])).all()
        torch.testing.assert_close(detections["probs"].sum(1), torch.ones(len(detections["boxes"])))


def test_the_last_stage_belongs_to_one_module(detector: RFCN) -> None:
    assert not hasattr(detector.backbone, "head")
    assert len({id(p) for p in detector.parameters()}) == len(list(detector.parameters()))
