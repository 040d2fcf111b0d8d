"""Exported detectors find what torch finds, at any size; a file that does not is never kept."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from boxcycle import export as module
from boxcycle.data.config import DataConfig
from boxcycle.data.transforms import ResizeConfig
from boxcycle.export import ExportConfig, agreement, agrees, comparison_images, export, pictures, write_onnx
from boxcycle.methods.mtl_ssl.config import TaskConfig
from boxcycle.methods.mtl_ssl.detector import MultiTaskDetector
from boxcycle.models.config import DetectorConfig
from boxcycle.models.detectors import build_detector
from boxcycle.models.rfcn import RFCN
from boxcycle.models.two_stage import RegionConfig
from boxcycle.types import Detections

DOCUMENT = Path(__file__).parents[1] / "docs" / "export.md"
SIZES = ((64, 96), (33, 47), (95, 64), (17, 130))


@pytest.fixture(autouse=True)
def _installed() -> None:
    torch.set_num_threads(1)
    pytest.importorskip("onnx", reason="needs the extra: pip install 'boxcycle[onnx]'")
    pytest.importorskip("onnxruntime", reason="needs the extra: pip install 'boxcycle[onnx]'")


def make(backbone: str, *, name: Literal["faster_rcnn", "rfcn"] = "faster_rcnn", score_threshold: float = 0.0) -> Any:
    torch.manual_seed(0)
    regions = RegionConfig(score_threshold=score_threshold, detections=20)
    config = DetectorConfig(
        name=name, backbone=backbone, weights="none", proposals=12, rpn_candidates=300, roi_size=4, regions=regions
    )
    return spread(build_detector(3, config).eval())


def spread(detector: Any) -> Any:
    """Larger weights in the last layers, so that scores and boxes of a new detector differ from region to region."""
    head = detector.head
    last = (head.region.scores, head.shifts) if isinstance(detector, RFCN) else (head.region.classifier, head.regressor)
    with torch.no_grad():
        for layer in (detector.proposer.head.cls_logits, *last):
            layer.weight.mul_(30)
    return detector


def noise(sizes: tuple[tuple[int, int], ...] = SIZES) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, *size, generator=generator) for size in sizes]


@pytest.mark.parametrize("name", ["faster_rcnn", "rfcn"])
@pytest.mark.parametrize("method", ["plain", "mtl_ssl"])
def test_a_file_finds_what_torch_finds_at_any_size(
    method: str, name: Literal["faster_rcnn", "rfcn"], tiny: str, tmp_path: Path
) -> None:
    """Fewer anchors than candidates in the small images, more in the large: nothing of the traced size is left."""
    detector = make(tiny, name=name)
    model: nn.Module = detector if method == "plain" else MultiTaskDetector(detector, TaskConfig()).eval()
    if isinstance(model, MultiTaskDetector):
        nn.init.normal_(model.refiner.layer.weight, std=0.3)
        assert refinement_matters(model)
    found = write_onnx(tmp_path / "m.onnx", model, ("a", "b", "c"), noise(), {"method": method})
    assert agrees(found)
    assert found.detections > 30
    session = module.open_session(tmp_path / "m.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == ["a", "b", "c"]
    assert metadata["method"] == method
    assert [one.name for one in session.get_inputs()] == ["image"]
    assert [one.name for one in session.get_outputs()] == ["boxes", "labels", "scores"]
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def refinement_matters(model: MultiTaskDetector) -> bool:
    """Whether the tasks change what is found: else the test would not see them left out of the file."""
    [image] = noise(SIZES[:1])
    with torch.no_grad():
        refined, plain = model.predict([image])[0], model.detector.predict([image])[0]
    return not agrees(agreement(plain, refined))


def test_same_padding_follows_the_size(tmp_path: Path) -> None:
    """TensorFlow's padding of lite0 depends on the size being even; padding to 32 inside the file makes it so."""
    detector = make("efficientnet_lite0")
    assert any(getattr(part, "same_padding", False) for part in detector.modules())
    assert agrees(write_onnx(tmp_path / "m.onnx", detector, ("a", "b", "c"), noise(((64, 96), (33, 47), (90, 31)))))


def test_nothing_found(tiny: str, tmp_path: Path) -> None:
    found = write_onnx(tmp_path / "m.onnx", make(tiny, score_threshold=0.999), ("a", "b", "c"), noise(SIZES[:2]))
    assert found == (1.0, 0.0, 0)
    assert str(found) == "nothing is found by either"


