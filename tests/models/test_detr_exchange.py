"""Against transformers' Deformable DETR, an independent implementation, given the same weights."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from boxcycle.models import backbone_cuts
from boxcycle.models.deformable_detr import DeformableDETR, DetrConfig
from boxcycle.models.detr_exchange import read_transformers, write_transformers
from boxcycle.types import ImageList

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers")

NAMES = ("cup", "plate", "spoon")
SMALL: dict[str, Any] = {
    "weights": "none",
    "width": 64,
    "heads": 4,
    "points": 2,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "feed_forward": 48,
    "queries": 7,
}
CASES: dict[str, dict[str, Any]] = {
    "one level": {"refine": False},
    "one level, refined": {},
    "two levels": {"levels": 2},
    "four levels": {"levels": 4, "refine": False},
    "four levels, refined": {"levels": 4},
    "four levels, two stages": {"levels": 4, "two_stage": True},
    "one level, two stages": {"two_stage": True},
}


@pytest.fixture
def dense(tiny: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tiny backbone with its last stage as one of stride 32, which it is."""
    architecture = replace(backbone_cuts.ARCHITECTURES[tiny], dense=lambda body: body)
    monkeypatch.setitem(backbone_cuts.ARCHITECTURES, tiny, architecture)
    return tiny


def shaken(config: DetrConfig) -> DeformableDETR:
    """A detector all of whose tensors are random, those that start at zero and the norms' statistics included."""
    torch.manual_seed(0)
    detector = DeformableDETR(len(NAMES), config).eval()
    with torch.no_grad():
        for name, tensor in detector.state_dict().items():
            noise = torch.rand_like(tensor)
            tensor.add_(0.2 * noise if "variance" in name else 0.2 * (noise - 0.5))
    return detector


def padded_batch() -> ImageList:
    """Three images, two of them padded."""
    sizes = [(96, 128), (70, 128), (96, 45)]
    tensors = torch.zeros(3, 3, 96, 128)
    for row, (height, width) in zip(tensors, sizes, strict=True):
        row[:, :height, :width] = torch.randn(3, height, width)
    return ImageList(tensors, sizes)


def outputs_of_theirs(folder: Path, batch: ImageList) -> tuple[Any, list[Tensor], Any]:
    """The model, the maps of its backbone, and its outputs."""
    model = transformers.DeformableDetrForObjectDetection.from_pretrained(folder).eval()
    mask = torch.zeros(batch.tensors.shape[0], *batch.tensors.shape[2:], dtype=torch.long)
    for row, (height, width) in zip(mask, batch.sizes, strict=True):
        row[:height, :width] = 1
    with torch.no_grad():
        maps = [one for one, _ in model.model.backbone(batch.tensors, mask)]
        return model, maps, model(batch.tensors, pixel_mask=mask)


@pytest.mark.parametrize("case", CASES)
def test_same_weights_same_outputs(dense: str, case: str, tmp_path: Path) -> None:
    detector, batch = shaken(DetrConfig(backbone=dense, **SMALL, **CASES[case])), padded_batch()
    write_transformers(detector, NAMES, tmp_path)
    model, maps, theirs = outputs_of_theirs(tmp_path, batch)
    with torch.no_grad():
        for one, other in zip(detector.maps(batch.tensors), maps, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        # from here on the same maps: the norms of nearly constant channels blow their rounding up a hundredfold
        detector.maps.forward = lambda images: maps
        ours = detector.decode(detector.encode(batch))
    valid = ours.memory.valid  # what a padded token says is read by nobody
    for one, other in (
        (ours.memory.tokens[valid], theirs.encoder_last_hidden_state[valid]),
        (ours.queries.transpose(0, 1), theirs.intermediate_hidden_states),
        (ours.logits[-1], theirs.logits),
        (ours.boxes[-1], theirs.pred_boxes),
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    if ours.proposals is not None:
        torch.testing.assert_close(ours.proposals[0][0], theirs.enc_outputs_class, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            ours.proposals[1][0], theirs.enc_outputs_coord_logits.sigmoid(), atol=1e-5, rtol=1e-5
        )
    assert model.config.id2label == dict(enumerate(NAMES))


def test_padding_matters_and_is_seen_alike(dense: str) -> None:
    """The comparison above would not notice masks that neither uses."""
    detector, batch = shaken(DetrConfig(backbone=dense, **SMALL)), padded_batch()
    with torch.no_grad():
        right = detector.decode(detector.encode(batch)).boxes[-1]
        unmasked = detector.decode(detector.encode(batch._replace(sizes=[(96, 128)] * 3))).boxes[-1]
    torch.testing.assert_close(right[0], unmasked[0])
    assert (right[1:] - unmasked[1:]).abs().amax((1, 2)).min() > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_there_and_back(dense: str, case: str, tmp_path: Path) -> None:
    """Written by us, read and written by transformers, read by us: the same tensors."""
    detector = shaken(DetrConfig(backbone=dense, **SMALL, **CASES[case]))
    write_transformers(detector, NAMES, tmp_path / "ours")
    model, info = transformers.DeformableDetrForObjectDetection.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    model.save_pretrained(tmp_path / "theirs")
    back, names = read_transformers(tmp_path / "theirs")
    assert names == NAMES
    assert back.config == detector.config
    wanted = detector.state_dict()
    assert back.state_dict().keys() == wanted.keys()
    assert all(tensor.equal(wanted[name]) for name, tensor in back.state_dict().items())


def test_a_checkpoint_of_another_kind_is_refused(dense: str, tmp_path: Path) -> None:
    detector = DeformableDETR(3, DetrConfig(backbone=dense, **SMALL))
    write_transformers(detector, NAMES, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, sentence in (
        ({"decoder_n_points": 4}, "has decoder_n_points 4; this detector has 2"),
        ({"backbone_config": config["backbone_config"] | {"out_indices": [4]}}, r"out_indices \[4\]; .* \[3\]"),
        ({"backbone_config": config["backbone_config"] | {"backbone": "swin"}}, "cannot hold a backbone 'swin'"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=sentence):
            read_transformers(tmp_path)


def test_what_transformers_cannot_compute_is_not_written(tmp_path: Path) -> None:
    detector = DeformableDETR(3, DetrConfig(**SMALL))
    with pytest.raises(ValueError, match="cannot hold a backbone 'efficientnet_lite0'"):
        write_transformers(detector, NAMES, tmp_path)
