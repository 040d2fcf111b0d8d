"""Files that survive a kill at any moment, and that cannot run code when they are loaded.

Weights are safetensors with metadata. What resuming needs is ``resume.pt``: tensors, numbers and texts in torch's zip
format, loaded with ``weights_only=True``. Each is written beside its place, flushed to the disk, then renamed.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

RESUME = "resume.pt"
PREVIOUS = "resume.previous.pt"
DAMAGED = "resume.damaged.pt"


class Weights(NamedTuple):
    """The content of a weights file: ``tensors`` by state name, and ``metadata`` of texts."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def save_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write ``state`` and ``metadata`` as safetensors, atomically."""
    # cloned, since tensors that share memory may not be written as two
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}

    def write(file: Path) -> None:
        try:
            save_file(tensors, file, metadata=dict(metadata))
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written; is the disk full? ({error})") from error

    write_atomically(path, write)


def load_weights(path: Path) -> Weights:
    """Read a safetensors file.

    Raises ``ValueError`` for anything else; above all a pickle is refused, not executed.
    """
    if not path.is_file():
        raise ValueError(f"no weights at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            return Weights({name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {}))  # noqa: SIM118
    except SafetensorError as error:
        kind = "a file of torch.save, whose loading can run code" if _is_pickle(path) else "damaged or of another kind"
        raise ValueError(f"{path} is not a safetensors file: it is {kind}") from error


def load_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file alone, without its tensors. Raises as :func:`load_weights`."""
    if not path.is_file():
        raise ValueError(f"no weights at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: it is damaged or of another kind") from error


def save_resume(folder: Path, state: Mapping[str, Any]) -> None:
    """Write ``resume.pt``; the one before stays as ``resume.previous.pt``: at every moment one of them is whole."""
    path = folder / RESUME

    def write(file: Path) -> None:
        try:
            torch.save(dict(state), file)
        except RuntimeError as error:  # of torch's own writer, which does not say why
            raise OSError(f"{path} cannot be written; is the disk full? ({error})") from error

    def keep_previous() -> None:
        if path.exists():
            os.replace(path, folder / PREVIOUS)

    write_atomically(path, write, before_rename=keep_previous)


def load_resume(folder: Path) -> dict[str, Any] | None:
    """The state to go on from; None if there is none.

    A damaged ``resume.pt`` is set aside as ``resume.damaged.pt``, with a warning, and the one before is taken.
    Raises ``ValueError`` if no file is whole, or one holds more than tensors, numbers and texts.
    """
    present = [folder / name for name in (RESUME, PREVIOUS) if (folder / name).exists()]
    for path in present:
        try:
            return _load_resume_file(path)
        except _Damaged as error:
            last_error = error
            if path != present[-1]:
                os.replace(path, folder / DAMAGED)  # else the next save would put it in the place of the whole one
                warnings.warn(f"{error}; going on from the checkpoint before it, {present[-1].name}", stacklevel=2)
    if present:
        raise ValueError(f"{last_error}, and no earlier checkpoint is left") from last_error
    return None


def write_atomically(
    path: Path, write: Callable[[Path], None], before_rename: Callable[[], None] = lambda: None
) -> None:
    """Let ``write`` fill a file beside ``path``, bring it to the disk, then put it in the place of ``path``."""
    beside = path.with_name(f".{path.name}.new")
    try:
        write(beside)
        _sync(beside)
    except BaseException:
        beside.unlink(missing_ok=True)  # half a file helps nobody, least of all on a full disk
        raise
    before_rename()
    os.replace(beside, path)
    _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, atomically."""

    def write(file: Path) -> None:
        file.write_text(text, encoding="utf-8")

    write_atomically(path, write)


class _Damaged(Exception):
    pass


def _load_resume_file(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # torch itself does not compare checksums
    except (zipfile.BadZipFile, EOFError) as error:
        raise _Damaged(f"{path} is damaged (cut short, or not a checkpoint)") from error
    if broken:
        raise _Damaged(f"{path} is damaged (its part {broken} has changed)")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors, numbers and texts; it is refused, for loading it could run code"
        ) from error
    return state


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(4)
    return start[:2] == b"PK" or start[:1] == b"\x80"  # torch.save's zip, or a bare pickle


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows has no such thing for folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