class Frozen(nn.Module):
    """Finds one box as wide as the image; its trace keeps the width of the image that it was recorded with."""

    def __init__(self, keep: str) -> None:
        super().__init__()
        self.keep = keep

    def predict(self, images: list[Tensor]) -> list[Detections]:
        height, width = images[0].shape[-2:]
        width = int(width) if self.keep == "width" else width
        box = torch.stack([torch.as_tensor(side).float() for side in (0, 0, width, height)])
        score = images[0].mean() if self.keep == "score" and not torch.jit.is_tracing() else torch.tensor(0.5)
        return [Detections(boxes=box[None], labels=torch.ones(1, dtype=torch.int64), scores=score[None])]  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("keep", "sentence"),
    [
        ("width", r"image of 33 x 47 pixels \(height x width\) and is not kept: torch finds 1 objects, the file 1;"),
        ("score", r"image of 64 x 96 pixels .* scores [\d.e-]+ apart"),
    ],
)
def test_a_wrong_file_is_refused(keep: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        write_onnx(tmp_path / "m.onnx", Frozen(keep), ("a",), [image * 0.9 for image in noise()])
    assert list(tmp_path.iterdir()) == []


def test_a_right_file_of_the_same_kind_is_kept(tmp_path: Path) -> None:
    assert write_onnx(tmp_path / "m.onnx", Frozen("nothing"), ("a",), noise()).detections == len(SIZES)


def detections(rows: list[tuple[int, float, list[float]]]) -> Detections:
    boxes = torch.tensor([box for _, _, box in rows]).reshape(-1, 4)
    labels = torch.tensor([label for label, _, _ in rows], dtype=torch.int64)
    return Detections(boxes=boxes, labels=labels, scores=torch.tensor([score for _, score, _ in rows]))  # type: ignore[typeddict-item]


def test_agreement_by_hand() -> None:
    one, other = (1, 0.9, [0.0, 0.0, 10.0, 10.0]), (2, 0.5, [20.0, 20.0, 30.0, 30.0])
    both, empty = detections([one, other]), detections([])
    assert agreement(both, detections([other, one])) == (1, 0, 2)
    assert agreement(empty, empty) == (1, 0, 0)
    assert agreement(both, empty) == (0, pytest.approx(0.9), 2)
    assert agreement(empty, both) == (0, pytest.approx(0.9), 0)
    assert agreement(detections([one]), both) == (0, 0.5, 1), "one too many"
    assert agreement(detections([one, one]), detections([one])) == (0, pytest.approx(0.9), 2), "a partner serves once"
    assert agreement(detections([one]), detections([(2, 0.9, one[2])]))[0] == 0, "another class"
    near = agreement(detections([one]), detections([(1, 0.8, [0.0, 0.0, 10.0, 8.0])]))
    assert near == pytest.approx((0.8, 0.1, 1))
    assert not agrees(near)


def test_images_to_compare_on() -> None:
    sizes = [tuple(image.shape) for image in comparison_images(ResizeConfig(short=96, long=160), [])]
    assert sizes == [(3, 96, 160), (3, 160, 96), (3, 83, 69), (3, 49, 49)]
    grey = list(comparison_images(ResizeConfig(short=96, long=160), [torch.full((3, 20, 30), 0.5)]))
    assert all(torch.allclose(image, torch.tensor(0.5)) for image in grey)


def test_data_that_is_gone_gives_no_pictures(tmp_path: Path) -> None:
    assert pictures(DataConfig(path=tmp_path / "gone")) == []


# --- the verb


def loaded(detector: nn.Module, resize: int = 64) -> object:
    data = DataConfig(path=Path("gone"), resize=ResizeConfig(short=resize, long=resize + 32))
    return SimpleNamespace(
        model=detector, class_names=("a", "b", "c"), config=SimpleNamespace(data=data), method="supervised"
    )


def test_the_verb(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(ExportConfig(run=tmp_path), lambda *_, **__: loaded(make(tiny)))
    assert re.match(
        rf"{tmp_path}/model.onnx: onnxruntime and torch agree on 4 images \(64 x 96, 96 x 64, 51 x 47, 33 x 33\); "
        r"\d+ detections: IoU (?:0\.9999\d\d|1\.000000) or more, scores within",
        capsys.readouterr().out,
    )
    assert module.open_session(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map["resize_long"] == "96"


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: Path, *, device: str) -> object:
        raise ValueError(f"no weights at {path}")

    with pytest.raises(ValueError, match=f"no weights at {tmp_path}"):
        export(ExportConfig(run=tmp_path), load)
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere to write m\.onnx to"):
        export(ExportConfig(run=tmp_path, out=tmp_path / "nowhere" / "m.onnx"), load)
    (tmp_path / "m.onnx").touch()
    with pytest.raises(ValueError, match=r"m.onnx exists already; remove it, or name another file with out="):
        export(ExportConfig(run=tmp_path, out=tmp_path / "m.onnx"), load)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == "onnx" else object())
    with pytest.raises(ValueError, match=r"^exporting needs onnx: pip install 'boxcycle\[onnx\]'$"):
        export(ExportConfig(run=tmp_path), load)


def test_the_example_of_the_documentation(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a photo of the trained size it prints what the detector finds; on a larger one, boxes of the larger one."""
    monkeypatch.chdir(tmp_path)
    [example] = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL)
    detector = make(tiny)
    export(ExportConfig(run=tmp_path), lambda *_, **__: loaded(detector))
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    code = example.replace("photo.jpg", "photo.png")
    capsys.readouterr()
    exec(code, {})
    with torch.no_grad():
        [found] = detector.predict([torch.from_numpy(pixels).permute(2, 0, 1) / 255])
    boxes = found["boxes"].numpy().round(1).tolist()
    lines = zip(found["labels"].tolist(), found["scores"].tolist(), boxes, strict=True)
    assert capsys.readouterr().out.splitlines() == [f"{'abc'[k - 1]} {score:.2f} {box}" for k, score, box in lines]
    Image.fromarray(pixels.repeat(3, 0).repeat(3, 1)).save("photo.png")
    found_here: dict[str, np.ndarray] = {}
    exec(code, found_here)
    assert found_here["small"].size == (96, 64)
    assert 200 < found_here["boxes"].max() <= 288
