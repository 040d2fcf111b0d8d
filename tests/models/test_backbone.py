from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import to_tensor

from boxcycle.models.backbone import Backbone, build_backbone
from boxcycle.models.backbone_cuts import ARCHITECTURES
from boxcycle.models.backbone_weights import create_network


def _build(name: str, **options: object) -> Backbone:
    torch.manual_seed(0)
    return build_backbone(name, **{"weights": "none", **options})  # type: ignore[arg-type]


def _step(backbone: Backbone) -> Tensor:
    """Losses of one pass through trunk and head, and their gradients."""
    torch.manual_seed(1)
    features = backbone.trunk(torch.randn(2, 3, 64, 96))
    regions = torch.nn.functional.interpolate(features, (7, 7)).clone()
    loss = backbone.head(regions).square().mean() + features.square().mean()
    loss.backward()
    return loss


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_shapes_freezing_and_gradients(name: str) -> None:
    backbone = _build(name).train()
    features = backbone.trunk(torch.randn(1, 3, 70, 97))
    assert features.shape == (1, backbone.trunk_channels, 5, 7)  # ceil(70 / 16), ceil(97 / 16)
    assert backbone.head(torch.randn(3, backbone.trunk_channels, 7, 7)).shape == (3, backbone.head_channels)
    assert backbone.head(torch.zeros(0, backbone.trunk_channels, 7, 7)).shape == (0, backbone.head_channels)

    stages = list(backbone.trunk.children())
    frozen = ARCHITECTURES[name].frozen
    assert [any(p.requires_grad for p in stage.parameters()) for stage in stages] == [
        index >= frozen for index in range(len(stages))
    ]
    _step(backbone)
    trained = {key: p for key, p in backbone.named_parameters() if p.requires_grad}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.values())
    assert all(p.grad is None for p in backbone.parameters() if not p.requires_grad)
    assert any(key.startswith("head") and p.grad.any() for key, p in trained.items())
    assert any(p.grad is not None and p.grad.any() for p in stages[frozen].parameters())


@pytest.mark.parametrize(("name", "expected"), [("resnet18", False), ("efficientnet_lite0", True)])
def test_affine_parts_of_norms_are_trained_except_in_resnets(name: str, expected: bool) -> None:
    backbone = _build(name)
    norms = [p for key, p in backbone.head.named_parameters() if key.endswith(("gamma", "beta"))]
    assert norms
    assert all(p.requires_grad == expected for p in norms)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18"])
def test_a_step_leaves_frozen_stages_and_statistics_alone(name: str) -> None:
    backbone = _build(name).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=1e-2)
    _step(backbone)
    optimizer.step()
    changed = {key for key, value in backbone.state_dict().items() if not torch.equal(value, before[key])}
    trained = {key for key, p in backbone.named_parameters() if p.requires_grad and p.grad is not None and p.grad.any()}
    assert changed == trained
    assert not any(key.endswith(("mean", "variance")) for key in changed)


def test_training_mode_and_the_rest_of_the_batch_change_nothing() -> None:
    backbone = build_backbone().eval()
    images = torch.randn(3, 3, 64, 64)
    alone = backbone.head(backbone.trunk(images[:1])[..., :7, :7])
    backbone.train()
    together = backbone.head(backbone.trunk(images)[..., :7, :7])[:1]
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_a_copied_head_is_equal_and_independent_also_in_training_mode() -> None:
    backbone = build_backbone()
    duplicate = copy.deepcopy(backbone.head).train()
    regions = torch.randn(2, 112, 7, 7)
    assert torch.equal(duplicate(regions), backbone.head(regions))
    duplicate(regions).sum().backward()
    assert all(p.grad is None for p in backbone.head.parameters())
    with torch.no_grad():
        next(duplicate.parameters()).add_(1)
    assert not torch.equal(duplicate(regions), backbone.head(regions))


@pytest.mark.parametrize("frozen", [0, 1, 4, 6])
def test_frozen_counts_stages_from_the_image(frozen: int) -> None:
    backbone = _build("efficientnet_lite0", frozen=frozen)
    trained = [any(p.requires_grad for p in stage.parameters()) for stage in backbone.trunk.children()]
    assert trained == [False] * frozen + [True] * (6 - frozen)
    assert all(p.requires_grad for p in backbone.head.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet19"}, "no backbone 'resnet19'; did you mean 'resnet1"),
        ({"name": "xyz"}, "there are efficientnet_lite0, resnet18"),
        ({"frozen": 7, "weights": "none"}, r"frozen must be in 0..6, .* efficientnet_lite0; got 7"),
        ({"name": "resnet18", "frozen": -1, "weights": "none"}, r"frozen must be in 0..4, .* resnet18; got -1"),
        ({"name": "resnet18"}, "no weights of resnet18 come with the installation; give a .safetensors"),
    ],
)
def test_wrong_arguments_end_in_a_sentence(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone(**arguments)  # type: ignore[arg-type]


def test_a_cat_is_a_cat(shared_data: Path) -> None:
    """The packaged weights, their order and their normalisation, on a photograph."""
    path = shared_data / "coco-mini" / "JPEGImages" / "000000004795.jpg"
    cat = Image.open(path).convert("RGB").crop((64, 44, 288, 240)).resize((224, 224), Image.Resampling.BICUBIC)
    backbone = build_backbone()
    classifier = create_network("efficientnet_lite0", "tf_efficientnet_lite0.in1k", "default").get_submodule(
        "classifier"
    )

    def probabilities(mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
        image = (to_tensor(cat) - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        with torch.no_grad():
            return classifier(backbone.head(backbone.trunk(image[None]))).softmax(1)[0]

    own = probabilities(backbone.mean, backbone.std)
    cats = slice(281, 286)  # ImageNet's five domestic cats
    assert any(cats.start <= label < cats.stop for label in own.topk(5).indices.tolist())
    assert own[cats].sum() > 0.3
    torchvisions = probabilities((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert own[cats].sum() > torchvisions[cats].sum() + 0.1


def test_the_parts_are_plain_modules_that_a_state_dict_restores() -> None:
    backbone, other = build_backbone(), _build("efficientnet_lite0")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
    other.load_state_dict(backbone.state_dict())
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(other.trunk(images), backbone.trunk(images))
