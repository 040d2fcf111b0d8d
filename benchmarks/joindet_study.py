"""Does pretraining on images alone help a detector with few labels? Every arm on the same images, seed by seed.

    python benchmarks/joindet_study.py run scenes --seeds 3      # pretrains and fine-tunes what is missing
    python benchmarks/joindet_study.py table scenes              # prints the table of docs/reproduce/joindet.md

A seed draws the labelled images. Every arm pretrains on all training images without their boxes, then learns from the
labelled ones in the same order; "backbone" skips the former. Proposals of the pretrained detector are judged on the
same split as the fine-tuned one, by all its boxes, whatever their classes. Nothing is chosen by that split: the last
weights count.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from boxcycle.data.proposals import ProposalConfig, open_proposals
from boxcycle.data.read import read_split
from boxcycle.data.scenes import SceneConfig, make_scenes
from boxcycle.data.splits import budget, write_budget
from boxcycle.evaluation.predictions import Prediction
from boxcycle.evaluation.proposals import proposal_metrics
from boxcycle.methods import detr, joindet
from study import Rows, difference, seeds_of, spread, study_parser
from study_data import REAL


@dataclass(frozen=True)
class Setting:
    """A data set, the detector, and how long it is pretrained and fine-tuned."""

    pixels: int  # longer side
    part: float  # of the training images that are labelled
    pretraining: int  # steps without labels
    every: int  # steps between updates of the priors
    steps: int  # with labels
    longer: int  # steps with labels that take as long as pretraining and ``steps``
    batch: int = 4
    lr: float = 5e-4
    width: int = 128
    layers: int = 2  # of the encoder, and of the decoder
    queries: int = 50
    clip_norm: float = 1.0
    corner_flip: bool = True
    first_scale: float = 2.0  # at the size itself the sky is what stands out of a scene


SETTINGS = {
    "scenes": Setting(pixels=256, part=0.1, pretraining=600, every=150, steps=300, longer=800),
    "bccd": Setting(pixels=256, part=0.1, pretraining=600, every=150, steps=300, longer=800),
    "coco-mini": Setting(pixels=256, part=0.5, pretraining=600, every=150, steps=300, longer=800),
}
# settings of `priors` of each pretraining; None: none
ARMS: dict[str, dict[str, Any] | None] = {
    "backbone": None,
    "random crops": {"first": "random", "most": 10, "every": 0},
    "DETReg": {"first": "proposals", "every": 0},
    "R_0": {"every": 0},
    "JoinDet": {},
}
# Tables 5 and 6
VARIANTS: dict[str, dict[str, Any]] = {
    "predictions": {"current": "predictions", "rule": "replace"},
    "regions alone": {"current": "regions"},
    "instances alone": {"current": "instances"},
    "replaced": {"rule": "replace"},
    "suppressed": {"rule": "suppress"},
}
LONGER = "backbone, equal time"  # a fine-tuning that takes as long as JoinDet's pretraining and fine-tuning
METRICS = ("AP", "AP50")
PROPOSALS = "selective search"  # not an arm: its boxes, judged as proposals


def open_data(name: str, folder: Path) -> tuple[Path, str, str]:
    """Where a set is, the split to learn from and the split to judge by."""
    if name == "scenes":
        return make_scenes(folder / name, SceneConfig(size=256), {"train": 400, "val": 150, "test": 200}), "train", ""
    return REAL / name, "train", "val" if name == "coco-mini" else ""


def sections(name: str, setting: Setting, options: argparse.Namespace) -> dict[str, Any]:
    """What pretraining and fine-tuning have in common."""
    path, train, judged = open_data(name, options.out)
    size = {"short": setting.pixels, "long": setting.pixels}
    return {
        "data": {"path": path, "train": train, "val": judged or options.split, "resize": size, "cache": True},
        "detector": {
            "width": setting.width,
            "encoder_layers": setting.layers,
            "decoder_layers": setting.layers,
            "feed_forward": 2 * setting.width,
            "queries": setting.queries,
        },
        "overwrite": True,
    }


def fit_settings(setting: Setting, steps: int, seed: int, threads: int) -> dict[str, Any]:
    return {
        "steps": steps,
        "batch_size": setting.batch,
        "lr": setting.lr,
        "clip_norm": setting.clip_norm,
        "seed": seed,
        "threads": threads,
        "workers": 0,
        "device": "cpu",
        "log_every": 50,
        "eval_every": 0,
        "save_every": 0,
    }


def shared_priors(setting: Setting) -> dict[str, Any]:
    return {"every": setting.every, "corner_flip": setting.corner_flip, "first_scale": setting.first_scale}


def run_one(arm: str, name: str, setting: Setting, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Pretrain, fine-tune and judge one arm of one seed."""
    shared, begun = sections(name, setting, options), time.process_time()
    place = options.out / f"{name}-{seed}-{arm}".replace(" ", "_").replace(",", "")
    row: dict[str, Any] = {}
    init = None
    priors = ARMS[arm] if arm in ARMS else VARIANTS.get(arm)
    if priors is not None:
        init = place.with_name(f"{place.name}-pretrained")
        given = shared | {"run": init, "priors": shared_priors(setting) | priors}
        given |= {"fit": fit_settings(setting, setting.pretraining, seed, options.threads)}
        joindet.train(joindet.Config.model_validate(given))
        row["proposals"] = json.loads((init / "eval.json").read_text(encoding="utf-8"))["summary"]
    row["pretraining seconds"] = round(time.process_time() - begun, 1)
    steps = setting.longer if arm == LONGER else setting.steps
    given = shared | {"data": shared["data"] | {"budget": labelled(name, setting, seed, options)}, "run": place}
    given |= {"init": init, "fit": fit_settings(setting, steps, seed, options.threads)}
    detr.train(detr.Config.model_validate(given))
    row["tuned"] = json.loads((place / "eval.json").read_text(encoding="utf-8"))["summary"]
    return row | {"seconds": round(time.process_time() - begun, 1)}


