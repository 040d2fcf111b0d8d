import gc
import os
import signal

import psutil
import pytest
import torch
from torch import nn
from trainee import LOGGED, TinyDetector, evaluate, make_batches, signals_itself, train

from boxcycle.engine.checkpoint import load_resume, load_weights
from boxcycle.engine.config import FitConfig
from boxcycle.engine.fit import fit
from boxcycle.engine.losses import NonFiniteLoss
from boxcycle.engine.metrics import read_metrics
from boxcycle.engine.schedule import learning_rate
from boxcycle.engine.signals import Interrupted


def small(**settings) -> FitConfig:
    return FitConfig(
        **{"steps": 8, "batch_size": 4, "device": "cpu", "log_every": 2, "eval_every": 4, "save_every": 3, **settings}
    )


def same(left, right) -> bool:
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


def plain_loop(config: FitConfig) -> TinyDetector:
    """The same training written out, with nothing of the engine but the schedule."""
    torch.manual_seed(1)
    model = TinyDetector().train()
    groups = [
        {**group, "weight_decay": group.get("weight_decay", config.weight_decay)} for group in model.parameter_groups()
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.lr)
    batches = make_batches(config)(0, 0, 1)
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step) * group.get("lr_scale", 1)
        optimizer.zero_grad()
        for _ in range(config.accumulate):
            losses = model(*next(batches))
            (sum(model.loss_weights[name] * loss for name, loss in losses.items()) / config.accumulate).backward()
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], config.clip_norm)
        optimizer.step()
    return model


@pytest.mark.parametrize("settings", [{}, {"accumulate": 2}, {"clip_norm": 0.01}])
def test_the_weights_are_those_of_a_plain_loop(tmp_path, settings):
    config = small(**settings)
    train(tmp_path, config, noisy=False)
    wanted = plain_loop(config).state_dict()
    found = load_weights(tmp_path / "checkpoints" / "last.safetensors").tensors
    assert found.keys() == wanted.keys()
    assert all(torch.allclose(found[name], value, rtol=1e-6, atol=1e-8) for name, value in wanted.items())


def test_micro_batches_change_nothing_but_rounding(tmp_path):
    whole = train(tmp_path / "1", small(), noisy=False)
    parts = train(tmp_path / "4", small(accumulate=4), noisy=False)
    assert parts.losses["loss"] == pytest.approx(whole.losses["loss"], rel=1e-5)
    assert parts.best == pytest.approx(whole.best, rel=1e-5)


def test_the_run_folder(tmp_path):
    result = train(tmp_path, small(), metadata={"classes": "cat,dog"})
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {
        "best.safetensors", "last.safetensors", "resume.pt", "resume.previous.pt",
    }  # fmt: skip
    rows = read_metrics(tmp_path / "metrics.csv")
    assert list(rows) == [2, 4, 6, 8]
    assert rows[2].keys() == LOGGED
    assert rows[8].keys() - rows[2].keys() == {"AP50", "AP"}
    assert rows[6]["loss"] == pytest.approx(rows[6]["loss_boxes"] + 0.5 * rows[6]["loss_classes"])
    assert rows[6]["lr"] == learning_rate(small(), 5)
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1
    assert (tmp_path / "env.json").exists()
    metadata = load_weights(tmp_path / "checkpoints" / "last.safetensors").metadata
    assert metadata == {"classes": "cat,dog", "step": "8"}
    assert (result.steps, result.metrics.keys()) == (8, {"AP50", "AP"})
    assert result.losses["loss"] == rows[8]["loss"]
    assert result.images_per_second > 0


def test_the_best_weights_are_kept_and_the_first_of_equals(tmp_path):
    figures = iter([0.1, 0.5, float("nan"), 0.5])
    result = train(tmp_path, small(eval_every=2), evaluate=lambda model: {"AP50": next(figures)})
    assert (result.best, result.best_step) == (0.5, 4)
    assert load_weights(tmp_path / "checkpoints" / "best.safetensors").metadata == {"AP50": "0.5", "step": "4"}


