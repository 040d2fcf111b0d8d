"""What is known before the first round beside the labelled images: answers, and boxes that a detector drew."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from boxcycle.data.answers import question_folders, read_answers
from boxcycle.data.check import DataError
from boxcycle.data.config import DataConfig, open_split
from boxcycle.data.pool import Pool, regions
from boxcycle.methods.ssm.mining import is_complete, read_candidates
from boxcycle.methods.ssm.questions import answered_regions
from boxcycle.methods.ssm.strategy import Strategy, choose_pseudo_boxes


def with_mined(pool: Pool, run: Path, strategy: Strategy, pace: float) -> Pool:
    """The pool with all that people answered about a run, and with the pseudo boxes of the newest pass of mining in it.

    Raises :class:`DataError` if the run was never mined.
    """
    folders = [folder for folder in question_folders(run) if is_complete(folder)]
    if not folders:
        raise DataError(f"{run} has no results of `boxcycle mine`")
    for folder in question_folders(run):
        pool = pool.with_human(*answered_regions(read_answers(folder), pool.index.class_names))
    candidates = read_candidates(folders[-1], pool.index.num_classes)
    return pool.with_pseudo(*choose_pseudo_boxes(candidates, strategy, pace))


def with_drawn(pool: Pool, folder: Path, split: str) -> Pool:
    """The pool with the boxes of a data set as pseudo boxes of its unlabelled images, which are found by their names.

    Raises :class:`DataError` if the data set has none for them, and if its classes are others.
    """
    drawn = open_split(DataConfig(path=folder), split, class_names=pool.index.class_names)
    ids = {name: int(pool.index.image_ids[i]) for i, name in enumerate(pool.index.file_names)}
    owner = np.array([ids.get(name, -1) for name in drawn.file_names], dtype=np.int64)
    image_ids = np.repeat(owner, np.diff(drawn.box_offsets))
    given = regions(image_ids, drawn.boxes, drawn.labels).where(image_ids >= 0)
    started = pool.with_pseudo(given)
    if not len(started.pseudo.labels):
        raise DataError(
            f"split '{split}' of {folder} has no box in an unlabelled image of {pool.index.root}; of its {len(drawn)} "
            f"images, {int((owner >= 0).sum())} are found there by their file names"
        )
    print(f"{folder}: {len(started.pseudo.labels)} of {len(drawn.boxes)} boxes lie in unlabelled images, and teach")
    return started
