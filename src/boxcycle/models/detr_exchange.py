"""Deformable DETR to and from Hugging Face transformers' checkpoints: folders of config.json and model.safetensors."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from boxcycle.models.backbone import Backbone, RoIHead, Trunk
from boxcycle.models.backbone_cuts import ARCHITECTURES
from boxcycle.models.backbone_norm import fold_batch_norms
from boxcycle.models.backbone_weights import create_network
from boxcycle.models.deformable_detr import DeformableDETR, DetrConfig
from boxcycle.models.feature_levels import FeatureMaps

CONFIG, WEIGHTS = "config.json", "model.safetensors"
BACKBONE = "model.backbone.conv_encoder.model."
_LAYER = r"^transformer\.(encoder|decoder)\.(\d+)\."
_ATTENTION = {"offsets": "sampling_offsets", "weights": "attention_weights", "values": "value_proj"}
_SELF_ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
_NORMS = {"self_attention_norm": "self_attn_layer_norm", "feed_forward_norm": "final_layer_norm"}
_REST = {
    "levels.projections": "model.input_proj",
    "levels.embedding": "model.level_embed",
    "transformer.queries": "model.query_position_embeddings",
    "transformer.references": "model.reference_points",
    "transformer.proposal_norm": "model.enc_output_norm",
    "transformer.proposal": "model.enc_output",
    "transformer.start_norm": "model.pos_trans_norm",
    "transformer.start": "model.pos_trans",
}


def write_transformers(detector: DeformableDETR, class_names: Sequence[str], folder: Path) -> None:
    """Write a checkpoint that ``DeformableDetrForObjectDetection.from_pretrained`` reads.

    Label k here is class k - 1 there. Raises ``ValueError`` for what transformers cannot compute: see
    :func:`theirs_of_config`.
    """
    config = theirs_of_config(detector.config, class_names)
    names, state = names_in_transformers(detector.config), detector.state_dict()
    tensors = {
        their: state[ours].detach().cpu().clone().contiguous() for ours, all_of in names.items() for their in all_of
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def read_transformers(folder: Path) -> tuple[DeformableDETR, tuple[str, ...]]:
    """The detector and the class names of a checkpoint of transformers' Deformable DETR.

    Raises ``ValueError`` if it has parts that ours has not, or tensors are missing.
    """
    theirs = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config = config_of_theirs(theirs, folder)
    class_names = tuple(name for _, name in sorted(((int(k), v) for k, v in theirs["id2label"].items())))
    detector, found = DeformableDETR(len(class_names), config), load_file(folder / WEIGHTS)
    state: dict[str, Tensor] = {}
    for ours, names in names_in_transformers(config).items():
        # heads that all layers share are written once, as the first layer's
        shared = [re.sub(r"(class|bbox)_embed\.\d+", r"\1_embed.0", name) for name in names]
        present = [name for name in (*names, *shared) if name in found]
        if not present:
            raise ValueError(f"{folder / WEIGHTS} lacks {names[0]}, which becomes {ours}")
        state[ours] = found[present[0]]
    detector.load_state_dict(state)
    return detector, class_names


def names_in_transformers(config: DetrConfig) -> dict[str, tuple[str, ...]]:
    """The names in transformers' file of each tensor of ours; heads stand there several times."""
    blank = DeformableDETR(1, config.model_copy(update={"weights": "none"}))
    backbone = _backbone_names(config)
    return {
        name: (BACKBONE + backbone[name.removeprefix("maps.")],) if name.startswith("maps.") else _names(name, config)
        for name in blank.state_dict()
    }


def theirs_of_config(config: DetrConfig, class_names: Sequence[str]) -> dict[str, Any]:
    """Our settings as transformers' config.json. Raises ``ValueError`` for what it has no words for."""
    _check_backbone(config.backbone)
    if config.losses.classification != "focal":
        raise ValueError("transformers has no Deformable DETR with losses.classification=softmax; it needs focal")
    losses = config.losses
    return {
        "architectures": ["DeformableDetrForObjectDetection"],
        "model_type": "deformable_detr",
        "backbone_config": {
            "model_type": "timm_backbone",
            "backbone": ARCHITECTURES[config.backbone].timm_name,
            "features_only": True,
            "use_pretrained_backbone": False,
            "num_channels": 3,
            "out_indices": {1: [3], 2: [2, 3]}.get(config.levels, [2, 3, 4]),
        },
        "num_feature_levels": config.levels,
        "d_model": config.width,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "encoder_attention_heads": config.heads,
        "decoder_attention_heads": config.heads,
        "encoder_n_points": config.points,
        "decoder_n_points": config.points,
        "encoder_ffn_dim": config.feed_forward,
        "decoder_ffn_dim": config.feed_forward,
        "dropout": config.dropout,
        "num_queries": config.queries,
        "two_stage_num_proposals": config.queries,
        "with_box_refine": config.refine,
        "two_stage": config.two_stage,
        "tie_word_embeddings": not config.refine,  # true: all layers share the heads of the first
        "focal_alpha": losses.alpha,
        **_whole(class_cost=losses.class_weight, bbox_cost=losses.box_weight, giou_cost=losses.giou_weight),
        **_whole(bbox_loss_coefficient=losses.box_weight, giou_loss_coefficient=losses.giou_weight),
        "id2label": {str(i): name for i, name in enumerate(class_names)},
        "label2id": {name: i for i, name in enumerate(class_names)},
    }


