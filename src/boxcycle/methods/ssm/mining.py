"""Mining as a pass of its own over a pool, in shards that may be killed and gone on with.

Images are mined in blocks, the same ones however many shards there are; a shard adds a line for each image, whole
blocks at a time, to ``candidates-<shard>-of-<shards>.jsonl``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boxcycle.data.pool import Pool
from boxcycle.data.questions import Paste
from boxcycle.data.stratify import Positions
from boxcycle.engine.checkpoint import write_text
from boxcycle.methods.ssm.labels import Candidates, joined
from boxcycle.methods.ssm.validation import Mined, Miner


def mine_pool(miner: Miner, folder: Path, fingerprint: str, *, shard: int = 0, shards: int = 1) -> None:
    """Mine this shard's part of the unlabelled images; what an earlier call left in ``folder`` is not done again.

    ``fingerprint`` says with what is mined: see :func:`fingerprint_of`. Raises ``ValueError`` if the folder was mined
    with something else.
    """
    file = folder / f"candidates-{shard}-of-{shards}.jsonl"
    size = miner.config.block
    its = blocks(miner.pool, size)[shard::shards]
    done = _begin(file, {"fingerprint": fingerprint, "images": sum(map(len, its)), "block": size})
    with file.open("a", encoding="utf-8") as lines:
        for block in its[done:]:
            lines.writelines([_to_line(mined) for mined in miner.mine(block)])
            lines.flush()


def blocks(pool: Pool, size: int) -> list[Positions]:
    """The unlabelled images in blocks of ``size`` by rising image id, the last one smaller; whatever their order."""
    positions = pool.unlabelled
    ordered = positions[np.argsort(pool.index.image_ids[positions], kind="stable")]
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def is_complete(folder: Path) -> bool:
    """Whether :func:`read_candidates` would find every shard, done."""
    files = list(folder.glob("candidates-*-of-*.jsonl"))
    wanted = int(files[0].stem.rpartition("-")[2]) if files else 1
    return len(files) == wanted and all(_is_done(file) for file in files)


def read_candidates(folder: Path, num_classes: int) -> Candidates:
    """The candidates of all shards together, by image id. Raises ``ValueError`` if a shard is missing or not done."""
    files = sorted(folder.glob("candidates-*-of-*.jsonl"))
    shards = {int(file.stem.rpartition("-")[2]) for file in files}
    if not files or len(shards) > 1 or len(files) < max(shards):
        wanted = f"all of {max(shards)} shards" if len(shards) == 1 else "the shards of one pass"
        raise ValueError(f"{folder} must have {wanted}; found {', '.join(file.name for file in files) or 'none'}")
    parts, headers = [], set()
    for file in files:
        header, *lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        if len(lines) < header["images"]:
            raise ValueError(f"{file} has {len(lines)} of its {header['images']} images; let its shard finish first")
        headers.add(header["fingerprint"])
        parts += [_from_record(record, num_classes) for record in lines]
    if len(headers) > 1:
        raise ValueError(f"the shards in {folder} were mined with different detectors, settings or pools")
    found = joined(parts, num_classes)
    return found[torch.argsort(found.image_ids, stable=True)]


def read_pastes(folder: Path) -> dict[tuple[float, ...], tuple[Paste, ...]]:
    """Where the candidates of a folder were pasted and what came of it, by image id and box."""
    shown: dict[tuple[float, ...], tuple[Paste, ...]] = {}
    for file in sorted(folder.glob("candidates-*-of-*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines()[1:]:
            record = json.loads(line)
            for box, pastes in zip(record["boxes"], record["pastes"], strict=True):
                shown[(record["image_id"], *box)] = tuple(Paste.model_validate(paste) for paste in pastes)
    return shown


def fingerprint_of(state: Mapping[str, Tensor], pool: Pool, settings: Mapping[str, Any]) -> str:
    """A text that differs if weights, known boxes, open images or settings do."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name in sorted(state):
        digest.update(state[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    known = pool.known()
    for array in (known.image_ids, known.annotated, known.boxes, known.labels, *pool.answered):
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def _is_done(file: Path) -> bool:
    first, *lines = file.read_text(encoding="utf-8").splitlines()
    return len(lines) == int(json.loads(first)["images"])


def _begin(file: Path, header: dict[str, Any]) -> int:
    """Write or check the first line; cut off a block that a kill tore; returns how many blocks are done."""
    first = json.dumps(header) + "\n"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, first)
        return 0
    text = file.read_text(encoding="utf-8")
    head, *lines = text[: text.rfind("\n") + 1].splitlines(keepends=True) or [first]
    if json.loads(head) != header:
        raise ValueError(f"{file} was mined with another detector, other settings or another pool; remove it first")
    size, finished = header["block"], len(lines) == header["images"]
    done = math.ceil(len(lines) / size) if finished else len(lines) // size
    content = "".join([head, *lines[: done * size]])
    if content != text:
        write_text(file, content)
    return done


def _to_line(mined: Mined) -> str:
    found = mined.candidates
    consistency = [None if math.isnan(value) else value for value in found.consistency.tolist()]
    record = {
        "image_id": mined.image_id,
        "boxes": found.boxes.tolist(),
        "probs": found.probs.tolist(),
        "consistency": consistency,
        "tests": found.tests.tolist(),
        "age": found.age.tolist(),
        "pastes": [[paste.model_dump() for paste in its] for its in mined.pastes],
    }
    return json.dumps(record, separators=(",", ":")) + "\n"


def _from_record(record: Mapping[str, Any], num_classes: int) -> Candidates:
    count = len(record["boxes"])
    consistency = [math.nan if value is None else value for value in record["consistency"]]
    return Candidates(
        torch.full((count,), record["image_id"], dtype=torch.int64),
        torch.tensor(record["boxes"], dtype=torch.float32).reshape(-1, 4),
        torch.tensor(record["probs"], dtype=torch.float32).reshape(-1, num_classes + 1),
        torch.tensor(consistency, dtype=torch.float64),
        torch.tensor(record["tests"], dtype=torch.int64),
        torch.tensor(record["age"], dtype=torch.int64),
    )
