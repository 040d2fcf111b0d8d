"""The multi-task detector: what the tasks may touch, what they may not, and exact savings."""

import pytest
import torch

from boxcycle.methods.mtl_ssl import labels
from boxcycle.methods.mtl_ssl.config import TaskConfig
from boxcycle.methods.mtl_ssl.detector import MultiTaskDetector
from boxcycle.methods.mtl_ssl.tasks import image_means, mean_of_means
from boxcycle.types import Target
from small_images import EMPTY, IMAGES, TARGETS

from .forms import FORMS, build


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("refinement", [0.0, 1.0])
def test_stopped_tasks_leave_the_detector_exactly_as_plain_training_does(
    tiny: str, refinement: float, form: str
) -> None:
    model = build(tiny, form, stop_gradient=True, refinement=refinement)
    plain = build(tiny, form).detector
    torch.manual_seed(7)
    expected = plain.losses(IMAGES, TARGETS)
    torch.manual_seed(8)  # the tasks draw from generators of their own, not from torch's
    found = model.losses(IMAGES, TARGETS)
    for name, value in expected.items():
        assert found[name].equal(value), name
    sum(expected.values()).backward()
    sum(found.values()).backward()
    for (name, one), other in zip(plain.named_parameters(), model.detector.parameters(), strict=True):
        assert one.grad.equal(other.grad), name


@pytest.mark.parametrize("form", FORMS)
def test_tasks_teach_the_shared_features(tiny: str, form: str) -> None:
    model = build(tiny, form)
    for name in ("multi_object", "closeness", "foreground"):
        model.zero_grad()
        model.losses(IMAGES, TARGETS)[name].backward()
        assert next(model.detector.backbone.trunk.parameters()).grad.abs().sum() > 0, name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("leak", [False, True])
def test_the_refinement_teaches_nothing_but_itself_unless_it_leaks(tiny: str, leak: bool, form: str) -> None:
    model = build(tiny, form, refinement_leak=leak)
    model.losses(IMAGES, TARGETS)["refinement"].backward()
    touched = {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().sum() > 0
    }
    assert {"refiner.layer.weight", "refiner.layer.bias"} <= touched
    assert bool(touched - {"refiner.layer.weight", "refiner.layer.bias"}) == leak