def test_an_evaluation_that_finds_nothing_leaves_no_best_weights(tmp_path):
    result = train(tmp_path, small(), evaluate=lambda model: {"AP50": float("nan")})
    assert result.best is None
    assert not (tmp_path / "checkpoints" / "best.safetensors").exists()


def test_without_an_evaluation_there_are_last_weights_only(tmp_path):
    result = train(tmp_path, small(), evaluate=None)
    assert (result.best, result.metrics) == (None, {})
    assert not (tmp_path / "checkpoints" / "best.safetensors").exists()


def test_evaluating_more_often_does_not_change_the_training(tmp_path):
    train(tmp_path / "often", small(eval_every=1, save_every=1))
    train(tmp_path / "once", small(eval_every=0, save_every=0))
    often, once = (
        load_weights(tmp_path / name / "checkpoints" / "last.safetensors").tensors for name in ("often", "once")
    )
    assert same(often, once)


def test_the_evaluation_sees_the_averages_in_evaluation_mode_and_they_are_what_is_saved(tmp_path):
    seen = []

    def look(model: nn.Module) -> dict[str, float]:
        assert not model.training
        assert not torch.is_grad_enabled()
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"AP50": 0.5}

    model = TinyDetector()
    train(tmp_path, small(ema=0.9), evaluate=look, model=model)
    assert model.training
    assert same(load_weights(tmp_path / "checkpoints" / "last.safetensors").tensors, seen[-1])
    assert same(load_weights(tmp_path / "checkpoints" / "best.safetensors").tensors, seen[0])
    assert not same(dict(model.state_dict()), seen[-1])


def test_bf16_computes_in_bf16_and_leaves_the_model_as_it_was(tmp_path):
    torch.manual_seed(1)  # the seed of ``train``
    model, kinds = TinyDetector(), set()
    model.boxes.register_forward_hook(lambda module, inputs, output: kinds.add(output.dtype))
    result = train(tmp_path, small(precision="bf16"), model=model, evaluate=None)
    assert kinds == {torch.bfloat16}
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert "forward" not in vars(model)
    assert result.losses["loss"] == pytest.approx(train(tmp_path / "32", small(), noisy=False).losses["loss"], rel=0.02)


def test_images_without_boxes_train(tmp_path):
    config = small(batch_size=2)
    result = train(tmp_path, config, noisy=False, empty_half=True)
    assert result.losses["present"] == 0.5


def test_targets_may_be_nested(tmp_path):
    class Nested(TinyDetector):
        def forward(self, images, targets):
            assert targets[0]["extra"]["points"][0].shape == (2,)
            assert targets[0]["extra"]["name"] == "a"
            return super().forward(images, targets)

    def batches(start, rank, world):
        for images, targets in make_batches(small())(start, rank, world):
            yield images, [{**target, "extra": {"points": [torch.zeros(2)], "name": "a"}} for target in targets]

    fit(Nested(), batches, small(), tmp_path)


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_names_step_images_and_losses_and_keeps_the_last_save(tmp_path):
    with pytest.raises(NonFiniteLoss) as error:
        train(tmp_path, small(), model=TinyDetector(poison=18))  # of the fifth step: images 16 to 19
    assert str(error.value).startswith("the loss of step 5 is not finite: loss_boxes ")
    assert "loss_classes nan (images 16, 17, 18, 19)" in str(error.value)
    saved = load_resume(tmp_path / "checkpoints")
    assert saved["step"] == 4
    assert all(value.isfinite().all() for value in saved["model"].values())


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    class Breaking(TinyDetector):
        def forward(self, images, targets):
            losses = super().forward(images, targets)
            if targets[0]["image_id"] == 8:  # the third step: a finite loss with an infinite slope
                losses["loss_classes"] = losses["loss_classes"] + (self.boxes.bias * 0).sum().sqrt()
            return losses

    with pytest.raises(ValueError, match=r"weights are not finite after step 3"):
        train(tmp_path, small(), model=Breaking())
    assert load_resume(tmp_path / "checkpoints")["step"] == 0


