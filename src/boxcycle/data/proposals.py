"""Where an object may be: selective search or edge boxes for every image, made once and kept, or published files.

Frame of all boxes: *original*. What an image file gives depends on its pixels and the settings alone, so the cache is
named after both, and one folder serves all data sets and runs.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from boxcycle.data.check import DataError
from boxcycle.data.dataset import read_image
from boxcycle.data.index import Index
from boxcycle.data.text import write_whole

Boxes = NDArray[np.float32]  # [P, 4] xyxy
VERSION = 1  # of the generators: raised whenever the same image gives other boxes
INSTALL = "pip install 'boxcycle[proposals]'"


class ProposalConfig(BaseModel):
    """Where proposals come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["fast", "quality", "edge_boxes", "file"] = Field(
        "fast", description="selective search, fast or quality; edge boxes; file: published ones"
    )
    file: Path | None = Field(None, description="method=file: a .mat file, or a folder with one for each image")
    limit: int = Field(2048, gt=0, description="boxes of an image at most, the whole image included")
    min_side: float = Field(
        0.04, ge=0, lt=1, description="boxes with a shorter side, in parts of the image's longer one, are dropped"
    )
    pixels: int = Field(500, ge=16, description="longer side at which an image is searched; smaller ones as they are")
    cache: Path = Field(Path("~/.cache/boxcycle/proposals"), description="folder that keeps what was found")
    workers: int = Field(2, ge=0, description="processes that search; 0: this one")

    @model_validator(mode="after")
    def _file_or_search(self) -> ProposalConfig:
        if (self.file is not None) != (self.method == "file"):
            raise ValueError(
                "method=file needs file=..., a .mat file or a folder of them, and no other method takes one"
            )
        return self


class Proposals(Sequence[Boxes]):
    """The boxes [P, 4] of each image of an index, in its order, the whole image always among them.

    They stay on the disk until they are asked for, whatever the size of the data set.
    """

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, item: Any) -> Any:
        return np.load(self.files[item])


def open_proposals(index: Index, config: ProposalConfig) -> Sequence[Boxes]:
    """The proposals of all images of an index; what the cache lacks is searched first, in several processes.

    Stopped at any moment, it goes on where it was. Raises :class:`DataError` for an image that cannot be read, and
    ``ValueError`` with the command to type where OpenCV is missing.
    """
    if config.file is not None:
        from boxcycle.data.proposal_files import read_proposals

        found = read_proposals(config.file, index)
        return [tidy(boxes, _size(index, i), config, ranked=True) for i, boxes in enumerate(found)]
    folder = config.cache.expanduser() / _named(config)
    folder.mkdir(parents=True, exist_ok=True)
    images = [index.image_path(i) for i in range(len(index))]
    files = [folder / f"{_digest(image)}.npy" for image in images]
    missing = {file: image for file, image in zip(files, images, strict=True) if not file.is_file()}
    if missing:
        _module()  # the sentence about a missing package comes before any work
        for _ in _progress(_searched(missing, config), len(missing)):
            pass
    return Proposals(files)


def find_proposals(image: NDArray[np.uint8], config: ProposalConfig) -> Boxes:
    """The proposals of one RGB image [H, W, 3], in its own pixels; an empty or single-coloured one has its whole."""
    height, width = image.shape[:2]
    scale = min(1.0, config.pixels / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = image if scale == 1 else np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    ranked = config.method == "edge_boxes"
    found = (
        _edge_boxes(small, config.min_side) if ranked else _selective_search(small, quality=config.method == "quality")
    )
    return tidy(found * np.array([width / size[0], height / size[1]] * 2), (height, width), config, ranked=ranked)


def tidy(boxes: NDArray[Any], size: tuple[int, int], config: ProposalConfig, *, ranked: bool = False) -> Boxes:
    """Boxes clipped to an image of ``size``, without small ones and doubles, at most ``limit``, the whole image first.

    The order is by area, then by place: selective search gives a set, in another order at every call. Of too many, the
    first ones stay if they are ``ranked``, else some that are evenly spread in that order, so that all sizes keep
    their part.
    """
    height, width = size
    kept = np.clip(boxes.reshape(-1, 4), 0, [width, height, width, height]).round(2)
    sides = kept[:, 2:] - kept[:, :2]
    kept = kept[(sides > 0).all(1) & (sides >= config.min_side * max(size)).all(1)]
    whole = np.array([[0, 0, width, height]], dtype=np.float64)
    kept = kept[(kept != whole).any(1)]
    if ranked:
        first = np.sort(np.unique(kept, axis=0, return_index=True)[1])
        kept = kept[first[: config.limit - 1]]
    kept = np.unique(kept, axis=0)  # sorts by place
    kept = kept[np.argsort(-np.prod(kept[:, 2:] - kept[:, :2], axis=1), kind="stable")]
    count = min(len(kept), config.limit - 1)
    chosen = kept[np.arange(count) * len(kept) // max(count, 1)]
    return np.concatenate([whole, chosen]).astype(np.float32)


def _selective_search(image: NDArray[np.uint8], *, quality: bool) -> NDArray[np.float64]:
    """Selective search (Uijlings et al., IJCV 2013), boxes [P, 4]; they come in no order."""
    cv2 = _module()
    try:
        search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))  # OpenCV's channels are blue, green, red
        if quality:
            search.switchToSelectiveSearchQuality()
        else:
            search.switchToSelectiveSearchFast()
        found = np.asarray(search.process(), dtype=np.float64).reshape(-1, 4)
    except cv2.error:  # an assertion of its texture measure fails on some images (opencv_contrib issue 705)
        return np.zeros((0, 4))
    return np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1)