@pytest.mark.parametrize("form", FORMS)
def test_the_loss_of_a_batch_is_the_mean_of_the_losses_of_its_images(tiny: str, form: str) -> None:
    model = build(tiny, form)
    together = model.losses(IMAGES, TARGETS)
    alone = [model.losses([one], [its]) for one, its in zip(IMAGES, TARGETS, strict=True)]
    for name, value in together.items():
        mean = sum(losses[name] for losses in alone) / 3
        torch.testing.assert_close(value, mean, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("off", ["multi_object", "closeness", "foreground", "refinement"])
def test_a_task_of_weight_zero_is_not_there(tiny: str, off: str, form: str) -> None:
    model = build(tiny, form, **{off: 0.0})
    found = model.losses(IMAGES, TARGETS)
    assert off not in found
    assert found.keys() == model.loss_weights.keys()
    assert off not in {group["name"] for group in model.parameter_groups()}
    model.eval().predict(IMAGES)


def test_refinement_without_anything_to_refine_by_is_refused() -> None:
    with pytest.raises(ValueError, match="refinement needs multi_object or closeness"):
        TaskConfig(multi_object=0, closeness=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("targets", [TARGETS, EMPTY], ids=["boxes", "no boxes"])
def test_losses_are_finite_and_every_parameter_has_a_gradient(tiny: str, form: str, targets: list[Target]) -> None:
    model = build(tiny, form)
    found = model.losses(IMAGES, targets)
    assert found.keys() == model.loss_weights.keys()
    assert all(value.isfinite() for value in found.values())
    sum(found.values()).backward()
    grouped = [parameter for group in model.parameter_groups() for parameter in group["params"]]
    assert {id(parameter) for parameter in grouped} == {id(parameter) for parameter in model.parameters()}
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in grouped)


def test_heads_start_as_copies_and_are_trained_apart(tiny: str) -> None:
    model = build(tiny, "region")
    for head in (model.window_head, model.closeness_head):
        for one, other in zip(model.detector.head.region.parameters(), head.parameters(), strict=True):
            assert one.equal(other)
            assert one.data_ptr() != other.data_ptr()


@pytest.mark.parametrize("heads", ["dense", "shared"])
def test_heads_over_the_map_start_as_copies_too(tiny: str, heads: str) -> None:
    model = build(tiny, heads)
    region = model.detector.head.region
    for head in (model.window_head, model.closeness_head):
        assert head.classifier.weight.equal(region.classifier.weight)
        assert head.classifier.weight.data_ptr() != region.classifier.weight.data_ptr()
    if heads == "shared":
        assert model.task_stage is None
    else:
        for one, other in zip(region.stage.parameters(), model.task_stage.parameters(), strict=True):
            assert one.equal(other)
            assert one.data_ptr() != other.data_ptr()


def test_shared_heads_need_a_last_stage_to_share(tiny: str) -> None:
    detector = build(tiny).detector
    detector.head.region = torch.nn.Identity()
    with pytest.raises(ValueError, match=r"shared needs a region head .* found Identity"):
        MultiTaskDetector(detector, TaskConfig(heads="shared"))


@pytest.mark.parametrize("form", FORMS)
def test_refinement_equals_classifying_every_window_of_every_region(tiny: str, form: str) -> None:
    """The whole image is classified once an image, background regions without gradient: savings that change nothing."""
    model = build(tiny, form).eval()
    batch = model.detector.batch(IMAGES)
    maps = model.detector.features(batch)
    boxes = [proposals[:5] for proposals in model.detector.propose(maps, batch)[0]]
    logits, _ = model.detector.classify(maps, boxes)
    given = model.head_inputs(maps)
    closeness = image_means(model.closeness_head(given, boxes), [5, 5, 5])
    found = model.refine(model.window_head.prepare(given), batch, boxes, logits, closeness)
    rows = []
    for number, regions in enumerate(boxes):
        alone = model.head_inputs(maps[number : number + 1])
        mean = model.closeness_head(alone, [regions]).mean(0)
        for position, region in enumerate(regions):
            windows = labels.refinement_windows(region[None], batch.sizes[number], 5)[0]
            around = model.window_head(alone, [windows])
            own = logits[number * 5 + position]
            rows.append(own + model.refiner.layer(torch.cat([own, around.flatten(), mean])))
    torch.testing.assert_close(found, torch.stack(rows), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_detections_do_not_depend_on_the_order_of_images(tiny: str, form: str) -> None:
    model = build(tiny, form).eval()
    with torch.no_grad():
        found, turned = model.predict(IMAGES), model.predict(IMAGES[::-1])[::-1]
    for one, other in zip(found, turned, strict=True):
        torch.testing.assert_close(one["probs"], other["probs"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_only_likely_proposals_are_refined(tiny: str, form: str) -> None:
    """By the mean closeness of all proposals, as without the limit; the others keep their logits."""
    model = build(tiny, form).eval()
    with torch.no_grad():
        batch = model.detector.batch(IMAGES)
        maps = model.detector.features(batch)
        boxes = [model.detector.propose(maps, batch)[0][number][:count] for number, count in enumerate((6, 5, 0))]
        logits, _ = model.detector.classify(maps, boxes)
        logits[1:5, 0] += 9  # these are background for sure
        full = model.refined(maps, batch, boxes, logits)
        model.config = model.config.model_copy(update={"refine_above": 0.01})
        some = model.refined(maps, batch, boxes, logits)
        nothing = model.refined(maps, batch, boxes, logits - torch.tensor([0.0, 99, 99, 99]))
    assert some[1:5].equal(logits[1:5])
    rest = [0, *range(5, 11)]
    torch.testing.assert_close(some[rest], full[rest], atol=1e-5, rtol=1e-4)
    assert (full - logits).abs().amax(1).min() > 0
    assert nothing.equal(logits - torch.tensor([0.0, 99, 99, 99]))


def test_an_image_without_regions_counts_as_zero() -> None:
    values = torch.tensor([[1.0], [3.0], [5.0]])
    assert image_means(values, [2, 0, 1]).tolist() == [[2], [0], [5]]
    assert float(mean_of_means(values[:, 0], [2, 0, 1])) == pytest.approx(7 / 3)


def test_experiments_are_finite_and_reach_every_parameter(tiny: str) -> None:
    model = build(tiny, closeness_reach=2.0, same_class=True, foreground_masks=True, edges=0.5)
    with pytest.raises(ValueError, match="needs segmentation masks; the target has none"):
        model.losses(IMAGES, TARGETS)
    masked = [its | {"masks": torch.zeros(len(its["boxes"]), 64, 64, dtype=torch.bool)} for its in TARGETS]
    found = model.losses(IMAGES, masked)
    assert all(value.isfinite() for value in found.values())
    assert found.keys() == model.loss_weights.keys()
    assert found["edges"] > 0
    everywhere = [its | {"masks": ~its["masks"]} for its in masked]
    assert not model.losses(IMAGES, everywhere)["foreground"].equal(found["foreground"])
    for terms in (found, model.losses(IMAGES, [masked[1]] * 3)):
        model.zero_grad()
        sum(terms.values()).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


def test_one_definition_of_the_foreground() -> None:
    with pytest.raises(ValueError, match="choose one"):
        TaskConfig(foreground_masks=True, foreground_original=True)


def test_variants_of_the_released_code_are_finite(tiny: str) -> None:
    model = build(tiny, closeness_background=False, foreground_original=True, square_root=False, same_class=True)
    assert all(value.isfinite() for value in model.losses(IMAGES, TARGETS).values())
