"""The pictures of questions: whole images for a browser, and small ones of where a candidate was pasted."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from boxcycle.data.questions import Question

KINDS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}  # any browser shows these
ORIENTATION = 0x0112  # EXIF; boxes are those of the pixels as they are stored
THUMBNAIL = 220  # pixels of the longer side
AROUND = 2.5  # a thumbnail shows this many times the pasted box


class Pictures:
    """Reads the image files of a data set, by the ids of its images."""

    def __init__(self, paths: Mapping[int, Path]) -> None:
        self.paths = paths

    def whole(self, question: Question) -> tuple[bytes, str]:
        """The image of a question and its media type.

        It is the file as it is, or its pixels anew where a browser might not show them or would turn them.
        """
        path = self.paths[question.image_id]
        with Image.open(path) as image:
            if image.format in KINDS and image.getexif().get(ORIENTATION, 1) == 1:
                return path.read_bytes(), KINDS[image.format]
            return _encoded(image.convert("RGB"), "PNG"), "image/png"

    def paste(self, question: Question, number: int) -> bytes:
        """The surroundings of the place where the question's box was pasted into another image, as a small JPEG."""
        trial, box = question.pastes[number], question.box
        assert box is not None  # an image as a whole is pasted nowhere
        with Image.open(self.paths[question.image_id]) as source, Image.open(self.paths[trial.image_id]) as into:
            x1, y1, x2, y2 = (round(side) for side in trial.box)
            size = (max(x2 - x1, 1), max(y2 - y1, 1))
            canvas = into.convert("RGB")
            canvas.paste(source.convert("RGB").resize(size, Image.Resampling.BILINEAR, box=box), (x1, y1))
        reach = AROUND * max(size) / 2
        middle = ((x1 + x2) / 2, (y1 + y2) / 2)
        corners = [middle[0] - reach, middle[1] - reach, middle[0] + reach, middle[1] + reach]
        limits = [0, 0, *canvas.size]
        kept = [max(side, 0) if at < 2 else min(side, limits[at]) for at, side in enumerate(corners)]
        small = canvas.crop([round(side) for side in kept])  # type: ignore[arg-type]
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        return _encoded(small, "JPEG")


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()