def _edge_boxes(image: NDArray[np.uint8], min_side: float) -> NDArray[np.float64]:
    """Edge boxes (Zitnick and Dollár, ECCV 2014) on thinned Sobel edges, boxes [P, 4], best first.

    The authors' edges come from a forest whose file is no part of any package; these do without it.
    """
    cv2 = _module()
    smooth = cv2.GaussianBlur(image.astype(np.float32) / 255, (5, 5), 0)
    slopes = np.stack([cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)])  # [2, H, W, 3]
    strongest = np.linalg.norm(slopes, axis=0).argmax(-1)  # colours of equal brightness have an edge too
    across, down = np.take_along_axis(slopes, strongest[None, ..., None], axis=-1)[..., 0]
    edges = np.hypot(across, down)
    edges /= max(float(edges.max()), 1e-6)
    direction = np.arctan2(down, across) % np.pi
    search = cv2.ximgproc.createEdgeBoxes()
    search.setMaxBoxes(10_000)
    least = (min_side * max(image.shape[:2])) ** 2
    search.setMinBoxArea(max(1.0, least))  # its default, 1000, is for large photographs
    found = np.asarray(search.getBoundingBoxes(_thinned(edges, direction), direction)[0], dtype=np.float64)
    found = found.reshape(-1, 4)
    return np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1)


def _thinned(edges: NDArray[np.float32], direction: NDArray[np.float32]) -> NDArray[np.float32]:
    """Edges [H, W] that are at least as strong as both neighbours across them, 0 elsewhere."""
    padded = np.pad(edges, 1)
    height, width = edges.shape
    steps = np.array([(0, 1), (1, 1), (1, 0), (1, -1)])[np.round(direction / (np.pi / 4)).astype(int) % 4]
    rows, columns = np.mgrid[1 : height + 1, 1 : width + 1]
    ahead = padded[rows + steps[..., 0], columns + steps[..., 1]]
    behind = padded[rows - steps[..., 0], columns - steps[..., 1]]
    return np.where((edges >= ahead) & (edges >= behind), edges, 0).astype(np.float32)


def _searched(missing: dict[Path, Path], config: ProposalConfig) -> Iterator[None]:
    """Search the images and write their files, in ``workers`` processes; yields after each."""
    job = partial(_search_file, config=config)
    if not config.workers or len(missing) < 2 * config.workers:  # a process takes seconds to start
        yield from map(job, missing.values(), missing)
        return
    # spawned: a fork of a process whose threads hold locks may wait for ever
    with ProcessPoolExecutor(config.workers, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(job, missing.values(), missing, chunksize=4)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _search_file(image: Path, file: Path, config: ProposalConfig) -> None:
    _module().setNumThreads(1)  # the processes are the threads
    boxes = find_proposals(read_image(image), config)
    content = io.BytesIO()
    np.save(content, boxes)
    write_whole(file, content.getvalue())


def _progress(work: Iterable[None], total: int) -> Iterator[None]:
    from rich.progress import track

    yield from track(work, description="proposals", total=total)


def _module() -> Any:
    """OpenCV with its contributed parts."""
    try:
        import cv2
    except ImportError:
        raise ValueError(f"OpenCV is needed to propose boxes; install it: {INSTALL}") from None
    if not hasattr(cv2, "ximgproc"):
        raise ValueError(f"this OpenCV ({cv2.__version__}) lacks its module ximgproc; replace it: {INSTALL}")
    return cv2


def _size(index: Index, image: int) -> tuple[int, int]:
    height, width = index.image_sizes[image].tolist()
    return height, width


def _named(config: ProposalConfig) -> str:
    return f"{config.method}-{config.pixels}-{config.min_side:g}-{config.limit}.v{VERSION}"


def _digest(image: Path) -> str:
    try:
        return hashlib.sha256(image.read_bytes()).hexdigest()[:32]
    except FileNotFoundError:
        raise DataError(f"image file {image} does not exist") from None
