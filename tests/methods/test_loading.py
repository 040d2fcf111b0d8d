"""A trained detector comes back from its file, and nothing else is taken for one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from boxcycle.engine.checkpoint import load_weights, save_weights
from boxcycle.methods.loading import load

WEIGHTS = Path("checkpoints") / "best.safetensors"


def test_folder_and_file_give_the_same_detector_ready_to_use(finished: Path) -> None:
    one, other = load(finished), load(finished / WEIGHTS)
    expected = load_weights(finished / WEIGHTS).tensors
    for trained in (one, other):
        assert not trained.model.training
        assert (trained.method, len(trained.class_names), len(trained.category_ids)) == ("supervised", 13, 13)
        assert trained.config.detector.roi_size == 4
        assert all(tensor.equal(expected[name]) for name, tensor in trained.model.state_dict().items())


def test_weights_that_a_run_started_from_need_not_be_there_any_more(finished: Path, tmp_path: Path) -> None:
    tensors, metadata = load_weights(finished / WEIGHTS)
    config = (
        metadata["config"].replace("init: null", "init: no/such/run").replace("weights: default", "weights: gone.pth")
    )
    assert config.count("no/such/run") == config.count("gone.pth") == 1
    save_weights(tmp_path / "w.safetensors", tensors, {**metadata, "config": config})
    assert load(tmp_path / "w.safetensors").file == tmp_path / "w.safetensors"


def test_a_run_without_best_weights_gives_its_last(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(finished / WEIGHTS, tmp_path / "checkpoints" / "last.safetensors")
    assert load(tmp_path).file.name == "last.safetensors"


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("name", ["best.safetensors", "model.pth"])
def test_a_pickle_is_refused_and_not_run(tmp_path: Path, name: str) -> None:
    torch.save({"weight": Trap(tmp_path / "sprung")}, tmp_path / name)
    with pytest.raises(
        ValueError, match=f"{name} is not a safetensors file: it is a file of torch.save, whose loading"
    ):
        load(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no weights at .*checkpoints/best.safetensors"):
        load(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "unknown"},
        {"class_names": "cup, plate"},
        {"config": "data: {path: x}\nfitt: {}"},
        {"config": "data: [unclosed"},
        {"category_ids": "7"},
    ],
)
def test_weights_without_a_story_are_refused_in_one_sentence(finished: Path, tmp_path: Path, changes: dict) -> None:
    tensors, metadata = load_weights(finished / WEIGHTS)
    save_weights(tmp_path / "w.safetensors", tensors, {**metadata, **changes})
    with pytest.raises(ValueError, match=r"w.safetensors does not say which detector it holds \([^\n]*\); expected"):
        load(tmp_path / "w.safetensors")


def test_weights_that_do_not_fit_their_story_are_refused(finished: Path, tmp_path: Path) -> None:
    tensors, metadata = load_weights(finished / WEIGHTS)
    names = json.loads(metadata["class_names"])[:5]
    save_weights(tmp_path / "w.safetensors", tensors, {**metadata, "class_names": json.dumps(names)})
    with pytest.raises(ValueError, match=r"w.safetensors is of another model: 4 tensors differ, .*\[14\] in the file"):
        load(tmp_path / "w.safetensors")


@pytest.mark.parametrize("device", ["toaster", "cuda:99"])
def test_a_device_that_is_not_there_is_named(finished: Path, device: str) -> None:
    with pytest.raises(ValueError, match=f"device '{device}' cannot be used: "):
        load(finished, device=device)
