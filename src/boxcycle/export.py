"""`boxcycle export`: a detector as an ONNX file, kept only if onnxruntime finds with it what torch finds.

The whole of ``detector.predict`` is in the file: normalisation, padding, proposals, suppression. It is recorded by
torch's tracing exporter, since the newer one cannot follow suppression, whose number of boxes depends on the image
(torch 2.15). A trace holds every Python number as a constant, and torch itself cannot tell which of them would differ
in another image: therefore the comparison, on images of several sizes.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.ops import box_iou

from boxcycle import __version__
from boxcycle.data.config import DataConfig, open_split
from boxcycle.data.dataset import DetectionDataset
from boxcycle.data.transforms import ResizeConfig
from boxcycle.engine.checkpoint import write_atomically
from boxcycle.types import Detections

OPSET = 17  # RoiAlign measures from cell centres from opset 16 on, as ours does
INPUT, OUTPUTS = "image", ("boxes", "labels", "scores")
LEAST_IOU, MOST_SCORE_DIFFERENCE = 0.999, 1e-4  # float32 in another order of additions stays far within
SHADES = (1.0, 0.98, 0.96)  # see `compare`
PICTURES = 4  # of the run's evaluation split


class ExportConfig(BaseModel):
    """Which detector, and where its file goes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Path = Field(description="folder of a run, or its weights file")
    out: Path | None = Field(None, description="the file to write; empty: model.onnx beside the run's checkpoints")


class Trained(Protocol):
    """What is asked of a loaded run; ``config.data`` says what its images are and how they are resized."""

    @property
    def model(self) -> nn.Module: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def config(self) -> Any: ...
    @property
    def method(self) -> str: ...


class Agreement(NamedTuple):
    """How far two sets of detections are apart: the worst IoU of a pair, its largest difference of scores, pairs."""

    worst_iou: float = 1.0
    score_difference: float = 0.0
    detections: int = 0

    def __str__(self) -> str:
        if not self.detections:
            return "nothing is found by either"
        scores = f"scores within {self.score_difference:.1e}"
        return f"{self.detections} detections: IoU {self.worst_iou:.6f} or more, {scores}"


def export(config: ExportConfig, load: Callable[..., Trained]) -> None:
    """Write the detector of a run, compared first, and say how well it agrees. ``load(path, device=...)`` reads it.

    Raises ``ValueError`` if the extra is not installed, the file is there already, the run has no weights, or the file
    would not agree.
    """
    path = config.out or (config.run if config.run.is_dir() else config.run.parent) / "model.onnx"
    _check_place(path)
    trained = load(config.run, device="cpu")
    data: DataConfig = trained.config.data
    details = {"method": trained.method, "resize_short": str(data.resize.short), "resize_long": str(data.resize.long)}
    images = list(comparison_images(data.resize, pictures(data)))
    agreement = write_onnx(path, trained.model, trained.class_names, images, details)
    sizes = ", ".join(f"{image.shape[1]} x {image.shape[2]}" for image in images)
    print(f"{path}: onnxruntime and torch agree on {len(images)} images ({sizes}); {agreement}")


def write_onnx(
    path: Path,
    detector: nn.Module,
    class_names: Sequence[str],
    images: Sequence[Tensor],
    details: Mapping[str, str] | None = None,
) -> Agreement:
    """Write ``detector`` to ``path`` if onnxruntime and torch find the same in all ``images``.

    The file takes ``image``, RGB float32 [3, H, W] in [0, 1] of any size, and gives ``boxes`` [D, 4] float32 xyxy in
    its pixels, ``labels`` [D] int64 in 1..K and ``scores`` [D] float32, best first. Its metadata hold ``class_names``
    (a JSON list, label k at position k - 1), ``version`` and ``details``. ``detector.predict`` must be such that a
    trace follows the size of the image: sizes read from ``shape``, no ``len`` and ``int``.

    Raises ``ValueError``, and leaves no file, if they disagree, or the place or the installation is not as it must be.
    """
    _check_place(path)
    found: list[Agreement] = []

    def write(file: Path) -> None:
        _trace(file, detector, images[0])
        _add_metadata(file, {"class_names": json.dumps(list(class_names)), "version": __version__, **(details or {})})
        found.append(compare(file, detector, images))

    write_atomically(path, write)
    return found[0]


def compare(path: Path, detector: nn.Module, images: Sequence[Tensor]) -> Agreement:
    """How far onnxruntime, with the file, and torch are apart in the worst of ``images``.

    Where they differ, rounding may have decided a tie: which of two overlapping boxes scores better, whether the
    overlap reaches the threshold. Such a tie does not come again in a slightly darker picture, a fault of the graph
    does: so an image disagrees if three shades of it do.

    Raises ``ValueError`` for the first image that disagrees.
    """
    session = open_session(path)
    found = [_compare(session, detector, image) for image in images]
    worst_iou, difference = min(one.worst_iou for one in found), max(one.score_difference for one in found)
    return Agreement(worst_iou, difference, sum(one.detections for one in found))


