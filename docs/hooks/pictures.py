"""The pictures of the pages, drawn from generated scenes by the functions that they are about.

python docs/hooks/pictures.py       # writes docs/assets/{scenes,mtl_ssl,ssm,ws_jds,joindet}.png
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image

from boxcycle.data.dataset import read_image
from boxcycle.data.index import Index
from boxcycle.data.read import read_split
from boxcycle.data.scenes import SceneConfig, make_scenes
from boxcycle.methods.joindet.eigen import eigen_attention
from boxcycle.methods.joindet.labels import region_priors
from boxcycle.methods.mtl_ssl.labels import multi_object_labels, sample_windows
from boxcycle.methods.ssm.pasting import cut, paste
from boxcycle.models.backbone import build_backbone
from boxcycle.report.drawing import PALETTE, Marks, draw_marks
from boxcycle.report.pictures import side_by_side, truth_marks

ASSETS = Path(__file__).parents[1] / "assets"
NO_MARKS = Marks(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), (), dashed=False)


def pixels(index: Index, image: int) -> np.ndarray:
    """An image of the index."""
    return read_image(index.image_path(image))


def scenes(index: Index) -> Image.Image:
    """Three scenes with their boxes."""
    return side_by_side([("", draw_marks(pixels(index, i), truth_marks(index, i))) for i in range(3)])


def mtl_ssl(index: Index) -> Image.Image:
    """The boxes of a scene, and windows with what they show."""
    rows, size = index.boxes_of(0), (int(index.image_sizes[0, 0]), int(index.image_sizes[0, 1]))
    boxes, labels = torch.from_numpy(index.boxes[rows]).float(), torch.from_numpy(index.labels[rows])
    windows = sample_windows(boxes, size, 3, 60, torch.Generator().manual_seed(5))
    shown = multi_object_labels(windows, boxes, labels, index.num_classes)
    names = ("background", *index.class_names)
    texts = tuple(
        ", ".join(f"{names[k]} {100 * row[k]:.0f} %" for k in row.argsort(descending=True)[:3].tolist() if row[k] > 0)
        for row in shown
    )
    marks = Marks(windows.numpy(), np.arange(1, len(windows) + 1), texts, dashed=True, colours=PALETTE[: len(windows)])
    truth = draw_marks(pixels(index, 0), truth_marks(index, 0))
    return side_by_side([("boxes", truth), ("what windows show", draw_marks(pixels(index, 0), marks))])


def ssm(index: Index) -> Image.Image:
    """A crop of one scene, and the crop in another."""
    images = [torch.from_numpy(pixels(index, i)).permute(2, 0, 1).float() / 255 for i in (0, 1)]
    rows = index.boxes_of(0)
    largest = rows.start + int(np.prod(index.boxes[rows, 2:] - index.boxes[rows, :2], axis=1).argmax())
    crop = cut(images[0], torch.from_numpy(index.boxes[largest]).float())
    place = torch.tensor([8.0, 8.0, 8 + crop.shape[2], 8 + crop.shape[1]])
    pasted = (paste(images[1], [crop], [place]) * 255).round().byte().permute(1, 2, 0).numpy()
    text = (index.class_names[index.labels[largest] - 1],)
    candidate = Marks(index.boxes[[largest]], index.labels[[largest]], text, dashed=True)
    again = Marks(place[None].numpy(), index.labels[[largest]], ("found again?",), dashed=True)
    return side_by_side(
        [
            ("a candidate", draw_marks(pixels(index, 0), candidate)),
            ("pasted into another image", draw_marks(pasted, again)),
        ]
    )


def ws_jds(index: Index) -> Image.Image:
    """Scenes with their tags alone, beside their boxes."""
    names = [", ".join(index.class_names[k - 1] for k in index.tags_of(i)) for i in (0, 1)]
    seen = [(f"tags: {names[i]}", draw_marks(pixels(index, i), NO_MARKS)) for i in (0, 1)]
    return side_by_side([*seen, ("the boxes of the second", draw_marks(pixels(index, 1), truth_marks(index, 1)))])


def joindet(index: Index) -> Image.Image:
    """Attention over a scene from the features of an ImageNet backbone, and the rectangles around its regions."""
    image = torch.from_numpy(pixels(index, 0)).permute(2, 0, 1).float() / 255
    with torch.no_grad():
        features = build_backbone("efficientnet_lite0").eval().trunk(image[None])[0]
    attention = eigen_attention(features)
    boxes = region_priors(attention).numpy() * np.tile(index.image_sizes[0][::-1], 2)
    low, high = attention.min(), attention.max()
    shades = colormaps["viridis"](((attention - low) / (high - low)).numpy())[..., :3]
    heat = Image.fromarray((255 * shades).astype(np.uint8)).resize(image.shape[:0:-1], Image.Resampling.NEAREST)
    marks = Marks(boxes, np.ones(len(boxes), dtype=np.int64), ("region",) * len(boxes), dashed=True)
    return side_by_side(
        [("attention", draw_marks(np.asarray(heat), NO_MARKS)), ("regions", draw_marks(pixels(index, 0), marks))]
    )


def main() -> None:
    """Draw all of them."""
    with tempfile.TemporaryDirectory() as folder:
        path = make_scenes(Path(folder) / "scenes", SceneConfig(size=256, seed=2), {"train": 3})
        index = read_split(path, "train")
        for draw in (scenes, mtl_ssl, ssm, ws_jds, joindet):
            picture = draw(index)
            picture.thumbnail((1100, 1100))
            picture.quantize(128).save(ASSETS / f"{draw.__name__}.png", optimize=True)


if __name__ == "__main__":
    main()
