"""Published proposals in MATLAB files: selective search (one file for a split) and MCG (one file for each image)."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from boxcycle.data.check import DataError
from boxcycle.data.index import Index


def read_proposals(path: Path, index: Index) -> list[NDArray[np.float64]]:
    """The boxes [P, 4] of each image of an index, xyxy, original frame, best first where the file has scores.

    ``path``: a file with the cells ``boxes`` and ``images`` (names without ending), or a folder of files named after
    the images, with ``boxes`` and perhaps ``scores``. Rows of these files are (y1, x1, y2, x2), counted from 1, the
    last pixel included: both the files of Fast R-CNN and those of MCG.

    Raises :class:`DataError` for a file of another kind, and for images without boxes.
    """
    names = [PurePosixPath(name).stem for name in index.file_names]
    found = _of_folder(path, names) if path.is_dir() else _of_file(path)
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(f"{path} has no proposals for image '{missing[0]}' ({len(missing)} of {len(names)} lack them)")
    return [_boxes(found[name], path, name) for name in names]


def _of_file(path: Path) -> dict[str, Any]:
    content = _load(path)
    if not {"boxes", "images"} <= content.keys():
        raise DataError(f"{path} must have the cells 'boxes' and 'images'; it has {_variables(content)}")
    names = [str(np.asarray(name).ravel()[0]) for name in content["images"].ravel()]
    boxes = list(content["boxes"].ravel())
    if len(names) != len(boxes):
        raise DataError(f"{path} has {len(names)} images but boxes of {len(boxes)}")
    return {PurePosixPath(name).stem: rows for name, rows in zip(names, boxes, strict=True)}


def _of_folder(path: Path, names: list[str]) -> dict[str, Any]:
    found = {}
    for name in names:
        file = path / f"{name}.mat"
        if file.is_file():
            content = _load(file)
            if "boxes" not in content:
                raise DataError(f"{file} must have the matrix 'boxes'; it has {_variables(content)}")
            scores = np.asarray(content.get("scores", np.zeros(0)), dtype=np.float64).ravel()
            order = np.argsort(-scores, kind="stable") if len(scores) else slice(None)
            found[name] = content["boxes"][order]
    return found


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"proposals {path} do not exist")
    try:
        content: dict[str, Any] = loadmat(path)
    except (MatReadError, ValueError, TypeError, NotImplementedError, OSError) as error:  # the fourth: MATLAB 7.3
        raise DataError(f"{path} is no MATLAB file that can be read (up to version 7): {error}") from None
    return content


def _boxes(rows: Any, path: Path, name: str) -> NDArray[np.float64]:
    boxes = np.asarray(rows, dtype=np.float64)
    if not boxes.size:
        return np.zeros((0, 4))
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise DataError(f"boxes of image '{name}' in {path} must be rows of four numbers; got shape {boxes.shape}")
    y1, x1, y2, x2 = boxes.T
    return np.stack([x1 - 1, y1 - 1, x2, y2], axis=1)


def _variables(content: dict[str, Any]) -> str:
    return ", ".join(sorted(name for name in content if not name.startswith("__"))) or "nothing"
