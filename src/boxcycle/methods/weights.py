"""Weights files into detectors: of a run that was trained, whole or but for what depends on the classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from boxcycle import yaml12
from boxcycle.engine.checkpoint import load_weights
from boxcycle.methods.run_folder import weights_file


def load_detector_weights(
    detector: nn.Module, path: Path, class_names: Sequence[str], *, renewed: str | None = None
) -> None:
    """Start ``detector`` from the detector of a trained run (its folder or its weights file).

    ``renewed``: tensors whose names begin so depend on the classes; if the classes differ they stay as they are, and
    this is said. Raises ``ValueError`` if the classes differ without it, naming the difference, or if it is another
    detector.
    """
    file = weights_file(path)
    tensors, metadata = load_weights(file)
    if "class_names" not in metadata:
        raise ValueError(f"{file} does not name its classes; expected weights that `boxcycle train` wrote")
    prefix = "detector." if any(name.startswith("detector.") for name in tensors) else ""
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    take_weights(
        detector, own, file, json.loads(metadata["class_names"]), class_names, renewed, _which_detector(metadata)
    )


def take_weights(
    detector: nn.Module,
    tensors: Mapping[str, Tensor],
    file: Path,
    found: Sequence[str],
    class_names: Sequence[str],
    renewed: str | None,
    which: str = "",
) -> None:
    """Give ``detector`` tensors of ``file``, whose classes are ``found``; see :func:`load_detector_weights`."""
    if list(found) != list(class_names):
        difference = f"{file} knows other classes: {class_difference(found, class_names)}"
        if renewed is None:
            raise ValueError(difference)
        print(f"{difference}; {renewed} starts anew")
        fresh = {name: tensor for name, tensor in detector.state_dict().items() if name.startswith(renewed)}
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(renewed)} | fresh
    _load_tensors(detector, tensors, file, which)


def load_state(model: nn.Module, file: Path) -> None:
    """Give ``model`` the weights of a file. Raises ``ValueError`` if they are those of another model."""
    _load_tensors(model, load_weights(file).tensors, file)


def _load_tensors(model: nn.Module, tensors: Mapping[str, Tensor], file: Path, which: str = "") -> None:
    wanted = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    wrong = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
    if wrong:
        shapes = f"{found.get(wrong[0], 'missing')} in the file, {wanted.get(wrong[0], 'missing')} here"
        raise ValueError(
            f"{file} is of another model{which}: {len(wrong)} tensors differ, the first {wrong[0]}: {shapes}"
        )
    model.load_state_dict(tensors)


def _which_detector(metadata: Mapping[str, str]) -> str:
    """A clause about the detector of a weights file, by the configuration of its run: its name and its backbone."""
    section = (yaml12.load(metadata.get("config", "")) or {}).get("detector") or {}
    names = [section[key] for key in ("name", "backbone") if key in section]
    return f" ({' on '.join(names)})" if names else ""


def class_difference(found: Sequence[str], expected: Sequence[str]) -> str:
    """One clause that says how two lists of class names differ."""
    missing, extra = [n for n in expected if n not in found], [n for n in found if n not in expected]
    if not missing and not extra:
        return f"the same names in another order ({', '.join(found)}; expected {', '.join(expected)})"
    return f"it lacks {missing or 'none'} and has {extra or 'none'} beside"