def test_losses_without_a_weight_are_refused(tmp_path):
    model = TinyDetector()
    model.loss_weights = {"loss_boxes": 1.0, "loss_class": 1.0}
    with pytest.raises(ValueError, match=r"losses lack \['loss_class'\], loss_weights lack \['loss_classes'\]"):
        train(tmp_path, small(), model=model)


def test_a_figure_that_the_evaluation_lacks_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"has no figure 'AP75' to choose weights by; it has \['AP', 'AP50'\]"):
        train(tmp_path, small(), best="AP75")


def test_without_a_figure_to_choose_by_the_last_weights_stand(tmp_path) -> None:
    train(tmp_path, small(), best=None)
    assert [file.name for file in (tmp_path / "checkpoints").glob("*.safetensors")] == ["last.safetensors"]
    assert any("AP50" in row for row in read_metrics(tmp_path / "metrics.csv").values())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"steps": 7}, "make_batches has no batch for step 8 of 8"),
        ({"batch_size": 2}, "make_batches must give 4 images a batch .* got 2 in step 1 of 8"),
    ],
)
def test_batches_that_do_not_fit_the_config_are_refused(tmp_path, wrong, said):
    with pytest.raises(ValueError, match=said):
        fit(TinyDetector(), make_batches(small(**wrong)), small(), tmp_path)


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    train(tmp_path, small())
    with pytest.raises(ValueError, match=r"already holds a run; to go on with it: resume=true"):
        train(tmp_path, small())


def test_a_folder_that_cannot_be_written_is_found_before_the_first_step(tmp_path):
    (tmp_path / "checkpoints").write_text("a file where a folder should be")
    model, calls = TinyDetector(), []
    model.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises((FileExistsError, NotADirectoryError)):
        train(tmp_path, small(), model=model)
    assert not calls


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(tmp_path, signum, capfd):
    with pytest.raises(Interrupted) as error:
        train(tmp_path, small(), model=signals_itself(TinyDetector(), 5, signum))
    assert (error.value.step, error.value.exit_code) == (5, 128 + signum)
    assert load_resume(tmp_path / "checkpoints")["step"] == 5
    assert load_weights(tmp_path / "checkpoints" / "last.safetensors").metadata["step"] == "5"
    assert str(error.value) == f"stopped after step 5, which is saved in {tmp_path}; to go on: resume=true"
    assert "stopping after this step" in capfd.readouterr().err


def test_a_second_ctrl_c_stops_in_the_middle_of_a_step(tmp_path):
    def twice(*_) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    model = TinyDetector()
    model.register_forward_hook(twice)
    with pytest.raises(KeyboardInterrupt) as error:
        train(tmp_path, small(), model=model)
    assert not isinstance(error.value, Interrupted)
    assert load_resume(tmp_path / "checkpoints")["step"] == 0


def test_settings_of_torch_come_back(tmp_path):
    threads = torch.get_num_threads()
    seen = []
    config = small(threads=1, deterministic=True)

    def look(model: nn.Module) -> dict[str, float]:
        seen.append((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))
        return evaluate(model)

    torch.set_num_threads(2)
    fit(TinyDetector(), make_batches(config), config, tmp_path, evaluate=look)
    assert seen[-1] == (1, True)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (2, False)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("last", [800, pytest.param(5000, marks=pytest.mark.slow)])
def test_memory_stays_flat_over_many_steps(tmp_path, last):
    """Neither the process nor the number of living tensors grows between step 200 and the last."""
    process, sizes, tensors = psutil.Process(), {}, {}

    def look(model, inputs, _):
        step = len(calls)
        calls.append(1)
        if step in (200, last):
            gc.collect()
            sizes[step] = process.memory_info().rss / 2**20
            tensors[step] = sum(type(thing) is torch.Tensor for thing in gc.get_objects())

    calls: list[int] = []
    model = TinyDetector()
    model.register_forward_hook(look)
    train(tmp_path, FitConfig(steps=last + 1, workers=0, log_every=100, save_every=200, eval_every=0), model=model)
    assert tensors[last] <= tensors[200]
    assert sizes[last] - sizes[200] < 8  # MB: what no tensor is, such as a graph that nobody lets go
