"""What every method of the package must do, checked over all entries of METHODS."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from boxcycle.engine.checkpoint import load_weights, save_weights
from boxcycle.methods import METHODS
from boxcycle.types import Detections, Target
from small_images import rectangles, target

CLASSES = ("cup", "plate", "spoon")
# settings that only make a method's test faster
SMALL = {
    "mtl_ssl": {"tasks": {"windows": 4, "refined": 2, "stop_gradient": False, "foreground": 1.0}},  # the paper's form
    "ws_jds": {"guidance": {"start": 0.5, "gate": 0.0}, "fit": {"steps": 1}},  # half of one step: guided from the first
}
STEPS = {"detr": 160, "joindet": 160}  # to overfit four images; other methods: 90
TWO_STAGE = {
    "anchor_sizes": (20, 36),
    "proposals": 50,
    "roi_size": 4,
    "regions": {"sampled": 16, "positive_fraction": 0.5},
}
DETR = {
    "levels": 2,
    "width": 64,
    "feed_forward": 128,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "queries": 12,
    "dropout": 0.02,
}
# fewer than the 14 to 23 proposals that are found in these images; without suppression the scores of a class add up to
# its image score
TAGS = {"roi_size": 4, "sampled": 12, "width": 32, "nms_iou": 1.0, "score_threshold": 0.0}
DETECTORS = {"detr": DETR, "joindet": DETR, "ws_jds": TAGS}  # other methods: TWO_STAGE
TAGS_ONLY = {"ws_jds"}  # methods that are given proposals and tags, and no box
ONE_CLASS = {"joindet"}  # methods that learn where something is, whatever its label


def build(method: str, backbone: str, weights: str = "none") -> nn.Module:
    module = METHODS[method]
    detector = {"backbone": backbone, "weights": weights, **DETECTORS.get(method, TWO_STAGE)}
    settings = {"data": {"path": "nowhere"}, "detector": detector, **SMALL.get(method, {})}
    torch.manual_seed(0)
    return module.build(module.Config.model_validate(settings), CLASSES)


def tagged(target: Target) -> Target:
    """The target with its tags and its number, for methods that learn from tags."""
    present = [float((target["labels"] == k).any()) for k in range(1, len(CLASSES) + 1)]
    return target | {"image_labels": torch.tensor(present), "image_id": target["seed"]}  # type: ignore[return-value]


def samples() -> tuple[list[Tensor], list[Target]]:
    """Four images, with all that any method learns from."""
    images, targets = rectangles()
    return images, [tagged(target) for target in targets]


@pytest.fixture(params=METHODS)
def model(request: pytest.FixtureRequest, tiny: str) -> nn.Module:
    return build(request.param, tiny)


EMPTY = [tagged(target([], [], seed)) for seed in range(4)]


@pytest.mark.parametrize("case", ["boxes", "one box", "some empty", "all empty"])
def test_losses_are_finite_have_the_keys_of_their_weights_and_reach_every_parameter(
    model: nn.Module, case: str
) -> None:
    images, targets = samples()
    chosen = {
        "boxes": targets,
        "one box": [targets[0], *EMPTY[1:]],
        "some empty": [*targets[:2], *EMPTY[2:]],
        "all empty": EMPTY,
    }[case]
    losses = model.train()(images, chosen)
    assert losses.keys() == model.loss_weights.keys()
    assert all(value.ndim == 0 and value.isfinite() for value in losses.values())
    assert all(value.isfinite() for value in model.watched.values())
    sum(model.loss_weights[name] * value for name, value in losses.items()).backward()
    missing = [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.isfinite().all())
    ]
    assert not missing


def test_same_seed_same_losses(model: nn.Module) -> None:
    images, targets = samples()
    first, again = (
        {name: float(value.detach()) for name, value in model.losses(images, targets).items()} for _ in range(2)
    )
    assert first == again
    other = model.losses(images, [its | {"seed": 99 + number} for number, its in enumerate(targets)])
    assert {name: float(value.detach()) for name, value in other.items()} != first


def test_boxes_are_inside_the_image_and_labels_known(model: nn.Module) -> None:
    images, _ = samples()
    with torch.no_grad():
        found = model.eval()(images)
    for image, detections in zip(images, found, strict=True):
        height, width = image.shape[1:]
        assert (detections["boxes"] >= 0).all()
        assert (detections["boxes"] <= torch.tensor([width, height, width, height])).all()
        assert ((detections["labels"] >= 1) & (detections["labels"] <= model.num_classes)).all()
        assert detections["probs"].shape == (len(detections["boxes"]), model.num_classes + 1)


def test_saved_and_loaded_it_predicts_the_same(model: nn.Module, tmp_path, request: pytest.FixtureRequest) -> None:
    images, _ = samples()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    save_weights(tmp_path / "weights.safetensors", model.state_dict(), {})
    other = build(request.node.callspec.params["model"], "tiny")
    other.load_state_dict(load_weights(tmp_path / "weights.safetensors").tensors)
    with torch.no_grad():
        for one, two in zip(model.eval()(images), other.eval()(images), strict=True):
            for name in ("boxes", "labels", "scores", "probs"):
                assert one[name].equal(two[name])


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_it_overfits_four_images(method: str, overfit: Callable[..., bool]) -> None:
    """From ImageNet weights: random ones take ten times as many steps."""
    known = {**dict.fromkeys(TAGS_ONLY, tags_are_known), **dict.fromkeys(ONE_CLASS, boxes_are_known)}
    its = {"known": known[method]} if method in known else {}  # other methods: the best detection of each object
    assert overfit(build(method, "efficientnet_lite0", "default"), *samples(), **its, steps=STEPS.get(method, 90))


def boxes_are_known(target: Target, detections: Detections) -> bool:
    """The best detections, as many as there are objects, are on them; nothing is said of their classes."""
    best = slice(len(target["boxes"]))
    on_objects = box_iou(target["boxes"], detections["boxes"][best]).amax(1) > 0.6
    return bool(on_objects.all() and (detections["scores"][best] > 0.5).all())


def tags_are_known(target: Target, detections: Detections) -> bool:
    """The image score of a class is above one half where its tag stands, and below it elsewhere.

    No box is asked for. Tags do not say how far an object reaches, and in images of 64 pixels every region sees the
    whole image through its features: any proposal can answer for it. How well boxes are found on images in which
    objects can be told apart is for the study of the method (benchmarks/ws_jds_study.py).
    """
    return all(
        bool(detections["scores"][detections["labels"] == label].sum() > 0.5) == bool((target["labels"] == label).any())
        for label in range(1, len(CLASSES) + 1)
    )
