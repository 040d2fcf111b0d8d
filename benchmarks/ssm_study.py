"""AP against labels spent, for SSM and the selectors it is held against, on paired seeds.

    python benchmarks/ssm_study.py run scenes --seeds 5      # trains what is missing, adds to the results file
    python benchmarks/ssm_study.py table scenes              # prints what docs may quote
    python benchmarks/ssm_study.py picture scenes            # AP50 against boxes, a PNG beside the results

Every arm of a seed starts from the same budget and the same trained detector (round 0 is trained once), and asks the
same number of questions a round; an oracle answers and counts the seconds. AP is that of a round's last weights on a
split that nothing is chosen by. "all boxes" is plain training on every image of the training split, for as many steps
as an arm takes with all its rounds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from boxcycle.data.read import read_split
from boxcycle.data.scenes import SceneConfig, make_scenes
from boxcycle.data.splits import budget, write_budget
from boxcycle.engine.checkpoint import write_atomically
from boxcycle.methods import supervised
from boxcycle.methods.run_folder import CHECKPOINTS
from boxcycle.methods.ssm.train import Config, train
from boxcycle.report.curves import STYLE
from boxcycle.report.drawing import PALETTE
from boxcycle.report.label_curves import INK, MARKS
from study import Rows, add_numbers, difference, given, seeds_of, study_parser
from study_data import REAL


@dataclass(frozen=True)
class Setting:
    """A data set, its budget, and how long a round is learnt."""

    labelled: int  # images of the budget
    pixels: int  # longer side
    steps: int  # of 4 images, in round 0
    later_steps: int  # in each later round
    rounds: int = 3
    questions: int = 40  # a round
    any_context: bool = False
    later_lr: float = 3e-4  # of the later rounds
    frozen: int | None = None  # blocks of the trunk that stay as ImageNet left them; None: the detector's default


SETTINGS = {
    "scenes": Setting(labelled=60, pixels=224, steps=300, later_steps=150),
    "bccd": Setting(labelled=20, pixels=192, steps=250, later_steps=100, questions=150, any_context=True),
}
# what each arm changes of section `ssm`; the first is what the others are held against
ARMS: dict[str, dict[str, Any]] = {
    "random": {"strategy": {"mine": "nothing", "ask": "random"}},
    "entropy": {"strategy": {"mine": "nothing", "ask": "entropy"}},
    "margin": {"strategy": {"mine": "nothing", "ask": "margin"}},
    "ssm": {"strategy": {"mine": "consistency", "ask": "consistency"}},
    # where classes look nothing alike no candidate is torn between two: low consistency alone makes a question
    "ssm, one class is enough": {
        "strategy": {"mine": "consistency", "ask": "consistency"},
        "questions": {"classes": 1},
    },
    "ssm, pruning off": {"strategy": {"mine": "consistency", "ask": "consistency"}, "mining": {"prune": False}},
    "ssm mines, random asks": {"strategy": {"mine": "consistency", "ask": "random"}},
    "ssm asks": {"strategy": {"mine": "nothing", "ask": "consistency"}},
    "ssm mines": {"strategy": {"mine": "consistency", "ask": "nothing"}},
    "flip and rescale": {"strategy": {"mine": "consistency", "ask": "nothing"}, "mining": {"validate_by": "views"}},
    "self-training": {"strategy": {"mine": "confidence", "threshold": 0.9, "ask": "nothing"}, "ema": 0.0},
    "self-paced": {"strategy": {"mine": "self_paced", "ask": "nothing"}},
    "mean teacher": {"strategy": {"mine": "confidence", "threshold": 0.7, "ask": "nothing"}},
    "more steps alone": {"strategy": {"mine": "nothing", "ask": "nothing"}},
}
NUMBERS = ("labelled", "pixels", "steps", "later_steps", "later_lr", "rounds", "questions", "frozen")
FULL = "all boxes"  # not an arm: plain training with nothing left to ask


def configuration(path: Path, file: Path, setting: Setting, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """The settings that all arms of a seed share."""
    ssm = {
        "rounds": setting.rounds,
        "steps": setting.later_steps,
        "lr": setting.later_lr,
        "ema": 0.99,
        "questions": {"count": setting.questions},
        "mining": {"any_context": setting.any_context},
    }
    return {
        "data": {
            "path": path,
            "budget": file,
            "val": options.split,
            "resize": {"short": setting.pixels, "long": setting.pixels},
            "cache": True,
        },
        "detector": {
            "anchor_sizes": (16, 32, 64, 128),
            "proposals": 100,
            "roi_size": 4,
            "regions": {"sampled": 32},
            "frozen": setting.frozen,
        },
        "fit": {
            "steps": setting.steps,
            "lr": 1e-3,
            "seed": seed,
            "threads": options.threads,
            "workers": 0,
            "eval_every": 0,
            "save_every": 0,
        },
        "ssm": ssm,
    }


def run_arm(arm: str, shared: dict[str, Any], folder: Path, first: Path) -> dict[str, Any]:
    """Train one arm of a seed from the common round 0; returns its rows and the seconds of processor time."""
    changes = ARMS[arm]
    ssm = shared["ssm"] | {name: value for name, value in changes.items() if not isinstance(value, dict)}
    for section in ("strategy", "mining", "questions"):
        ssm[section] = shared["ssm"].get(section, {}) | changes.get(section, {})
    run = folder / arm.replace(", ", "-").replace(" ", "-")
    if not run.exists():
        (run / CHECKPOINTS).mkdir(parents=True)
        shutil.copytree(first / "round-0" / CHECKPOINTS, run / "round-0" / CHECKPOINTS)
    begun = time.process_time()
    train(Config.model_validate(shared | {"ssm": ssm, "run": run, "resume": True}))
    rows = json.loads((run / "labels.json").read_text(encoding="utf-8"))
    return {"rows": rows, "seconds": round(time.process_time() - begun, 1)}


def run_full(shared: dict[str, Any], setting: Setting, folder: Path) -> dict[str, Any]:
    """Plain training on every annotated image, as long as an arm; returns one row and the seconds."""
    data = {name: value for name, value in shared["data"].items() if name != "budget"}
    fit = shared["fit"] | {"steps": setting.steps + setting.rounds * setting.later_steps, "ema": shared["ssm"]["ema"]}
    run, begun = folder / "all-boxes", time.process_time()
    settings = {"data": data, "detector": shared["detector"], "fit": fit, "run": run, "overwrite": True}
    supervised.train(supervised.Config.model_validate(settings))
    row = json.loads((run / "eval.json").read_text(encoding="utf-8"))["summary"]
    boxes = len(read_split(data["path"], "train").boxes)
    nothing = {"human_boxes": 0, "questions": 0, "minutes": 0.0, "pseudo_right": None}
    rows = [{"AP": row["AP"], "AP50": row["AP50"], "initial_boxes": boxes, **nothing}]
    return {"rows": rows, "seconds": round(time.process_time() - begun, 1)}


def first_round(shared: dict[str, Any], folder: Path) -> Path:
    """The run in which round 0 of a seed is trained; it is trained once."""
    run = folder / "first"
    finished = (run / "eval.json").exists()
    if not finished:
        resume = (run / "config.yaml").exists()
        train(Config.model_validate(shared | {"ssm": shared["ssm"] | {"rounds": 0}, "run": run, "resume": resume}))
    return run


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Means over seeds, round by round, and paired differences after the last to the first arm and to all boxes."""
    names = ["arm", "seeds", "AP50 by round", "boxes by round", "minutes", "pseudo boxes right, %"]
    print("| " + " | ".join([*names, "AP50 - random (95 %)", "AP50 - all boxes (95 %)", "CPU s"]) + " |")
    print("|---" * (len(names) + 3) + "|")
    by_arm = {arm: {row["seed"]: row for row in rows if row["arm"] == arm} for arm in (*ARMS, FULL)}
    for arm, found in by_arm.items():
        if not found:
            continue
        curves = np.array([[its["AP50"] for its in row["rows"]] for row in found.values()], dtype=float)
        spent = [[its["initial_boxes"] + its["human_boxes"] for its in row["rows"]] for row in found.values()]
        last = [row["rows"][-1] for row in found.values()]
        right = [
            its["pseudo_right"] for row in found.values() for its in row["rows"] if its["pseudo_right"] is not None
        ]
        cells = [
            arm,
            str(len(found)),
            " ".join(f"{value:.1f}" for value in curves.mean(0)),
            " ".join(f"{value:.0f}" for value in np.mean(spent, axis=0)),
            f"{np.mean([its['minutes'] for its in last]):.1f}",
            f"{100 * np.mean(right):.0f}" if right else "",
            *(
                difference(reached(found), reached(by_arm[other])) if arm != other else ""
                for other in (next(iter(ARMS)), FULL)
            ),
            f"{np.mean([row['seconds'] for row in found.values()]):.0f}",
        ]
        print("| " + " | ".join(cells) + " |")


