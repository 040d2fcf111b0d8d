"""What does it bring to say which classes nobody looked for in an image? Same images and first weights in every run.

    python benchmarks/unverified_study.py run --seeds 5      # trains what is missing, adds to the results file
    python benchmarks/unverified_study.py table

In every training image a random half of the classes is unverified, drawn by seed and image, and their boxes are gone.
"told" knows which classes these are, "not told" takes the missing boxes for absence, "all boxes" has lost nothing. Each
run gives two arms, the detector without and with the refinement. The images judged have all boxes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxcycle.data.index import Index, Verified, offsets_of
from mtl_ssl_study import SETTINGS, missing_runs, run_one
from study import Rows, add_numbers, difference, given

RUNS = ("not told", "told", "all boxes")
TASKS = "baseline"  # of mtl_ssl_study.RUNS: tasks as by default, which gives the plain detector and the refinement


def looked_for(index: Index, seed: int) -> NDArray[np.bool_]:
    """[I, K] the classes that are verified in each image: the larger half of them, the same whatever the order."""
    count = index.num_classes - index.num_classes // 2
    verified = np.zeros((len(index), index.num_classes), dtype=bool)
    for image, image_id in enumerate(index.image_ids.tolist()):
        verified[image, np.random.default_rng((seed, image_id)).permutation(index.num_classes)[:count]] = True
    return verified


def without_unverified_boxes(index: Index, verified: NDArray[np.bool_]) -> Index:
    """The images with the boxes of their verified classes alone. Shapes: verified [I, K]."""
    images = np.repeat(np.arange(len(index)), np.diff(index.box_offsets))
    return index.only_boxes(verified[images, index.labels - 1])


def training_index(run: str, index: Index, seed: int) -> Index:
    """What a run learns from."""
    if run == "all boxes":
        return index
    verified = looked_for(index, seed)
    bare = without_unverified_boxes(index, verified)
    if run == "not told":
        return bare
    labels = np.nonzero(verified)[1] + 1
    return replace(bare, verified=Verified(np.ones(len(index), dtype=bool), offsets_of(verified.sum(1)), labels))


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Means of each arm, and its paired differences to the arm that is not told, with their 95 % interval."""
    print("| arm | boxes learnt | seeds | AP | AP50 | AP50 - not told (95 %) | AP - not told (95 %) |")
    print("|---|---|---|---|---|---|---|")
    for form in ("plain", "refined"):
        found = {run: {row["seed"]: row for row in rows if row["run"] == run} for run in RUNS}
        for run in (run for run in RUNS if found[run]):
            own, base = found[run], found["not told"]
            cells = [f"{run}, {form}", f"{np.mean([row['boxes'] for row in own.values()]):.0f}", str(len(own))]
            cells += [f"{np.mean([row[form][metric] for row in own.values()]):.1f}" for metric in ("AP", "AP50")]
            for metric in ("AP50", "AP"):
                new, old = ({seed: row[form][metric] for seed, row in its.items()} for its in (own, base))
                cells.append(difference(new, old) if run != "not told" else "")
            print("| " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=["run", "table"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--runs", nargs="*", default=RUNS, choices=RUNS)
    parser.add_argument("--split", choices=["val", "test"], default="test")
    numbers = ("images", "pixels", "steps", "batch", "judged")
    add_numbers(parser, numbers)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/unverified-study"))
    options = parser.parse_args()
    options.data = "scenes"
    setting = replace(SETTINGS[options.data], **given(options, numbers))
    rows = Rows(options, setting)
    if options.job == "run":
        for run, seed, index, first, judged in missing_runs(rows, options, setting):
            learnt = training_index(run, index, seed)
            found = run_one(TASKS, first, learnt, judged, setting, seed, options.threads)
            rows.keep({"run": run, "seed": seed, "boxes": len(learnt.boxes)} | found)
    print(rows.heading())
    print_table(rows)


if __name__ == "__main__":
    main()
