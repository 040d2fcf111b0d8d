"""Pictures of the priors of a few images at every update, and the page that shows them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from boxcycle.data.dataset import read_image
from boxcycle.data.index import Index
from boxcycle.engine.checkpoint import write_atomically
from boxcycle.methods.joindet.labels import REGION_SCORE
from boxcycle.methods.joindet.priors import View
from boxcycle.methods.joindet.store import load_priors
from boxcycle.report.priors import draw_view, write_priors_report

WATCHED = 6  # images, the first of the training split
PICTURES = "pictures"  # folder within that of the priors


def save_view(folder: Path, index: Index, image: int, number: int, view: View) -> None:
    """Keep a picture of what update ``number`` found in image number ``image``."""
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    found = {
        "region": (view.regions.numpy(), [REGION_SCORE] * len(view.regions)),
        "instance": (view.instances[0].numpy(), view.instances[1].tolist()),
        "prior": (view.priors[0].numpy(), view.priors[1].tolist()),
    }
    picture = draw_view(read_image(index.image_path(image)), view.attention.numpy(), found)
    write_atomically(_file(folder, image, number), lambda beside: _save(picture, beside))


def write_viewer(folder: Path, index: Index, title: str) -> Path:
    """Write ``priors.html`` beside the folder of the priors; returns the file."""
    updates = {int(file.stem): load_priors(file) for file in folder.glob("*.npz")}
    images = {}
    for image in range(min(WATCHED, len(index))):
        shown = {}
        for number, priors in sorted(updates.items()):
            if _file(folder, image, number).is_file():
                regions, instances = priors.found[image].tolist()
                count = int(priors.offsets[image + 1] - priors.offsets[image])
                caption = f"{regions} regions, {instances} instances, {count} priors"
                shown[number] = caption, _file(folder, image, number)
        if shown:
            images[index.file_names[image]] = shown
    write_priors_report(folder.with_suffix(".html"), title, images)
    return folder.with_suffix(".html")


def _file(folder: Path, image: int, number: int) -> Path:
    return folder / PICTURES / f"{image}-{number}.png"


def _save(picture: Image.Image, file: Path) -> None:
    picture.save(file, "PNG")