def labelled(name: str, setting: Setting, seed: int, options: argparse.Namespace) -> Path:
    """The file that names a seed's labelled images."""
    path, train, _ = open_data(name, options.out)
    index = read_split(path, train)
    chosen = budget(index, unit="images", amount=setting.part, seed=seed)
    file = options.out / f"{name}-{setting.part:g}-{seed}.json"
    write_budget(file, index, chosen, source=name, split=train, unit="images", amount=setting.part, seed=seed)
    return file


def judge_selective_search(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Table 4's first row: its boxes, all of the same score, in its own order."""
    path, _, judged = open_data(name, options.out)
    index = read_split(path, judged or options.split)
    found = open_proposals(index, ProposalConfig(limit=101))
    predictions = [
        Prediction(int(i), boxes[1:], np.ones(len(boxes) - 1, np.int64), np.ones(len(boxes) - 1, np.float32))
        for i, boxes in zip(index.image_ids, found, strict=True)
    ]
    return proposal_metrics(index, predictions)


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Means with standard deviations, and paired differences to the backbone and to DETReg with 95 % intervals."""
    figures = {arm: {row["seed"]: row for row in rows if row["arm"] == arm} for arm in (*ARMS, *VARIANTS, LONGER)}
    against = [arm for arm in ("backbone", "DETReg") if figures[arm]]
    names = [f"AP - {arm} (95 %)" for arm in against]
    print("| " + " | ".join(["arm", "seeds", "AP", "AP50", *names, "AR@10", "AR@100", "CPU s"]) + " |")
    print("|---" * (7 + len(names)) + "|")
    for arm, found in figures.items():
        if not found:
            continue
        cells = [arm, str(len(found))]
        for metric in METRICS:
            cells.append(spread([row["tuned"][metric] for row in found.values()]))
        for other in against:
            own, base = ({seed: row["tuned"]["AP"] for seed, row in figures[one].items()} for one in (arm, other))
            cells.append(difference(own, base) if arm != other else "")
        for metric in ("AR10", "AR100"):
            recalls = [row["proposals"][metric] for row in found.values() if "proposals" in row]
            cells.append(f"{np.mean(recalls):.1f}" if recalls else "")
        cells.append(f"{np.mean([row['seconds'] for row in found.values()]):.0f}")
        print("| " + " | ".join(cells) + " |")
    for row in rows:
        if row["arm"] == PROPOSALS:
            print(f"\n{PROPOSALS}: " + ", ".join(f"{name} {value:.1f}" for name, value in row["proposals"].items()))


def main() -> None:
    parser = study_parser(__doc__, SETTINGS, seeds=3, out="runs/joindet-study")
    parser.add_argument("--arms", nargs="*", default=[*ARMS, LONGER], choices=[*ARMS, *VARIANTS, LONGER])
    parser.add_argument("--setting", type=json.loads, default={}, help="changes, such as '{\"steps\": 200}'")
    options = parser.parse_args()
    setting = replace(SETTINGS[options.data], **options.setting)
    rows = Rows(options, setting)
    if options.job == "run":
        for seed, arm in itertools.product(seeds_of(options), options.arms):
            if not rows.has(arm=arm, seed=seed):
                rows.keep({"arm": arm, "seed": seed} | run_one(arm, options.data, setting, seed, options))
        if not rows.has(arm=PROPOSALS):
            found = judge_selective_search(options.data, options)
            rows.keep({"arm": PROPOSALS, "seed": 0, "proposals": found})
    print(rows.heading())
    print_table(rows)


if __name__ == "__main__":
    main()