def _compare(session: Any, detector: Any, image: Tensor) -> Agreement:
    for shade in SHADES:
        with torch.no_grad():
            [expected] = detector.predict([image * shade])
        exported = run_session(session, image * shade)
        found = agreement(expected, exported)
        if agrees(found):
            return found
    raise ValueError(
        f"the exported file disagrees with torch on an image of {image.shape[1]} x {image.shape[2]} pixels (height x "
        f"width) and is not kept: torch finds {len(expected['scores'])} objects, the file {len(exported['scores'])}; "
        f"the worst pair has IoU {found.worst_iou:.4f} and scores {found.score_difference:.1e} apart, where at least "
        f"{LEAST_IOU} and at most {MOST_SCORE_DIFFERENCE} was expected"
    )


def agrees(found: Agreement) -> bool:
    """Whether two sets of detections are the same but for rounding."""
    return found.worst_iou > LEAST_IOU and found.score_difference < MOST_SCORE_DIFFERENCE


def agreement(expected: Detections, found: Detections) -> Agreement:
    """Pair each expected detection, best first, with the free one of its class that it overlaps most.

    One without partner counts as an IoU of 0 and a difference of its whole score.
    """
    overlap = box_iou(expected["boxes"], found["boxes"])
    overlap[expected["labels"][:, None] != found["labels"]] = 0
    worst_iou, difference = 1.0, 0.0
    free = torch.ones(len(found["scores"]), dtype=torch.bool)
    for row, score in zip(overlap, expected["scores"].tolist(), strict=True):
        iou, partner = (row * free).max(0) if len(row) else (row.new_zeros(()), None)
        paired = partner is not None and bool(iou > 0)
        worst_iou = min(worst_iou, float(iou))
        difference = max(difference, abs(score - float(found["scores"][partner])) if paired else score)
        if paired:
            free[partner] = False
    if free.any():
        worst_iou, difference = 0.0, max(difference, float(found["scores"][free].max()))
    return Agreement(worst_iou, difference, len(expected["scores"]))


def open_session(path: Path) -> Any:
    """An onnxruntime session of the file on the CPU, with torch's number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_session(session: Any, image: Tensor) -> Detections:
    """What the exported detector finds in an image [3, H, W]."""
    outputs: list[NDArray[Any]] = session.run(list(OUTPUTS), {INPUT: np.ascontiguousarray(image.numpy())})
    return Detections(**{name: torch.from_numpy(values) for name, values in zip(OUTPUTS, outputs, strict=True)})  # type: ignore[typeddict-item]


def comparison_images(resize: ResizeConfig, found: Sequence[Tensor]) -> Iterator[Tensor]:
    """One image [3, H, W] of each size to compare at, from ``found`` in turn; from a noise where there is none.

    Sizes: the largest that the detector is given, upright too, and odd ones, which no stride divides.
    """
    short, long = resize.short, resize.long
    half = max(33, short // 2 + 1)
    generator = torch.Generator().manual_seed(0)
    blotches = [torch.rand(3, 12, 12, generator=generator) for _ in range(2)]
    source = itertools.cycle(found or blotches)
    sizes = (short, long), (long, short), (max(33, short - 13), max(47, short - 27)), (half, half)
    for size in dict.fromkeys(sizes):
        yield interpolate(next(source)[None], size=size, mode="bilinear", antialias=True)[0].clamp(0, 1)


def pictures(data: DataConfig) -> list[Tensor]:
    """The first images [3, H, W] of the run's evaluation split; none where the data is not there any more."""
    try:
        dataset = DetectionDataset(open_split(data, data.val))
        return [dataset[number][0] for number in range(min(PICTURES, len(dataset)))]
    except (ValueError, OSError):
        return []


class _Exported(nn.Module):
    """One image in, three tensors out."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector: Any = detector

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        [found] = self.detector.predict([image])
        return found["boxes"], found["labels"], found["scores"]


def _trace(path: Path, detector: nn.Module, image: Tensor) -> None:
    axes = {INPUT: {1: "height", 2: "width"}} | {name: {0: "detections"} for name in OUTPUTS}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about every number that a trace keeps; the comparison judges them
        torch.onnx.export(
            _Exported(detector).eval(),
            (image,),
            str(path),
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )


def _add_metadata(path: Path, metadata: dict[str, str]) -> None:
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _check_place(path: Path) -> None:
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"exporting needs {' and '.join(missing)}: pip install 'boxcycle[onnx]'")
    if path.exists():
        raise ValueError(f"{path} exists already; remove it, or name another file with out=...")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent} to write {path.name} to")
