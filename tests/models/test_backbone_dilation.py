"""Trunks of stride 8."""

from __future__ import annotations

import pytest
import torch

from boxcycle.models.backbone import build_backbone


@pytest.mark.parametrize(
    ("name", "phase"),
    [
        ("efficientnet_lite0", 1),  # TensorFlow pads the bottom and the right: its cells lie about the odd ones
        ("resnet18", 0),
        ("resnet50", 0),
        ("mobilenet_v1", 0),
    ],
)
def test_every_second_cell_is_that_of_stride_16(name: str, phase: int) -> None:
    """The holes leave exactly those cells to a kernel that it would see on the coarser map, borders included."""
    torch.manual_seed(0)
    coarse = build_backbone(name, weights="none").double()
    fine = build_backbone(name, weights="none", stride=8).double()
    fine.load_state_dict(coarse.state_dict())
    images = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        expected, found = coarse.trunk(images), fine.trunk(images)
    assert (coarse.stride, fine.stride) == (16, 8)
    assert found.shape[-2:] == (8, 12)
    torch.testing.assert_close(found[..., phase::2, phase::2], expected)


@pytest.mark.parametrize("size", [(33, 47), (64, 64), (8, 8)])
@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "vgg16"])
def test_a_cell_for_every_eight_pixels_begun(name: str, size: tuple[int, int]) -> None:
    backbone = build_backbone(name, weights="none", stride=8)
    assert backbone.trunk(torch.randn(1, 3, *size)).shape[-2:] == (-(-size[0] // 8), -(-size[1] // 8))


def test_a_trunk_that_steps_in_several_branches_is_refused() -> None:
    with pytest.raises(ValueError, match="inception_resnet_v2 has stride 16 alone"):
        build_backbone("inception_resnet_v2", weights="none", stride=8)
