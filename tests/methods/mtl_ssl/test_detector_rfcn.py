"""MTL-SSL on R-FCN: the same tasks on a head that runs once over the whole map."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from boxcycle.methods.mtl_ssl import labels
from boxcycle.methods.mtl_ssl.config import TaskConfig
from boxcycle.methods.mtl_ssl.detector import MultiTaskDetector
from boxcycle.methods.mtl_ssl.tasks import image_means
from boxcycle.models.config import DetectorConfig
from boxcycle.models.rfcn import RFCN
from boxcycle.models.two_stage import RegionConfig
from boxcycle.types import Target

# the paper's form: all tasks, and they teach the shared features
SETTINGS = {"windows": 8, "refined": 4, "stop_gradient": False, "foreground": 1.0}


def build(tiny: str, **tasks: object) -> MultiTaskDetector:
    torch.manual_seed(0)
    regions = RegionConfig(sampled=16, score_threshold=0.0)
    config = DetectorConfig(name="rfcn", backbone=tiny, weights="none", proposals=20, regions=regions)
    return MultiTaskDetector(RFCN(3, config), TaskConfig(**{**SETTINGS, **tasks}))


def image(seed: int) -> Tensor:
    return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(seed))


def target(boxes: list[list[float]], classes: list[int], seed: int) -> Target:
    return Target(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(classes, dtype=torch.int64),
        seed=seed,
    )


IMAGES = [image(seed) for seed in range(3)]
TARGETS = [target([[4, 5, 40, 50], [30, 8, 62, 60]], [1, 3], 11), target([], [], 12), target([[0, 0, 33, 33]], [2], 13)]
EMPTY = [target([], [], seed) for seed in range(3)]


@pytest.mark.parametrize("targets", [TARGETS, EMPTY], ids=["boxes", "empty"])
def test_losses_are_finite_and_every_parameter_has_a_gradient(tiny: str, targets: list[Target]) -> None:
    model = build(tiny)
    found = model.losses(IMAGES, targets)
    assert found.keys() == model.loss_weights.keys()
    assert all(value.isfinite() for value in found.values())
    sum(found.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_each_head_has_its_own_last_stage_reduction_and_score_maps(tiny: str) -> None:
    model = build(tiny)
    names = [name for name, _ in model.detector.head.region.named_parameters()]
    assert {name.split(".")[0] for name in names} == {"body", "reduction", "scores"}
    for head in (model.window_head, model.closeness_head):
        for one, other in zip(model.detector.head.region.parameters(), head.parameters(), strict=True):
            assert one.equal(other)
            assert one.data_ptr() != other.data_ptr()


@pytest.mark.parametrize("refinement", [0.0, 1.0])
def test_stopped_tasks_leave_the_detector_exactly_as_plain_training_does(tiny: str, refinement: float) -> None:
    model = build(tiny, stop_gradient=True, refinement=refinement)
    plain = build(tiny).detector
    expected, found = plain.losses(IMAGES, TARGETS), model.losses(IMAGES, TARGETS)
    for name, value in expected.items():
        assert found[name].equal(value), name
    sum(expected.values()).backward()
    sum(found.values()).backward()
    for (name, one), other in zip(plain.named_parameters(), model.detector.parameters(), strict=True):
        assert one.grad.equal(other.grad), name


def test_the_refinement_teaches_nothing_but_itself(tiny: str) -> None:
    model = build(tiny)
    model.losses(IMAGES, TARGETS)["refinement"].backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched == {"refiner.layer.weight", "refiner.layer.bias"}


@pytest.mark.parametrize("training", [True, False])
def test_each_last_stage_runs_once(tiny: str, training: bool) -> None:
    model, runs = build(tiny), Counter[str]()
    heads = {"detector": model.detector.head.region, "windows": model.window_head, "closeness": model.closeness_head}
    for name, head in heads.items():
        head.body.register_forward_hook(lambda *_, name=name: runs.update([name]))
    if training:
        model.losses(IMAGES, TARGETS)
    else:
        model.eval().predict(IMAGES)
    assert runs == dict.fromkeys(heads, 1)


def test_refinement_equals_classifying_every_window_of_every_region(tiny: str) -> None:
    model = build(tiny).eval()
    batch = model.detector.batch(IMAGES)
    maps = model.detector.features(batch)
    boxes = [proposals[:5] for proposals in model.detector.propose(maps, batch)[0]]
    logits, _ = model.detector.classify(maps, boxes)
    closeness = image_means(model.closeness_head(maps, boxes), [5, 5, 5])
    found = model.refine(model.window_head.prepare(maps), batch, boxes, logits, closeness)
    rows = []
    for number, regions in enumerate(boxes):
        mean = model.closeness_head(maps[number : number + 1], [regions]).mean(0)
        for position, region in enumerate(regions):
            windows = labels.refinement_windows(region[None], batch.sizes[number], 5)[0]
            around = model.window_head(maps[number : number + 1], [windows])
            own = logits[number * 5 + position]
            rows.append(own + model.refiner.layer(torch.cat([own, around.flatten(), mean])))
    torch.testing.assert_close(found, torch.stack(rows), atol=1e-4, rtol=1e-4)


def coloured() -> tuple[list[Tensor], list[Target]]:
    """Four images: objects are bright rectangles, a colour for each class."""
    generator = torch.Generator().manual_seed(0)
    placed = [
        [([6, 8, 34, 40], 1)],
        [([30, 20, 70, 50], 2), ([4, 4, 24, 20], 3)],
        [([10, 30, 50, 60], 3)],
        [([40, 6, 60, 58], 1)],
    ]
    images, targets = [], []
    for number, objects in enumerate(placed):
        picture = torch.rand(3, 64, 80, generator=generator) * 0.2
        for (x1, y1, x2, y2), label in objects:
            picture[label - 1, y1:y2, x1:x2] += 0.8
        images.append(picture)
        targets.append(target([box for box, _ in objects], [label for _, label in objects], seed=number))
    return images, targets


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [False, True], ids=["plain", "tasks"])
def test_it_overfits_four_images(overfit: Callable[..., bool], tasks: bool) -> None:
    """From ImageNet weights: random ones take ten times as many steps."""
    torch.manual_seed(0)
    regions = RegionConfig(sampled=16, positive_fraction=0.5)
    detector = RFCN(3, DetectorConfig(name="rfcn", anchor_sizes=(20, 36), proposals=50, regions=regions))
    model = MultiTaskDetector(detector, TaskConfig(windows=4, refined=2)) if tasks else detector
    assert overfit(model, *coloured())
