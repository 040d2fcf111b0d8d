from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from boxcycle.data.check import DataError
from boxcycle.data.dataset import DetectionDataset, SampleKey, read_image
from boxcycle.data.index import Index, Strings
from boxcycle.data.read import read_split
from boxcycle.data.transforms import ResizeConfig, Transform, make_transform
from boxcycle.types import check_target

BOXES = [[(1, 2, 20, 30, 1), (5, 5, 25, 25, 3)], [], [(0, 0, 60, 40, 2)]]
FLIPPED = make_transform(ResizeConfig(short=20, long=60, flip=0.5), train=True)


def test_sample_without_transform_is_the_file(make_index: Callable[..., Index]) -> None:
    index = make_index(BOXES)
    image, target = DetectionDataset(index)[0]
    pixels = np.asarray(Image.open(index.image_path(0)))
    assert type(image) is torch.Tensor
    assert image.dtype == torch.float32
    assert np.array_equal((image * 255).round().byte().permute(1, 2, 0).numpy(), pixels)
    assert type(target["boxes"]) is torch.Tensor
    assert target["boxes"].tolist() == [[1, 2, 20, 30], [5, 5, 25, 25]]
    assert target["labels"].tolist() == [1, 3]
    assert target["area"].tolist() == [19 * 28, 400]
    assert target["image_id"] == 100
    assert target["original_size"] == (40, 60)
    assert target["image_labels"].tolist() == [1, 0, 1]
    assert target["annotated"] is True
    assert "masks" not in target
    check_target(target, (40, 60), 3)


def test_image_without_boxes(make_index: Callable[..., Index]) -> None:
    image, target = DetectionDataset(make_index(BOXES), FLIPPED)[1]
    assert image.shape == (3, 20, 30)
    assert target["boxes"].shape == (0, 4)
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].dtype == torch.int64
    assert target["image_labels"].tolist() == [0, 0, 0]
    check_target(target, (20, 30), 3)


def test_unannotated_image_has_no_tags(make_index: Callable[..., Index]) -> None:
    """Nobody looked: that a class is absent is not known."""
    index = replace(make_index(BOXES), annotated=np.array([True, False, True]))
    _, target = DetectionDataset(index)[1]
    assert target["annotated"] is False
    assert "image_labels" not in target


def test_tags_of_a_tagged_image_are_its_own(make_index: Callable[..., Index]) -> None:
    tagged, offsets = np.array([False, True, False]), np.array([0, 0, 2, 2])
    index = replace(make_index(BOXES), tagged=tagged, tag_offsets=offsets, tags=np.array([1, 2]))
    assert DetectionDataset(index)[1][1]["image_labels"].tolist() == [1, 1, 0]


def test_sample_depends_on_its_key_alone(make_index: Callable[..., Index]) -> None:
    dataset = DetectionDataset(make_index(BOXES), FLIPPED)
    torch.manual_seed(0)
    before, _ = dataset[SampleKey(0, 7)]
    torch.manual_seed(99)
    state = torch.get_rng_state()
    dataset[SampleKey(2, 8)]
    again, target = dataset[SampleKey(0, 7)]
    assert torch.equal(before, again)
    assert target["seed"] == 7
    assert torch.equal(torch.get_rng_state(), state)


def test_both_mirror_images_occur(make_index: Callable[..., Index]) -> None:
    dataset = DetectionDataset(make_index(BOXES), FLIPPED)
    flipped = [dataset[SampleKey(0, seed)][1]["boxes"][0, 0].item() > 5 for seed in range(200)]
    assert 60 < sum(flipped) < 140


def test_cache_changes_nothing(make_index: Callable[..., Index]) -> None:
    index = make_index(BOXES)
    plain, cached = DetectionDataset(index, FLIPPED), DetectionDataset(index, FLIPPED, cache=True)
    for key in [SampleKey(image, seed) for seed in range(4) for image in range(3)]:
        (image, target), (cached_image, cached_target) = plain[key], cached[key]
        assert torch.equal(image, cached_image)
        assert target.keys() == cached_target.keys()
        for field, value in target.items():
            same = cached_target[field] == value  # type: ignore[literal-required]
            assert same.all() if isinstance(same, torch.Tensor) else same, field


def test_cache_reads_each_file_once(make_index: Callable[..., Index]) -> None:
    index = make_index(BOXES)
    dataset = DetectionDataset(index, FLIPPED, cache=True)
    image, _ = dataset[SampleKey(0, 1)]
    index.image_path(0).unlink()
    assert torch.equal(dataset[SampleKey(0, 1)][0], image)


def test_masks_only_when_asked_for(make_index: Callable[..., Index]) -> None:
    polygon = json.dumps([[10, 10, 30, 10, 30, 20, 10, 20]])
    index = make_index([[(10, 10, 30, 20, 1)]], segmentations=[polygon])
    transform = make_transform(ResizeConfig(short=20, long=30, flip=1.0), train=True)
    assert "masks" not in DetectionDataset(index, transform)[0][1]
    _, target = DetectionDataset(index, transform, masks=True)[0]
    assert target["masks"].shape == (1, 20, 30)
    assert target["masks"].dtype == torch.bool
    assert target["boxes"].tolist() == [[15, 5, 25, 10]]
    assert target["masks"][0, 5:10, 15:25].float().mean() > 0.9
    assert target["masks"].sum() < 60  # 50 pixels, and rounding at the border of the polygon
    assert "masks" not in DetectionDataset(make_index(BOXES), masks=True)[0][1]