def config_of_theirs(theirs: dict[str, Any], folder: Path) -> DetrConfig:
    """transformers' config.json as settings of ours. Raises ``ValueError`` naming the first part that ours has not."""
    backbone = theirs.get("backbone_config") or {}
    by_timm_name = {its.timm_name.split(".")[0]: name for name, its in ARCHITECTURES.items()}
    name = by_timm_name.get(str(backbone.get("backbone")).split(".")[0], str(backbone.get("backbone")))
    _check_backbone(name)
    levels = theirs["num_feature_levels"]
    wanted = {
        "backbone_config.out_indices": {1: [3], 2: [2, 3]}.get(levels, [2, 3, 4]),
        "decoder_attention_heads": theirs["encoder_attention_heads"],
        "decoder_n_points": theirs["encoder_n_points"],
        "decoder_ffn_dim": theirs["encoder_ffn_dim"],
        "position_embedding_type": "sine",
        "activation_function": "relu",
    }
    for key, value in wanted.items():
        found = backbone.get("out_indices") if key.startswith("backbone") else theirs.get(key, value)
        if found != value:
            raise ValueError(f"{folder / CONFIG} has {key} {found}; this detector has {value}")
    return DetrConfig(
        backbone=name,
        weights="none",
        levels=levels,
        width=theirs["d_model"],
        heads=theirs["encoder_attention_heads"],
        points=theirs["encoder_n_points"],
        encoder_layers=theirs["encoder_layers"],
        decoder_layers=theirs["decoder_layers"],
        feed_forward=theirs["encoder_ffn_dim"],
        dropout=theirs["dropout"],
        queries=theirs["two_stage_num_proposals" if theirs["two_stage"] else "num_queries"],
        refine=theirs["with_box_refine"],
        two_stage=theirs["two_stage"],
    )


def _whole(**weights: float) -> dict[str, int]:
    """transformers takes whole numbers only; it keeps its own where ours are none."""
    return {name: int(weight) for name, weight in weights.items() if weight == int(weight)}


def _names(ours: str, config: DetrConfig) -> tuple[str, ...]:
    """The names of a tensor that is not the backbone's."""
    if head := re.match(r"transformer\.(class|box)_heads\.(\d+)\.(?:(\d)\.)?(\w+)$", ours):
        kind, number, layer, leaf = head.groups()
        part = "class_embed" if kind == "class" else "bbox_embed"
        leaf = leaf if layer is None else f"layers.{int(layer) // 2}.{leaf}"
        rows = [int(number)] if config.refine else range(config.decoder_layers)
        owners = ["", "model.decoder."] if (config.two_stage or (config.refine and kind == "box")) else [""]
        return tuple(f"{owner}{part}.{row}.{leaf}" for owner in owners for row in rows)
    if layer_match := re.match(_LAYER, ours):
        side, number = layer_match.groups()
        return (f"model.{side}.layers.{number}." + _in_layer(ours[layer_match.end() :], side),)
    part = next(part for part in _REST if ours == part or ours.startswith(part + "."))
    return (_REST[part] + ours.removeprefix(part),)


def _in_layer(name: str, side: str) -> str:
    attention = "self_attn" if side == "encoder" else "encoder_attn"
    part, _, rest = name.partition(".")
    if part in _NORMS:
        return f"{_NORMS[part]}.{rest}"
    if part == "attention_norm":
        return f"{attention}_layer_norm.{rest}"
    layer, _, leaf = rest.partition(".")
    if part == "feed_forward":
        return f"{'fc1' if layer == 'first' else 'fc2'}.{leaf}"
    if part == "self_attention":
        return f"self_attn.{_SELF_ATTENTION[layer]}.{leaf}"
    return f"{attention}.{_ATTENTION.get(layer, 'output_proj')}.{leaf}"


def _backbone_names(config: DetrConfig) -> dict[str, str]:
    """timm's name of each tensor of :class:`FeatureMaps`, found by cutting a network whose tensors are known."""
    architecture = ARCHITECTURES[config.backbone]
    network = create_network(config.backbone, architecture.timm_name, "none")
    known = {id(tensor): name for name, tensor in network.state_dict(keep_vars=True).items()}
    stages, body = architecture.cut(network)
    backbone = Backbone(Trunk(stages), RoIHead(body), architecture)
    fold_batch_norms(backbone, train_affine=True)
    maps = FeatureMaps(backbone, config.backbone, min(config.levels, 3))
    return {name: known[id(tensor)] for name, tensor in maps.state_dict(keep_vars=True).items()}


def _check_backbone(name: str) -> None:
    """Raise ``ValueError`` for a backbone that would not be the same there.

    transformers replaces every batch norm by a fixed one of eps 1e-5, and loses the activations that timm's other
    networks keep inside their norms.
    """
    able = [other for other, its in ARCHITECTURES.items() if its.timm_name.startswith(("resnet", "test_resnet"))]
    if name not in able:
        raise ValueError(
            f"transformers' Deformable DETR cannot hold a backbone '{name}'; it can hold {', '.join(able)}"
        )
