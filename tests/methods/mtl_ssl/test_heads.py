"""Heads that run over the whole map: windows as means of cells, by hand, by a slow count and by symmetries."""

import pytest
import torch
from torch import nn

from boxcycle.methods.mtl_ssl.heads import Cells, MapHead, run_over_maps, window_means
from boxcycle.models.backbone import RoIHead
from boxcycle.models.faster_rcnn import RegionHead

HALVES = RoIHead(nn.Conv2d(6, 8, 3, stride=2, padding=1))  # a last stage as EfficientNet's, of stride 2
KEEPS = RoIHead(nn.Conv2d(6, 8, 3, padding=1))  # and as ResNet's
VALID = RoIHead(nn.Conv2d(6, 8, 3))  # and as Inception's, which drops the border


def region(stage: RoIHead = KEEPS) -> RegionHead:
    return RegionHead(stage, stride=16, size=7, channels=8, num_classes=3)


def maps(seed: int = 0, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 6, 6, 8, generator=torch.Generator().manual_seed(seed))


def random_windows(count: int, seed: int) -> torch.Tensor:
    """Windows inside a map of 6 x 8 cells, in cells."""
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed)) * torch.tensor([8.0, 6.0])
    return torch.cat([corners.amin(1), corners.amax(1)], 1)


def test_means_by_hand() -> None:
    cells = torch.tensor([[[1.0, 2.0], [3.0, 8.0]]])
    windows = torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1], [0.5, 0, 1.5, 1], [0, 0.5, 2, 2], [1.25, 1.25, 1.5, 1.5]])
    by_hand = [3.5, 1.0, 1.5, (0.5 * 3 + 11) / 3, 8.0]
    assert window_means(cells, windows)[:, 0].tolist() == pytest.approx(by_hand)


def test_means_equal_a_count_of_fine_cells() -> None:
    cells, windows = maps()[0], (random_windows(20, 1) * 10).round() / 10
    windows[:, 2:] = windows[:, 2:].maximum(windows[:, :2] + 0.1)
    fine = cells.repeat_interleave(10, 1).repeat_interleave(10, 2)
    for window, mean in zip(windows, window_means(cells, windows), strict=True):
        x1, y1, x2, y2 = (window * 10).round().int().tolist()
        torch.testing.assert_close(mean, fine[:, y1:y2, x1:x2].mean((1, 2)), atol=1e-4, rtol=1e-4)


def test_means_follow_flips_and_permutations() -> None:
    cells, windows = maps()[0], random_windows(9, 2)
    found = window_means(cells, windows)
    flipped = torch.stack([8 - windows[:, 2], windows[:, 1], 8 - windows[:, 0], windows[:, 3]], 1)
    torch.testing.assert_close(window_means(cells.flip(2), flipped), found, atol=1e-4, rtol=1e-4)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(window_means(cells, windows[order]), found[order])


def test_a_window_without_width_is_finite() -> None:
    assert window_means(maps()[0], torch.tensor([[2.0, 1, 2, 4], [0, 0, 0, 0]])).isfinite().all()


def test_logits_are_the_linear_layer_of_the_mean_features() -> None:
    head, inputs = MapHead(region()), maps()
    windows = [16 * random_windows(5, 3), 16 * random_windows(4, 4)]
    found = head(run_over_maps(KEEPS, inputs), windows)
    features = KEEPS.body(inputs)
    expected = [head.classifier(window_means(f, w / 16)) for f, w in zip(features, windows, strict=True)]
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("stage", [KEEPS, HALVES, VALID], ids=["keeps", "halves", "valid"])
def test_the_whole_map_is_classified_by_its_mean_whatever_the_stage_does_to_its_size(stage: RoIHead) -> None:
    inputs = torch.ones(1, 6, 6, 8) * torch.arange(6.0)[:, None, None]
    head = MapHead(region(stage))
    cells = run_over_maps(stage, inputs)
    prepared = head.prepare(cells)
    assert prepared.shape == (1, 4, 6, 8)
    whole = head.classify(prepared, [torch.tensor([[0.0, 0, 8 * 16, 6 * 16]])])
    torch.testing.assert_close(whole, prepared.mean((2, 3)), atol=1e-5, rtol=1e-4)


def test_a_bright_half_is_found_where_it_is() -> None:
    """Frames: a stage of stride 2 must not shift windows by a cell."""
    features = torch.zeros(1, 8, 3, 4)
    features[:, :, :, 2:] = 1  # the right half of a map of 6 x 8 cells, at stride 2
    head = MapHead(region())
    nn.init.ones_(head.classifier.weight)
    nn.init.zeros_(head.classifier.bias)
    halves = torch.tensor([[0.0, 0, 48, 96], [80, 0, 128, 96], [0, 0, 128, 96]])
    found = head(Cells(features, (6, 8)), [halves])[:, 0]
    assert found.tolist() == pytest.approx([0.0, 8.0, 4.0], abs=1e-4)


def test_no_windows_still_teach() -> None:
    head, stage = MapHead(region()), RoIHead(nn.Conv2d(6, 8, 3, padding=1))
    found = head(run_over_maps(stage, maps()), [torch.zeros(0, 4)] * 2)
    assert found.shape == (0, 4)
    found.sum().backward()
    for parameter in (*head.parameters(), *stage.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() == 0


def test_both_steps_of_a_region_head_are_its_forward() -> None:
    head, inputs, windows = region(), maps(), [16 * random_windows(5, 3) + torch.tensor([0.0, 0, 9, 9])] * 2
    assert head.prepare(inputs) is inputs
    assert head.classify(head.prepare(inputs), windows).equal(head(inputs, windows))
    assert head.classify(inputs, windows).equal(head.classifier(head.pooled(inputs, windows)))