def test_object_without_segmentation_has_its_box_as_mask(make_index: Callable[..., Index]) -> None:
    polygon = json.dumps([[1, 2, 20, 2, 20, 30]])
    index = make_index(BOXES, segmentations=[polygon, "", polygon])
    masks = DetectionDataset(index, masks=True)[0][1]["masks"]
    expected = torch.zeros(40, 60, dtype=torch.bool)
    expected[5:25, 5:25] = True
    assert torch.equal(masks[1], expected)
    assert not torch.equal(masks[0], expected)


def save(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def test_reads_every_kind_of_pixel(tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rgb = np.stack([grey, grey.T, grey[::-1]], axis=2)
    repeated = np.repeat(grey[:, :, None], 3, axis=2)
    assert np.array_equal(read_image(save(tmp_path / "grey.png", grey)), repeated)
    assert np.array_equal(read_image(save(tmp_path / "alpha.png", rgb, "RGBA")), rgb)
    assert np.array_equal(read_image(save(tmp_path / "palette.gif", grey)), repeated)
    assert np.array_equal(read_image(save(tmp_path / "deep.png", grey.astype(np.uint16) * 257)), repeated)
    assert np.array_equal(read_image(save(tmp_path / "bits.png", grey > 99)), np.where(repeated > 99, 255, 0))
    smooth = np.full((16, 16, 3), (200, 100, 50), dtype=np.uint8)
    found = read_image(save(tmp_path / "print.jpg", smooth, "CMYK", quality=100))
    assert np.abs(found.astype(int) - smooth).max() <= 3


def test_transparent_palette_is_read_without_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    image = Image.new("P", (4, 4), color=1)
    image.putpalette([0, 0, 0, 90, 90, 90])
    image.save(tmp_path / "clear.png", transparency=b"\x00\x80")
    assert (read_image(tmp_path / "clear.png") == 90).all()
    assert not recwarn.list


def test_rotation_tag_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees to display"
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (20, 30, 3)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.jpg", np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = whole.read_bytes()
    broken = {"empty.jpg": b"", "text.jpg": b"hello", "cut.jpg": content[: len(content) // 2]}
    save(tmp_path / "whole.png", np.zeros((64, 64, 3), dtype=np.uint8))
    broken["cut.png"] = (tmp_path / "whole.png").read_bytes()[:60]
    for name, data in broken.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            read_image(tmp_path / name)
    with pytest.raises(DataError, match=r"missing\.jpg does not exist"):
        read_image(tmp_path / "missing.jpg")
    save(tmp_path / "float.tif", np.zeros((4, 4), dtype=np.float32))
    with pytest.raises(DataError, match="floating-point"):
        read_image(tmp_path / "float.tif")


def test_huge_image_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file may claim any size, and would take all memory."""
    file = save(tmp_path / "huge.png", np.zeros((4000, 1001), dtype=np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2_000_000)
    with pytest.raises(DataError, match=r"huge\.png has more than 4 megapixels"):
        read_image(file)


def test_size_other_than_annotated_is_refused(make_index: Callable[..., Index]) -> None:
    """Boxes of another size would be silently wrong."""
    index = replace(make_index(BOXES), image_sizes=np.array([[60, 40]] * 3, dtype=np.int32))
    with pytest.raises(DataError, match=r"0000\.png has \(40, 60\) pixels .* annotations say \(60, 40\)"):
        DetectionDataset(index)[0]


def test_transform_that_parts_rows_is_refused(make_index: Callable[..., Index]) -> None:
    def drop_first(image: tv_tensors.Image, target: dict) -> tuple[tv_tensors.Image, dict]:
        return image, target | {"boxes": target["boxes"][1:]}

    with pytest.raises(ValueError, match="1 boxes but 2 rows of 'labels'"):
        DetectionDataset(make_index(BOXES), Transform(random=drop_first))[0]


def test_positions_as_a_list_has_them(make_index: Callable[..., Index]) -> None:
    dataset = DetectionDataset(make_index(BOXES))
    assert len(dataset) == 3
    assert dataset[-1][1]["image_id"] == 102
    with pytest.raises(IndexError):
        dataset[3]


def test_names_beyond_ascii(make_index: Callable[..., Index], tmp_path: Path) -> None:
    index = make_index([[]])
    (tmp_path / "0000.png").rename(tmp_path / "ä ö.png")
    assert DetectionDataset(replace(index, file_names=Strings(["ä ö.png"])))[0][0].shape == (3, 40, 60)


@pytest.mark.parametrize(("name", "masks"), [("bccd", False), ("coco-mini", True)])
def test_real_sets_give_valid_targets(shared_data: Path, name: str, masks: bool) -> None:
    """Every sample passes the check of targets; masks lie in their boxes (rounded by a pixel), also when mirrored."""
    index = read_split(shared_data / name, "train")
    dataset = DetectionDataset(index, make_transform(ResizeConfig.model_validate("tiny"), train=True), masks=masks)
    for image_number in range(0, len(dataset), 4):
        image, target = dataset[image_number]
        check_target(target, (image.shape[1], image.shape[2]), index.num_classes)
        for mask, box in zip(target.get("masks", ()), target["boxes"], strict=False):
            rows, columns = mask.nonzero().unbind(1)
            if len(rows):
                found = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                assert (found[:2] >= box[:2] - 2).all()
                assert (found[2:] <= box[2:] + 2).all()