def reached(found: dict[int, dict[str, Any]]) -> dict[int, float]:
    """AP50 after the last round, by seed."""
    return {seed: row["rows"][-1]["AP50"] for seed, row in found.items()}


def draw(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """AP50 against boxes: for each arm the mean of its seeds, round by round, bars of one standard deviation; the mean
    of plain training on all boxes as a line.
    """
    with matplotlib.rc_context({**STYLE, **INK, "font.size": 11}):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.add_subplot(xlabel="boxes drawn or confirmed by a person", ylabel="AP50 on the test split (%)")
        for number, arm in enumerate(arm for arm in ARMS if any(row["arm"] == arm for row in rows)):
            courses = [row["rows"] for row in rows if row["arm"] == arm]
            boxes = [[its["initial_boxes"] + its["human_boxes"] for its in rounds] for rounds in courses]
            course = np.array([[its["AP50"] for its in rounds] for rounds in courses], dtype=float)
            spreads = course.std(0, ddof=1) if len(courses) > 1 else None
            style = {"color": PALETTE[number % len(PALETTE)], "capsize": 3, "elinewidth": 1.0}
            style["marker"] = MARKS[(number + number // len(PALETTE)) % len(MARKS)]  # as in report.label_curves
            axes.errorbar(np.mean(boxes, axis=0), course.mean(0), spreads, label=arm, **style)
        full = [row["rows"][0] for row in rows if row["arm"] == FULL]
        if full:
            label = f"plain training on all {full[0]['initial_boxes']:,} boxes"
            axes.axhline(np.mean([its["AP50"] for its in full]), color="#1B2430", linestyle="--", label=label)
        figure.legend(loc="outside upper left", ncols=2, handlelength=1.6)
        write_atomically(file, lambda part: figure.savefig(part, format="png", dpi=160, facecolor="white"))


def open_data(name: str, folder: Path) -> Path:
    """The folder of a data set by name."""
    if name == "bccd":
        return REAL / "bccd"
    return make_scenes(folder / "scenes", SceneConfig(size=256), {"train": 400, "val": 150, "test": 150})


def run_missing(rows: Rows, options: argparse.Namespace, setting: Setting) -> None:
    """Train what the results file lacks, seed by seed."""
    path = open_data(options.data, options.out)
    index = read_split(path, "train")
    for seed in seeds_of(options):
        folder = options.out / "-".join(map(str, (options.data, options.split, *asdict(setting).values(), seed)))
        file = folder / "budget.json"
        chosen = budget(index, unit="images", amount=setting.labelled, seed=seed)
        facts = {"source": options.data, "split": "train", "unit": "images"}
        write_budget(file, index, chosen, amount=setting.labelled, seed=seed, **facts)
        shared = configuration(path, file, setting, options, seed)
        for arm in [arm for arm in options.arms if not rows.has(arm=arm, seed=seed)]:
            if arm == FULL:
                found = run_full(shared, setting, folder)
            else:
                found = run_arm(arm, shared, folder, first_round(shared, folder))
            rows.keep({"arm": arm, "seed": seed} | found)


def main() -> None:
    parser = study_parser(__doc__, SETTINGS, seeds=5, out="runs/ssm-study", jobs=("run", "table", "picture"))
    parser.add_argument("--arms", nargs="*", default=[*ARMS, FULL], choices=[*ARMS, FULL])
    add_numbers(parser, NUMBERS)
    options = parser.parse_args()
    setting = replace(SETTINGS[options.data], **given(options, NUMBERS))
    rows = Rows(options, setting)
    if options.job == "run":
        run_missing(rows, options, setting)
    print(rows.heading())
    print_table(rows)
    if options.job == "picture":
        file = options.out / f"{options.data}-{options.split}.png"
        draw([row for row in rows if row["arm"] in options.arms], file)
        print(file)


if __name__ == "__main__":
    main()
